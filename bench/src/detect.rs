//! How soon a node knows that another one is dead, and from what: a linked process is killed or frozen, again and
//! again, and the time from the signal to the verdict is measured; on another host from the order to give it.

use crate::children::{Errand, Reach};
use crate::cpu;
use crate::output::Outputs;
use crate::report::{Report, Run};
use crate::setup::{Away, Setup};
use crate::side::{Ends, Side};
use crate::statistics::{histogram, record};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use quintet_transport::{Event, Evidence, Time, clock};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::error::Error;
use std::time::Duration;

/// How long a verdict may take. Beyond it the measurement fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a link lives before it is injured, at least.
const LIFE: Duration = Duration::from_millis(20);
/// Over what the injuries are spread, so that they meet every moment between two heartbeats.
const SPREAD: Duration = Duration::from_millis(30);

/// Flags of `detect`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: Setup,
    #[command(flatten)]
    away: Away,
    /// What happens to the other process.
    #[arg(long, value_enum, default_value_t)]
    fault: Fault,
    /// How often, in each run.
    #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Memory that the other process holds, which the kernel tears down before some of the evidence.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=65536))]
    memory_mib: u32,
    #[command(flatten)]
    outputs: Outputs,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Fault {
    /// kill -9.
    #[default]
    Kill,
    /// kill -STOP: it hangs.
    Freeze,
}

/// What the other process is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Victim {
    ends: Ends,
    memory_mib: u32,
}

/// A verdict.
#[derive(Debug)]
struct Verdict {
    suspected: Option<Duration>,
    dead: Duration,
    evidence: Evidence,
}

/// Counts of what links were declared dead for.
#[derive(Debug, Default, PartialEq)]
struct Reasons {
    process_exited: u32,
    port_unreachable: u32,
    heartbeat_missed: u32,
    other: u32,
}

impl Reasons {
    fn add(&mut self, evidence: Evidence) {
        *match evidence {
            Evidence::ProcessExited => &mut self.process_exited,
            Evidence::PortUnreachable => &mut self.port_unreachable,
            Evidence::HeartbeatMissed => &mut self.heartbeat_missed,
            _ => &mut self.other,
        } += 1;
    }
}

/// Measures.
pub(crate) fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let [own, other] = arguments.setup.cores(false)?;
    own.map_or(Ok(()), cpu::pin)?;
    let timing = quintet_transport::Timing::default();
    let report = Report::new(
        "detect",
        json!({
            "provider": arguments.setup.provider,
            "wait": arguments.setup.wait,
            "fault": arguments.fault,
            "count": arguments.count,
            "memory_mib": arguments.memory_mib,
            "heartbeat_ms": timing.heartbeat.as_millis() as u64,
            "suspect_ms": timing.suspect.as_millis() as u64,
            "dead_ms": timing.dead.as_millis() as u64,
            "cores": [own, other],
            "network": arguments.setup.network.told(),
        }),
    );
    arguments.outputs.take(report, || {
        let began = clock::now();
        let mut run = Run::default();
        let (mut dead, mut suspected) = (histogram(), histogram());
        let mut reasons = Reasons::default();
        for round in 0..arguments.count {
            let verdict = injure(arguments, round, other, &mut run)?;
            record(&mut dead, verdict.dead);
            if arguments.outputs.wants_samples() {
                run.samples_ns.push(verdict.dead.as_nanos() as u64);
            }
            verdict.suspected.into_iter().for_each(|after| record(&mut suspected, after));
            reasons.add(verdict.evidence);
        }
        tell(&mut run, dead, suspected, &reasons);
        run.took = clock::now().since(began);
        Ok(run)
    })
}

fn tell(run: &mut Run, dead: Histogram<u64>, suspected: Histogram<u64>, reasons: &Reasons) {
    run.latency("fault_to_dead", dead);
    run.figure("suspected_before", suspected.len() as f64);
    if !suspected.is_empty() {
        run.latency("fault_to_suspected", suspected);
    }
    run.figure("by_process_exited", f64::from(reasons.process_exited));
    run.figure("by_port_unreachable", f64::from(reasons.port_unreachable));
    run.figure("by_heartbeat_missed", f64::from(reasons.heartbeat_missed));
    run.figure("by_other_evidence", f64::from(reasons.other));
}

/// One process, one link, one death.
fn injure(
    arguments: &Arguments,
    round: u32,
    core: Option<usize>,
    run: &mut Run,
) -> Result<Verdict, Box<dyn Error>> {
    let place = arguments.away.place(arguments.setup.provider)?;
    let ends = Ends { dead: None, ..Ends::new(&arguments.setup, place.addresses()) };
    let victim = Victim { ends: ends.clone(), memory_mib: arguments.memory_mib };
    let mut other = place.start(&victim, core)?;
    let mut side = Side::connect(&ends, 1)?;
    if round == 0 {
        run.link(&side.status()?, ends.addresses[0].ip());
    }
    let life = LIFE + SPREAD * (round % arguments.count) / arguments.count;
    side.rest(life)?;
    let at = clock::now();
    match arguments.fault {
        Fault::Kill => other.kill()?,
        Fault::Freeze => other.freeze()?,
    }
    let verdict = await_death(&mut side, at);
    // A frozen process answers to nothing else.
    other.kill()?;
    verdict
}

fn await_death(side: &mut Side, at: Time) -> Result<Verdict, Box<dyn Error>> {
    let mut suspected = None;
    while clock::now() < at + PATIENCE {
        let now = clock::now();
        side.poller.poll(now);
        while let Some(event) = side.poller.poll_event() {
            match event {
                Event::Suspected { .. } => {
                    suspected.get_or_insert(now.since(at));
                }
                Event::Dead { evidence, .. } => {
                    let dead = clock::now().since(at);
                    return Ok(Verdict { suspected, dead, evidence });
                }
                _ => {}
            }
        }
        side.poller.flush(now);
        side.poller.park(now, Some(at + PATIENCE), &mut || false);
    }
    Err(format!("nobody was declared dead within {} s", PATIENCE.as_secs()).into())
}

impl Errand for Victim {
    const NAME: &'static str = "victim";

    fn run(&self) -> Result<(), Box<dyn Error>> {
        suffer(self)
    }

    fn reach(&self) -> Option<Reach> {
        Reach::second(self.ends.addresses)
    }
}

/// Holds memory and a link until it is killed.
fn suffer(victim: &Victim) -> Result<(), Box<dyn Error>> {
    // Written, for the kernel gives pages only to who writes them.
    let memory = vec![1u8; (victim.memory_mib as usize) << 20];
    let mut side = Side::connect(&victim.ends, 2)?;
    loop {
        let now = clock::now();
        side.turn(now)?;
        side.poller.flush(now);
        side.poller.park(now, None, &mut || false);
        std::hint::black_box(&memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_once() {
        let mut reasons = Reasons::default();
        for evidence in [
            Evidence::ProcessExited,
            Evidence::PortUnreachable,
            Evidence::HeartbeatMissed,
            Evidence::HeartbeatMissed,
            Evidence::ClosedByPeer,
            Evidence::Malformed,
        ] {
            reasons.add(evidence);
        }
        let expected =
            Reasons { process_exited: 1, port_unreachable: 1, heartbeat_missed: 2, other: 2 };
        assert_eq!(reasons, expected);
    }
}
