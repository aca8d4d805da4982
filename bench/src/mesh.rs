//! `pingpong --nodes N`: every node pings every other one, all of them at the same time.
//!
//! Two that have a core each tell nothing of a machine with more pollers than cores: there whoever has the answer waits
//! for a core, and it is the policy of waiting that decides for how long. So each of N nodes, a process each, sends a
//! message to all others (all read its log), every other one answers as soon as it sees it, and when all have answered
//! the next one goes out. Each pair's round trip counts, in both directions. The first node says in a word when counting
//! begins and ends, so that all ping during all that is counted.
//!
//! A lane is read by whom its writer has attached. Answers in the lane of the messages would go to all, and over a
//! network cost N times what they are worth; so they have lanes of their own, of which each node reads one. There are
//! fewer lanes than nodes may be: whom an answer is for is in its first eight bytes.

use crate::children::{Errand, Peer, Reach, hear};
use crate::cpu;
use crate::exchange::{Answer, Extent};
use crate::report::Run;
use crate::setup::{Away, Setup, Usage};
use crate::side::{Ends, STEP, meet};
use crate::statistics::{histogram, record};
use hdrhistogram::Histogram;
use quintet_transport::limits::LANES_MAX;
use quintet_transport::{
    BULK, Event, GROUP, LaneId, LaneSpec, LinkId, LogWriter, NodeId, PeerConfig, Poller,
    PollerCounters, ReserveError, Time, clock,
};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

/// Word of the first node: what is done. Word `n` of each node: how many messages of node n it has taken.
const PHASE: usize = 0;
const BEGIN: u64 = 1;
const END: u64 = 2;
/// Lanes of answers are those from BULK on.
const ANSWERS: u8 = LANES_MAX as u8 - BULK.0;

/// The lane of the answers to that node.
fn answers_to(node: u16) -> LaneId {
    LaneId(BULK.0 + (node - 1) as u8 % ANSWERS)
}

/// What is measured.
pub(crate) struct Plan<'a> {
    pub(crate) nodes: u16,
    pub(crate) setup: &'a Setup,
    pub(crate) away: &'a Away,
    pub(crate) answer: Answer,
    pub(crate) size: usize,
    /// Of the first node with all others.
    pub(crate) extent: Extent,
}

/// What a node is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Part {
    ends: Ends,
    number: u16,
    /// Of all nodes.
    addresses: Vec<SocketAddr>,
    answer: Answer,
    size: usize,
}

/// What a node tells at the end.
#[derive(Debug, Deserialize, Serialize)]
struct Told {
    /// Round trips with each other node: how many were of which length, in nanoseconds.
    pairs: Vec<Vec<(u64, u64)>>,
    parks: u64,
    yields: u64,
    rescues: u64,
    retransmits: u64,
}

/// Measures, as the first node. Nodes take turns on the two cores, if any are given.
pub(crate) fn measure(
    plan: &Plan,
    cores: [Option<usize>; 2],
    run: &mut Run,
) -> Result<(), Box<dyn Error>> {
    let places = plan.away.places(plan.setup.provider, plan.nodes - 1)?;
    let [own, _] = places[0].addresses();
    let others = places.iter().map(|place| place.addresses()[1]);
    let addresses: Vec<SocketAddr> = std::iter::once(own).chain(others).collect();
    let part = |number: u16| Part {
        ends: Ends::new(plan.setup, [addresses[0], addresses[usize::from(number) - 1]]),
        number,
        addresses: addresses.clone(),
        answer: plan.answer,
        size: plan.size,
    };
    let mut others = Vec::new();
    for (number, place) in (2..).zip(places) {
        let core = cores[usize::from(number - 1) % 2];
        others.push(place.start(&part(number), core)?);
    }
    let mut first = Node::connect(&part(1))?;
    let Extent { warm_up, count, duration } = plan.extent;
    first.ping_until(false, None, |node| node.round_trips >= warm_up)?;
    first.say(BEGIN);
    let usage = Usage::begin(None);
    let all_cpu = |others: &[Peer]| {
        others.iter().filter_map(Peer::cpu_time).sum::<Duration>() + cpu::cpu_time()
    };
    let (cpu, before, counters) = (all_cpu(&others), first.round_trips, first.poller.counters());
    let end = duration.map(|duration| clock::now() + duration);
    first.ping_until(true, end, |node| match end {
        Some(end) => clock::now() >= end,
        None => node.round_trips >= before + count,
    })?;
    first.say(END);
    let span = usage.end(run);
    let cpu = plan.away.is_here().then(|| all_cpu(&others) - cpu);
    let own = first.told(counters);
    // What others have under way is answered meanwhile.
    let mut told: Vec<Told> = hear(&mut others, || first.ping_for(Duration::from_millis(1)))?;
    told.push(own);
    let mut link = first.poller.links().into_iter().next().ok_or("the links are gone")?;
    link.counters.retransmits = told.iter().map(|told| told.retransmits).sum();
    tell(run, plan, &told, span, cpu);
    run.link(&link, addresses[0].ip());
    others.into_iter().try_for_each(Peer::end)?;
    Ok(())
}

fn tell(run: &mut Run, plan: &Plan, told: &[Told], span: f64, cpu: Option<Duration>) {
    let (mut all, mut worst, mut pairs) = (histogram(), 0, 0);
    for pair in told.iter().flat_map(|told| &told.pairs).filter(|pair| !pair.is_empty()) {
        let mut one = histogram();
        pair.iter().for_each(|(ns, count)| one.saturating_record_n(*ns, *count));
        worst = worst.max(one.value_at_percentile(99.0));
        pairs += 1;
        all += one;
    }
    run.figure("round_trips_per_s", all.len() as f64 / span);
    if let Some(cpu) = cpu {
        run.figure("cpu_us_per_round_trip", cpu.as_secs_f64() * 1e6 / all.len() as f64);
        run.figure("all_cpu_percent", 100.0 * cpu.as_secs_f64() / span);
    }
    run.figure("pairs", f64::from(pairs));
    run.figure("worst_pair_p99_us", worst as f64 / 1e3);
    let sum = |of: fn(&Told) -> u64| told.iter().map(of).sum::<u64>() as f64;
    run.figure("parks", sum(|told| told.parks));
    run.figure("yields", sum(|told| told.yields));
    run.figure("rescues", sum(|told| told.rescues));
    run.latency(plan.answer.names().1, all);
}

impl Errand for Part {
    const NAME: &'static str = "node";

    fn run(&self) -> Result<(), Box<dyn Error>> {
        take_part(self)
    }

    fn reach(&self) -> Option<Reach> {
        Reach::among(&self.addresses, self.number)
    }
}

/// Pings from its start to the second word, tells what it took, and stays until it is ended.
fn take_part(part: &Part) -> Result<(), Box<dyn Error>> {
    let mut node = Node::connect(part)?;
    node.ping_until(false, None, |node| node.phase() >= BEGIN)?;
    let counters = node.poller.counters();
    node.ping_until(true, None, |node| node.phase() >= END)?;
    println!("{}", serde_json::to_string(&node.told(counters))?);
    // Whoever ends earlier is no news any more.
    loop {
        std::thread::park();
    }
}

/// Another node, as one node sees it.
struct Other {
    link: LinkId,
    number: u16,
    messages: Reader,
    answers: Reader,
    /// Its messages that were taken.
    taken: u64,
    /// Whether it has answered the message that is under way.
    answered: bool,
    round_trips: Histogram<u64>,
}

/// A lane of another node: how far it was read, and given back.
struct Reader {
    link: LinkId,
    lane: LaneId,
    cursor: u64,
    released: u64,
}

impl Reader {
    fn new(link: LinkId, lane: LaneId) -> Reader {
        Reader { link, lane, cursor: 0, released: 0 }
    }

    /// The next message: whom it is for.
    fn take(&mut self, poller: &mut Poller) -> Result<Option<u64>, Box<dyn Error>> {
        let Some(record) = poller.peek(self.link, self.lane, self.cursor) else { return Ok(None) };
        crate::floor::touch(record.payload);
        let whom = record.payload.first_chunk().ok_or("a message is for nobody")?;
        let whom = u64::from_le_bytes(*whom);
        self.cursor = record.end;
        if self.cursor >= self.released + STEP {
            self.released = self.cursor;
            poller.release(self.link, self.lane, self.cursor);
        }
        Ok(Some(whom))
    }
}

/// An own lane.
struct Writer {
    lane: LaneId,
    log: LogWriter,
    published: u64,
    reclaimed: u64,
    /// Who reads it.
    readers: Vec<LinkId>,
    /// Whom messages are for that wait for room: no more than there are nodes.
    due: VecDeque<u64>,
}

impl Writer {
    /// Publishes what is due, as far as there is room. True if something was.
    fn send_due(
        &mut self,
        poller: &mut Poller,
        payload: &mut [u8],
    ) -> Result<bool, Box<dyn Error>> {
        if poller.head(self.lane) >= self.reclaimed + STEP {
            let released = self.readers.iter().map(|link| poller.released(*link, self.lane));
            self.reclaimed = released.min().unwrap_or(self.reclaimed);
            poller.reclaim(self.lane, self.reclaimed);
        }
        let mut moved = false;
        while let Some(whom) = self.due.front() {
            payload[..8].copy_from_slice(&whom.to_le_bytes());
            let mut slot = match self.log.reserve(payload.len()) {
                Ok(slot) => slot,
                Err(ReserveError::Full) => break,
                Err(error) => {
                    return Err(format!("a message of {} B: {error}", payload.len()).into());
                }
            };
            slot.copy_from_slice(payload);
            slot.commit_quietly();
            poller.committed(self.lane).ok_or("a committed record is not there")?;
            poller.publish(self.lane, self.published);
            self.published += 1;
            self.due.pop_front();
            moved = true;
        }
        Ok(moved)
    }
}

struct Node {
    poller: Poller,
    answer: Answer,
    number: u16,
    others: Vec<Other>,
    /// Of messages, then of answers.
    writers: Vec<Writer>,
    payload: Vec<u8>,
    /// Own messages, the latest of which was meant to be sent then.
    pings: u64,
    sent: Time,
    /// Who has not answered it.
    awaited: usize,
    /// Whether it counts.
    counts: bool,
    /// Answers to all of them.
    round_trips: u64,
}

impl Node {
    fn connect(part: &Part) -> Result<Node, Box<dyn Error>> {
        let Part { ends, number, addresses, answer, size } = part;
        let peers = (1..)
            .zip(addresses)
            .filter(|(other, _)| other != number)
            .map(|(other, addr)| PeerConfig { node: NodeId(other), addr: *addr })
            .collect();
        let own = addresses[usize::from(*number) - 1];
        let mut config = ends.config(*number, own, peers)?;
        // A few messages, and some pieces in which room is given back: N times N logs share the caches.
        let log_bytes = (8 * size).next_power_of_two().max(16 * STEP as usize);
        let words = addresses.len() + 1;
        config.lanes.truncate(GROUP.index());
        config.lanes.resize_with(LANES_MAX, || LaneSpec { name: "ping", words, log_bytes });
        let mut poller = Poller::new(config)?;
        meet(&mut poller, addresses.len() - 1)?;
        ends.network.spoil(*number, &mut poller)?;
        let links: Vec<(LinkId, u16)> =
            poller.each_link().map(|status| (status.link, status.peer.node.0)).collect();
        for (link, other) in &links {
            poller.attach(*link, answers_to(*other), 0);
            poller.open(*link, answers_to(*number), 0);
        }
        let others = links.iter().map(|(link, other)| Other {
            link: *link,
            number: *other,
            messages: Reader::new(*link, GROUP),
            answers: Reader::new(*link, answers_to(*number)),
            taken: 0,
            answered: true,
            round_trips: histogram(),
        });
        let writer = |lane: LaneId| Writer {
            lane,
            log: poller.log(lane),
            published: 0,
            reclaimed: 0,
            readers: links
                .iter()
                .filter(|(_, other)| lane == GROUP || answers_to(*other) == lane)
                .map(|(link, _)| *link)
                .collect(),
            due: VecDeque::with_capacity(addresses.len()),
        };
        Ok(Node {
            others: others.collect(),
            writers: (GROUP.0..LANES_MAX as u8).map(LaneId).map(writer).collect(),
            poller,
            answer: *answer,
            number: *number,
            payload: vec![7; *size],
            pings: 0,
            sent: Time::ZERO,
            awaited: 0,
            counts: false,
            round_trips: 0,
        })
    }

    /// What the first node says.
    fn phase(&self) -> u64 {
        let first = self.others.iter().find(|other| other.number == 1);
        first.map_or(0, |first| self.poller.peer_word(first.link, GROUP, PHASE))
    }

    fn say(&mut self, phase: u64) {
        self.poller.set_word(GROUP, PHASE, phase);
        self.poller.flush(clock::now());
    }

    fn ping_for(&mut self, span: Duration) -> Result<(), Box<dyn Error>> {
        let end = clock::now() + span;
        self.ping_until(false, Some(end), |_| clock::now() >= end)
    }

    /// Pings and answers until `enough`, sleeping no longer than `until`. What is both sent and answered while it
    /// `counts` is recorded.
    fn ping_until(
        &mut self,
        counts: bool,
        until: Option<Time>,
        enough: impl Fn(&Node) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        self.counts = false;
        while !enough(self) {
            let now = clock::now();
            self.poller.poll(now);
            while let Some(event) = self.poller.poll_event() {
                if let Event::Dead { evidence, .. } = event {
                    return Err(format!("a link died: {evidence}").into());
                }
            }
            let mut moved = false;
            for other in 0..self.others.len() {
                moved |= self.listen(other)?;
            }
            if self.awaited == 0 {
                self.ping(counts);
            }
            for writer in &mut self.writers {
                moved |= writer.send_due(&mut self.poller, &mut self.payload)?;
            }
            self.poller.flush(now);
            if !moved {
                self.poller.park(now, until, &mut || false);
            }
        }
        Ok(())
    }

    /// The next message to all.
    fn ping(&mut self, counts: bool) {
        self.others.iter_mut().for_each(|other| other.answered = false);
        self.awaited = self.others.len();
        self.pings += 1;
        self.counts = counts;
        self.sent = clock::now();
        self.due(GROUP, 0);
    }

    /// A message for that one, or in the lane for all for everybody, is to be sent.
    fn due(&mut self, lane: LaneId, whom: u16) {
        self.writers[lane.index() - GROUP.index()].due.push_back(u64::from(whom));
    }

    /// Takes what that one has sent. True if there was something.
    fn listen(&mut self, at: usize) -> Result<bool, Box<dyn Error>> {
        let other = &mut self.others[at];
        let (number, before) = (other.number, other.taken);
        while other.messages.take(&mut self.poller)?.is_some() {
            other.taken += 1;
        }
        let mut answered = false;
        while let Some(whom) = other.answers.take(&mut self.poller)? {
            answered |= whom == u64::from(self.number);
        }
        if self.answer == Answer::Word {
            let word = usize::from(self.number);
            let taken = self.poller.peer_word(other.link, other.answers.lane, word);
            answered = taken >= self.pings;
        }
        let mut moved = other.taken > before;
        if answered && !other.answered {
            other.answered = true;
            self.awaited -= 1;
            self.round_trips += 1;
            if self.counts {
                record(&mut other.round_trips, clock::now().since(self.sent));
            }
            moved = true;
        }
        let taken = other.taken;
        if taken > before {
            let lane = answers_to(number);
            match self.answer {
                Answer::Message => (before..taken).for_each(|_| self.due(lane, number)),
                Answer::Word => self.poller.set_word(lane, usize::from(number), taken),
            }
        }
        Ok(moved)
    }

    /// What it took since the poller had counted that.
    fn told(&self, before: PollerCounters) -> Told {
        let counters = self.poller.counters();
        let recorded = |other: &Other| {
            let each = other.round_trips.iter_recorded();
            each.map(|at| (at.value_iterated_to(), at.count_since_last_iteration())).collect()
        };
        Told {
            pairs: self.others.iter().map(recorded).collect(),
            parks: counters.parks - before.parks,
            yields: counters.yields - before.yields,
            rescues: counters.rescues,
            retransmits: self.poller.each_link().map(|link| link.counters.retransmits).sum(),
        }
    }
}
