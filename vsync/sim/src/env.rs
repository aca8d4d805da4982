//! What surrounds the processes: virtual time, the heap of events, the network, the disks, the checkers.
//!
//! One thread, one heap ordered by (time, sequence): nothing else ever loops. A process gets `&mut Env` for the
//! length of its turn and can do nothing but look at the time, schedule events and tell the checkers.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;

use quintet_transport::{Member, Time};
use quintet_vsync::core::Position;

use crate::app::Journal;
use crate::canary::Plant;
use crate::check::{Boot, Checks};
use crate::entropy::{Concern, Tape};
use crate::fabric::Fabric;
use crate::link::Body;
use crate::plan::{Fault, Plan};
use crate::store::Disk;
use crate::trace::Trace;

/// A packet on its way.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Who sent it.
    pub from: Member,
    /// The sending process.
    pub from_boot: Boot,
    /// The node it goes to.
    pub to: u16,
    /// The session it belongs to.
    pub session: u64,
    /// What it says.
    pub body: Body,
}

/// Something that waits at a process's door until its next turn.
#[derive(Clone, Debug)]
pub enum Input {
    /// A packet.
    Packet(Packet),
    /// The disk has the record with this ticket.
    Stored(u64),
    /// The journal's first entries are on disk.
    Synced(usize),
    /// The host says that the peer of this session is gone.
    Gone(u64),
    /// The failure detector errs about the peer of this session.
    Doubt(u64),
    /// A read that was done a while ago passes its lease check now.
    CheckRead {
        /// What was complete when it began.
        floor: u64,
        /// The state it saw.
        applied: u64,
    },
    /// The operator asks the node to leave.
    Leave,
    /// The operator gives up what is owed, up to there.
    Recover(Position),
}

/// What the world must do to a node, beyond what the environment can do itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Crash the node; it restarts after so long.
    Crash(u16, u64),
    /// The node loses its power for so long, and that many entries of its journal.
    Power(u16, u64, usize),
    /// The node's process stops until then.
    Pause(u16, u64),
    /// An input for the node's process, if it runs.
    Leave(u16),
    /// The failure detector of the first errs about the second.
    Doubt(u16, u16),
}

/// An event of the heap.
#[derive(Clone, Debug)]
pub enum Event {
    /// A process may take a turn.
    Turn(Boot),
    /// A packet is before the receiver's door.
    Packet(Box<Packet>),
    /// Something for a process.
    Input(Boot, Box<Input>),
    /// A node starts again.
    Restart(u16),
    /// A fault class acts.
    Fault(Fault),
    /// A later part of what a fault class does.
    Deed(Deed),
    /// The faults end.
    Heal,
    /// The nodes outside the healed core go, for good.
    Retire,
    /// Is everything as it should be?
    Judge,
}

#[derive(Debug)]
struct Entry {
    at: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.sequence == other.sequence
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// A node's clock: monotonic, with its own zero, rate and leaps.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset: u64,
    /// Parts per million it runs fast.
    ppm: i64,
}

impl Clock {
    /// A clock that showed `offset` at time zero.
    pub fn new(offset: u64, ppm: i64) -> Clock {
        Clock { offset, ppm }
    }

    /// What it shows at true time `now`.
    pub fn show(&self, now: u64) -> u64 {
        let gain = i128::from(now) * i128::from(self.ppm) / 1_000_000;
        (i128::from(self.offset) + i128::from(now) + gain) as u64
    }

    /// The first true time at which it shows `local` or more.
    pub fn when(&self, local: u64) -> u64 {
        let span = i128::from(local.saturating_sub(self.offset));
        let mut at = (span * 1_000_000 / i128::from(1_000_000 + self.ppm)) as u64;
        while self.show(at) < local {
            at += 1;
        }
        at
    }

    /// Leaps forward.
    pub fn step(&mut self, by: u64) {
        self.offset += by;
    }
}

/// A configured node: what outlives its processes.
#[derive(Debug)]
pub struct Seat {
    /// Its number.
    pub node: u16,
    /// Protocol records on disk.
    pub disk: Disk,
    /// The application's journal on disk.
    pub journal: Journal,
    /// Its running process.
    pub boot: Option<Boot>,
    /// The last incarnation used.
    pub incarnation: u64,
    /// Its clock.
    pub clock: Clock,
    /// It takes turns rarely until then.
    pub slow_until: u64,
    /// It is not to run again (second phase, nodes outside the healed core).
    pub retired: bool,
}

/// Tapes of everything that is neither network nor fault schedule.
#[derive(Debug)]
pub struct Tapes {
    /// Turns.
    pub turn: Tape,
    /// The application's doings.
    pub work: Tape,
    /// Disks.
    pub store: Tape,
    /// State transfer.
    pub transfer: Tape,
    /// Crashes aimed at view changes.
    pub aimed: Tape,
    /// What a crash destroys, who sees it.
    pub crash: Tape,
    /// Core entropy.
    pub core: Tape,
}

/// Counters of a run.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// How often each fault acted.
    pub faults: BTreeMap<Fault, u64>,
    /// Events taken from the heap.
    pub events: u64,
    /// Processes started.
    pub boots: u64,
    /// Joiners whose transfer was completed.
    pub transfers: u64,
    /// Times an operator gave up what was owed.
    pub recovered: u64,
    /// Malformed control records seen by a core.
    pub malformed: u64,
}

/// Everything but the processes.
#[derive(Debug)]
pub struct Env {
    /// True time, nanoseconds.
    pub now: u64,
    heap: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
    /// What this seed does.
    pub plan: Plan,
    /// The network.
    pub fabric: Fabric,
    /// The invariants.
    pub checks: Checks,
    /// The trace.
    pub trace: Trace,
    /// Entropy.
    pub tapes: Tapes,
    /// The nodes, by number less one.
    pub seats: Vec<Seat>,
    /// Counters.
    pub stats: Stats,
    /// The faults have ended.
    pub healed: bool,
    /// Applications send nothing new.
    pub quiet: bool,
    /// A process that must crash as soon as its turn ends.
    pub doomed: Option<Boot>,
    /// The planted bug that is switched on.
    pub bug: Option<Plant>,
    sessions: u64,
}

impl Env {
    /// The surroundings of a plan.
    pub fn new(plan: Plan, trace: Trace) -> Env {
        let tape = |concern| Tape::new(plan.seed, concern, 1, u64::MAX);
        let fault = |concern| Tape::new(plan.seed, concern, 1, plan.tape);
        let tapes = Tapes {
            turn: tape(Concern::Turn),
            work: tape(Concern::Work),
            store: tape(Concern::Store),
            transfer: tape(Concern::Transfer),
            aimed: fault(Concern::Aimed),
            crash: tape(Concern::Crash),
            core: tape(Concern::Core),
        };
        let mut clocks = Tape::new(plan.seed, Concern::Clock, 0, plan.tape);
        let drift = [0, 20, 100, 500][plan.strength(Fault::Drift) as usize];
        let seats = (1..=plan.nodes)
            .map(|node| {
                let offset = 1_000_000_000 + clocks.below(1 << 40);
                let ppm = clocks.range(0, 2 * drift) as i64 - drift as i64;
                Seat {
                    node,
                    disk: Disk::default(),
                    journal: Journal::default(),
                    boot: None,
                    incarnation: 0,
                    clock: Clock::new(offset, ppm),
                    slow_until: 0,
                    retired: false,
                }
            })
            .collect();
        Env {
            now: 0,
            heap: BinaryHeap::new(),
            sequence: 0,
            fabric: Fabric::new(&plan),
            plan,
            checks: Checks::default(),
            trace,
            tapes,
            seats,
            stats: Stats::default(),
            healed: false,
            quiet: false,
            doomed: None,
            bug: None,
            sessions: 0,
        }
    }

    /// Puts an event on the heap.
    pub fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse(Entry { at: at.max(self.now), sequence: self.sequence, event }));
    }

    /// Takes the next event; virtual time moves to it.
    pub fn advance(&mut self) -> Option<Event> {
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        self.stats.events += 1;
        Some(entry.event)
    }

    /// A new session number.
    pub fn session(&mut self) -> u64 {
        self.sessions += 1;
        self.sessions
    }

    /// The seat of a node.
    pub fn seat(&mut self, node: u16) -> &mut Seat {
        &mut self.seats[usize::from(node) - 1]
    }

    /// What a node's clock shows now.
    pub fn local(&self, node: u16) -> Time {
        Time::from_nanos(self.seats[usize::from(node) - 1].clock.show(self.now))
    }

    /// Sends a packet into the network.
    pub fn send(&mut self, mut packet: Packet) {
        if let Body::Datagram(bytes) = &mut packet.body {
            let [once, again] = self.fabric.carry(self.now, bytes);
            if let Some(at) = again {
                self.schedule(at, Event::Packet(Box::new(packet.clone())));
            }
            if let Some(at) = once {
                self.schedule(at, Event::Packet(Box::new(packet)));
            }
            return;
        }
        let at = self.fabric.send(self.now);
        self.schedule(at, Event::Packet(Box::new(packet)));
    }

    /// Counts an act of a fault class and traces it.
    pub fn acted(&mut self, fault: Fault, text: std::fmt::Arguments<'_>) {
        *self.stats.faults.entry(fault).or_insert(0) += 1;
        self.trace.step(
            self.now,
            [100 + fault as u64, 0, 0, 0],
            format_args!("~~ {}: {text}", fault.name()),
        );
    }
}
