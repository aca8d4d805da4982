//! What the kernel says of the thread that beats: a silent peer may be hung, stopped, or merely not on a processor.
//!
//! The naive reader of a shared heartbeat takes silence for death, and on a machine with more work than processors
//! removes peers that would have spoken had they been let. On one host nobody needs to guess: `/proc` tells whether the
//! thread is runnable and has not run (`R`, and its processor time stands still) or waits for its memory to be read
//! in (`D`). Sleeping (`S`), stopped (`T`) or running without a beat is the peer's own fault.

use std::cell::Cell;
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Processor time, ns, that a thread may use without a beat before it counts as hung in a loop.
const LOOPING_NS: u64 = 20_000_000;

/// The calling thread, as this process numbers it.
pub(super) fn own_thread() -> u32 {
    thread_local!(static THREAD: Cell<u32> = const { Cell::new(0) });
    THREAD.with(|known| {
        if known.get() == 0 {
            // SAFETY: no arguments, and it cannot fail.
            known.set(unsafe { libc::syscall(libc::SYS_gettid) } as u32);
        }
        known.get()
    })
}

/// Looks at one silence of a peer; a new one for the next silence.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// What the thread had run when it was first looked at.
    ran: Option<u64>,
}

impl Silence {
    /// Whether `thread` of the process behind `pidfd` would run if it were let; `None` if the kernel does not tell us
    /// (another process namespace, no /proc).
    pub(super) fn is_starved(&mut self, pidfd: BorrowedFd<'_>, thread: u32) -> Option<bool> {
        let process = process(pidfd)?;
        let of = |file| fs::read_to_string(format!("/proc/{process}/task/{thread}/{file}")).ok();
        let state = state(&of("stat")?)?;
        let ran = of("schedstat").as_deref().and_then(ran).unwrap_or(0);
        let loops = ran.saturating_sub(*self.ran.get_or_insert(ran)) > LOOPING_NS;
        Some(matches!(state, 'R' | 'D') && !loops)
    }
}

/// The process behind a pidfd, as we number it.
fn process(pidfd: BorrowedFd<'_>) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    number.trim().parse().ok().filter(|pid| *pid > 0)
}

/// The state in a line of `/proc/PID/stat`: the letter behind the name, which may itself hold brackets.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The processor time in a line of `/proc/PID/schedstat`, ns.
fn ran(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use super::*;

    fn pidfd(child: &Child) -> OwnedFd {
        // SAFETY: plain numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) } as i32;
        assert!(fd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just given it to us.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    /// Asks until the answer is `wanted`; a test that waits for the kernel to get there.
    fn until(wanted: bool, mut ask: impl FnMut() -> Option<bool>) {
        let end = Instant::now() + Duration::from_secs(30);
        while ask() != Some(wanted) {
            assert!(Instant::now() < end, "never {wanted}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn who_sleeps_or_is_stopped_is_not_starved() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let fd = pidfd(&child);
        until(false, || Silence::default().is_starved(fd.as_fd(), child.id()));
        // SAFETY: plain numbers; the child is ours and not reaped.
        unsafe { libc::kill(child.id() as i32, libc::SIGSTOP) };
        until(false, || Silence::default().is_starved(fd.as_fd(), child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Silence::default().is_starved(fd.as_fd(), child.id()), None, "it is gone");
    }

    #[test]
    fn who_wants_to_run_is_starved_until_it_has_run() {
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let fd = pidfd(&child);
        // In a fresh look it is runnable and has not run since; a look that goes on sees it loop.
        until(true, || Silence::default().is_starved(fd.as_fd(), child.id()));
        let mut silence = Silence::default();
        until(false, || silence.is_starved(fd.as_fd(), child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn lines_of_proc_are_read_as_the_kernel_writes_them() {
        assert_eq!(state("12 (a) b) R 1 2 3"), Some('R'));
        assert_eq!(state("nothing"), None);
        assert_eq!(ran("931066 1751412 5\n"), Some(931_066));
        assert_eq!(ran(""), None);
    }

    #[test]
    fn a_thread_has_one_number() {
        let mine = own_thread();
        assert_eq!(mine, own_thread());
        assert_ne!(mine, std::thread::spawn(own_thread).join().unwrap());
    }
}
