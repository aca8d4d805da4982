//! How the application's delivery thread sleeps and how the poller wakes it.
//!
//! The pattern that loses no wake-up, and costs the waker one load when nobody sleeps: the sleeper stores `armed`,
//! fences, looks once more, sleeps; the waker publishes, fences, loads `armed`, and unparks if it was set. With Release
//! and Acquire alone both loads may see the old value, on x86 too: the two SeqCst fences forbid it.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::Thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;

/// A bell for one sleeper.
#[derive(Default)]
pub(crate) struct Bell {
    armed: AtomicBool,
    sleeper: ArcSwapOption<Thread>,
}

impl Bell {
    /// Makes the calling thread the one that is woken. Call before [`Self::sleep`], and again after the sleeper moved to
    /// another thread.
    pub(crate) fn register(&self) {
        let me = std::thread::current();
        if self.sleeper.load().as_ref().is_none_or(|t| t.id() != me.id()) {
            self.sleeper.store(Some(std::sync::Arc::new(me)));
        }
    }

    /// Sleeps until the bell rings or `timeout` has passed, unless `ready` says that there is something to do.
    pub(crate) fn sleep(&self, timeout: Duration, mut ready: impl FnMut() -> bool) {
        self.armed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !ready() {
            std::thread::park_timeout(timeout);
        }
        self.armed.store(false, Ordering::Relaxed);
    }

    /// Wakes the sleeper, if it sleeps. Call after publishing what it waits for.
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed)
            && self.armed.swap(false, Ordering::AcqRel)
            && let Some(t) = self.sleeper.load().as_ref()
        {
            t.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn no_wakeup_is_lost() {
        let (bell, value, seen) =
            (Arc::new(Bell::default()), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let n = 20_000;
        let reader = std::thread::spawn({
            let (bell, value, seen) = (bell.clone(), value.clone(), seen.clone());
            move || {
                bell.register();
                for i in 1..=n {
                    while value.load(Ordering::Acquire) < i {
                        let before = std::time::Instant::now();
                        bell.sleep(Duration::from_secs(20), || value.load(Ordering::Acquire) >= i);
                        assert!(before.elapsed() < Duration::from_secs(15), "slept through a ring");
                    }
                    seen.store(i, Ordering::Release);
                }
            }
        });
        for i in 1..=n {
            value.store(i, Ordering::Release);
            bell.ring();
            while seen.load(Ordering::Acquire) < i {
                std::thread::yield_now();
            }
        }
        reader.join().unwrap();
    }
}
