//! Atomics of this crate's lock-free parts: std's, or loom's when a model is checked.
//!
//! Run the models with
//! `RUSTFLAGS="--cfg loom" cargo test -p quintet-transport --lib --release --target-dir target/loom loom`.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Keeps a value alone on its cache lines (two: the prefetcher fetches pairs).
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);
