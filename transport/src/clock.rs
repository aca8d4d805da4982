//! The one place that reads the clock. For drivers; cores are handed a [`Time`].

use crate::time::Time;

/// CLOCK_MONOTONIC now. About 25 ns (vDSO); comparable between processes of one machine.
pub fn now() -> Time {
    let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `spec` is a live, writable timespec, the only thing the call writes to; CLOCK_MONOTONIC
    // exists on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut spec) };
    Time::from_nanos(spec.tv_sec as u64 * 1_000_000_000 + spec.tv_nsec as u64)
}
