//! The component manager: the daemon `quintetd` and the command line `quintet`.
//!
//! A daemon is a stack of parts, each with one job and each testable without the others:
//!
//! ```text
//!   client_server   native frames from proxies          admin    HTTP/JSON for people
//!              \                                       /
//!                calls: exactly once, reads under the lease
//!                                 |
//!   delivery  → journal (kept before answered) → executor, one thread per instance
//!                                 |
//!   replica: the deterministic state every node computes alike; no I/O, no clock, no threads
//!                                 |
//!   quintet-vsync: the same messages in the same order relative to the same views
//! ```
//!
//! What must hold: a reply leaves only when a quorum keeps its position; a repeated call is
//! answered from the record its first delivery made; a read is answered only under the lease,
//! checked after the read; component code never runs on the poller.

pub mod admin;
pub mod calls;
pub mod cli;
pub mod client_server;
pub mod codec;
pub mod config;
pub mod daemon;
mod dev;
mod doctor;
pub mod events;
pub mod executor;
pub mod identity;
pub mod journal;
pub mod limits;
pub mod package;
pub mod packages;
mod print;
pub mod replica;
pub mod runtime;
pub mod stats;
#[cfg(test)]
mod testing;
pub mod transfer;
