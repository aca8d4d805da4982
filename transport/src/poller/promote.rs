//! From UDP to verbs: a peer that was met by UDP is up only when it is known which of the two carries its lanes.

use std::sync::Arc;

use super::Poller;
use crate::config::{Config, Marks, PathPolicy};
use crate::error::Error;
use crate::id::Member;
use crate::lane::CONTROL;
use crate::memory::Memory;
use crate::reliable::Note;
use crate::roster::Wire;
use crate::time::Time;
use crate::udp::UdpLink;
use crate::verbs::{Message, NOTE_MAX, Outcome, Verbs, VerbsLink};
use crate::wait::Class;

/// The provider as far as the policy allows one, or why there is none.
pub(super) fn provider(
    config: &Config,
    source: &Arc<Memory>,
    entropy: u64,
) -> Result<(Option<Verbs>, String), Error> {
    match config.path {
        PathPolicy::Shm | PathPolicy::Udp => Ok((None, "its configuration has no verbs".into())),
        PathPolicy::Verbs => match Verbs::new(config, source, entropy) {
            Ok(verbs) => Ok((Some(verbs), String::new())),
            Err(report) => Err(Error::Verbs(report)),
        },
        PathPolicy::Auto => match Verbs::new(config, source, entropy) {
            Ok(verbs) => Ok((Some(verbs), String::new())),
            Err(report) => {
                let why = report.obstacle();
                // Whoever states that the fabric is to be trusted counts on verbs.
                if config.verbs.trusted_fabric {
                    tracing::warn!(why, "no verbs: links go by shared memory or UDP");
                } else {
                    tracing::debug!(why, "no verbs");
                }
                Ok((None, why))
            }
        },
    }
}

impl Poller {
    /// Brings up a queue pair beside a UDP link.
    pub(super) fn begin_promotion(
        &mut self,
        handle: UdpLink,
        member: Member,
        control_from: u64,
        now: Time,
    ) {
        if let Some(verbs) = &mut self.verbs {
            verbs.begin(handle, member, control_from, now);
        }
    }

    /// What peers say about verbs.
    pub(super) fn take_note(&mut self, handle: UdpLink, note: Note, now: Time) {
        let Some(message) = Message::parse(note.bytes()) else { return };
        let established = self.roster.of_udp(handle);
        if let Some(id) = established
            && self.roster.get(id).is_some_and(|link| link.verbs().is_some())
        {
            self.take_note_of_link(id, handle, message, now);
            return;
        }
        let head = self.own.lane(CONTROL).log.head();
        let why = match (&mut self.verbs, established) {
            (Some(verbs), None) => {
                if let Some(outcome) = verbs.note(handle, message, head, now) {
                    self.promoted(outcome, now);
                }
                return;
            }
            (Some(_), Some(_)) => "the link went on by udp".to_owned(),
            (None, _) => self.no_verbs.clone(),
        };
        if matches!(message, Message::Offer(_) | Message::Ask(_)) {
            let mut bytes = [0; NOTE_MAX];
            let len = Message::Decline(&why).emit(&mut bytes);
            if let Some(udp) = &mut self.udp {
                udp.say(handle, Note::new(&bytes[..len]));
            }
        }
    }

    /// Looks after the peers that are on their way.
    pub(super) fn promote(&mut self, now: Time) {
        let head = self.own.lane(CONTROL).log.head();
        loop {
            let (Some(verbs), Some(udp)) = (&mut self.verbs, &mut self.udp) else { return };
            let mut say = |handle, bytes: &[u8]| udp.say(handle, Note::new(bytes));
            let Some(outcome) = verbs.poll(now, head, &mut say) else { return };
            self.promoted(outcome, now);
        }
    }

    pub(super) fn promoted(&mut self, outcome: Outcome, now: Time) {
        let (Outcome::Up { handle, .. } | Outcome::Down { handle, .. }) = &outcome;
        if let Some(id) = self.roster.of_udp(*handle) {
            return self.mended(id, outcome, now);
        }
        match outcome {
            Outcome::Up { handle, member, control_from, link } => {
                self.up_verbs(handle, member, control_from, link, now);
            }
            Outcome::Down { handle, member, udp_from, why } => {
                self.no_verbs_with = Some((member, why));
                self.up_udp(handle, member, udp_from, now);
            }
        }
    }

    fn up_verbs(
        &mut self,
        handle: UdpLink,
        member: Member,
        control_from: u64,
        mut link: Box<VerbsLink>,
        now: Time,
    ) {
        let Some(peer) = self.acceptable(handle, member) else { return };
        self.supersede(peer, member, now);
        if let Some(udp) = &mut self.udp {
            udp.detach(handle, CONTROL);
        }
        link.open(CONTROL, control_from);
        let tokens = vec![self.sleep.add_fd(link.fd(), Class::Packets)];
        let reason = self.by_verbs(&link);
        let wire = Wire::Verbs(handle, link);
        self.announce(peer, member, wire, reason, tokens, (control_from, now));
    }

    /// Why a link is by verbs, and by which address.
    pub(super) fn by_verbs(&self, link: &VerbsLink) -> String {
        let reason = match self.config.path {
            PathPolicy::Verbs => "the configuration says verbs",
            _ => "both nodes have adapters, and data went both ways",
        };
        let mut via = link.via().to_owned();
        let (ours, theirs) = (self.config.verbs.marks.service_level, link.remote().service_level);
        if ours != theirs {
            // Each way is carried as its sender marks it; but one of the two is hardly meant.
            via += &format!("; the peer's service level is {theirs}, ours {ours}");
        }
        match self.config.verbs.marks {
            marks if marks == Marks::default() => format!("{reason}; by {via}"),
            marks => format!("{reason}; by {via}; {marks}"),
        }
    }

    /// Why a link is by UDP, with what is known about verbs.
    pub(super) fn with_verbs(&mut self, member: Member, reason: String) -> String {
        match self.no_verbs_with.take() {
            Some((about, why)) if about == member => format!("{reason}; no verbs: {why}"),
            _ if self.config.path == PathPolicy::Auto && self.verbs.is_none() => {
                match self.config.verbs.trusted_fabric {
                    true => format!("{reason}; no verbs: {}", self.no_verbs),
                    false => reason,
                }
            }
            _ => reason,
        }
    }

    /// A UDP link died that was not up yet.
    pub(super) fn promotion_ended(&mut self, handle: UdpLink) {
        let Some(verbs) = &mut self.verbs else { return };
        let known = verbs.talks().any(|talk| talk == handle);
        verbs.abandon(handle);
        if known && let Some(udp) = &mut self.udp {
            udp.forget(handle);
        }
    }

    /// Below this CONTROL must stay for peers that are on their way, by whichever path they will come. Where that can
    /// only be verbs, what UDP would have to carry holds nothing up: its connection begins anew when it falls behind.
    pub(super) fn promoting_floor(&self) -> u64 {
        let Some(verbs) = &self.verbs else { return u64::MAX };
        let by_udp = match (&self.udp, self.config.path) {
            (Some(udp), PathPolicy::Auto) => {
                verbs.talks().map(|handle| udp.released(handle, CONTROL)).min()
            }
            _ => None,
        };
        by_udp.unwrap_or(u64::MAX).min(verbs.control_floor())
    }

    /// Asks the adapters to wake us; true if one has something already.
    pub(super) fn arm_adapters(&mut self) -> bool {
        let mut news = false;
        for (_, link) in self.roster.iter_mut() {
            if let Wire::Verbs(_, verbs) = &mut link.wire
                && link.alive
            {
                news |= verbs.arm();
            }
        }
        news
    }

    /// Looks what adapters have taken in, between two turns: the next one is told.
    pub(super) fn adapters_have_news(&mut self) -> bool {
        let mut news = false;
        for (_, link) in self.roster.iter_mut() {
            if let Wire::Verbs(_, verbs) = &mut link.wire
                && link.alive
            {
                news |= verbs.notice();
            }
        }
        news
    }

    /// After a sleep that they may have ended.
    pub(super) fn silence_adapters(&mut self) {
        for (_, link) in self.roster.iter_mut() {
            if let Wire::Verbs(_, verbs) = &mut link.wire
                && link.alive
            {
                verbs.silence();
            }
        }
    }
}
