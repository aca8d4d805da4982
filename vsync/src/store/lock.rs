//! An advisory lock, so that two processes never share a data directory. Freed by the kernel when the file is closed,
//! however the process ends.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Locks `file` for this process; `Ok(false)` if another one has it.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: `flock` takes no pointers; the descriptor is open for the whole call because `file` is borrowed.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        e if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        e => Err(e),
    }
}
