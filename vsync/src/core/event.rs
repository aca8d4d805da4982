//! What goes in and out of a core on each side: rows, records, deliveries, events, and why nothing comes.

use std::fmt;
use std::sync::Arc;

use quintet_transport::{Member, NodeId, Time};

use super::view::{Cause, Position, Rank, Shortfall, View, ViewId};

/// Words of a row on the GROUP lane: each is written by its owner alone and only grows.
pub mod word {
    /// Next own index: every index below is a published record or a null. Absolute, never reset.
    pub const NEXT: usize = 0;
    /// [`Position`](super::Position): everything before it is received.
    pub const RECEIVED: usize = 1;
    /// [`Position`](super::Position): everything before it is delivered.
    pub const DELIVERED: usize = 2;
    /// [`Position`](super::Position): everything before it is durable, says the application.
    pub const PERSISTED: usize = 3;
    /// Words in a row.
    pub const COUNT: usize = 4;
}

/// A member's words on the GROUP lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// See [`word::NEXT`].
    pub next: u64,
    /// See [`word::RECEIVED`].
    pub received: Position,
    /// See [`word::DELIVERED`].
    pub delivered: Position,
    /// See [`word::PERSISTED`].
    pub persisted: Position,
}

/// A published record of a GROUP log: where it is, not what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The sender's index, stamped into the record when it was published.
    pub index: u64,
    /// Byte position in the sender's log.
    pub position: u64,
    /// Byte position of the end: where the next record may begin.
    pub end: u64,
    /// Payload bytes.
    pub len: u32,
}

/// A message whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its place in the total order.
    pub at: Position,
    /// Its sender's rank in the current view.
    pub rank: Rank,
    /// Its record.
    pub record: Record,
}

/// What happened to this node's membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A view was installed; this node is a member of it. Close links to `view.departed` and refuse those
    /// incarnations (but leave alone who merely [left](super::Why::Left): it goes by itself).
    View {
        /// The view.
        view: Arc<View>,
        /// What made it.
        cause: Cause,
        /// When this node first knew that the view before had to change.
        evidence_at: Option<Time>,
        /// When this node wedged the view before.
        wedged_at: Option<Time>,
    },
    /// The group cannot go on as far as this node can see. Comes again when who is missing changes.
    Blocked(BlockedReason),
    /// It can again.
    Resumed,
    /// Others went on without this incarnation, in this view or a later one. It is over: nothing more is
    /// delivered, reads must not be answered; the node has to come back as a new incarnation. Comes after the record
    /// of that view is durable: keep storing until then.
    Evicted(ViewId),
    /// The node left, as it asked. It may go.
    Left,
    /// This node is to send its state to `learner`: snapshot, then everything delivered after it, until a
    /// view joins the learner.
    Donate {
        /// Who asks.
        learner: Member,
    },
    /// This node is a learner and `donor` will send the state (BULK lane).
    Load {
        /// Who sends.
        donor: Member,
    },
    /// Close every link to this member, also one that is just coming up, then answer with
    /// [`Core::handle_heard`](super::Core::handle_heard): nothing it sends may be confirmed any more. Do not refuse it for good.
    Fence(Member),
    /// Begin to read `peer`'s GROUP log at this byte.
    Open {
        /// Whose.
        peer: Member,
        /// From where.
        log_position: u64,
    },
    /// Begin to send the own GROUP lane to `peer`, log from this byte, with the current words.
    Attach {
        /// To whom.
        peer: Member,
        /// From where.
        log_position: u64,
    },
}

/// Why the group cannot go on, as far as this node can see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlockedReason {
    /// The last agreed view it knows of.
    pub view: ViewId,
    /// Whether this node is a member of it (else it waits outside).
    pub member: bool,
    /// Nodes of that view it is connected with, itself included if it is one of them.
    pub present: Vec<NodeId>,
    /// Nodes of that view that are missing; with `owed`, all configured nodes that are, for any may have the state.
    pub missing: Vec<NodeId>,
    /// Nodes that are connected but have lost their records and may not vote.
    pub forgetful: Vec<NodeId>,
    /// A quorum is present, but no state that reaches what may have been acknowledged. Somebody who has it must come
    /// back, or an operator give it up ([`Core::recover`](super::Core::recover)).
    pub owed: Option<Shortfall>,
}

impl fmt::Display for BlockedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |nodes: &[NodeId]| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ");
        let n = self.present.len() + self.missing.len() + self.forgetful.len();
        match self.owed {
            None => write!(f, "no quorum of view {}: ", self.view)?,
            Some(short) => write!(f, "state that was acknowledged is not here: {short}; ")?,
        }
        write!(f, "{} of {n} nodes present", self.present.len())?;
        if !self.present.is_empty() {
            write!(f, " ({})", list(&self.present))?;
        }
        if !self.missing.is_empty() {
            write!(f, "; missing {}", list(&self.missing))?;
        }
        if !self.forgetful.is_empty() {
            write!(f, "; restarted without their records {}", list(&self.forgetful))?;
        }
        if self.owed.is_some() {
            f.write_str("; start whoever has it, or have an operator give it up")?;
        }
        Ok(())
    }
}

/// A control record or a row that no correct peer would send. The link it came on cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Where this incarnation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not in the group.
    Outside,
    /// Receiving state from a donor.
    Learner,
    /// In the current view.
    Member,
    /// Over: evicted or left.
    Gone,
}
