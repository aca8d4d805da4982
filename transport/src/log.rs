//! The ring log: variable-length records, reserved by many threads, published in order by one.
//!
//! The problem: application threads want to write messages where the network reads them, without a
//! lock and without a copy; readers in other processes and on other machines must see whole records,
//! in one order, and the space must be used again. A queue with a mutex costs a wake-up per message
//! under load; a queue per thread loses the order that one sender's messages have.
//!
//! A position is a byte count since the log began, never reset; slot = position modulo capacity. Four
//! positions divide the ring, and each has one owner:
//!
//! ```text
//!     low ≤ head ≤ cursor ≤ tail ≤ low + capacity
//!      │      │       │       └ reserved by any thread (compare-and-swap)
//!      │      │       └ seen committed by the poller
//!      │      └ published: what readers may see
//!      └ reclaimed: everything below was released by all readers, zeroed, and is free again
//! ```
//!
//! A record is `{commit word, index, payload}`, 8-byte aligned, and never wraps: what does not fit
//! before the end of the ring is preceded by a padding record. The commit word is zero until the
//! record is complete, which is unambiguous because free space is always zero. Dropping a reservation
//! gives the space back if it was the last, else leaves padding, which readers skip.
//!
//! A record that is written while nothing else is under way, and read by somebody who looks at this memory, begins and
//! ends at a pair of cache lines, and its commit word gets a mark when it is published. Who waits for it then looks at
//! the line that brings the record too. The log's end, which tells of records otherwise, is one line more on the way.

mod bytes;
mod entry;
mod publisher;
mod reader;
mod ring;
mod writer;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

pub use bytes::LogBytes;
pub use publisher::{Committed, Published};
pub use reader::Record;
pub use writer::{LogWriter, Reservation, ReserveError};

pub(crate) use publisher::Publisher;
pub(crate) use reader::{Malformed, Reader};
pub(crate) use ring::Ring;
