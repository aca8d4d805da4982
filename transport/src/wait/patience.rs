//! Addresses that are still in use for a moment.

use std::io;
use std::thread;
use std::time::Duration;

const TRIES: u32 = 100;
const APART: Duration = Duration::from_millis(10);

/// Tries again, for a second, while an address is in use: a process that was killed in its sleep leaves
/// its sockets open for some milliseconds, until the kernel has torn down its io_uring.
pub(crate) fn patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..TRIES {
        match open() {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => thread::sleep(APART),
            result => return result,
        }
    }
    open()
}
