//! `rate` and `bw`: as many messages as one side can send and the other look at, counted where they arrive.

mod writers;

use crate::children::{Errand, PATIENCE, Peer, Reach, ready};
use crate::counter::{Counted, Counter};
use crate::exchange::{seconds, span};
use crate::floor::gso_stream::{self, Way};
use crate::floor::{Medium, copy_stream, sealing};
use crate::output::Outputs;
use crate::policy::Provider;
use crate::reference::{self, Kind, Ours, Question};
use crate::report::{Report, Run};
use crate::setup::{Away, Compare, Setup, Usage};
use crate::side::{Ends, STEP, Side};
use crate::{cpu, host, sizes};
use quintet_transport::{Time, clock};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::error::Error;
use std::time::Duration;
use writers::Writers;

/// Flags of `rate` and `bw`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: Setup,
    #[command(flatten)]
    away: Away,
    /// Payload bytes; by default 64 for `rate` and 65536 for `bw`.
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    size: Option<u32>,
    /// Measure messages of many sizes, from 8 B to 1 MiB, a report each.
    #[arg(long, conflicts_with_all = ["size", "hgrm", "hlog", "svg", "samples", "baseline"])]
    all_sizes: bool,
    /// Seconds measured, in each run.
    #[arg(short = 'D', long, default_value_t = 3.0, value_parser = span)]
    duration: f64,
    /// Messages measured, in each run, however long they take.
    #[arg(short = 'n', long, conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    count: Option<u64>,
    /// Seconds before that, not measured.
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    warm_up: f64,
    /// Messages published at a time, if there is room.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Threads of the sending process that write messages, beside the one that runs the poller; on its core if --pin
    /// gives one. Without it the poller's thread writes them itself.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    threads: u16,
    /// What to run beside it, in the same run on the same cores.
    #[arg(long, value_enum)]
    compare: Option<Compare>,
    #[command(flatten)]
    outputs: Outputs,
}

/// What the receiving process is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Sink {
    ends: Ends,
    counter: Counter,
}

/// What one who counts raw messages is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct RawSink<T> {
    reader: T,
    counter: Counter,
}

/// Measures messages of `size` bytes, unless another size is asked for.
pub(crate) fn measure(
    name: &'static str,
    size: u32,
    arguments: &Arguments,
) -> Result<(), Box<dyn Error>> {
    let size = arguments.size.unwrap_or(size) as usize;
    arguments.away.permits(arguments.compare)?;
    let cores = arguments.setup.cores(arguments.compare.is_some() && arguments.away.is_here())?;
    cores[0].map_or(Ok(()), cpu::pin)?;
    sizes::chosen(arguments.all_sizes, size)
        .into_iter()
        .try_for_each(|size| measure_one(name, size, arguments, cores))
}

fn measure_one(
    name: &'static str,
    size: usize,
    arguments: &Arguments,
    cores: [Option<usize>; 2],
) -> Result<(), Box<dyn Error>> {
    let other = cores[1];
    let Setup { provider, wait, .. } = arguments.setup;
    let devices = arguments.setup.device.clone();
    let question = Question { provider, devices, wait, size, kind: Kind::Stream };
    reference::check(arguments.compare, &question)?;
    let report = Report::new(
        name,
        json!({
            "size_bytes": size,
            "wait": arguments.setup.wait,
            "duration_s": arguments.count.is_none().then_some(arguments.duration),
            "count": arguments.count,
            "warm_up_s": arguments.warm_up,
            "batch": arguments.batch,
            "threads": arguments.threads,
            "cores": cores,
            "network": arguments.setup.network.told(),
        }),
    );
    let warm_up = Duration::from_secs_f64(arguments.warm_up);
    let counter = match arguments.count {
        Some(count) => Counter::of(warm_up, count),
        None => Counter::new(warm_up, Duration::from_secs_f64(arguments.duration)),
    };
    arguments.outputs.take(report, || {
        let mut run = Run::default();
        let ours = transport(arguments, size, counter.clone(), other, &mut run)?;
        run.figure("messages_per_s", ours.messages_per_s());
        run.figure("megabytes_per_s", ours.megabytes_per_s());
        match arguments.compare {
            None => {}
            Some(Compare::Raw) => match Medium::try_from(provider)? {
                Medium::Memory => {
                    beside_copies(size, counter.clone(), other, &ours, &mut run)?;
                }
                Medium::Datagrams => {
                    beside_datagrams(arguments, size, &counter, other, &ours, &mut run)?;
                }
            },
            Some(compare) => {
                let ours = Ours::MegabytesPerS(ours.megabytes_per_s());
                reference::beside(compare, &question, other, ours, &mut run)?;
            }
        }
        Ok(run)
    })
}

/// The transport's stream.
fn transport(
    arguments: &Arguments,
    size: usize,
    counter: Counter,
    other_core: Option<usize>,
    run: &mut Run,
) -> Result<Counted, Box<dyn Error>> {
    let place = arguments.away.place(arguments.setup.provider)?;
    let ends = Ends::new(&arguments.setup, place.addresses());
    let sink = Sink { ends: ends.clone(), counter };
    let mut other = place.start(&sink, other_core)?;
    let mut side = Side::connect(&ends, 1)?;
    let answer = other.line_later()?;
    let writers = Writers::start(&side.log, arguments.threads, size);
    let usage = Usage::begin(Some(&other));
    let payload = vec![7; size];
    let counted = loop {
        let now = clock::now();
        let mut moved = side.turn(now)?;
        side.give_back(STEP);
        if arguments.threads > 0 {
            moved |= side.publish_committed(arguments.batch) > 0;
        } else {
            for _ in 0..arguments.batch {
                if !side.commit(&payload)? {
                    break;
                }
                moved = true;
            }
        }
        side.poller.flush(now);
        if let Ok(line) = answer.try_recv() {
            break serde_json::from_str::<Counted>(&line?)?;
        }
        if !moved {
            side.poller.park(now, Some(now + Duration::from_millis(50)), &mut || false);
        }
    };
    usage.end(run);
    let written = writers.end()?;
    if arguments.threads > 0 {
        run.fact("messages_of_each_thread", written);
    }
    run.link(&side.status()?, ends.addresses[0].ip());
    other.end()?;
    Ok(counted)
}

impl Errand for Sink {
    const NAME: &'static str = "sink";

    fn run(&self) -> Result<(), Box<dyn Error>> {
        sink(self)
    }

    fn reach(&self) -> Option<Reach> {
        Reach::second(self.ends.addresses)
    }
}

impl Errand for RawSink<copy_stream::Reader> {
    const NAME: &'static str = "raw_shm_sink";

    fn run(&self) -> Result<(), Box<dyn Error>> {
        let counted = copy_stream::read(&self.reader, self.counter.clone())?;
        println!("{}", serde_json::to_string(&counted)?);
        Ok(())
    }
}

impl Errand for RawSink<gso_stream::Reader> {
    const NAME: &'static str = "raw_udp_sink";

    fn run(&self) -> Result<(), Box<dyn Error>> {
        let counted = gso_stream::read(&self.reader, self.counter.clone(), ready)?;
        println!("{}", serde_json::to_string(&counted)?);
        Ok(())
    }

    fn reach(&self) -> Option<Reach> {
        Reach::second(self.reader.addresses)
    }
}

/// Takes what comes and counts it; says what it counted, and goes on, for the sender may still wait for room.
fn sink(sink: &Sink) -> Result<(), Box<dyn Error>> {
    let mut side = Side::connect(&sink.ends, 2)?;
    let (mut counter, mut said) = (sink.counter.clone(), false);
    loop {
        let now = clock::now();
        side.turn(now)?;
        let (mut messages, mut bytes) = (0, 0);
        // Room is given back now and then, not only when all has been looked at.
        while messages < 64
            && let Some(len) = side.take(<[u8]>::len)
        {
            messages += 1;
            bytes += len as u64;
        }
        side.give_back(STEP);
        side.poller.flush(now);
        if !said && let Some(counted) = counter.arrived(messages, bytes, now) {
            said = true;
            println!("{}", serde_json::to_string(&counted)?);
        }
        if messages == 0 {
            side.poller.park(now, None::<Time>, &mut || false);
        }
    }
}

/// The stream through raw memory.
fn beside_copies(
    size: usize,
    counter: Counter,
    other_core: Option<usize>,
    ours: &Counted,
    run: &mut Run,
) -> Result<(), Box<dyn Error>> {
    let (mut writer, reader) = copy_stream::Writer::new(size)?;
    let patience = counter.patience();
    let mut other = Peer::start(&RawSink { reader, counter }, other_core)?;
    writer.run(clock::now() + patience);
    let raw: Counted = serde_json::from_str(&other.line()?)?;
    other.end()?;
    run.fact("compared_with", "raw copies through shared memory");
    run.figure("raw_copy_messages_per_s", raw.messages_per_s());
    run.figure("raw_copy_megabytes_per_s", raw.megabytes_per_s());
    run.figure("ratio_to_raw_copy", ours.megabytes_per_s() / raw.megabytes_per_s());
    Ok(())
}

/// Bytes of the headers of IPv6 and UDP.
const HEADERS: i64 = 48;

/// A stream of raw datagrams: bytes of a datagram, its way, and what is told of it.
type Datagrams = (u16, Way, &'static str, &'static str);

/// Where a datagram holds a message.
fn of_a_message(size: u16) -> [Datagrams; 2] {
    let sealed = size + sealing::OVERHEAD as u16;
    [
        (size, Way::Copied, "raw_gso_megabytes_per_s", "ratio_to_raw_gso"),
        (sealed, Way::Sealed, "raw_gso_aead_megabytes_per_s", "ratio_to_raw_gso_aead"),
    ]
}

/// Where it does not: of two sizes that are common, and of the largest, which loopback takes.
const OF_A_SEGMENT: [Datagrams; 6] = [
    (1400, Way::Copied, "raw_gso_1400_megabytes_per_s", "ratio_to_raw_gso_1400"),
    (8192, Way::Copied, "raw_gso_8192_megabytes_per_s", "ratio_to_raw_gso_8192"),
    (1400, Way::Sealed, "raw_gso_aead_1400_megabytes_per_s", "ratio_to_raw_gso_aead_1400"),
    (8192, Way::Sealed, "raw_gso_aead_8192_megabytes_per_s", "ratio_to_raw_gso_aead_8192"),
    (65488, Way::Sealed, "raw_gso_aead_65488_megabytes_per_s", "ratio_to_raw_gso_aead_65488"),
    (
        8192,
        Way::InPlace,
        "raw_gso_zero_copy_8192_megabytes_per_s",
        "ratio_to_raw_gso_zero_copy_8192",
    ),
];

/// The streams of raw datagrams, as they are and sealed.
fn beside_datagrams(
    arguments: &Arguments,
    size: usize,
    counter: &Counter,
    other_core: Option<usize>,
    ours: &Counted,
    run: &mut Run,
) -> Result<(), Box<dyn Error>> {
    let small = size <= 1400;
    let streams = if small { of_a_message(size as u16).to_vec() } else { OF_A_SEGMENT.to_vec() };
    for (segment, way, name, ratio) in streams {
        let place = arguments.away.place(Provider::Udp)?;
        let addresses = place.addresses();
        let mtu = host::nic(addresses[0].ip())["mtu"].as_i64();
        if mtu.is_some_and(|mtu| i64::from(segment) + HEADERS > mtu) {
            // The server waits for an order; it is told none.
            run.fact(ratio, "not measured: the interface's MTU is smaller");
            continue;
        }
        let (mut sender, reader) = match gso_stream::Sender::new(addresses, segment, way) {
            Err(error) if way == Way::InPlace => {
                run.fact(ratio, format!("not measured: {error}"));
                continue;
            }
            made => made?,
        };
        let sink = RawSink { reader, counter: counter.clone() };
        let mut other = place.start(&sink, other_core)?;
        other.line()?;
        let answer = other.line_later()?;
        let mut counted = None;
        let done = || {
            counted = counted.take().or_else(|| answer.try_recv().ok());
            counted.is_some()
        };
        sender.run(clock::now() + counter.patience(), done)?;
        let counted = match counted {
            Some(counted) => counted?,
            None => {
                answer.recv_timeout(PATIENCE).map_err(|_| "the other process says nothing")??
            }
        };
        let raw: Counted = serde_json::from_str(&counted)?;
        other.end()?;
        if small && way == Way::Copied {
            run.figure("raw_gso_messages_per_s", raw.messages_per_s());
        }
        run.figure(name, raw.megabytes_per_s());
        run.figure(ratio, ours.megabytes_per_s() / raw.megabytes_per_s());
    }
    run.fact("compared_with", "raw datagrams, cut and joined by the kernel, lost ones not counted");
    Ok(())
}
