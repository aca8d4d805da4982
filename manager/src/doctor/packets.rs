//! By which calls packets of UDP can pass the kernel, and whether it can keep away what nobody asked for.

use super::{Check, Judgement, fine, not_applicable, unknown, warning};
use crate::config::{Config, OffloadChoice};
use quintet_transport::UdpCalls;
use std::io;

const AREA: &str = "network";

/// What was seen.
pub(super) struct Facts {
    /// The configuration forbids cutting and joining.
    off: bool,
    calls: io::Result<UdpCalls>,
}

impl Facts {
    pub(super) fn look(config: Option<&Config>) -> Facts {
        let off = config.is_some_and(|config| config.transport.offload == OffloadChoice::Off);
        Facts { off, calls: UdpCalls::probe() }
    }

    pub(super) fn judge(&self) -> Vec<Check> {
        let why_cut = "one call hands the kernel up to 60 datagrams, and they cross its network stack as one; without it each crosses alone: without cutting and joining a quarter as much arrives in datagrams of Ethernet's size";
        let why_join = "one message taken from the kernel is up to 64 KiB of datagrams; without it each is a message of its own";
        let why_many = "one call sends or takes many messages; without it each costs a system call";
        let why_filter = "a flood of forged packets is dropped before it is queued and wakes the node; without it each is looked at, some microseconds of a core";
        let upgrade = "use a kernel of 5.0 or later; devices that refuse it at work are told of by `quintet links`";
        let seccomp = |call| format!("allow {call} in the container's seccomp profile");
        let judge = |said: fn(&UdpCalls) -> &io::Result<()>, fix: String| -> Judgement {
            match self.calls.as_ref().map(said) {
                Ok(Ok(())) => fine("works"),
                Ok(Err(error)) => warning(format!("refused ({error})"), fix),
                Err(error) => unknown(format!("no socket can be opened ({error})")),
            }
        };
        let unless_off = |judgement| match self.off {
            true => not_applicable("transport.offload is \"off\""),
            false => judgement,
        };
        let cut = unless_off(judge(|calls| &calls.segmentation, upgrade.into()));
        let join = unless_off(judge(|calls| &calls.joining, upgrade.into()));
        vec![
            Check::new(AREA, "cutting datagrams", why_cut, cut),
            Check::new(AREA, "joining datagrams", why_join, join),
            Check::new(AREA, "sendmmsg", why_many, judge(|c| &c.sendmmsg, seccomp("sendmmsg"))),
            Check::new(AREA, "recvmmsg", why_many, judge(|c| &c.recvmmsg, seccomp("recvmmsg"))),
            Check::new(
                AREA,
                "socket filter",
                why_filter,
                judge(|c| &c.filter, seccomp("setsockopt with SO_ATTACH_FILTER")),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, *};
    use super::*;

    fn refused() -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }

    fn verdicts(off: bool, calls: io::Result<UdpCalls>) -> Vec<(String, Verdict)> {
        let checks = Facts { off, calls }.judge();
        for check in &checks {
            assert_eq!(check.fix.is_some(), check.verdict == Warning, "{check:?}");
        }
        checks.into_iter().map(|check| (check.name, check.verdict)).collect()
    }

    fn calls(said: impl Fn() -> io::Result<()>) -> io::Result<UdpCalls> {
        let [segmentation, joining, sendmmsg, recvmmsg, filter] = [(); 5].map(|()| said());
        io::Result::Ok(UdpCalls { segmentation, joining, sendmmsg, recvmmsg, filter })
    }

    #[test]
    fn what_the_kernel_refuses_is_warned_of() {
        assert!(verdicts(false, calls(refused)).iter().all(|(_, verdict)| *verdict == Warning));
        let good = calls(|| io::Result::Ok(()));
        assert!(verdicts(false, good).iter().all(|(_, verdict)| *verdict == Ok));
        let none = Err(io::Error::from_raw_os_error(libc::EMFILE));
        assert!(verdicts(false, none).iter().all(|(_, verdict)| *verdict == Unknown));
    }

    #[test]
    fn what_the_configuration_forbids_is_not_missed() {
        let verdicts = verdicts(true, calls(refused));
        let off: Vec<_> = verdicts.iter().filter(|(_, v)| *v == NotApplicable).collect();
        assert_eq!(off.len(), 2, "{verdicts:?}");
    }
}
