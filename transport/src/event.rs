//! What a poller reports upwards, and what it knows of its links.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{LinkId, Member, NodeId};
use crate::time::Time;

/// What carries a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// The peer's memory, mapped.
    Shm,
    /// Packets.
    Udp,
    /// Remote writes of an adapter.
    Verbs,
}

/// What a link was declared dead for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Evidence {
    /// The kernel says that the process is gone. Certain.
    ProcessExited,
    /// ICMP says that nobody receives there, and probes went unanswered.
    PortUnreachable,
    /// Nothing was heard for [`Timing::dead`](crate::Timing::dead) and what a lack of processors excused; own stalls
    /// are not counted.
    HeartbeatMissed,
    /// The peer closed the link (it fenced us, or its poller was dropped).
    ClosedByPeer,
    /// A later run of the same node said hello. Certain.
    Restarted,
    /// We closed it ourselves ([`Poller::close`](crate::Poller::close)).
    Fenced,
    /// What the peer sent or wrote breaks the format.
    Malformed,
    /// The queue pair failed, and either the peer does not answer, or no other one came up, or too many have failed.
    PathBroken,
}

impl Evidence {
    /// True if the incarnation can't possibly act any more.
    pub const fn certain(self) -> bool {
        matches!(self, Evidence::ProcessExited | Evidence::Restarted)
    }
}

/// Something happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link came up.
    Up {
        /// The new link.
        link: LinkId,
        /// Who is at the other end.
        peer: Member,
        /// What carries it.
        path: Path,
        /// Where in the peer's CONTROL log reading starts: all that it publishes from here on is seen.
        control_from: u64,
    },
    /// The peer is silent for longer than it should be.
    Suspected {
        /// The link.
        link: LinkId,
    },
    /// A suspected peer was heard again.
    Trusted {
        /// The link.
        link: LinkId,
    },
    /// Packets to the peer take another network from here on.
    Rail {
        /// The link.
        link: LinkId,
        /// Which one, and why.
        rail: RailStatus,
    },
    /// The lanes of a link go by another path from here on. Nothing of them is lost.
    Path {
        /// The link.
        link: LinkId,
        /// What carries it.
        path: Path,
        /// Why.
        reason: Arc<str>,
    },
    /// The link is dead and will never carry anything again. Its replicas stay readable, frozen, until
    /// [`Poller::forget`](crate::Poller::forget).
    Dead {
        /// The link.
        link: LinkId,
        /// Why.
        evidence: Evidence,
        /// When that was decided.
        at: Time,
        /// When the peer was last heard.
        heard: Time,
    },
    /// That node refuses us: this incarnation has been fenced, and must start anew as another.
    Refused {
        /// Who said so.
        node: NodeId,
    },
}

/// A link as shown to people.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// The link.
    pub link: LinkId,
    /// The other end.
    pub peer: Member,
    /// What carries it.
    pub path: Path,
    /// Why that path.
    pub reason: Arc<str>,
    /// False once it is dead.
    pub alive: bool,
    /// Whether the peer is suspected at the moment.
    pub suspected: bool,
    /// Smoothed round-trip time, where it is measured.
    pub rtt: Option<Duration>,
    /// Last sign of life.
    pub heard: Time,
    /// How its silence is judged.
    pub watch: Watch,
    /// Largest datagram that the path is known to carry (UDP).
    pub datagram: Option<usize>,
    /// Which of the networks it goes by (UDP).
    pub rail: Option<RailStatus>,
    /// What went over it.
    pub counters: LinkCounters,
}

/// Why packets take a rail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RailReason {
    /// It is the one that they began with.
    #[default]
    First,
    /// The one before carried nothing any more, and this one answered.
    Failover,
    /// It is better than the one before, and has been answering again for a while.
    Return,
}

/// The rail that packets to a peer take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RailStatus {
    /// Its number, from 0.
    pub rail: usize,
    /// How many there are.
    pub of: usize,
    /// Where packets go.
    pub to: SocketAddr,
    /// Why by this one.
    pub reason: RailReason,
    /// Rails that do not answer, as a bit set.
    pub silent: u8,
}

/// How the silence of a link's peer is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Interval of signs of life.
    pub heartbeat: Duration,
    /// Silence after which the peer is suspected.
    pub suspect: Duration,
    /// Silence after which the link is dead, if a lack of processors does not excuse it.
    pub dead: Duration,
    /// The longest silence lately, own stalls not counted.
    pub longest: Duration,
}

/// Counters of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Packets sent (UDP).
    pub packets_sent: u64,
    /// Packets received (UDP).
    pub packets_received: u64,
    /// Bytes sent (UDP).
    pub bytes_sent: u64,
    /// Bytes received (UDP).
    pub bytes_received: u64,
    /// Packets whose content was sent again (UDP).
    pub retransmits: u64,
    /// Packets sent that met congestion on their way, as switches marked them (UDP).
    pub marked: u64,
    /// Times that the congestion window shrank, for losses or marks (UDP).
    pub congestion: u64,
    /// Times that packets took another rail (UDP).
    pub failovers: u64,
    /// Times that the peer was woken (shm), or doorbells rung (verbs).
    pub doorbells: u64,
}

/// Counters of a poller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollerCounters {
    /// Times that the poller slept.
    pub parks: u64,
    /// Times that it yielded instead.
    pub yields: u64,
    /// Sleeps that only the backstop ended although there was work: lost wake-ups. Always zero.
    pub rescues: u64,
    /// Own stalls that were noticed, and discounted from what was held against peers.
    pub stalls: u64,
    /// Verdicts of death put off a step, because the silent peer or this host lacks processors.
    pub pardons: u64,
}

impl Path {
    /// What it is called.
    pub const fn as_str(self) -> &'static str {
        match self {
            Path::Shm => "shm",
            Path::Udp => "udp",
            Path::Verbs => "verbs",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl RailReason {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            RailReason::First => "the first",
            RailReason::Failover => "the one before carried nothing",
            RailReason::Return => "it answers again",
        }
    }
}

impl fmt::Display for RailReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Evidence::ProcessExited => "process exited",
            Evidence::PortUnreachable => "port unreachable",
            Evidence::HeartbeatMissed => "heartbeat missed",
            Evidence::ClosedByPeer => "closed by peer",
            Evidence::Restarted => "restarted",
            Evidence::Fenced => "fenced",
            Evidence::Malformed => "malformed data",
            Evidence::PathBroken => "queue pair failed",
        })
    }
}
