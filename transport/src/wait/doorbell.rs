//! Who sleeps says so; who has news looks; nobody falls between.
//!
//! The sleeper stores `armed`, then looks for news once more, then sleeps. Whoever has news stores it,
//! then looks at `armed`, then rings. Each side writes one word and reads the other's: with Release and
//! Acquire alone both reads may be served before either write is seen (x86 store buffers do that), and
//! the sleeper sleeps on its news. A sequentially consistent fence between the write and the read, on
//! *both* sides, leaves no such order. `log/loom_tests.rs` checks it.
//!
//! `armed` holds the number of the sleep (0: awake), so that a ringer rings once per sleep.

use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering, full_fence};

/// The sleeper: announce sleep number `generation`. Look for news after this, then sleep.
pub(crate) fn arm(armed: &AtomicU64, generation: u64) {
    armed.store(generation, Ordering::Relaxed);
    full_fence();
}

/// The sleeper: awake again.
pub(crate) fn disarm(armed: &AtomicU64) {
    armed.store(0, Ordering::Relaxed);
}

/// A ringer, after all its news is stored, once for however many may sleep.
pub(crate) fn before_looking() {
    full_fence();
}

/// A ringer, after [`before_looking`]: whether it must ring. `rung` is the sleep it last rang for.
pub(crate) fn must_ring(armed: &AtomicU64, rung: &mut u64) -> bool {
    let generation = armed.load(Ordering::Relaxed);
    if generation == 0 || generation == *rung {
        return false;
    }
    *rung = generation;
    true
}

/// Wakes the poller from other threads of this process.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<WakerShared>,
}

struct WakerShared {
    /// 1 while the poller sleeps or is about to; the first to wake it takes the 1.
    asleep: AtomicU64,
    bell: Bell,
}

impl Waker {
    pub(crate) fn new(bell: Bell) -> Waker {
        Waker { shared: Arc::new(WakerShared { asleep: AtomicU64::new(0), bell }) }
    }

    /// Makes a sleeping poller take another turn. Costs a fence and a load when it is awake.
    pub fn wake(&self) {
        before_looking();
        let asleep = &self.shared.asleep;
        if asleep.load(Ordering::Relaxed) != 0 && asleep.swap(0, Ordering::Relaxed) != 0 {
            self.shared.bell.ring();
        }
    }

    pub(crate) fn arm(&self) {
        arm(&self.shared.asleep, 1);
    }

    /// Whether somebody rings, or is about to, since it was armed.
    #[cfg(not(loom))]
    pub(crate) fn is_taken(&self) -> bool {
        self.shared.asleep.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn disarm(&self) {
        disarm(&self.shared.asleep);
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.shared.bell
    }
}

/// The doorbell itself: an eventfd.
#[cfg(not(loom))]
pub(crate) struct Bell(std::os::fd::OwnedFd);

#[cfg(not(loom))]
impl Bell {
    pub(crate) fn new() -> std::io::Result<Bell> {
        use std::os::fd::FromRawFd;
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: a descriptor just made, owned by nobody else.
        Ok(Bell(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn from_fd(fd: std::os::fd::OwnedFd) -> Bell {
        Bell(fd)
    }

    /// Never blocks; a counter that is full is as good as rung.
    pub(crate) fn ring(&self) {
        use std::os::fd::AsRawFd;
        let one = 1u64.to_ne_bytes();
        // SAFETY: 8 readable bytes; the descriptor is open for as long as `self` lives.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), 8) };
    }

    /// Takes all rings so far.
    pub(crate) fn drain(&self) {
        use std::os::fd::AsRawFd;
        let mut count = [0u8; 8];
        // SAFETY: 8 writable bytes; the descriptor is open for as long as `self` lives.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
    }

    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.0.as_fd()
    }
}

/// Under loom a flag: rung or not.
#[cfg(loom)]
pub(crate) struct Bell(pub(crate) crate::sync::AtomicBool);

#[cfg(loom)]
impl Bell {
    pub(crate) fn new() -> std::io::Result<Bell> {
        Ok(Bell(crate::sync::AtomicBool::new(false)))
    }

    pub(crate) fn ring(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
