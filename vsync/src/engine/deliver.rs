//! Things on their way to the application.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use quintet_transport::{LogBytes, LogWriter, Member, NodeId, Path, RailStatus};

use super::ring::Descriptor;
use crate::core::{BlockedReason, ViewId};
use crate::event::{Donation, Unresolved, ViewChange};

/// Source number of the own log.
pub(crate) const OWN: u16 = 0;

/// Memory that descriptors point into: the log of one link (or the own one).
///
/// The application's side holds it from the entry that introduces it to the entry that replaces it. Both travel in the
/// order of the descriptors, so the memory outlives every descriptor into it, whatever became of the link.
pub(crate) struct Source {
    pub(crate) member: Member,
    pub(crate) own: bool,
    pub(crate) bytes: LogBytes,
    /// Byte position up to which the application is done with this log; the poller gives it back to the sender.
    pub(crate) consumed: Arc<AtomicU64>,
    /// Wake the poller after this many bytes, so that a sender that waits for room does not wait for a heartbeat.
    pub(crate) wake_every: u64,
}

/// Own messages left over at the end.
pub(crate) struct Remains {
    pub(crate) unresolved: Unresolved,
    /// The own log, and its published end for ever.
    pub(crate) log: LogWriter,
    pub(crate) head: u64,
}

impl Item {
    /// Whether it says of the same what `later` says, which is all that matters then.
    pub(crate) fn is_outdated_by(&self, later: &Item) -> bool {
        match (self, later) {
            (Item::Rail(peer, _), Item::Rail(other, _)) => peer == other,
            (Item::Path(peer, ..), Item::Path(other, ..)) => peer == other,
            _ => false,
        }
    }
}

/// One entry, in the order in which the application sees them.
pub(crate) enum Item {
    /// A message or chunk.
    Descriptor(Descriptor),
    /// From here on `slot` means this memory (`None`: the slot is free).
    Source {
        slot: u16,
        source: Option<Box<Source>>,
    },
    /// See [`Event`](crate::Event).
    View(Arc<ViewChange>),
    Donate(Box<Donation>),
    Blocked(BlockedReason),
    Resumed,
    Rail(NodeId, RailStatus),
    Path(NodeId, Path, Arc<str>),
    /// What became of own messages that are not delivered; comes before the last event.
    Unresolved(Box<Remains>),
    Evicted(ViewId),
    Left,
    Failed(Arc<str>),
}
