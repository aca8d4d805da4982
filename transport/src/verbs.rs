//! Verbs: links over InfiniBand and RoCE, where both nodes have an adapter and the operator trusts the network.
//!
//! A peer is met by UDP first, which proves who it is and goes on to carry signs of life; then [`negotiate`] brings up a
//! queue pair beside it, and the lanes move over ([`link`]). With the queue pair the link ends, and so it does with the
//! UDP connection: whichever is lost first.
//!
//! What is compiled without the cargo feature `verbs` is the notes' format and the report, so that a node always
//! answers, and always says, that it has no verbs and why.

#[cfg(not(feature = "verbs"))]
mod absent;
#[cfg(feature = "verbs")]
mod completion;
#[cfg(feature = "verbs")]
mod course;
#[cfg(feature = "verbs")]
mod device;
#[cfg(feature = "verbs")]
mod discover;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
#[cfg(feature = "verbs")]
mod immediate;
#[cfg(feature = "verbs")]
mod layout;
#[cfg(feature = "verbs")]
mod library;
#[cfg(feature = "verbs")]
mod link;
#[cfg(feature = "verbs")]
mod negotiate;
mod offer;
#[cfg(feature = "verbs")]
mod provider;
#[cfg(feature = "verbs")]
mod queue_pair;
#[cfg(feature = "verbs")]
mod region;
#[cfg(all(test, feature = "verbs"))]
mod tests;

use crate::id::Member;
use crate::udp::UdpLink;

#[cfg(not(feature = "verbs"))]
pub(crate) use absent::{Verbs, VerbsLink, look};
#[cfg(feature = "verbs")]
pub(crate) use link::VerbsLink;
#[cfg(all(test, feature = "verbs"))]
pub(crate) use offer::Ask;
pub(crate) use offer::{Message, NOTE_MAX};
#[cfg(feature = "verbs")]
pub(crate) use provider::{Verbs, look};

/// How a peer's way to verbs ended.
#[cfg_attr(not(feature = "verbs"), expect(dead_code, reason = "a provider makes them"))]
pub(crate) enum Outcome {
    /// Its lanes are in place; reading its control log starts at `control_from`.
    Up { handle: UdpLink, member: Member, control_from: u64, link: Box<VerbsLink> },
    /// It will not be by verbs.
    Down { handle: UdpLink, member: Member, udp_from: u64, why: String },
}

/// What verbs links could go through on this host, and what stands in the way. `device`: only that adapter. `partition`: the
/// key of the partition that it must be in.
pub fn discover_verbs(device: Option<&str>, partition: Option<u16>) -> crate::VerbsReport {
    look(device, partition)
}
