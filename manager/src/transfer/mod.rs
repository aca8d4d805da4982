//! State on its way: from a donor to a learner, and into and out of snapshot files.
//!
//! Both are the same stream of parts ([`stream`]): the replica, each instance, an end mark; behind
//! that, in a transfer only, the tail: what was delivered at the donor after the cut. A snapshot is
//! *consistent* because its cut is a place in the total order: the delivery thread puts a marker
//! into every executor's queue ([`crate::runtime::Cut`]), and each saves when it gets there, while
//! delivery goes on.

mod donor;
mod learner;
pub mod stream;
#[cfg(test)]
mod tests;

pub use donor::Donor;
pub use learner::{Error as LearnError, Learned, Learner};
