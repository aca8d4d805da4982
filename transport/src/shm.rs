//! Shared memory between nodes of one host.
//!
//! Every node owns one sealed memfd, its *segment*: header, words, ring logs. Peers get it over a Unix
//! socket and map it read-only, so a replica *is* the peer's memory: publishing a record is a store to a
//! word, and nothing is copied. What a reader has to tell a writer (how far it released, what heartbeat
//! it saw) it writes into its own segment, in the row it keeps for that writer: everybody writes only
//! memory of his own, here as everywhere in this crate.
//!
//! - `layout`: where things are in a segment. `segment`: the owner's side. `replica`: the reader's side,
//!   which believes nothing.
//! - `socket`, `hello`, `rendezvous`: how two processes find each other and exchange descriptors.
//! - `trust`: with whom memory is shared.
//! - `robust`: how the kernel tells within a millisecond that a process has died.
//! - `thread`: whether a peer that is silent would speak if it got a processor.
//! - `link`: the operations of an established link.

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod hello;
mod layout;
mod link;
mod rendezvous;
mod replica;
mod robust;
mod segment;
mod socket;
#[cfg(test)]
mod tests;
mod thread;
mod trust;

pub(crate) use link::ShmLink;
pub(crate) use rendezvous::{BACKOFF_MAX, Meeting, Reach, Rendezvous, Scene, Standing};
pub(crate) use segment::{Segment, sealed};
pub(crate) use socket::readable;
pub use trust::check_shm_gid;
