//! Notes: a few bytes from one driver to the other, beside the lanes. They ride on packets, so they are as well
//! protected as everything else; they may be lost, and who needs an answer says them again.

use super::wire::NOTE_MAX;

/// A note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    len: u8,
    bytes: [u8; NOTE_MAX],
}

impl Note {
    /// At most 200 bytes.
    ///
    /// # Panics
    /// If there are more.
    pub fn new(content: &[u8]) -> Note {
        let mut bytes = [0; NOTE_MAX];
        bytes[..content.len()].copy_from_slice(content);
        Note { len: content.len() as u8, bytes }
    }

    /// What it says.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}
