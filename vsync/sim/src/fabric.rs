//! The network between the nodes: how long a packet takes, which directions are cut, which are clogged.
//!
//! Nothing is ever lost for good while a link lives: a real transport repeats. So loss shows as a delay of one or
//! more retransmission times, a cut direction holds packets back until it is open again (or until the link is dead,
//! which is what usually happens first), and a bare heartbeat that meets a cut is simply gone.
//!
//! Datagrams have it as bad as on a real network: they are lost, repeated, overtaken and damaged, and a cut swallows
//! them.

use crate::entropy::{Concern, Tape};
use crate::plan::{Fault, MS, Plan, US};

/// State of all directions.
#[derive(Debug)]
pub struct Fabric {
    nodes: usize,
    cut: Vec<u64>,
    clog: Vec<u64>,
    calm: bool,
    delay: Tape,
    loss: Tape,
    reorder: Tape,
    fair: u64,
    spikes: u64,
    losses: u64,
    splits: u64,
    datagrams: Datagrams,
}

/// How datagrams fare, in probabilities of a million, and how many have.
#[derive(Debug)]
struct Datagrams {
    tape: Tape,
    lost: u64,
    overtaken: u64,
    repeated: u64,
    damaged: u64,
    count: Fates,
}

/// How datagrams fared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fates {
    /// Sent.
    pub sent: u64,
    /// Lost, not counting those that met a cut.
    pub lost: u64,
    /// Arrived twice.
    pub repeated: u64,
    /// Arrived with a wrong bit.
    pub damaged: u64,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives then.
    At(u64),
    /// It never does.
    Gone,
}

impl Fabric {
    /// The network of a plan.
    pub fn new(plan: &Plan) -> Fabric {
        let nodes = usize::from(plan.nodes) + 1;
        let tape = |concern| Tape::new(plan.seed, concern, 0, plan.tape);
        Fabric {
            nodes,
            cut: vec![0; nodes * nodes],
            clog: vec![0; nodes * nodes],
            calm: false,
            delay: Tape::new(plan.seed, Concern::Delay, 0, u64::MAX),
            loss: tape(Concern::Loss),
            reorder: tape(Concern::Reorder),
            fair: plan.fair_delay,
            spikes: [0, 2_000, 20_000, 100_000][plan.strength(Fault::Delay) as usize],
            losses: [0, 1_000, 10_000, 60_000][plan.strength(Fault::Loss) as usize],
            splits: [0, 100_000, 300_000, 700_000][plan.strength(Fault::Reorder) as usize],
            datagrams: Datagrams {
                tape: tape(Concern::Datagram),
                lost: [0, 10_000, 100_000, 300_000][plan.strength(Fault::Loss) as usize],
                overtaken: [0, 10_000, 100_000, 300_000][plan.strength(Fault::Reorder) as usize],
                repeated: [0, 5_000, 50_000, 200_000][plan.strength(Fault::Duplicate) as usize],
                damaged: [0, 1_000, 10_000, 50_000][plan.strength(Fault::Corrupt) as usize],
                count: Fates::default(),
            },
        }
    }

    /// Cuts or clogs the direction until then.
    pub fn block(&mut self, from: u16, to: u16, until: u64, clog: bool) {
        let at = usize::from(from) * self.nodes + usize::from(to);
        let list = if clog { &mut self.clog } else { &mut self.cut };
        list[at] = list[at].max(until);
    }

    /// Ends all trouble, for good.
    pub fn heal(&mut self) {
        self.cut.fill(0);
        self.clog.fill(0);
        self.calm = true;
    }

    /// Is the direction cut now?
    pub fn is_cut(&self, from: u16, to: u16, now: u64) -> bool {
        self.cut[usize::from(from) * self.nodes + usize::from(to)] > now
    }

    /// Should this flush travel in parts?
    pub fn splits(&mut self) -> bool {
        !self.calm && self.reorder.chance(self.splits)
    }

    /// A packet is sent now.
    pub fn send(&mut self, now: u64) -> u64 {
        let mut delay = self.delay.range(5 * US, self.fair);
        if !self.calm {
            if self.delay.chance(self.spikes) {
                delay += self.delay.tail(0, 60 * MS);
            }
            while self.loss.chance(self.losses) {
                delay += self.loss.range(2 * MS, 25 * MS);
            }
        }
        now + delay
    }

    /// A datagram is sent now: when it arrives, if it does, and perhaps once more. Its bits may flip on the way.
    pub fn carry(&mut self, now: u64, bytes: &mut [u8]) -> [Option<u64>; 2] {
        let Fabric { calm, delay, fair, spikes, datagrams, .. } = self;
        let Datagrams { tape, count, .. } = datagrams;
        count.sent += 1;
        let mut at = now + delay.range(5 * US, *fair);
        if *calm {
            return [Some(at), None];
        }
        if delay.chance(*spikes) {
            at += delay.tail(0, 60 * MS);
        }
        if tape.chance(datagrams.overtaken) {
            at += tape.tail(10 * US, 5 * MS);
        }
        if tape.chance(datagrams.lost) {
            count.lost += 1;
            return [None, None];
        }
        if tape.chance(datagrams.damaged) {
            count.damaged += 1;
            let bit = tape.below(bytes.len() as u64 * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        let again = tape.chance(datagrams.repeated);
        count.repeated += u64::from(again);
        [Some(at), again.then(|| at + tape.tail(US, 20 * MS))]
    }

    /// How datagrams fared so far.
    pub fn fates(&self) -> Fates {
        self.datagrams.count
    }

    /// A packet stands before the receiver's door: does it come in, later, or never?
    pub fn arrive(&mut self, from: u16, to: u16, now: u64, bare: bool) -> Fate {
        let at = usize::from(from) * self.nodes + usize::from(to);
        if self.cut[at] > now {
            if bare {
                return Fate::Gone;
            }
            return Fate::At(self.cut[at] + self.delay.range(10 * US, 20 * MS));
        }
        if self.clog[at] > now {
            return Fate::At(self.clog[at] + self.delay.range(0, 200 * US));
        }
        Fate::At(now)
    }
}
