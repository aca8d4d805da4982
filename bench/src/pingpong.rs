//! Round trip of one message between two pollers in two processes: a record goes out on the group lane, the other
//! side sends one back (`pingpong`), or says in a word of its row that it has taken it (`put`). With `--compare raw` the least code that does the same runs beside it.

use crate::children::{Errand, Peer, Reach, ready};
use crate::exchange::{Answer, Extent, keep, span, timed};
use crate::floor::{self, Medium, shm_pingpong, udp_pingpong};
use crate::idle::{self, Idle};
use crate::mesh::{self, Plan};
use crate::output::Outputs;
use crate::policy::Provider;
use crate::reference::{self, Kind, Ours, Question};
use crate::report::{Report, Run};
use crate::schedule::{Arrivals, Schedule, rate};
use crate::setup::{Away, Compare, Setup, Usage};
use crate::side::{Ends, Side};
use crate::stages::RoundTrips;
use crate::statistics::halved;
use crate::{cpu, open_loop, sizes};
use hdrhistogram::Histogram;
use quintet_transport::clock;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::error::Error;
use std::time::Duration;

/// Round trips of a program that wants a number, where a time was asked for.
const ROUND_TRIPS: u64 = 100_000;

/// Flags of `pingpong` and `put`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: Setup,
    #[command(flatten)]
    away: Away,
    /// Payload bytes.
    #[arg(short, long, default_value_t = 64)]
    size: usize,
    /// Measure messages of many sizes, from 8 B to 1 MiB, a report each.
    #[arg(long, conflicts_with_all = ["size", "hgrm", "hlog", "svg", "samples", "baseline"])]
    all_sizes: bool,
    /// Also tell where the time of a round trip goes.
    #[arg(long, conflicts_with = "rate")]
    stages: bool,
    /// Nodes that ping each other, all pairs at the same time; the report is of all pairs. -n and --warm-up are of the
    /// first node, the others measure as long. With --pin they take turns on the two cores. Without it, two of which
    /// one asks and one answers.
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=32), conflicts_with_all = ["rate", "stages", "compare", "samples"])]
    nodes: Option<u16>,
    /// Round trips measured, in each run.
    #[arg(short = 'n', long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    count: u64,
    /// Seconds measured, in each run, instead of a number of round trips.
    #[arg(short = 'D', long, conflicts_with_all = ["count", "samples"], value_parser = span)]
    duration: Option<f64>,
    /// Round trips before that, not measured.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(0..=1_000_000_000_000))]
    warm_up: u64,
    /// Messages per second, sent on schedule whether or not the last ones are answered. Latency counts from the instant
    /// that a message was meant to be sent at. Without it, the next message is sent when the last one is answered.
    #[arg(long, conflicts_with = "compare", value_parser = rate)]
    rate: Option<f64>,
    /// How far apart the messages of --rate are.
    #[arg(long, value_enum, default_value_t, requires = "rate")]
    arrivals: Arrivals,
    /// What the instants of --arrivals poisson are drawn from.
    #[arg(long, default_value_t = 1, requires = "rate")]
    seed: u64,
    #[command(flatten)]
    idle: Idle,
    /// What to run beside it, in the same run on the same cores.
    #[arg(long, value_enum)]
    compare: Option<Compare>,
    #[command(flatten)]
    outputs: Outputs,
}

impl Arguments {
    /// How many round trips count.
    fn extent(&self) -> Extent {
        let Arguments { warm_up, count, duration, .. } = *self;
        Extent { warm_up, count, duration: duration.map(Duration::from_secs_f64) }
    }
}

/// What the answering process is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Pong {
    ends: Ends,
    answer: Answer,
    size: usize,
}

/// Measures, and starts the other sides.
pub(crate) fn measure(answer: Answer, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if answer == Answer::Word && (arguments.rate.is_some() || arguments.stages) {
        return Err(
            "--rate and --stages are for pingpong: one word may answer several messages".into()
        );
    }
    if arguments.nodes.is_some() && arguments.size < 8 && !arguments.all_sizes {
        return Err("messages of --nodes have 8 bytes at least: they say whom they answer".into());
    }
    arguments.away.permits(arguments.compare)?;
    let cores = arguments.setup.cores(arguments.compare.is_some() && arguments.away.is_here())?;
    cores[0].map_or(Ok(()), cpu::pin)?;
    sizes::chosen(arguments.all_sizes, arguments.size)
        .into_iter()
        .try_for_each(|size| measure_one(answer, &Arguments { size, ..arguments.clone() }, cores))
}

fn measure_one(
    answer: Answer,
    arguments: &Arguments,
    cores: [Option<usize>; 2],
) -> Result<(), Box<dyn Error>> {
    reference::check(arguments.compare, &question(arguments))?;
    let report = Report::new(
        answer.names().0,
        json!({
            "size_bytes": arguments.size,
            "nodes": arguments.nodes,
            "wait": arguments.setup.wait,
            "count": arguments.duration.is_none().then_some(arguments.count),
            "duration_s": arguments.duration,
            "warm_up": arguments.warm_up,
            "idle_s": arguments.idle.told(),
            "rate": arguments.rate,
            "arrivals": arguments.rate.map(|_| arguments.arrivals),
            "seed": arguments.rate.map(|_| arguments.seed),
            "cores": cores,
            "network": arguments.setup.network.told(),
        }),
    );
    arguments.outputs.take(report, || {
        let mut run = Run::default();
        let Arguments { ref setup, ref away, size, .. } = *arguments;
        if let Some(nodes) = arguments.nodes {
            let plan = Plan { nodes, setup, away, answer, size, extent: arguments.extent() };
            mesh::measure(&plan, cores, &mut run)?;
            return Ok(run);
        }
        transport(answer, arguments, cores[1], &mut run)?;
        match arguments.compare {
            None => {}
            Some(Compare::Raw) => beside_raw(arguments, cores, &mut run)?,
            Some(compare) => beside_others(arguments, compare, cores[1], &mut run)?,
        }
        Ok(run)
    })
}

/// The transport's round trips.
fn transport(
    answer: Answer,
    arguments: &Arguments,
    other_core: Option<usize>,
    run: &mut Run,
) -> Result<(), Box<dyn Error>> {
    let kept = if arguments.outputs.wants_samples() { arguments.count } else { 0 };
    let room = run.samples_ns.try_reserve_exact(usize::try_from(kept)?);
    room.map_err(|_| format!("there is no memory for {kept} single latencies: a smaller -n"))?;
    let place = arguments.away.place(arguments.setup.provider)?;
    let ends = Ends::new(&arguments.setup, place.addresses());
    let pong = Pong { ends: ends.clone(), answer, size: arguments.size };
    let other = place.start(&pong, other_core)?;
    let mut side = Side::connect(&ends, 1)?;
    match arguments.rate {
        None => one_by_one(answer, arguments, &mut side, &other, run)?,
        Some(rate) => on_schedule(arguments, rate, &mut side, &other, run)?,
    }
    let link = side.status()?;
    run.link(&link, ends.addresses[0].ip());
    run.figure("rescues", side.poller.counters().rescues as f64);
    other.end()?;
    Ok(())
}

/// The next message when the last one is answered.
fn one_by_one(
    answer: Answer,
    arguments: &Arguments,
    side: &mut Side,
    other: &Peer,
    run: &mut Run,
) -> Result<(), Box<dyn Error>> {
    let payload = vec![7; arguments.size];
    let mut usage = None;
    let begin = || usage = Some(Usage::begin(Some(other)));
    let mut stages = arguments.stages.then(|| RoundTrips::new(arguments.warm_up));
    let mut sent = 0;
    let extent = arguments.extent();
    let mut exchange = |side: &mut Side| match (&mut stages, answer) {
        (Some(stages), _) => stages.exchange(side, &payload),
        (None, Answer::Message) => {
            side.send(&payload)?;
            side.receive()
        }
        (None, Answer::Word) => {
            side.send(&payload)?;
            sent += 1;
            side.await_word(sent)
        }
    };
    let rtt = timed(extent, &mut run.samples_ns, begin, || exchange(side))?;
    usage.ok_or("nothing was measured")?.end(run);
    run.latency(answer.names().1, rtt.clone());
    if answer == Answer::Message {
        run.latency("half_rtt", halved(&rtt));
    }
    arguments.idle.measure(&rtt, &idle::TRANSPORT, run, |silence| {
        side.rest(silence)?;
        let start = clock::now();
        exchange(side)?;
        Ok(clock::now().since(start))
    })?;
    if let Some(stages) = stages {
        stages.tell(run);
    }
    Ok(())
}

/// Messages when they are meant to be sent.
fn on_schedule(
    arguments: &Arguments,
    rate: f64,
    side: &mut Side,
    other: &Peer,
    run: &mut Run,
) -> Result<(), Box<dyn Error>> {
    let payload = vec![7; arguments.size];
    let count =
        arguments.duration.map_or(arguments.count, |seconds| (rate * seconds).ceil() as u64);
    let total = usize::try_from(arguments.warm_up + count)?;
    let schedule = Schedule::new(arguments.arrivals, rate, arguments.seed).take(total);
    let mut usage = None;
    let begin = || usage = Some(Usage::begin(Some(other)));
    let samples_ns = &mut run.samples_ns;
    let sample = |latency| keep(samples_ns, latency);
    let measured = open_loop::run(side, &payload, schedule, arguments.warm_up, begin, sample)?;
    let seconds = usage.ok_or("nothing was measured")?.end(run);
    let half = halved(&measured.latencies);
    run.latency("rtt_from_intended", measured.latencies);
    run.latency("half_rtt_from_intended", half);
    run.latency("send_delay", measured.send_delay);
    run.figure("answers_per_s", count as f64 / seconds);
    run.figure("under_way_max", measured.under_way_max as f64);
    Ok(())
}

/// The raw round trips, and how the transport's compare.
fn beside_raw(
    arguments: &Arguments,
    [own, other]: [Option<usize>; 2],
    run: &mut Run,
) -> Result<(), Box<dyn Error>> {
    let medium = Medium::try_from(arguments.setup.provider)?;
    let against = floor::counterpart(arguments.setup.wait);
    let count = run.latencies.first().map_or(0, |(_, rtt)| rtt.len());
    if medium == Medium::Datagrams && arguments.size > udp_pingpong::SIZE_MAX {
        run.fact("compared_with", "nothing: no single datagram holds that much");
        return Ok(());
    }
    for wait in [floor::Wait::Look, floor::Wait::Sleep] {
        // Two that look again and again on one core wait for the scheduler: that is no floor.
        if wait == floor::Wait::Look && own.is_some() && own == other && wait != against {
            continue;
        }
        let is_counterpart = wait == against;
        let raw = raw(arguments, count, wait, other, is_counterpart.then_some(&mut *run))?;
        if is_counterpart {
            let (_, rtt) = run.latencies.first().ok_or("nothing was measured")?;
            let ratio = |percentile| {
                rtt.value_at_percentile(percentile) as f64
                    / raw.value_at_percentile(percentile) as f64
            };
            let (middle, tail) = (ratio(50.0), ratio(99.0));
            run.fact("compared_with", floor::name(medium, wait));
            run.figure("ratio_p50", middle);
            run.figure("ratio_p99", tail);
        }
        run.latency(floor::name(medium, wait), raw);
    }
    Ok(())
}

/// Programs that others measure with, and how the transport compares.
fn beside_others(
    arguments: &Arguments,
    compare: Compare,
    other_core: Option<usize>,
    run: &mut Run,
) -> Result<(), Box<dyn Error>> {
    let (_, rtt) = run.latencies.first().ok_or("nothing was measured")?;
    let of = |percentile| rtt.value_at_percentile(percentile) as f64;
    let ours = Ours::RoundTrip { p50: of(50.0), p99: of(99.0) };
    reference::beside(compare, &question(arguments), other_core, ours, run)
}

fn question(arguments: &Arguments) -> Question {
    let Setup { provider, wait, .. } = arguments.setup;
    let count = arguments.duration.map_or(arguments.count, |_| ROUND_TRIPS);
    let devices = arguments.setup.device.clone();
    Question { provider, devices, wait, size: arguments.size, kind: Kind::RoundTrips(count) }
}

/// The round trips of the least code that does the same; those after idleness are told in `silences`.
fn raw(
    arguments: &Arguments,
    count: u64,
    wait: floor::Wait,
    other_core: Option<usize>,
    silences: Option<&mut Run>,
) -> Result<Histogram<u64>, Box<dyn Error>> {
    let silent = if silences.is_some() { arguments.idle.count() } else { 0 };
    let (size, rounds) = (arguments.size, arguments.warm_up + count + silent);
    let extent = Extent { warm_up: arguments.warm_up, count, duration: None };
    let time = |exchange: &mut dyn FnMut() -> Result<(), Box<dyn Error>>| {
        let rtt = timed(extent, &mut Vec::new(), || {}, &mut *exchange)?;
        if let Some(run) = silences {
            arguments.idle.measure(&rtt, &idle::RAW, run, |silence| {
                std::thread::sleep(silence);
                let start = clock::now();
                exchange()?;
                Ok(clock::now().since(start))
            })?;
        }
        Ok::<_, Box<dyn Error>>(rtt)
    };
    let (rtt, other) = match Medium::try_from(arguments.setup.provider)? {
        Medium::Memory => {
            let (mut side, pong) = shm_pingpong::Side::first(size, rounds, wait)?;
            let other = Peer::start(&pong, other_core)?;
            let _guard = other.guard();
            let mut exchange = || {
                side.exchange();
                Ok(())
            };
            (time(&mut exchange)?, other)
        }
        Medium::Datagrams => {
            let place = arguments.away.place(Provider::Udp)?;
            let (mut side, pong) =
                udp_pingpong::Side::first(place.addresses(), size, rounds, wait)?;
            let mut other = place.start(&pong, other_core)?;
            other.line()?;
            let _guard = other.guard();
            (time(&mut || Ok(side.exchange()?))?, other)
        }
    };
    other.end()?;
    Ok(rtt)
}

impl Errand for Pong {
    const NAME: &'static str = "pong";

    fn run(&self) -> Result<(), Box<dyn Error>> {
        answer(self)
    }

    fn reach(&self) -> Option<Reach> {
        Reach::second(self.ends.addresses)
    }
}

impl Errand for shm_pingpong::Pong {
    const NAME: &'static str = "raw_shm_pong";

    fn run(&self) -> Result<(), Box<dyn Error>> {
        Ok(shm_pingpong::answer(self)?)
    }
}

impl Errand for udp_pingpong::Pong {
    const NAME: &'static str = "raw_udp_pong";

    fn run(&self) -> Result<(), Box<dyn Error>> {
        Ok(udp_pingpong::answer(self, ready)?)
    }

    fn reach(&self) -> Option<Reach> {
        Reach::second(self.addresses)
    }
}

/// Answers every message with one of the same size.
fn answer(pong: &Pong) -> Result<(), Box<dyn Error>> {
    let mut side = Side::connect(&pong.ends, 2)?;
    let payload = vec![8; pong.size];
    let mut taken = 0;
    loop {
        side.receive()?;
        taken += 1;
        match pong.answer {
            Answer::Message => side.send(&payload)?,
            Answer::Word => side.say_word(taken),
        }
    }
}
