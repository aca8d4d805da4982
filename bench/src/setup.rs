//! What measurements have in common: what carries the bytes, how it is waited, on which cores, and what was used up.

use crate::children::Peer;
use crate::cpu;
use crate::place::Place;
use crate::policy::{Provider, Waiting};
use crate::report::Run;
use clap::ValueEnum;
use quintet_transport::{Poller, Time, clock};
use serde::{Deserialize, Serialize};
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
    /// Adapters of the two sides with --provider verbs, such as rxe0,rxe1. Without it, any.
    #[arg(long, value_delimiter = ',', value_name = "OWN,OTHER")]
    pub(crate) device: Vec<String>,
    #[command(flatten)]
    pub(crate) network: Network,
}

/// How bad the network is made, where --provider udp receives: on all sides alike.
#[derive(clap::Args, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq)]
pub(crate) struct Network {
    /// Datagrams that vanish, percent. Needs a build with the cargo feature `faults`, as the next three do.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = percent)]
    loss: f64,
    /// Datagrams that arrive twice, percent.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = percent)]
    duplicate: f64,
    /// Datagrams that arrive after the next one, percent.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = percent)]
    reorder: f64,
    /// Same number, same chances in the same order.
    #[arg(long, default_value_t = 1)]
    network_seed: u64,
    /// The kernel neither cuts nor joins datagrams of --provider udp: what a device costs that cannot.
    #[arg(long)]
    #[serde(default)]
    no_offload: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=90.0).contains(&percent) => Ok(percent),
        _ => Err("percent, to a tenth, at most 90".into()),
    }
}

impl Network {
    /// As a parameter of a report, if anything is done to it.
    pub(crate) fn told(self) -> Option<Network> {
        (!self.is_as_it_is() || self.no_offload).then_some(self)
    }

    /// Whether the kernel may cut and join datagrams.
    pub(crate) fn offload(self) -> bool {
        !self.no_offload
    }

    /// Whether nothing is done to it.
    fn is_as_it_is(&self) -> bool {
        (self.loss, self.duplicate, self.reorder) == (0.0, 0.0, 0.0)
    }

    /// Whether this build can make it so.
    fn check(&self, provider: Provider) -> Result<(), String> {
        if self.is_as_it_is() {
            Ok(())
        } else if provider != Provider::Udp {
            Err("datagrams are lost, doubled and put off with --provider udp".into())
        } else if cfg!(feature = "faults") {
            Ok(())
        } else {
            Err("this build has no faults: cargo build --release -p quintet-bench --features faults"
                .into())
        }
    }

    /// From now on, as that node's datagrams arrive.
    pub(crate) fn spoil(&self, node: u16, poller: &mut Poller) -> Result<(), String> {
        if self.is_as_it_is() {
            return Ok(());
        }
        self.check(Provider::Udp)?;
        #[cfg(feature = "faults")]
        poller.set_faults(quintet_transport::FaultPolicy {
            drop: thousandths(self.loss),
            duplicate: thousandths(self.duplicate),
            reorder: thousandths(self.reorder),
            seed: self.network_seed.wrapping_add(u64::from(node)),
            ..quintet_transport::FaultPolicy::default()
        });
        #[cfg(not(feature = "faults"))]
        let _ = (node, poller);
        Ok(())
    }
}

#[cfg(feature = "faults")]
fn thousandths(percent: f64) -> u32 {
    (percent * 10.0).round() as u32
}

/// Flags of measurements between two hosts.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Away {
    /// Address and port of `quintet-perf serve` on another host: all other processes run there. Without it, here. What
    /// would need one clock for both hosts is not told then.
    #[arg(long, value_name = "HOST:PORT")]
    host: Option<String>,
}

impl Away {
    /// Whether the other process is on this machine.
    pub(crate) fn is_here(&self) -> bool {
        self.host.is_none()
    }

    /// Only this program answers measurements of another host.
    pub(crate) fn permits(&self, compare: Option<Compare>) -> Result<(), String> {
        match compare {
            None | Some(Compare::Raw) => Ok(()),
            Some(_) if self.is_here() => Ok(()),
            Some(_) => {
                Err("between hosts only --compare raw is run; start other programs there yourself"
                    .into())
            }
        }
    }

    /// Where the other process will be.
    pub(crate) fn place(&self, provider: Provider) -> Result<Place, Box<dyn Error>> {
        self.check(provider)?;
        Place::find(self.host.as_deref())
    }

    /// Where as many other processes will be.
    pub(crate) fn places(
        &self,
        provider: Provider,
        count: u16,
    ) -> Result<Vec<Place>, Box<dyn Error>> {
        self.check(provider)?;
        Place::several(self.host.as_deref(), usize::from(count))
    }

    fn check(&self, provider: Provider) -> Result<(), String> {
        if self.host.is_some() && provider == Provider::Shm {
            return Err("another host is reached by --provider udp or verbs".into());
        }
        Ok(())
    }
}

/// What a measurement is compared with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Compare {
    /// The least code that moves the same bytes.
    Raw,
    /// sockperf, beside --provider udp.
    Sockperf,
    /// UCX's ucx_perftest: posix and sysv beside --provider shm, tcp beside --provider udp.
    Ucx,
    /// perftest's ib_write_lat and ib_write_bw, where there is an RDMA adapter.
    Perftest,
}

impl Setup {
    /// The core of this side and of the other; an error if something else cannot be had.
    pub(crate) fn cores(&self, compared: bool) -> Result<[Option<usize>; 2], String> {
        self.network.check(self.provider)?;
        match (&self.device[..], self.provider) {
            ([], _) | ([_, _], Provider::Verbs) => {}
            (_, Provider::Verbs) => {
                let example = "--device takes the adapters of the two sides, such as rxe0,rxe1";
                return Err(example.into());
            }
            _ => return Err("--device is for --provider verbs".into()),
        }
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
