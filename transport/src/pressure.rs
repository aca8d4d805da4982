//! How short of processors this host is: the kernel's pressure-stall figure, and what the hypervisor took.
//!
//! Whoever is silent on the network may sit on a host that has more work than processors, and we may be late to read
//! what it sent. Of another host we know nothing, but a cluster's hosts tend to be loaded together, and where several
//! nodes share one it is exact. Sources: Linux, Documentation/accounting/psi.rst; proc(5), `/proc/stat`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::time::Time;

/// Ticks of `/proc/stat` a second (USER_HZ, fixed by the kernel's interface on all our platforms).
const TICKS_PER_SECOND: u64 = 100;

/// Reads the figures; they are missing on kernels without pressure stall information.
#[derive(Debug)]
pub(crate) struct Pressure {
    waited: Option<File>,
    stolen: Option<File>,
    cores: u32,
}

/// Time lost so far, at an instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    at: Time,
    lost: Duration,
}

impl Pressure {
    pub(crate) fn new(cores: usize) -> Pressure {
        Pressure {
            waited: File::open("/proc/pressure/cpu").ok(),
            stolen: File::open("/proc/stat").ok(),
            cores: cores.max(1) as u32,
        }
    }

    /// Costs system calls: only when a peer is silent.
    pub(crate) fn read(&self, now: Time) -> Reading {
        let figure = |file: &Option<File>, parse: fn(&str) -> Option<Duration>| {
            let mut text = [0; 256];
            let len = file.as_ref()?.read_at(&mut text, 0).ok()?;
            parse(&String::from_utf8_lossy(&text[..len]))
        };
        let waited = figure(&self.waited, waited).unwrap_or_default();
        let stolen = figure(&self.stolen, stolen).unwrap_or_default() / self.cores;
        Reading { at: now, lost: waited + stolen }
    }

    /// Part of the time since `before`, 0 to 1, in which somebody on this host waited for a processor.
    pub(crate) fn share(&self, before: Reading, now: Time) -> f64 {
        let lost = self.read(now).lost.saturating_sub(before.lost);
        let passed = now.since(before.at).max(Duration::from_nanos(1));
        (lost.as_secs_f64() / passed.as_secs_f64()).min(1.0)
    }
}

/// Time in which some task waited, from `/proc/pressure/cpu`.
fn waited(text: &str) -> Option<Duration> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let total = some.split_ascii_whitespace().find_map(|field| field.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

/// Time the hypervisor gave to others, all processors together, from the first line of `/proc/stat`.
fn stolen(text: &str) -> Option<Duration> {
    let mut fields = text.lines().next()?.split_ascii_whitespace();
    let ticks: u64 = (fields.next()? == "cpu").then(|| fields.nth(7))??.parse().ok()?;
    Some(Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_the_kernel_writes_them() {
        let cpu =
            "some avg10=98.67 avg60=95.71 avg300=83.68 total=1500000\nfull avg10=0.00 total=7\n";
        assert_eq!(waited(cpu), Some(Duration::from_millis(1500)));
        assert_eq!(waited("full total=1"), None);
        let stat = "cpu  1 2 3 4 5 6 7 250 9 10\ncpu0 0 0 0 0 0 0 0 1 0 0\n";
        assert_eq!(stolen(stat), Some(Duration::from_millis(2500)));
        assert_eq!(stolen("cpu 1 2"), None);
        assert_eq!(stolen("intr 1 2 3 4 5 6 7 8 9"), None);
    }

    #[test]
    fn a_share_is_what_was_lost_since() {
        let pressure = Pressure { waited: None, stolen: None, cores: 2 };
        let before = pressure.read(Time::from_millis(10));
        assert_eq!(
            pressure.share(before, Time::from_millis(20)),
            0.0,
            "nothing known, nothing excused"
        );
        let real = Pressure::new(2);
        let share = real.share(real.read(Time::from_millis(10)), Time::from_millis(20));
        assert!((0.0..=1.0).contains(&share));
        let much = Reading { at: Time::from_millis(10), lost: Duration::ZERO };
        let wild = Pressure { waited: real.waited, stolen: None, cores: 1 };
        assert!(wild.share(much, Time::from_millis(11)) <= 1.0, "never more than all of it");
    }
}
