//! The managers a session knows, the connection to each, and which of them may be given calls.

use super::{LinkId, Time};
use crate::wire::{Member, Text, View};

/// How far the connection to a manager has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// None; to be dialled at that time.
    Idle { until: Time },
    /// None, and none wanted while another address leads to the same manager.
    Alias { of: Member },
    /// Being opened.
    Dialing { link: LinkId, since: Time },
    /// Open, our Hello is sent, its Welcome has not come.
    Greeting { link: LinkId, since: Time },
    /// In use.
    Up(Up),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Up {
    pub(super) link: LinkId,
    pub(super) member: Member,
    /// What it said last about itself.
    pub(super) view: u64,
    pub(super) primary: bool,
    /// It said it is about to stop.
    pub(super) draining: bool,
    /// It refused calls; not to be tried again before.
    pub(super) shunned: Option<Time>,
    pub(super) refusals: u32,
    /// Something came from it since the last ping tick.
    pub(super) heard: bool,
    /// Ping ticks without a sign of life.
    pub(super) silent: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Manager {
    pub(super) address: Text,
    /// Configured; others are learned from views, and forgotten with them.
    pub(super) seed: bool,
    pub(super) phase: Phase,
    /// Attempts that failed in a row.
    pub(super) failures: u32,
    /// Why there is no connection, for people.
    pub(super) trouble: Option<Text>,
}

impl Manager {
    pub(super) fn new(address: Text, seed: bool, now: Time) -> Self {
        Self { address, seed, phase: Phase::Idle { until: now }, failures: 0, trouble: None }
    }

    pub(super) fn link(&self) -> Option<LinkId> {
        match &self.phase {
            Phase::Idle { .. } | Phase::Alias { .. } => None,
            Phase::Dialing { link, .. } | Phase::Greeting { link, .. } => Some(*link),
            Phase::Up(up) => Some(up.link),
        }
    }

    pub(super) fn up(&self) -> Option<&Up> {
        match &self.phase {
            Phase::Up(up) => Some(up),
            _ => None,
        }
    }

    pub(super) fn up_mut(&mut self) -> Option<&mut Up> {
        match &mut self.phase {
            Phase::Up(up) => Some(up),
            _ => None,
        }
    }

    /// Whether calls may go there: connected, primary by its own word, in the newest view anybody reported.
    pub(super) fn eligible(&self, view: Option<&View>) -> bool {
        let (Some(up), Some(view)) = (self.up(), view) else { return false };
        up.primary && !up.draining && up.shunned.is_none() && contains(view, up.member)
    }
}

pub(super) fn contains(view: &View, member: Member) -> bool {
    view.members.iter().any(|other| other.member == member)
}
