//! The network between the nodes: how long a packet takes, which directions are cut, which are clogged.
//!
//! Nothing is ever lost for good while a link lives: a real transport repeats. So loss shows as a delay of one or
//! more retransmission times, a cut direction holds packets back until it is open again (or until the link is dead,
//! which is what usually happens first), and a bare heartbeat that meets a cut is simply gone.

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
