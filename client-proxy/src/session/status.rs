//! What a session tells about itself: lines for the log, counters, a snapshot.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::{Session, Time, managers::Phase};
use crate::wire::{Member, Text};

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A manager answered our Hello.
    Connected {
        /// Who.
        member: Member,
        /// Where.
        address: Text,
    },
    /// The connection to a manager is gone.
    Disconnected {
        /// Who.
        member: Member,
        /// Where.
        address: Text,
        /// Why.
        why: Text,
    },
    /// An address could not be connected to (told once per reason).
    Unreachable {
        /// Where.
        address: Text,
        /// Why.
        why: Text,
    },
    /// A newer view is known.
    View {
        /// Its number.
        id: u64,
        /// Its members in rank order.
        members: Vec<Member>,
    },
    /// Calls go elsewhere.
    Rerouted {
        /// Where they went.
        from: Option<Member>,
        /// Where they go.
        to: Option<Member>,
        /// Why.
        why: Text,
        /// Calls that were sent before and are sent again.
        replayed: u64,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { member, address } => write!(f, "connected to {member} at {address}"),
            Self::Disconnected { member, address, why } => {
                write!(f, "lost {member} at {address}: {why}")
            }
            Self::Unreachable { address, why } => {
                write!(f, "cannot reach a manager at {address}: {why}")
            }
            Self::View { id, members } => {
                write!(f, "view {id}:")?;
                members.iter().try_for_each(|member| write!(f, " {member}"))
            }
            Self::Rerouted { from, to, why, replayed } => {
                write!(
                    f,
                    "calls go to {} instead of {}: {why}",
                    Self::name(*to),
                    Self::name(*from)
                )?;
                if *replayed > 0 {
                    write!(f, "; {replayed} unanswered calls sent again")
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// Counts since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Calls taken.
    pub calls: u64,
    /// Calls answered by a manager.
    pub answered: u64,
    /// Calls whose time was over before an answer.
    pub expired: u64,
    /// Calls not taken because a limit was reached.
    pub shed: u64,
    /// Refusals received.
    pub refusals: u64,
    /// Calls sent again after the route changed.
    pub replays: u64,
    /// Times a route was left.
    pub reroutes: u64,
    /// Views adopted.
    pub views: u64,
}

/// The longest time in which calls were unanswered and none got its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Since when somebody waits: the last answer, or the first call after none was unanswered.
    since: Option<Time>,
    longest: Duration,
}

impl Gap {
    pub(super) fn begin(&mut self, now: Time) {
        self.since = Some(now);
    }

    pub(super) fn answered(&mut self, now: Time, others_wait: bool) {
        self.longest = self.longest(now);
        self.since = others_wait.then_some(now);
    }

    /// A call ended without an answer: whoever still waits, has waited on.
    pub(super) fn given_up(&mut self, now: Time, others_wait: bool) {
        self.longest = self.longest(now);
        self.since = self.since.filter(|_| others_wait);
    }

    /// The longest gap, the present one included.
    #[must_use]
    pub fn longest(&self, now: Time) -> Duration {
        self.since.map_or(self.longest, |since| self.longest.max(now - since))
    }
}

/// One manager as the session sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManagerStatus {
    /// Where.
    pub address: String,
    /// `connected`, `connecting`, `waiting` (to try again), `alias` (of one that is connected).
    pub state: &'static str,
    /// Its node, once it answered.
    pub node: Option<u16>,
    /// Its incarnation, once it answered.
    pub incarnation: Option<u64>,
    /// The view it said it is in.
    pub view: Option<u64>,
    /// It says it is in a primary view.
    pub primary: bool,
    /// Calls go there.
    pub routed: bool,
    /// Why it is not connected.
    pub trouble: Option<String>,
}

/// A snapshot of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The client's id, in hexadecimal.
    pub client: String,
    /// Node that calls go to.
    pub routed: Option<u16>,
    /// Newest view known.
    pub view: Option<u64>,
    /// Its nodes, in rank order.
    pub members: Vec<u16>,
    /// All managers known.
    pub managers: Vec<ManagerStatus>,
    /// Calls unanswered now.
    pub in_flight: usize,
    /// Bytes held for replay now.
    pub replay_bytes: usize,
    /// Lowest unanswered call.
    pub first_incomplete: u64,
    /// Greatest position an answer reflected.
    pub position: u64,
    /// Longest time in which calls waited and none was answered, in microseconds.
    pub longest_gap_us: u64,
    /// Counts since the start.
    #[serde(flatten)]
    pub counters: Counters,
    /// Why calls do not get through, when they do not.
    pub hindrance: Option<String>,
}

impl<T> Session<T> {
    /// A snapshot.
    #[must_use]
    pub fn status(&self, now: Time) -> SessionStatus {
        let managers = self.managers.iter().map(|manager| {
            let up = manager.up();
            ManagerStatus {
                address: manager.address.to_string(),
                state: match manager.phase {
                    Phase::Idle { .. } => "waiting",
                    Phase::Alias { .. } => "alias",
                    Phase::Dialing { .. } | Phase::Greeting { .. } => "connecting",
                    Phase::Up(_) => "connected",
                },
                node: up.map(|up| up.member.node),
                incarnation: up.map(|up| up.member.incarnation),
                view: up.map(|up| up.view),
                primary: up.is_some_and(|up| up.primary),
                routed: up.is_some_and(|up| self.route == Some(up.link)),
                trouble: manager.trouble.as_ref().map(Text::to_string),
            }
        });
        SessionStatus {
            cluster: self.config.cluster.to_string(),
            client: self.config.client.to_string(),
            routed: self.route.and_then(|route| self.member_at(route)).map(|member| member.node),
            view: self.view.as_ref().map(|view| view.id),
            members: self
                .view
                .iter()
                .flat_map(|view| view.members.iter().map(|entry| entry.member.node))
                .collect(),
            managers: managers.collect(),
            in_flight: self.calls.live(),
            replay_bytes: self.calls.bytes(),
            first_incomplete: self.calls.first_incomplete(),
            position: self.position,
            longest_gap_us: u64::try_from(self.gap.longest(now).as_micros()).unwrap_or(u64::MAX),
            counters: self.counters,
            hindrance: (!self.is_routed()).then(|| self.hindrance()),
        }
    }
}
