//! What can wake a poller, and what a wake-up said.

use std::os::fd::RawFd;
use std::sync::Arc;

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
    pub(crate) packets: bool,
    pub(crate) errors: bool,
    pub(crate) control: bool,
}

/// What to wait for.
pub(super) enum Source {
    Fd {
        fd: RawFd,
        class: Class,
    },
    Futex {
        memory: Arc<Memory>,
        offset: usize,
        value: u32,
    },
    /// It keeps its place, and wakes nobody.
    #[cfg(feature = "faults")]
    Muffled,
}

#[cfg(feature = "faults")]
impl Source {
    /// Whether it tells of news, rather than of deaths and errors.
    pub(super) fn tells_news(&self) -> bool {
        matches!(self, Source::Fd { class: Class::Bell | Class::Packets, .. })
    }
}

impl Woken {
    pub(super) fn mark(&mut self, class: Class) {
        match class {
            Class::Bell => self.bell = true,
            Class::Packets => self.packets = true,
            Class::Errors => self.errors = true,
            Class::Control => self.control = true,
        }
    }
}
