//! Single-writer replicated memory between nodes: words and logs, over shared memory and UDP.
//!
//! Every node owns *lanes*: each a ring log (published by prefix) and an array of monotonic words
//! (published by value). Peers hold read-only replicas. A [`Poller`], driven by one thread, keeps the
//! replicas current over whatever path reaches a peer, and says who is alive. Everything above (ordering,
//! membership, state transfer) is made of these two kinds of memory and nothing else.
//!
//! [`lane`] says exactly what a reader may rely on.

pub mod clock;
#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod detect;
mod error;
mod event;
#[cfg(not(loom))]
mod faults;
mod id;
mod interfaces;
pub mod lane;
pub mod limits;
mod log;
mod memory;
#[cfg(not(loom))]
mod own;
#[cfg(not(loom))]
mod poller;
#[cfg(not(loom))]
mod pressure;
#[cfg(not(loom))]
pub mod reliable;
mod report;
#[cfg(not(loom))]
mod roster;
#[cfg(not(loom))]
pub mod secure;
#[cfg(not(loom))]
mod shm;
#[cfg(all(test, not(loom)))]
#[path = "../../scripts/tidy/skip.rs"]
mod skip;
#[cfg(not(loom))]
pub mod stats;
mod sync;
mod time;
#[cfg(not(loom))]
mod traffic;
#[cfg(not(loom))]
mod udp;
#[cfg(not(loom))]
mod verbs;
mod wait;

#[cfg(not(loom))]
pub use config::{Config, Marks, PathPolicy, PeerConfig, Rail, Timing, VerbsConfig, Wait};
pub use error::Error;
pub use event::{
    Event, Evidence, LinkCounters, LinkStatus, Path, PollerCounters, RailReason, RailStatus, Watch,
};
#[cfg(all(feature = "faults", not(loom)))]
pub use faults::FaultPolicy;
pub use id::{Incarnation, LinkId, Member, NodeId};
pub use interfaces::{Interface, interfaces};
pub use lane::{BULK, CONTROL, GROUP, LaneId, LaneSpec};
pub use log::{Committed, LogBytes, LogWriter, Published, Record, Reservation, ReserveError};
#[cfg(not(loom))]
pub use poller::Poller;
pub use report::{Finding, VerbsReport, Verdict};
#[cfg(not(loom))]
pub use secure::{Authority, Certificate, Cluster, Identity, IdentityError, NodeKey, PublicKey};
#[cfg(not(loom))]
pub use shm::check_shm_gid;
/// Ways in for the fuzz targets.
#[cfg(all(feature = "fuzz", not(loom)))]
pub mod fuzz {
    pub use crate::shm::fuzz::*;
    pub use crate::verbs::fuzz::*;
}
pub use time::Time;
#[cfg(not(loom))]
pub use traffic::{LaneCounters, LaneTraffic};
#[cfg(not(loom))]
pub use udp::{UdpCalls, UdpStatus, probe_busy_poll};
#[cfg(not(loom))]
pub use verbs::discover_verbs;
pub use wait::Waker;
#[cfg(not(loom))]
pub use wait::probe_io_uring;
