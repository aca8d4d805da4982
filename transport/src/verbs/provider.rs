//! The provider: addresses that serve, and the peers that are on their way to verbs.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::discover::{Place, discover};
use super::link::Kept;
use super::negotiate::{Ground, Talk, emit};
use super::offer::Message;
use super::{NOTE_MAX, Outcome};
use crate::config::{Config, PathPolicy};
use crate::id::Member;
use crate::lane::LaneSpec;
use crate::memory::Memory;
use crate::report::{Finding, VerbsReport};
use crate::time::Time;
use crate::udp::UdpLink;

/// Says a note to the peer of a UDP link.
pub(crate) type Say<'a> = &'a mut dyn FnMut(UdpLink, &[u8]);

/// Verbs of one node.
pub(crate) struct Verbs {
    me: Member,
    lanes: Vec<LaneSpec>,
    source: Arc<Memory>,
    places: Vec<Place>,
    talks: Vec<Talk>,
    /// No other path is allowed.
    only: bool,
    pub(super) entropy: u64,
}

/// What could be used.
pub(crate) fn look(device: Option<&str>, partition: Option<u16>) -> VerbsReport {
    discover(device, partition).1
}

impl Verbs {
    /// Opens the adapters. `source` is the memory that our logs lie in.
    pub(crate) fn new(
        config: &Config,
        source: &Arc<Memory>,
        entropy: u64,
    ) -> Result<Verbs, VerbsReport> {
        if !config.verbs.trusted_fabric {
            let mut report = VerbsReport::default();
            report.add(Finding::unusable(
                "trusted_fabric",
                "verbs encrypt nothing, and whoever reaches the network can write".into(),
                "state trusted_fabric = true if nobody else does",
            ));
            return Err(report);
        }
        let (mut places, report) = discover(config.verbs.device.as_deref(), config.verbs.partition);
        if places.is_empty() {
            return Err(report);
        }
        places.iter_mut().for_each(|place| place.marks = config.verbs.marks);
        Ok(Verbs {
            me: config.me,
            lanes: config.lanes.clone(),
            source: source.clone(),
            places,
            talks: Vec::new(),
            only: config.path == PathPolicy::Verbs,
            entropy,
        })
    }

    /// A UDP link came up: brings up a queue pair beside it.
    pub(crate) fn begin(&mut self, handle: UdpLink, member: Member, udp_from: u64, now: Time) {
        self.abandon(handle);
        self.talks.push(Talk::new(handle, (self.me, member), udp_from, now));
    }

    /// The queue pair beside a UDP link failed: brings up another for the same link.
    pub(crate) fn mend(&mut self, handle: UdpLink, member: Member, kept: Kept, now: Time) {
        self.abandon(handle);
        self.talks.push(Talk::mend(handle, (self.me, member), kept, now));
    }

    /// UDP carries the lanes of that link until its next queue pair comes up.
    pub(crate) fn go_rarely(&mut self, handle: UdpLink, failures: u32, now: Time) {
        if let Some(talk) = self.talks.iter_mut().find(|talk| talk.handle == handle) {
            talk.go_rarely(failures, now);
        }
    }

    /// The own loop stood still for `stall`.
    pub(crate) fn excuse(&mut self, stall: Duration) {
        self.talks.iter_mut().for_each(|talk| talk.excuse(stall));
    }

    /// The UDP link is gone, or has another use.
    pub(crate) fn abandon(&mut self, handle: UdpLink) {
        self.talks.retain(|talk| talk.handle != handle);
    }

    /// Links that are not up yet: their UDP handles.
    pub(crate) fn talks(&self) -> impl Iterator<Item = UdpLink> {
        self.talks.iter().filter(|talk| !talk.mends()).map(|talk| talk.handle)
    }

    /// The peer of a UDP link said something. `None`: there is no talk with it.
    pub(crate) fn note(
        &mut self,
        handle: UdpLink,
        message: Message<'_>,
        control_head: u64,
        now: Time,
    ) -> Option<Outcome> {
        let psn = self.fresh_psn();
        let talk = self.talks.iter().position(|talk| talk.handle == handle)?;
        if let Message::Decline(why) = message {
            let outcome = self.talks[talk].given_up(format!("the peer declines: {why}"));
            return self.settle(talk, outcome, now);
        }
        let (ground, talks) = self.ground(control_head, psn);
        talks[talk].note(&ground, message, now);
        None
    }

    /// Does what is due.
    pub(crate) fn poll(&mut self, now: Time, control_head: u64, say: Say<'_>) -> Option<Outcome> {
        for index in 0..self.talks.len() {
            let psn = self.fresh_psn();
            let (ground, talks) = self.ground(control_head, psn);
            let talk = &mut talks[index];
            let handle = talk.handle;
            let mut to_peer = |message: Message<'_>| {
                let (bytes, len): ([u8; NOTE_MAX], usize) = emit(&message);
                say(handle, &bytes[..len]);
            };
            if let Some(outcome) = talk.poll(&ground, now, &mut to_peer)
                && let Some(outcome) = self.settle(index, outcome, now)
            {
                return Some(outcome);
            }
        }
        None
    }

    /// What talks stand on now, and the talks.
    fn ground(&mut self, control_head: u64, psn: u32) -> (Ground<'_>, &mut [Talk]) {
        let Verbs { places, source, lanes, talks, only, .. } = self;
        (Ground { places, source, lanes, control_head, psn, by_udp: !*only }, talks)
    }

    /// A talk has ended. Where verbs are the only path, it begins again; not so if there was a link, which ends then.
    fn settle(&mut self, index: usize, outcome: Outcome, now: Time) -> Option<Outcome> {
        if let Outcome::Down { member, why, .. } = &outcome
            && self.only
            && !self.talks[index].mends()
        {
            tracing::warn!(peer = %member, why, "no verbs with this peer, and no other path is allowed");
            self.talks[index].restart(now);
            return None;
        }
        self.talks.swap_remove(index);
        Some(outcome)
    }

    /// Below this no CONTROL bytes may be reclaimed: they are promised to a link that is not up yet.
    pub(crate) fn control_floor(&self) -> u64 {
        self.talks.iter().map(Talk::promised).min().unwrap_or(u64::MAX)
    }

    pub(crate) fn next_timeout(&self) -> Time {
        self.talks.iter().map(Talk::next_timeout).min().unwrap_or(Time::MAX)
    }

    /// Where adapters report by themselves.
    pub(crate) fn fds(&self) -> Vec<RawFd> {
        let mut fds: Vec<RawFd> = self.places.iter().map(|place| place.device.events()).collect();
        fds.sort_unstable();
        fds.dedup();
        fds
    }

    /// Reads what adapters report. Ports that go down and queue pairs that fail show in their links; this is for people.
    pub(crate) fn take_reports(&mut self, now: Time) {
        for place in &self.places {
            while let Some(kind) = place.device.event() {
                tracing::warn!(device = %place.device.name, kind, "the adapter reports (ibv_event_type)");
                self.talks.iter_mut().for_each(|talk| talk.hurry(now));
            }
        }
    }
}
