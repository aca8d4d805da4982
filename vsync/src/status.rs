//! What a person asks a node: what are you, who is with you, over which path, and what happened.

use std::sync::Arc;
use std::time::Duration;

use quintet_transport::{LinkStatus, Member, Time, UdpStatus};

use crate::core::{BlockedReason, Cause, Departure, View, ViewId};

/// What a node is at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Looking for a group, or for enough nodes to make one.
    Outside,
    /// Receiving the state of the group from a donor.
    Learner,
    /// Member of the view.
    Member,
    /// Member of a view that cannot go on.
    Blocked(BlockedReason),
    /// The group went on without this incarnation.
    Evicted,
    /// Left in good order.
    Left,
    /// Stopped by the application.
    Stopped,
    /// Had to stop.
    Failed(Arc<str>),
}

/// Counters since the start of the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Own messages given an index and published.
    pub sent: u64,
    /// Messages put into the delivery queue.
    pub delivered: u64,
    /// Payload bytes of these.
    pub delivered_bytes: u64,
    /// Indices this node passed over because others had more to send.
    pub nulls: u64,
    /// Views installed.
    pub views: u64,
    /// Times the delivery queue was full.
    pub queue_full: u64,
    /// Turns of the poller.
    pub sweeps: u64,
    /// Times the poller went to sleep.
    pub parks: u64,
    /// Control records sent and received.
    pub control: u64,
    /// Records written durably.
    pub stored: u64,
    /// State transfer bytes sent.
    pub bulk_bytes: u64,
}

/// One line of the view history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewRecord {
    /// Which view.
    pub id: ViewId,
    /// Its members in rank order.
    pub members: Vec<Member>,
    /// Who came.
    pub joined: Vec<Member>,
    /// Who went.
    pub departed: Vec<Departure>,
    /// Why, in a line.
    pub cause: Cause,
    /// When it was installed here.
    pub installed_at: Time,
    /// From the evidence to the wedge, when both were seen here.
    pub evidence_to_wedge: Option<Duration>,
    /// From the wedge to the install, when both were seen here.
    pub wedge_to_install: Option<Duration>,
    /// From the evidence to the install.
    pub evidence_to_install: Option<Duration>,
}

/// A snapshot for people and for the manager. Asking is cheap and never blocks; the answer is as of the last event, or
/// of the poller's last turn after somebody asked ([`Status::at`] says when).
#[derive(Debug, Clone)]
pub struct Status {
    /// When this snapshot was made.
    pub at: Time,
    /// This node and incarnation.
    pub me: Member,
    /// What it is.
    pub state: State,
    /// The view installed last, if any.
    pub view: Option<Arc<View>>,
    /// Links: peer, path and why that path, round-trip time, counters.
    pub links: Vec<LinkStatus>,
    /// How the poller parks: in io_uring or in ppoll, and why.
    pub parking: String,
    /// By which calls packets of UDP pass the kernel, where there is UDP.
    pub udp: Option<UdpStatus>,
    /// Counters.
    pub counters: Counters,
    /// The latest views, oldest first, at most [`HISTORY`].
    pub history: Vec<ViewRecord>,
}

/// Views kept in [`Status::history`].
pub const HISTORY: usize = 64;
