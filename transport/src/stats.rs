//! Counters that can be read from outside, also while the process that counts is stopped or stuck.
//!
//! Whoever asks a process for its counters needs it to answer, and the counters are wanted most when it does not. So
//! they live in shared memory: a [`Board`] of named 64-bit cells that one process writes with plain stores, and anybody
//! whom the kernel lets reads through `/proc/PID/fd/N`.
//!
//! The naive place is a mapped file on disk, and it is a trap: when its page is being written back the next store waits
//! for the disk, and a poller that waits for a disk is a dead node (Java's `hsperfdata` was known for such pauses);
//! shortened by anybody it would kill the writer with SIGBUS. This memory has no disk beneath it and is sealed: it cannot
//! change its size, and its maker holds the only writable mapping.
//!
//! A reader reads it as a file and maps nothing, so that a foreign or shortened file in its place is an error and never
//! a signal. The kernel copies aligned words whole, so no value is torn; values are of slightly different instants.

mod board;
mod format;

pub use board::{Board, Cell, Text};
pub use format::{BYTES_MAX, CELLS_MAX, Damage, NAME_MAX, Shown, TEXT_BYTES, TEXTS_MAX, read};
