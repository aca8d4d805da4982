//! `incast`: many send to one at the same time, and the one is the bottleneck.
//!
//! What matters is not only how much arrives but whose: each sender should get its share, none should wait long, and
//! the receiver's buffers should not overflow. The receiver says when to begin and when to end in a word that all
//! senders look at, so that all send during all that is counted.

use crate::children::{Errand, Peer, Reach, hear};
use crate::cpu::{self, cpu_time};
use crate::exchange::{seconds, span};
use crate::output::Outputs;
use crate::policy::Provider;
use crate::report::{Report, Run};
use crate::schedule::{Arrivals, Schedule};
use crate::setup::{Away, Setup, Usage};
use crate::side::{Ends, STEP, Side, meet};
use crate::statistics::{fairness, histogram, record};
use crate::{host, schedule};
use quintet_transport::{Event, GROUP, LinkId, NodeId, PeerConfig, Poller, Time, clock};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

/// What the receiver's word says.
const BEGIN: u64 = 1;
const END: u64 = 2;
const WORD: usize = 0;
/// Messages of one sender that are taken before the next sender's turn.
const TURN: usize = 64;

/// Flags of `incast`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: Setup,
    #[command(flatten)]
    away: Away,
    /// How many processes send. With --pin they share the second core.
    #[arg(short = 'N', long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
    senders: u16,
    /// Payload bytes, at least 8.
    #[arg(short, long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(8..=4_000_000))]
    size: u32,
    /// Messages per second of each sender, sent on schedule; latency counts from the instant that a message was meant
    /// to be sent at. Without it, each sends as much as there is room for.
    #[arg(long, value_parser = schedule::rate)]
    rate: Option<f64>,
    /// How far apart the messages of --rate are.
    #[arg(long, value_enum, default_value_t, requires = "rate")]
    arrivals: Arrivals,
    /// What the instants of --arrivals poisson are drawn from.
    #[arg(long, default_value_t = 1, requires = "rate")]
    seed: u64,
    /// Messages published at a time, if there is room.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Seconds measured, in each run.
    #[arg(short = 'D', long, default_value_t = 3.0, value_parser = span)]
    duration: f64,
    /// Seconds before that, not measured.
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    warm_up: f64,
    #[command(flatten)]
    outputs: Outputs,
}

/// What a sending process is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Source {
    /// The receiver is the first.
    ends: Ends,
    node: u16,
    size: usize,
    batch: u32,
    rate: Option<f64>,
    arrivals: Arrivals,
    seed: u64,
}

/// What a sender tells at the end.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Told {
    cpu_seconds: f64,
    retransmits: u64,
}

/// Measures.
pub(crate) fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let cores = arguments.setup.cores(false)?;
    cores[0].map_or(Ok(()), cpu::pin)?;
    let report = Report::new(
        "incast",
        json!({
            "senders": arguments.senders,
            "size_bytes": arguments.size,
            "wait": arguments.setup.wait,
            "rate": arguments.rate,
            "arrivals": arguments.rate.map(|_| arguments.arrivals),
            "seed": arguments.rate.map(|_| arguments.seed),
            "batch": arguments.batch,
            "duration_s": arguments.duration,
            "warm_up_s": arguments.warm_up,
            "cores": cores,
            "network": arguments.setup.network.told(),
        }),
    );
    arguments.outputs.take(report, || run(arguments, cores[1]))
}

fn run(arguments: &Arguments, other_core: Option<usize>) -> Result<Run, Box<dyn Error>> {
    let places = arguments.away.places(arguments.setup.provider, arguments.senders)?;
    let [own, _] = places[0].addresses();
    let senders: Vec<SocketAddr> = places.iter().map(|place| place.addresses()[1]).collect();
    let mut sources = Vec::new();
    for (node, place) in (2..).zip(places) {
        let source = Source {
            ends: Ends::new(&arguments.setup, place.addresses()),
            node,
            size: arguments.size as usize,
            batch: arguments.batch,
            rate: arguments.rate,
            arrivals: arguments.arrivals,
            seed: arguments.seed.wrapping_add(u64::from(node)),
        };
        sources.push(place.start(&source, other_core)?);
    }
    let mut receiver = Receiver::connect(&Ends::new(&arguments.setup, [own, own]), &senders)?;
    let dropped_before = host::datagrams_dropped(own);
    receiver.say(BEGIN);
    let mut run = Run::default();
    receiver.during(Duration::from_secs_f64(arguments.warm_up), |_, _| {})?;
    receiver.forget();
    let mut latencies = histogram();
    let usage = Usage::begin(None);
    let measured = Duration::from_secs_f64(arguments.duration);
    receiver.during(measured, |sent, now| record(&mut latencies, now.since(sent)))?;
    let took = usage.end(&mut run);
    // What comes from here on does not count.
    receiver.tell(&mut run, arguments.size, took);
    if arguments.away.is_here() {
        // The stamps are the senders'.
        run.latency("sent_to_seen", latencies);
    }
    receiver.say(END);
    // What the senders have under way is taken meanwhile.
    let meanwhile = || receiver.during(Duration::from_millis(1), |_, _| {});
    let told: Vec<Told> = hear(&mut sources, meanwhile)?;
    let cpu: f64 = told.iter().map(|told| told.cpu_seconds).sum();
    run.figure("senders_cpu_seconds", cpu);
    if let (Provider::Udp, Some(before)) = (arguments.setup.provider, dropped_before)
        && let Some(now) = host::datagrams_dropped(own)
    {
        run.figure("datagrams_dropped", now.saturating_sub(before) as f64);
    }
    let mut link = receiver.poller.links().into_iter().next().ok_or("the links are gone")?;
    link.counters.retransmits = told.iter().map(|told| told.retransmits).sum();
    run.link(&link, own.ip());
    sources.into_iter().try_for_each(Peer::end)?;
    Ok(run)
}

/// One sender as the receiver sees it.
struct From {
    link: LinkId,
    cursor: u64,
    released: u64,
    messages: u64,
}

/// Who receives from all.
struct Receiver {
    poller: Poller,
    from: Vec<From>,
}

impl Receiver {
    fn connect(ends: &Ends, senders: &[SocketAddr]) -> Result<Receiver, Box<dyn Error>> {
        let peers = (2..)
            .zip(senders)
            .map(|(node, addr)| PeerConfig { node: NodeId(node), addr: *addr })
            .collect();
        let mut poller = Poller::new(ends.config(1, ends.addresses[0], peers)?)?;
        let links = meet(&mut poller, senders.len())?;
        ends.network.spoil(1, &mut poller)?;
        let from = links
            .into_iter()
            .map(|link| From { link, cursor: 0, released: 0, messages: 0 })
            .collect();
        Ok(Receiver { poller, from })
    }

    /// Tells all senders.
    fn say(&mut self, word: u64) {
        self.poller.set_word(GROUP, WORD, word);
        self.poller.flush(clock::now());
    }

    /// What came so far does not count.
    fn forget(&mut self) {
        self.from.iter_mut().for_each(|from| from.messages = 0);
    }

    /// Takes what comes. `seen` is told when each was sent and when it was seen.
    fn during(
        &mut self,
        span: Duration,
        mut seen: impl FnMut(Time, Time),
    ) -> Result<(), Box<dyn Error>> {
        let end = clock::now() + span;
        loop {
            let now = clock::now();
            if now >= end {
                return Ok(());
            }
            let moved = self.turn(now, &mut seen)?;
            if !moved {
                self.poller.park(now, Some(end), &mut || false);
            }
        }
    }

    fn turn(
        &mut self,
        now: Time,
        seen: &mut impl FnMut(Time, Time),
    ) -> Result<bool, Box<dyn Error>> {
        self.poller.poll(now);
        while let Some(event) = self.poller.poll_event() {
            if let Event::Dead { evidence, .. } = event {
                return Err(format!("a link died: {evidence}").into());
            }
        }
        let mut moved = false;
        for from in &mut self.from {
            let mut sent = [Time::ZERO; TURN];
            let mut taken = 0;
            while taken < TURN
                && let Some(record) = self.poller.peek(from.link, GROUP, from.cursor)
            {
                crate::floor::touch(record.payload);
                let stamp = record.payload.first_chunk().ok_or("a message has no stamp")?;
                sent[taken] = Time::from_nanos(u64::from_le_bytes(*stamp));
                from.cursor = record.end;
                taken += 1;
            }
            if from.cursor >= from.released + STEP {
                from.released = from.cursor;
                self.poller.release(from.link, GROUP, from.cursor);
            }
            if taken > 0 {
                // Once for all of them: none was seen later.
                let now = clock::now();
                sent[..taken].iter().for_each(|sent| seen(*sent, now));
                from.messages += taken as u64;
                moved = true;
            }
        }
        self.poller.flush(now);
        Ok(moved)
    }

    fn tell(&self, run: &mut Run, size: u32, span: f64) {
        let each: Vec<f64> = self.from.iter().map(|from| from.messages as f64 / span).collect();
        let all: f64 = each.iter().sum();
        run.figure("messages_per_s", all);
        run.figure("megabytes_per_s", all * f64::from(size) / 1e6);
        run.figure("fairness", fairness(&each));
        let slowest = each.iter().copied().fold(f64::INFINITY, f64::min);
        run.figure("slowest_messages_per_s", slowest);
        run.figure("fastest_messages_per_s", each.iter().copied().fold(0.0, f64::max));
        run.fact(
            "messages_per_s_of_each",
            each.iter().map(|rate| rate.round()).collect::<Vec<_>>(),
        );
    }
}

impl Errand for Source {
    const NAME: &'static str = "source";

    fn run(&self) -> Result<(), Box<dyn Error>> {
        send(self)
    }

    fn reach(&self) -> Option<Reach> {
        Reach::second(self.ends.addresses)
    }
}

/// Sends from the first word to the second, tells what it took, and stays until it is ended.
fn send(source: &Source) -> Result<(), Box<dyn Error>> {
    let [receiver, own] = source.ends.addresses;
    let peer = PeerConfig { node: NodeId(1), addr: receiver };
    let mut side = Side::link(source.ends.config(source.node, own, vec![peer])?)?;
    source.ends.network.spoil(source.node, &mut side.poller)?;
    idle(&mut side, |word| word >= BEGIN)?;
    let cpu = cpu_time();
    stream(source, &mut side)?;
    let cpu_seconds = (cpu_time() - cpu).as_secs_f64();
    let told = Told { cpu_seconds, retransmits: side.status()?.counters.retransmits };
    println!("{}", serde_json::to_string(&told)?);
    idle(&mut side, |_| false)
}

fn idle(side: &mut Side, until: impl Fn(u64) -> bool) -> Result<(), Box<dyn Error>> {
    loop {
        let now = clock::now();
        side.turn(now)?;
        side.give_back(STEP);
        if until(side.poller.peer_word(side.link, GROUP, WORD)) {
            return Ok(());
        }
        side.poller.flush(now);
        side.poller.park(now, None, &mut || false);
    }
}

fn stream(source: &Source, side: &mut Side) -> Result<(), Box<dyn Error>> {
    let mut payload = vec![7; source.size];
    let began = clock::now();
    let schedule = |rate| Schedule::new(source.arrivals, rate, source.seed);
    let mut instants = source.rate.map(|rate| schedule(rate).map(|after| began + after).peekable());
    loop {
        let now = clock::now();
        let mut moved = side.turn(now)?;
        side.give_back(STEP);
        if side.poller.peer_word(side.link, GROUP, WORD) >= END {
            return Ok(());
        }
        let mut due = None;
        for _ in 0..source.batch {
            due = instants.as_mut().and_then(|instants| instants.peek().copied());
            if due.is_some_and(|due| due > now) {
                break;
            }
            let stamp = due.unwrap_or_else(clock::now);
            payload[..8].copy_from_slice(&stamp.as_nanos().to_le_bytes());
            if !side.commit(&payload)? {
                due = None;
                break;
            }
            instants.as_mut().and_then(Iterator::next);
            moved = true;
        }
        side.poller.flush(now);
        if !moved {
            side.poller.park(now, due, &mut || false);
        }
    }
}
