//! What a core is told at its start: who it is, how patient to be, what its record says.

use std::time::Duration;

use quintet_transport::{Member, NodeId};

use super::view::{Durable, Position};

/// What a core must know from the start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// This run of this node.
    pub me: Member,
    /// The configured nodes; the same list everywhere.
    pub nodes: Vec<NodeId>,
    /// How long a confirmed sign of life lets a member answer reads. Longer than a few heartbeats, shorter than
    /// people notice: removal of a member that may be alive waits it out.
    pub lease: Duration,
    /// How long to wait for another's view change before taking it over. Must exceed a lease plus a few
    /// round trips and disk writes; deaths do not wait for it.
    pub takeover: Duration,
    /// How long nodes that all stand outside wait for the rest, once a quorum of them is connected.
    pub settle: Duration,
    /// Pause between repeated requests (joins, attempts that found no quorum).
    pub retry: Duration,
    /// How long a loaded learner waits for others that are loading, to join in the same view change.
    pub batch: Duration,
    /// Most records of one sender that are not yet delivered by everybody.
    pub queue: usize,
    /// Seed of the pauses drawn after a collision of proposers.
    pub entropy: u64,
    /// Whether the node's record survives a restart. Without (memory store), a restarted node has forgotten its
    /// promises, so it does not vote before it is a member again, and the first view needs all nodes.
    pub durable: bool,
    /// A planted bug, for the simulator to find.
    #[cfg(feature = "canary")]
    pub bug: Option<Bug>,
}

impl Config {
    /// Defaults for `me` in a cluster of `nodes`.
    pub fn new(me: Member, nodes: Vec<NodeId>) -> Config {
        Config {
            me,
            nodes,
            lease: Duration::from_millis(50),
            takeover: Duration::from_millis(300),
            settle: Duration::from_millis(500),
            retry: Duration::from_millis(200),
            batch: Duration::from_millis(100),
            queue: 4096,
            entropy: 0,
            durable: true,
            #[cfg(feature = "canary")]
            bug: None,
        }
    }
}

/// Planted bugs: each is a known trap of published systems. For the simulator only: a [`Config`] can hold one
/// only under the feature `canary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A new coordinator ignores the values its predecessor got accepted, and computes its own trim.
    ForgetsAccepted,
    /// Messages are delivered when received here, not when received by all.
    DeliversUnstable,
    /// A restarted acceptor has forgotten what it promised and accepted.
    ForgetsPromise,
    /// Any half of a view may decide, with or without the tie-breaker.
    AnyHalf,
    /// Nulls are published over an index that a record is about to take.
    NullOverRecord,
    /// A member is removed without being fenced, and without waiting for its read lease.
    NoFence,
    /// A restart goes on from the longest state there is, whether it reaches what is owed or not.
    FoundsBelowOwed,
    /// Votes for several proposals of a view are counted as if they were for one.
    BlendsProposals,
    /// Of a proposal that replaces another, half is still that of the other.
    TornProposal,
    /// What others had published beyond the trim is gone in the next view.
    LosesRest,
    /// NEXT counts a message before it is in the log.
    CountsAhead,
    /// A proposer waits for members that say nothing and may be alive.
    WaitsForFrozen,
    /// Reads are answered without a look at who confirmed to have heard from us.
    ReadsOnWaking,
}

/// What a node finds when it starts.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Its durable record; [`Durable::configured`] if it has none.
    pub durable: Durable,
    /// The position up to which the application recovered its state (everything before it is applied).
    pub state: Position,
}
