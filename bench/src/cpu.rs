//! Cores and processor time: who runs where, how much it used, and how much the machine's host took away.

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::time::Duration;

/// Keeps this thread, and those that it will start, on that core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("there is no core {core}"),
        ));
    }
    // SAFETY: (1) an all-zero set is an empty one; (2) `core` is below the set's size, as checked above; (3) the
    // call reads `set`, which lives through it.
    let failed = unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) < 0
    };
    if failed {
        let error = io::Error::last_os_error();
        return Err(io::Error::new(error.kind(), format!("core {core} cannot be used: {error}")));
    }
    Ok(())
}

/// The cores that this process may use.
pub(crate) fn allowed() -> Vec<usize> {
    // SAFETY: (1) an all-zero set is a valid one; (2) the call writes at most the stated size to `set`; (3) CPU_ISSET
    // reads within it, for each core is below its size.
    unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) < 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize).filter(|core| libc::CPU_ISSET(*core, &set)).collect()
    }
}

/// CPU time of this process and of its ended children.
pub(crate) fn cpu_time() -> Duration {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .into_iter()
        .map(|who| {
            let mut usage = MaybeUninit::<libc::rusage>::zeroed();
            // SAFETY: `usage` is writable memory of the type getrusage fills; zeroed bytes are a valid rusage.
            let usage = unsafe {
                libc::getrusage(who, usage.as_mut_ptr());
                usage.assume_init()
            };
            let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
            time(usage.ru_utime) + time(usage.ru_stime)
        })
        .sum()
}

/// CPU time of another process so far, in ticks of 10 ms; none if it is gone.
pub(crate) fn cpu_time_of(pid: u32) -> Option<Duration> {
    ticks_of(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(ticks)
}

/// What that process does, as the kernel abbreviates it: `T` stands still. None if it is gone.
pub(crate) fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Time that the host of this virtual machine gave to others while we wanted to run, over all cores, since boot.
pub(crate) fn stolen() -> Duration {
    std::fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|text| stolen_in(&text))
        .map_or(Duration::ZERO, ticks)
}

/// The kernel reports hundredths of a second to programs, whatever its own tick.
fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(10))
}

/// User and system time. The name of the program, in parentheses, may hold anything.
fn ticks_of(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn stolen_in(stat: &str) -> Option<u64> {
    stat.lines()
        .find_map(|line| line.strip_prefix("cpu "))?
        .split_ascii_whitespace()
        .nth(7)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_that_core_only() {
        std::thread::spawn(|| {
            let core = *allowed().last().expect("a core");
            pin(core).expect("an allowed core");
            assert_eq!(allowed(), [core]);
        })
        .join()
        .expect("the thread");
        let error = pin(1 << 20).expect_err("no machine has as many");
        assert!(error.to_string().contains("no core 1048576"), "{error}");
    }

    #[test]
    fn the_kernels_tables_are_read_by_place() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks_of(stat), Some(300));
        assert_eq!(ticks_of("42"), None);
        assert_eq!(stolen_in("cpu  1 2 3 4 5 6 7 88 9 10\ncpu0 1 2"), Some(88));
        assert_eq!(stolen_in("intr 1"), None);
        assert!(cpu_time_of(std::process::id()).is_some());
    }
}
