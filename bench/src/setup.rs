//! What measurements have in common: what carries the bytes, how it is waited, on which cores, and what was used up.

use crate::children::{Peer, Place};
use crate::cpu;
use crate::report::Run;
use crate::{Provider, Waiting};
use clap::ValueEnum;
use quintet_transport::{Time, clock};
use std::error::Error;
use std::time::Duration;

/// Flags of all measurements between two processes.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Setup {
    /// What carries the bytes.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) provider: Provider,
    /// How both sides wait.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) wait: Waiting,
    /// Cores of the two sides, such as 0,1; the same twice for one core. Without it the scheduler decides, but what
    /// is compared runs on the first two cores.
    #[arg(long, value_delimiter = ',', value_name = "OWN,OTHER")]
    pub(crate) pin: Vec<usize>,
}

/// Flags of measurements between two hosts.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Away {
    /// Address and port of `quintet-perf serve` on another host: the other process runs there. Without it, here.
    #[arg(long, value_name = "HOST:PORT")]
    host: Option<String>,
}

impl Away {
    /// Whether the other process is on this machine.
    pub(crate) fn is_here(&self) -> bool {
        self.host.is_none()
    }

    /// Where the other process will be.
    pub(crate) fn place(&self, provider: Provider) -> Result<Place, Box<dyn Error>> {
        if self.host.is_some() && provider != Provider::Udp {
            return Err("another host is reached by --provider udp".into());
        }
        Place::find(self.host.as_deref())
    }
}

/// What a measurement is compared with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Compare {
    /// The least code that moves the same bytes.
    Raw,
}

impl Setup {
    /// The core of this side and of the other.
    pub(crate) fn cores(&self, compared: bool) -> Result<[Option<usize>; 2], String> {
        choose(&self.pin, &cpu::allowed(), compared)
    }
}

fn choose(pin: &[usize], allowed: &[usize], compared: bool) -> Result<[Option<usize>; 2], String> {
    match (pin, allowed) {
        ([own, other], _) => Ok([Some(*own), Some(*other)]),
        ([], [own, other, ..]) if compared => Ok([Some(*own), Some(*other)]),
        ([], [only]) if compared => Ok([Some(*only), Some(*only)]),
        ([], _) => Ok([None, None]),
        _ => Err("--pin takes the cores of the two sides, such as --pin 0,1".into()),
    }
}

/// What a run uses up between two instants.
pub(crate) struct Usage<'a> {
    other: Option<&'a Peer>,
    began: Time,
    own: Duration,
    others: Option<Duration>,
    stolen: Duration,
}

impl<'a> Usage<'a> {
    /// From here on, by this process and that one.
    pub(crate) fn begin(other: Option<&'a Peer>) -> Usage<'a> {
        let others = other.and_then(Peer::cpu_time);
        let (own, stolen) = (cpu::cpu_time(), cpu::stolen());
        Usage { other, began: clock::now(), own, others, stolen }
    }

    /// Up to here. Returns the seconds between.
    pub(crate) fn end(self, run: &mut Run) -> f64 {
        run.took = clock::now().since(self.began);
        let span = run.took.as_secs_f64();
        let percent = |now: Duration, then: Duration| {
            100.0 * now.saturating_sub(then).as_secs_f64() / span.max(1e-9)
        };
        run.figure("own_cpu_percent", percent(cpu::cpu_time(), self.own));
        let others = self.other.and_then(Peer::cpu_time);
        if let (Some(now), Some(then)) = (others, self.others) {
            run.figure("other_cpu_percent", percent(now, then));
        }
        run.figure("stolen_percent", percent(cpu::stolen(), self.stolen));
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_has_cores_of_its_own() {
        let some = |own, other| Ok([Some(own), Some(other)]);
        assert_eq!(choose(&[3, 3], &[0, 1], true), some(3, 3));
        assert_eq!(choose(&[], &[2, 5, 6], true), some(2, 5));
        assert_eq!(choose(&[], &[2], true), some(2, 2));
        assert_eq!(choose(&[], &[2, 5], false), Ok([None, None]));
        assert!(choose(&[1], &[0, 1], true).is_err_and(|error| error.contains("--pin 0,1")));
    }
}
