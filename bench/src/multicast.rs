//! Stable, totally ordered multicast among processes on this machine.
//!
//! `--mode latency`: one sender, one message at a time, timed from the reserve to the sender's own delivery, which is
//! when every member has it. `--mode rate`: as many as the window takes, counted where they are delivered.

use crate::children::{Errand, Peer, Reach, two_addresses};
use crate::cpu::cpu_time;
use crate::output::Outputs;
use crate::policy::{Provider, Waiting};
use crate::report::{Report, Run};
use crate::setup::Away;
use crate::stages::Stages;
use crate::statistics::{histogram, record};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use quintet_transport::{Authority, Time, clock};
use quintet_vsync::{
    Config, Deliveries, Event, Group, Node, NodeId, Passage, Passages, PeerConfig, SendError,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long the members may take to form the group.
const FORM: Duration = Duration::from_secs(20);

/// Flags of `multicast`.
#[derive(clap::Args, Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Arguments {
    /// How many processes.
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    members: u16,
    /// What carries the bytes.
    #[arg(long, value_enum, default_value_t)]
    provider: Provider,
    #[command(flatten)]
    #[serde(skip)]
    away: Away,
    /// Payload bytes, at least 8.
    #[arg(short, long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..=1 << 20))]
    size: u32,
    /// What is measured.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Who sends, in the rate mode.
    #[arg(long, value_enum, default_value_t)]
    senders: Senders,
    /// Sending threads of each member that sends, in the rate mode.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Seconds measured.
    #[arg(short = 'D', long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: u64,
    /// Pause between a delivery and the next message in the latency mode, microseconds.
    #[arg(long, default_value_t = 0)]
    think_us: u64,
    /// Also tell where the time of a message goes at its sender, in the latency mode.
    #[arg(long)]
    stages: bool,
    /// How pollers wait.
    #[arg(long, value_enum, default_value_t)]
    wait: Waiting,
    #[command(flatten)]
    #[serde(skip)]
    outputs: Outputs,
    /// This member's number.
    #[arg(long, default_value_t = 1, hide = true)]
    node: u16,
    /// Addresses of all members; chosen by itself.
    #[arg(long, value_delimiter = ',', hide = true)]
    addresses: Vec<SocketAddr>,
    /// Name of the measurement's own cluster.
    #[arg(long, default_value = "", hide = true)]
    cluster: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// A lone message, one at a time.
    #[default]
    Latency,
    /// As many as possible.
    Rate,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Senders {
    /// The first member.
    #[default]
    One,
    /// Every member.
    All,
}

/// What a member counted.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Counted {
    delivered: u64,
    seconds: f64,
    cpu_seconds: f64,
    sent_by_threads: Vec<u64>,
}

/// Measures, and starts the other members.
pub(crate) fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if arguments.stages && arguments.mode != Mode::Latency {
        return Err("--stages is for --mode latency: it follows one message at a time".into());
    }
    let report = Report::new(
        "multicast",
        json!({
            "members": arguments.members,
            "size_bytes": arguments.size,
            "delivery": "total order, stable",
            "wait": arguments.wait,
            "mode": arguments.mode,
            "senders": arguments.senders,
            "threads": arguments.threads,
            "duration_s": arguments.duration,
            "think_us": arguments.think_us,
        }),
    );
    arguments.outputs.take(report, || run(arguments))
}

/// One run, by members of its own.
fn run(arguments: &Arguments) -> Result<Run, Box<dyn Error>> {
    let places = match arguments.members {
        1 => Vec::new(),
        members => arguments.away.places(arguments.provider, members - 1)?,
    };
    let own = match places.first() {
        Some(place) => place.addresses()[0],
        None => two_addresses()?[0],
    };
    let others = places.iter().map(|place| place.addresses()[1]);
    let arguments = Arguments {
        addresses: std::iter::once(own).chain(others).collect(),
        cluster: format!("perf-{}", std::process::id()),
        ..arguments.clone()
    };
    let mut peers = Vec::new();
    for (node, place) in (2..).zip(places) {
        peers.push(place.start(&Arguments { node, ..arguments.clone() }, None)?);
    }
    let mut member = Part::join(&arguments)?;
    let mut run = Run { took: Duration::from_secs(arguments.duration), ..Run::default() };
    match arguments.mode {
        Mode::Latency => {
            let mut measured = Measured { latencies: histogram(), stages: Stages::new(STAGES) };
            let counted = member.latency(&arguments, &mut measured)?;
            run.latency("self_delivery", measured.latencies);
            if arguments.stages {
                measured.stages.tell(&mut run);
            }
            run.figure("messages_per_s", counted.delivered as f64 / counted.seconds);
            run.figure("own_cpu_percent", 100.0 * counted.cpu_seconds / counted.seconds);
        }
        Mode::Rate => {
            let counted = member.rate(&arguments)?;
            let rate = counted.delivered as f64 / counted.seconds;
            run.figure("messages_per_s", rate);
            run.figure("megabytes_per_s", rate * f64::from(arguments.size) / 1e6);
            run.fact("messages_of_each_thread", &counted.sent_by_threads);
            let mut cpu_seconds = counted.cpu_seconds;
            for peer in &mut peers {
                cpu_seconds += serde_json::from_str::<Counted>(&peer.line()?)?.cpu_seconds;
            }
            run.figure("cpu_seconds_per_million", cpu_seconds / (counted.delivered as f64 / 1e6));
        }
    }
    if let Some(link) = member.node.status().links.first() {
        run.link(link, arguments.addresses[0].ip());
    }
    peers.into_iter().try_for_each(Peer::end)?;
    Ok(run)
}

impl Errand for Arguments {
    const NAME: &'static str = "member";

    fn run(&self) -> Result<(), Box<dyn Error>> {
        take_part(self)
    }

    fn reach(&self) -> Option<Reach> {
        Reach::among(&self.addresses, self.node)
    }
}

/// A member that consumes, and sends if all do.
fn take_part(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut member = Part::join(arguments)?;
    if arguments.mode == Mode::Rate {
        println!("{}", serde_json::to_string(&member.rate(arguments)?)?);
    }
    loop {
        member.deliveries.next(Duration::from_secs(1));
    }
}

/// Reserved, written and committed; visible to the others; one of them is known to have it; all are; the application
/// has it back.
const STAGES: [&str; 5] =
    ["stage_commit", "stage_publish", "stage_visible", "stage_stable", "stage_deliver"];

/// What a lone sender measured.
struct Measured {
    latencies: Histogram<u64>,
    stages: Stages<5>,
}

/// One member of the group.
struct Part {
    node: Node,
    group: Group,
    deliveries: Deliveries,
    passages: Arc<Passages>,
}

impl Part {
    fn join(arguments: &Arguments) -> Result<Part, Box<dyn Error>> {
        let ids = (1..).zip(&arguments.addresses);
        let peers = ids
            .filter(|(id, _)| *id != arguments.node)
            .map(|(id, addr)| PeerConfig { node: NodeId(id), addr: *addr })
            .collect();
        let own = arguments
            .addresses
            .get(usize::from(arguments.node) - 1)
            .ok_or("no address for this member")?;
        let mut config = Config::new(&arguments.cluster, NodeId(arguments.node), *own, peers);
        config.path = arguments.provider.policy();
        // Whoever measures over an adapter has chosen to.
        config.verbs.trusted_fabric = true;
        let authority = Authority::new(&arguments.cluster, [1; 32])?;
        let key = [arguments.node as u8; 32];
        config.identity = Some(Arc::new(authority.admit(NodeId(arguments.node), key)));
        config.wait = arguments.wait.wait();
        let passages = Arc::new(Passages::new(1));
        config.passages = arguments.stages.then(|| passages.clone());
        let (node, group, mut deliveries) = Node::start(config)?;
        let deadline = clock::now() + FORM;
        while clock::now() < deadline {
            match deliveries.next(Duration::from_millis(100)) {
                Some(Event::View(change))
                    if change.view.members.len() == usize::from(arguments.members) =>
                {
                    return Ok(Part { node, group, deliveries, passages });
                }
                // Nothing to hand over: the learner's state is empty.
                Some(Event::Donate(donation)) => drop(donation),
                _ => {}
            }
        }
        Err(format!("the members did not form a group within {} s", FORM.as_secs()).into())
    }

    fn latency(
        &mut self,
        arguments: &Arguments,
        measured: &mut Measured,
    ) -> Result<Counted, Box<dyn Error>> {
        let payload = vec![1; arguments.size as usize];
        let span = Duration::from_secs(arguments.duration);
        let began = clock::now();
        let warm = began + span / 5;
        let (mut counted, cpu) = (Counted::default(), cpu_time());
        loop {
            let start = clock::now();
            if start > warm + span {
                break;
            }
            let id = self.group.send(&payload)?;
            let committed = clock::now();
            self.until_own_delivery(arguments)?;
            let now = clock::now();
            // Of each message, for there is room for one.
            let passage = self.passages.take();
            if start > warm {
                counted.delivered += 1;
                record(&mut measured.latencies, now.since(start));
                if let Some(Passage { published, visible, stable, .. }) =
                    passage.filter(|passage| passage.id == id)
                {
                    // The poller is awake and may publish before the committing thread reads the clock.
                    let committed = committed.min(published);
                    measured.stages.passed(start, [committed, published, visible, stable, now]);
                }
            }
            if arguments.think_us > 0 {
                std::thread::sleep(Duration::from_micros(arguments.think_us));
            }
        }
        counted.seconds = span.as_secs_f64();
        counted.cpu_seconds = (cpu_time() - cpu).as_secs_f64();
        Ok(counted)
    }

    fn until_own_delivery(&mut self, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
        let deadline = clock::now() + FORM;
        while clock::now() < deadline {
            match self.deliveries.next(Duration::from_secs(1)) {
                Some(Event::Message(message)) if message.own => return Ok(()),
                Some(Event::View(change))
                    if change.view.members.len() < usize::from(arguments.members) =>
                {
                    return Err("a member was lost while it was measured".into());
                }
                Some(Event::Evicted(view)) => {
                    return Err(format!("removed from the group in {view:?}").into());
                }
                _ => {}
            }
        }
        Err("a message was not delivered".into())
    }

    /// Counts deliveries for the measured time; sends meanwhile if it is this member's part.
    fn rate(&mut self, arguments: &Arguments) -> Result<Counted, Box<dyn Error>> {
        let measured = Duration::from_secs(arguments.duration);
        let warm = clock::now() + measured / 5;
        let end = warm + measured;
        let sends = arguments.node == 1 || arguments.senders == Senders::All;
        let start = |_| {
            let (group, size) = (self.group.clone(), arguments.size as usize);
            std::thread::spawn(move || send_until(&group, size, end))
        };
        let threads = if sends { arguments.threads } else { 0 };
        let senders: Vec<_> = (0..threads).map(start).collect();
        let (mut counted, mut cpu) = (Counted::default(), cpu_time());
        let mut started = false;
        loop {
            // The clock is read once for many messages.
            let now = clock::now();
            if !started && now >= warm {
                (started, cpu) = (true, cpu_time());
            }
            if now >= end {
                break;
            }
            let mut taken = 0;
            while taken < 256 {
                match self.deliveries.try_next() {
                    Some(Event::Message(_)) => taken += 1,
                    Some(Event::View(change))
                        if change.view.members.len() < usize::from(arguments.members) =>
                    {
                        return Err("a member was lost while it was measured".into());
                    }
                    Some(Event::Evicted(view)) => {
                        return Err(format!("removed from the group in {view:?}").into());
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            if taken == 0
                && matches!(self.deliveries.next(Duration::from_millis(5)), Some(Event::Message(_)))
            {
                taken = 1;
            }
            if started {
                counted.delivered += taken;
            }
        }
        counted.seconds = measured.as_secs_f64();
        counted.cpu_seconds = (cpu_time() - cpu).as_secs_f64();
        for sender in senders {
            counted.sent_by_threads.push(sender.join().map_err(|_| "a sending thread failed")??);
        }
        Ok(counted)
    }
}

/// Returns how many it has sent.
fn send_until(group: &Group, size: usize, end: Time) -> Result<u64, SendError> {
    let mut sent = 0;
    while clock::now() < end {
        for _ in 0..64 {
            match group.reserve(size) {
                Ok(slot) => {
                    slot.commit();
                    sent += 1;
                }
                // The window is full: let the others have the core.
                Err(SendError::Full) => {
                    std::thread::sleep(Duration::from_micros(50));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(sent)
}
