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

/// `fence(SeqCst)`, which the compiler makes an `mfence` of: that waits for more than the order of loads and stores of
/// ordinary memory, and takes several times as long as a locked instruction, which orders them all the same.
#[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
pub(crate) fn full_fence() {
    // SAFETY: changes nothing: the top of the stack keeps its value, and the flags are declared to be clobbered (they
    // are unless `preserves_flags`). A locked read-modify-write is a full barrier for write-back memory (Intel SDM 3A
    // 9.2.5, AMD APM 2 7.4.2), and an asm block without `nomem` is one for the compiler: it is what GCC makes of
    // `atomic_thread_fence(memory_order_seq_cst)`.
    unsafe { std::arch::asm!("lock or dword ptr [rsp], 0") };
}

/// `fence(SeqCst)`.
#[cfg(not(all(target_arch = "x86_64", not(loom), not(miri))))]
pub(crate) fn full_fence() {
    fence(Ordering::SeqCst);
}
