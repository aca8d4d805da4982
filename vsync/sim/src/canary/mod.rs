//! Planted bugs: the simulator's own examination.
//!
//! A simulator that finds nothing proves nothing, unless it is known to find what is there. So the cores
//! carry known traps behind a run-time switch (compiled in for the simulator alone), each one that bit a published
//! system, and each must be caught within a fixed range of seeds, by an invariant that it breaks.

use std::ops::Range;

use quintet_transport::reliable;
use quintet_vsync::core::Bug;

use crate::check::{READ_LEASE, REFUSAL};

/// A switch in one of the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// In the virtual-synchrony core.
    Order(Bug),
    /// In the packet core; its seeds run with links that carry packets.
    Packets(reliable::Bug),
}
use Plant::{Order, Packets};

/// A planted bug, where it must be found, and how it shows.
#[derive(Clone, Debug)]
pub struct Trap {
    /// Its name on the command line.
    pub name: &'static str,
    /// The switch in a core.
    pub plant: Plant,
    /// The seeds within which it must be caught.
    pub seeds: Range<u64>,
    /// The invariants that may catch it.
    pub invariants: &'static [u8],
}

/// All planted bugs.
pub const TABLE: &[Trap] = &[
    Trap {
        name: "forgets-accepted",
        plant: Order(Bug::ForgetsAccepted),
        seeds: 0..60,
        invariants: &[3, 4, 9, 14, 17],
    },
    Trap {
        name: "delivers-unstable",
        plant: Order(Bug::DeliversUnstable),
        seeds: 0..10,
        invariants: &[9, 14, 15, 17],
    },
    Trap {
        name: "forgets-promise",
        plant: Order(Bug::ForgetsPromise),
        seeds: 0..60,
        invariants: &[3, 4],
    },
    Trap {
        name: "any-half",
        plant: Order(Bug::AnyHalf),
        seeds: 0..20,
        invariants: &[READ_LEASE, 3, 4, 9, 14, 17],
    },
    Trap {
        name: "null-over-record",
        plant: Order(Bug::NullOverRecord),
        seeds: 0..10,
        invariants: &[5, 8, 11, 13, REFUSAL],
    },
    Trap {
        name: "no-fence",
        plant: Order(Bug::NoFence),
        seeds: 0..60,
        invariants: &[READ_LEASE, 16],
    },
    Trap {
        name: "founds-below-owed",
        plant: Order(Bug::FoundsBelowOwed),
        seeds: 100..160,
        invariants: &[19],
    },
    Trap {
        name: "blends-proposals",
        plant: Order(Bug::BlendsProposals),
        seeds: 0..40,
        invariants: &[3, 4, 9, 14, 17],
    },
    Trap {
        name: "torn-proposal",
        plant: Order(Bug::TornProposal),
        seeds: 150..200,
        invariants: &[3, 4, 9, 14, 17, REFUSAL],
    },
    Trap {
        name: "loses-rest",
        plant: Order(Bug::LosesRest),
        seeds: 0..10,
        invariants: &[8, 9, 11, 13],
    },
    Trap {
        name: "counts-ahead",
        plant: Order(Bug::CountsAhead),
        seeds: 0..10,
        invariants: &[5, 8, REFUSAL],
    },
    Trap {
        name: "waits-for-frozen",
        plant: Order(Bug::WaitsForFrozen),
        seeds: 0..30,
        invariants: &[21],
    },
    Trap {
        name: "reads-on-waking",
        plant: Order(Bug::ReadsOnWaking),
        seeds: 0..20,
        invariants: &[READ_LEASE],
    },
    Trap {
        name: "word-overtakes-log",
        plant: Packets(reliable::Bug::WordOvertakesLog),
        seeds: 0..20,
        invariants: &[5, 8, 15, REFUSAL],
    },
    Trap {
        name: "forgets-lost",
        plant: Packets(reliable::Bug::ForgetsLost),
        seeds: 0..20,
        invariants: &[21],
    },
    Trap {
        name: "confirms-heard",
        plant: Packets(reliable::Bug::ConfirmsHeard),
        seeds: 40..70,
        invariants: &[READ_LEASE],
    },
];

/// The switch of that name.
pub fn parse(name: &str) -> Option<Plant> {
    TABLE.iter().find(|t| t.name == name).map(|t| t.plant)
}
