//! What a poller sleeps on: descriptors and futexes, registered once, waited for all together.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::ring::Uring;
use crate::memory::Memory;

/// What a source of wake-ups is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The doorbell.
    Bell,
    /// Packets.
    Packets,
    /// Errors of a socket that nobody reads.
    Errors,
    /// Everything rare: connections, deaths.
    Control,
}

impl Class {
    /// What to poll for; errors and hang-ups are always reported.
    pub(super) fn events(self) -> libc::c_short {
        match self {
            Class::Bell | Class::Packets | Class::Control => libc::POLLIN,
            Class::Errors => 0,
        }
    }
}

/// A registered source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(pub(super) u32);

/// Why the sleep ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Woken {
    pub(crate) bell: bool,
    pub(crate) errors: bool,
    pub(crate) control: bool,
}

/// What to wait for.
pub(super) enum Source {
    Fd { fd: RawFd, class: Class },
    Futex { memory: Arc<Memory>, offset: usize, value: u32 },
}

/// Sleeps.
pub(crate) struct Sleep {
    sources: Vec<Option<Source>>,
    backend: Backend,
}

enum Backend {
    Uring(Box<Uring>),
    Ppoll(String),
}

impl Sleep {
    /// Chooses io_uring if it is allowed and there, else ppoll.
    pub(crate) fn new(allow_io_uring: bool) -> Sleep {
        let backend = match allow_io_uring.then(Uring::new) {
            Some(Ok(ring)) => Backend::Uring(Box::new(ring)),
            Some(Err(e)) => Backend::Ppoll(format!("io_uring is refused: {e}")),
            None => Backend::Ppoll("io_uring is switched off by the configuration".into()),
        };
        Sleep { sources: Vec::new(), backend }
    }

    /// How it sleeps, for people.
    pub(crate) fn describe(&self) -> String {
        match &self.backend {
            Backend::Uring(ring) => ring.describe(),
            Backend::Ppoll(why) => format!("ppoll ({why})"),
        }
    }

    /// Whether the doorbell must be read after it rang (io_uring watches it by edges).
    pub(crate) fn bell_needs_reading(&self) -> bool {
        matches!(self.backend, Backend::Ppoll(_))
    }

    /// Waits for `fd` to be readable or hung up. Remove it before it is closed.
    pub(crate) fn add_fd(&mut self, fd: RawFd, class: Class) -> Token {
        self.add(Source::Fd { fd, class })
    }

    /// Waits for a wake-up of the futex at `offset` of `memory`, which holds `value` now.
    pub(crate) fn add_futex(&mut self, memory: Arc<Memory>, offset: usize, value: u32) -> Token {
        self.add(Source::Futex { memory, offset, value })
    }

    fn add(&mut self, source: Source) -> Token {
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
                    self.backend = Backend::Ppoll(format!("io_uring stopped working: {e}"));
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

impl Woken {
    pub(super) fn mark(&mut self, class: Class) {
        match class {
            Class::Bell => self.bell = true,
            Class::Packets => {}
            Class::Errors => self.errors = true,
            Class::Control => self.control = true,
        }
    }
}
