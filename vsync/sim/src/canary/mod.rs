//! Planted bugs: the simulator's own examination.
//!
//! A simulator that finds nothing proves nothing, unless it is known to find what is there. So the core carries
//! known traps behind a run-time switch (compiled in for the simulator alone), each one that bit a published
//! system, and each must be caught within a fixed range of seeds, by an invariant that it breaks.

use std::ops::Range;

use quintet_vsync::core::Bug;

use crate::check::{READ_LEASE, REFUSAL};

/// A planted bug, where it must be found, and how it shows.
#[derive(Clone, Debug)]
pub struct Trap {
    /// Its name on the command line.
    pub name: &'static str,
    /// The switch in the core.
    pub bug: Bug,
    /// The seeds within which it must be caught.
    pub seeds: Range<u64>,
    /// The invariants that may catch it.
    pub invariants: &'static [u8],
}

/// All planted bugs.
pub const TABLE: &[Trap] = &[
    Trap {
        name: "forgets-accepted",
        bug: Bug::ForgetsAccepted,
        seeds: 0..60,
        invariants: &[3, 4, 9, 14, 17],
    },
    Trap {
        name: "delivers-unstable",
        bug: Bug::DeliversUnstable,
        seeds: 0..10,
        invariants: &[9, 14, 15, 17],
    },
    Trap { name: "forgets-promise", bug: Bug::ForgetsPromise, seeds: 0..60, invariants: &[3, 4] },
    Trap {
        name: "any-half",
        bug: Bug::AnyHalf,
        seeds: 0..20,
        invariants: &[READ_LEASE, 3, 4, 9, 14, 17],
    },
    Trap {
        name: "null-over-record",
        bug: Bug::NullOverRecord,
        seeds: 0..10,
        invariants: &[5, 8, 11, 13, REFUSAL],
    },
    Trap { name: "no-fence", bug: Bug::NoFence, seeds: 0..60, invariants: &[READ_LEASE, 16] },
    Trap {
        name: "founds-below-owed",
        bug: Bug::FoundsBelowOwed,
        seeds: 100..160,
        invariants: &[19],
    },
    Trap {
        name: "blends-proposals",
        bug: Bug::BlendsProposals,
        seeds: 0..40,
        invariants: &[3, 4, 9, 14, 17],
    },
    Trap {
        name: "torn-proposal",
        bug: Bug::TornProposal,
        seeds: 0..100,
        invariants: &[3, 4, 9, 14, 17, REFUSAL],
    },
    Trap { name: "loses-rest", bug: Bug::LosesRest, seeds: 0..10, invariants: &[8, 9, 11, 13] },
    Trap {
        name: "counts-ahead",
        bug: Bug::CountsAhead,
        seeds: 0..10,
        invariants: &[5, 8, REFUSAL],
    },
    Trap { name: "waits-for-frozen", bug: Bug::WaitsForFrozen, seeds: 0..30, invariants: &[21] },
    Trap {
        name: "reads-on-waking",
        bug: Bug::ReadsOnWaking,
        seeds: 0..20,
        invariants: &[READ_LEASE],
    },
];

/// The switch of that name.
pub fn parse(name: &str) -> Option<Bug> {
    TABLE.iter().find(|t| t.name == name).map(|t| t.bug)
}
