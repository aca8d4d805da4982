//! The driver of a node: one thread that moves the protocol core over the transport.
//!
//! [`sweep`] is the loop and the data path; [`membership`] handles links and views; [`transfer`] the state of learners;
//! [`report`] the read lease and the status. Application threads meet the loop in [`shared`] (atomics and bells), in the
//! own logs, and at the end of [`ring`].

pub(crate) mod bell;
pub(crate) mod bulk;
pub(crate) mod bytes;
mod control;
pub(crate) mod deliver;
mod follow;
mod gauges;
mod links;
mod membership;
pub(crate) mod outbox;
mod quorum;
mod report;
pub(crate) mod ring;
pub(crate) mod shared;
mod start;
mod storing;
mod sweep;
mod transfer;

pub use gauges::{stat_names, stat_texts};
pub(crate) use start::start;
