//! A queue pair failed: that is no death.
//!
//! An adapter gives a queue pair up when a cable, a port or a switch is away for a tenth of a second, when somebody
//! misuses a key, and when the peer's process is gone. The UDP connection of the same link tells these apart: the peer
//! is asked over it, a millisecond apart, and who answers lives. Meanwhile the link stays up and carries nothing; both
//! ends destroy their queue pair, bring up another one as they did the first, and go on where they were
//! ([`crate::verbs::VerbsLink::inherit`]). The link is dead if nobody answers, if the next queue pair does not come up
//! in time, or if too many fail.

#[cfg(all(test, feature = "verbs"))]
mod verbs_tests;

use super::Poller;
use crate::event::Evidence;
use crate::id::LinkId;
use crate::lane::CONTROL;
use crate::roster::{Link, Wire};
use crate::time::Time;
use crate::udp::UdpLink;
use crate::verbs::{Message, Outcome};
use crate::wait::Class;

/// What is said of the link, after why it is by verbs.
const FAILED: &str = "; queue pairs that failed lately: ";

impl Poller {
    /// The queue pair of a link failed, here or at the peer.
    pub(super) fn mend(&mut self, id: LinkId, now: Time) {
        let Some(link) = self.roster.get_mut(id).filter(|link| link.alive) else { return };
        let Wire::Verbs(handle, verbs) = &mut link.wire else { return };
        if verbs.is_suspended() {
            return;
        }
        // Its descriptor goes with the queue pair.
        for token in link.tokens.drain(..) {
            self.sleep.remove(token);
        }
        let (handle, peer, kept) = (*handle, link.member, verbs.suspend(now));
        let reason = link.reason.split(FAILED).next().unwrap_or_default();
        link.reason =
            format!("{reason}{FAILED}{}, the next is being made", verbs.failures()).into();
        self.acquit(id);
        let detours = self.roster.get(id).is_some_and(|link| self.may_detour(link));
        let often = kept.often;
        match (&mut self.verbs, &mut self.udp) {
            (Some(provider), Some(udp)) if !often || detours => {
                tracing::warn!(link = %id, %peer, "the queue pair failed: another one is made");
                // To make the next queue pair takes the peer a while in which it answers nobody.
                let timing = self.config.timing;
                udp.question(handle, timing.suspect.max(timing.dead), now);
                provider.mend(handle, peer, kept, now);
            }
            _ => {
                tracing::warn!(link = %id, %peer, "queue pairs fail again and again");
                self.bury(id, Evidence::PathBroken, now);
            }
        }
        if often {
            self.detour(id, now);
        }
    }

    /// What the peer of an established link says about verbs. Notes are repeated, so what the link came of may come
    /// again. What is about the link says that the peer's queue pair failed; anything else, that its end is gone.
    pub(super) fn take_note_of_link(
        &mut self,
        id: LinkId,
        handle: UdpLink,
        message: Message<'_>,
        now: Time,
    ) {
        let Some(link) = self.roster.get(id).and_then(Link::verbs) else { return };
        let (about, after) = match message {
            Message::Offer(offer) | Message::Answer(offer) => (Some(offer.resumes), offer.after),
            Message::Ask(ask) => (Some(ask.resumes), ask.after),
            Message::Decline(_) => (None, 0),
        };
        // Notes may be overtaken by what they have led to: of a queue pair that has been replaced none matters any more.
        let goes_on = !link.is_suspended();
        let replaced = about == Some(link.name().1) && after != link.psn();
        let late = match message {
            Message::Answer(_) => goes_on,
            Message::Offer(offer) => offer == *link.remote() || replaced && goes_on,
            Message::Ask(_) => replaced && goes_on,
            Message::Decline(_) => false,
        };
        if late {
            return;
        }
        match about {
            Some(name) if name == link.name().1 => self.mend(id, now),
            // To an offer that was made for the queue pair before.
            Some(_) if matches!(message, Message::Answer(_)) => return,
            _ => return self.bury(id, Evidence::PathBroken, now),
        }
        let head = self.own.lane(CONTROL).log.head();
        if let Some(verbs) = &mut self.verbs
            && let Some(outcome) = verbs.note(handle, message, head, now)
        {
            self.mended(id, outcome, now);
        }
    }

    /// The talk about another queue pair has ended.
    pub(super) fn mended(&mut self, id: LinkId, outcome: Outcome, now: Time) {
        let mut next = match outcome {
            Outcome::Up { link, .. } => link,
            Outcome::Down { why, .. } => {
                tracing::warn!(link = %id, why, "no other queue pair");
                return self.bury(id, Evidence::PathBroken, now);
            }
        };
        let reason = self.by_verbs(&next);
        let returns = self.roster.get(id).is_some_and(|link| link.aside.is_some());
        self.end_detour(id);
        let Some(link) = self.roster.get_mut(id).filter(|link| link.alive) else { return };
        let Wire::Verbs(_, verbs) = &mut link.wire else { return };
        next.inherit(verbs);
        link.tokens.push(self.sleep.add_fd(next.fd(), Class::Packets));
        let failures = next.failures();
        *verbs = next;
        link.reason = format!("{reason}{FAILED}{failures}").into();
        tracing::info!(link = %id, peer = %link.member, "the link goes on over another queue pair");
        if returns {
            self.path_changed(id);
        }
    }
}
