//! What the application is told, in one order.
//!
//! ```text
//! member:   View  Message*  View  Message* ...                     (every member that goes from one view to the next
//!                                                                   sees the same messages in between)
//! learner:  Chunk*  View(joined me)  Message* ...
//! donor:    Donate  Message*  View(joined: the learner) -> writer.finish(view)
//! ```
//! `Blocked`, `Resumed`, `Rail` and `Path` may come anywhere between. `Evicted`, `Left` and `Failed` are the last event of a node.

use std::sync::Arc;

use std::fmt;

use quintet_transport::{LogBytes, Member, NodeId, Path, RailStatus, Time};

use crate::core::{BlockedReason, Cause, Position, View, ViewId};
use crate::donation::BulkWriter;

/// Identity of a message among those of its sender's incarnation: its byte position in the sender's log. Stays the same
/// when the message is sent again in a later view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// A new view, and how it came about.
#[derive(Debug, Clone)]
pub struct ViewChange {
    /// The view: members, who joined, who departed and why.
    pub view: Arc<View>,
    /// What made it, in words.
    pub cause: Cause,
    /// When this node (or the peer it heard it from) saw the evidence that started the change, if evidence did.
    pub evidence_at: Option<Time>,
    /// When this node stopped delivering in the view before, if it was a member of it.
    pub wedged_at: Option<Time>,
    /// When this node installed the view.
    pub installed_at: Time,
    /// Own messages, in order, that were published in the view before, were not delivered in it, and go on in this one
    /// with the same ids.
    pub resent: Vec<MessageId>,
}

/// Own messages of an incarnation that is over which its application did not get, each in one list, in the order of
/// their ids. Every message in `indeterminate` was sent before every message in `not_delivered`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unresolved {
    /// Published: the group may have delivered them, or may yet. The state with which the next incarnation joins tells.
    pub indeterminate: Vec<MessageId>,
    /// No member has delivered or will deliver them.
    pub not_delivered: Vec<MessageId>,
}

/// One message of the total order.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// Place in the total order; grows with every message of the group, across views.
    pub at: Position,
    /// Who sent it.
    pub sender: Member,
    /// Its identity at the sender.
    pub id: MessageId,
    /// Sent by this incarnation of this node.
    pub own: bool,
    /// Its bytes, where the sender's bytes landed: no copy was made. Valid until the next call on
    /// [`Deliveries`](crate::Deliveries).
    pub bytes: &'a [u8],
    pub(crate) log: &'a LogBytes,
}

impl Message<'_> {
    /// Are the bytes still the message? False only after this node slept until the group went on without it, and the
    /// sender, in shared memory, began to reuse the place. Ask *after* using bytes of which a wrong copy would do
    /// harm that outlives this incarnation, such as an entry of a journal.
    pub fn intact(&self) -> bool {
        self.log.intact(self.id.0)
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("at", &self.at)
            .field("sender", &self.sender)
            .field("id", &self.id)
            .field("own", &self.own)
            .field("len", &self.bytes.len())
            .finish()
    }
}

/// A request to send this node's state to a learner.
///
/// Take a snapshot at the position applied last, write it, then write every message delivered later (the tail); when a
/// [`Event::View`] names the learner in `joined`, call [`BulkWriter::finish`] with that view.
#[derive(Debug)]
pub struct Donation {
    /// Who wants to join.
    pub learner: Member,
    /// Where to write. Send it to a thread of its own: its calls block.
    pub writer: BulkWriter,
}

/// One event of a node.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A view was installed. Everything delivered before belongs to the view before.
    View(Arc<ViewChange>),
    /// The next message of the total order.
    Message(Message<'a>),
    /// Be the donor of a learner.
    Donate(Donation),
    /// At a learner: the next bytes of the donor's state, in order. When the application has loaded what the donor
    /// wrote as a snapshot, it calls [`Group::ready`](crate::Group::ready).
    Chunk(&'a [u8]),
    /// No quorum can be reached: nothing is delivered until [`Event::Resumed`]. Refuse writes and reads meanwhile.
    Blocked(BlockedReason),
    /// A quorum is there again.
    Resumed,
    /// Packets to that node take another of several networks. Nothing else changes.
    Rail {
        /// The other node.
        peer: NodeId,
        /// Which network, and why.
        rail: RailStatus,
    },
    /// The link to that node goes by another path. Nothing else changes.
    Path {
        /// The other node.
        peer: NodeId,
        /// What carries it.
        path: Path,
        /// Why.
        reason: Arc<str>,
    },
    /// This incarnation is over: the group went on without it in this view. Start a new [`Node`](crate::Node).
    Evicted(ViewId),
    /// The hand-over asked for by [`Node::leave`](crate::Node::leave) is complete.
    Left,
    /// The node had to stop, for instance because its record could not be written.
    Failed(Arc<str>),
}
