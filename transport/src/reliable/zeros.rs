//! For tests that are about packets and not about what is in them.

use super::{Sink, Source};

/// A log of zeros, and words of 1.
pub(super) struct Zeros;

impl Source for Zeros {
    fn log(&self, _: u8, _: u64, out: &mut [u8]) {
        out.fill(0);
    }

    fn word(&self, _: u8, _: u16) -> (u64, u64) {
        (1, 0)
    }
}

impl Sink for Zeros {
    fn place(&mut self, _: u8, _: u64, _: &[u8]) {}
}
