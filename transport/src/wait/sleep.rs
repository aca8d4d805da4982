//! What a poller sleeps on: descriptors and futexes, registered once, waited for all together.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::ring::Uring;
use super::source::{Class, Source, Token, Woken};
use crate::memory::Memory;

/// Sleeps.
pub(crate) struct Sleep {
    sources: Vec<Option<Source>>,
    backend: Backend,
    #[cfg(feature = "faults")]
    deaf: bool,
    told: String,
}

enum Backend {
    Uring(Box<Uring>),
    Ppoll,
}

/// How a poller of this process would sleep in io_uring, or why the kernel refuses it. Sets a ring up and takes it down.
pub fn probe_io_uring() -> std::io::Result<String> {
    Uring::new().map(|ring| ring.describe())
}

impl Sleep {
    /// Chooses io_uring if it is allowed and there, else ppoll.
    pub(crate) fn new(allow_io_uring: bool) -> Sleep {
        let (backend, told) = match allow_io_uring.then(Uring::new) {
            Some(Ok(ring)) => {
                let told = ring.describe();
                (Backend::Uring(Box::new(ring)), told)
            }
            Some(Err(e)) => (Backend::Ppoll, format!("ppoll (io_uring is refused: {e})")),
            None => {
                (Backend::Ppoll, "ppoll (io_uring is switched off by the configuration)".into())
            }
        };
        Sleep {
            sources: Vec::new(),
            backend,
            told,
            #[cfg(feature = "faults")]
            deaf: false,
        }
    }

    /// How it sleeps, for people.
    pub(crate) fn describe(&self) -> &str {
        &self.told
    }

    /// Whether the doorbell must be read after it rang (io_uring watches it by edges).
    pub(crate) fn bell_needs_reading(&self) -> bool {
        matches!(self.backend, Backend::Ppoll)
    }

    /// Waits for `fd` to be readable or hung up. Remove it before it is closed.
    pub(crate) fn add_fd(&mut self, fd: RawFd, class: Class) -> Token {
        self.add(Source::Fd { fd, class })
    }

    /// Waits for a wake-up of the futex at `offset` of `memory`, which holds `value` now.
    pub(crate) fn add_futex(&mut self, memory: Arc<Memory>, offset: usize, value: u32) -> Token {
        self.add(Source::Futex { memory, offset, value })
    }

    /// What tells of news wakes nobody any more, for good.
    #[cfg(feature = "faults")]
    pub(crate) fn deafen(&mut self) {
        self.deaf = true;
        for (at, source) in self.sources.iter_mut().enumerate() {
            if source.as_ref().is_some_and(Source::tells_news) {
                *source = Some(Source::Muffled);
                if let Backend::Uring(ring) = &mut self.backend {
                    ring.removed(at);
                }
            }
        }
    }

    fn add(&mut self, source: Source) -> Token {
        #[cfg(feature = "faults")]
        let source = if self.deaf && source.tells_news() { Source::Muffled } else { source };
        let free = self.sources.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.sources.push(None);
            self.sources.len() - 1
        });
        self.sources[at] = Some(source);
        if let Backend::Uring(ring) = &mut self.backend {
            ring.added(at);
        }
        Token(at as u32)
    }

    pub(crate) fn remove(&mut self, token: Token) {
        let at = token.0 as usize;
        self.sources[at] = None;
        if let Backend::Uring(ring) = &mut self.backend {
            ring.removed(at);
        }
    }

    /// Sleeps until a source is ready, for `at_most` that long.
    pub(crate) fn sleep(&mut self, at_most: Duration) -> Woken {
        if let Backend::Uring(ring) = &mut self.backend {
            match ring.sleep(&self.sources, at_most) {
                Ok(woken) => return woken,
                Err(e) => {
                    tracing::warn!(error = %e, "io_uring stopped working; parking in ppoll from now on");
                    self.backend = Backend::Ppoll;
                    self.told = format!("ppoll (io_uring stopped working: {e})");
                }
            }
        }
        self.ppoll(at_most)
    }

    fn ppoll(&mut self, at_most: Duration) -> Woken {
        // Not the fast path: where io_uring is forbidden a small allocation does not matter.
        let mut fds = Vec::with_capacity(self.sources.len());
        let mut classes = Vec::with_capacity(self.sources.len());
        for source in self.sources.iter().flatten() {
            if let Source::Fd { fd, class } = source {
                fds.push(libc::pollfd { fd: *fd, events: class.events(), revents: 0 });
                classes.push(*class);
            }
        }
        let timeout = libc::timespec {
            tv_sec: at_most.as_secs() as libc::time_t,
            tv_nsec: at_most.subsec_nanos() as libc::c_long,
        };
        // SAFETY: `fds` has the stated length; the timeout is live; a null mask changes no signals.
        let n = unsafe {
            libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, &timeout, std::ptr::null())
        };
        let mut woken = Woken::default();
        if n > 0 {
            for (fd, class) in fds.iter().zip(classes) {
                if fd.revents != 0 {
                    woken.mark(class);
                }
            }
        }
        woken
    }
}
