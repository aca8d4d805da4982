//! A link whose lanes go by UDP until a queue pair comes up again.
//!
//! A queue pair that fails is replaced ([`super::mend`]), and until then nothing is carried. Where that takes longer than
//! a moment and both ends may use UDP, the lanes go over the UDP connection of the same link: each end hands its readers
//! and what it knows of the peer's to that connection, which goes on where they were ([`crate::udp::Lent`]). Neither tells
//! the other: both know that both may, and who comes first is not heard before the other one comes. Queue pairs are tried
//! on, rarely, and when one comes up the lanes go back in the same way.

use std::time::Duration;

use super::Poller;
use crate::config::PathPolicy;
use crate::event::Event;
use crate::id::LinkId;
use crate::lane::LaneId;
use crate::limits::EVENTS_MAX;
use crate::roster::{Link, Wire};
use crate::time::Time;

/// How long a link may be without a queue pair. Cables that flap are back sooner.
const PATIENCE: Duration = Duration::from_secs(1);

impl Poller {
    /// Whether the lanes of that link may go by UDP, at either end.
    pub(super) fn may_detour(&self, link: &Link) -> bool {
        self.config.path == PathPolicy::Auto
            && link.verbs().is_some_and(|verbs| verbs.remote().by_udp)
    }

    /// Links over verbs that have been without a queue pair for too long go on by UDP.
    pub(super) fn leave_stalled(&mut self, now: Time) {
        let stalled = |(id, link): (LinkId, &Link)| match &link.wire {
            Wire::Verbs(_, verbs) if link.alive => {
                let late = verbs.stalled(now).is_some_and(|stall| stall >= PATIENCE);
                (late && self.may_detour(link)).then_some(id)
            }
            _ => None,
        };
        let found = self.roster.iter().find_map(stalled);
        if let Some(id) = found {
            self.detour(id, now);
        }
    }

    /// The lanes of a link whose queue pair has failed go by UDP.
    pub(super) fn detour(&mut self, id: LinkId, now: Time) {
        let Poller { roster, udp: Some(udp), verbs: Some(provider), own, .. } = self else {
            return;
        };
        let Some(link) = roster.get_mut(id).filter(|link| link.alive) else { return };
        let Wire::Verbs(handle, _) = link.wire else { return };
        let Wire::Verbs(_, mut verbs) = std::mem::replace(&mut link.wire, Wire::Udp(handle)) else {
            return;
        };
        link.malformed.set(!verbs.intact());
        udp.borrow(handle, verbs.lend());
        for lane in lanes(link.attached) {
            if let Some(from) = verbs.released(lane, own.lane(lane).log.head()) {
                udp.attach(handle, lane, from, own);
            }
        }
        let failures = verbs.failures();
        provider.go_rarely(handle, failures, now);
        link.aside = Some(verbs);
        link.reason = format!(
            "no queue pair comes up any more ({failures} failed lately): by udp until one does"
        )
        .into();
        tracing::warn!(link = %id, peer = %link.member, "no queue pair comes up: the lanes go by udp");
        self.path_changed(id);
    }

    /// They go by verbs again: what `link` kept aside is as far as UDP has come.
    pub(super) fn end_detour(&mut self, id: LinkId) {
        let Poller { roster, udp: Some(udp), .. } = self else { return };
        let Some(link) = roster.get_mut(id) else { return };
        let (Wire::Udp(handle), Some(mut verbs)) = (&link.wire, link.aside.take()) else { return };
        let handle = *handle;
        for lane in lanes(u64::MAX) {
            let is_read = link.attached >> lane.0 & 1 != 0 && udp.is_attached(handle, lane);
            verbs.took(lane, is_read.then(|| udp.released(handle, lane)));
            if is_read {
                udp.detach(handle, lane);
            }
        }
        verbs.take_back(udp.give_back(handle));
        link.wire = Wire::Verbs(handle, verbs);
    }

    /// Says that a link goes by another path than before.
    pub(super) fn path_changed(&mut self, id: LinkId) {
        let Some(link) = self.roster.get(id) else { return };
        if self.events.len() < EVENTS_MAX {
            let (path, reason) = (link.path(), link.reason.clone());
            self.events.push_back(Event::Path { link: id, path, reason });
        }
    }
}

/// The lanes of a bit set.
fn lanes(set: u64) -> impl Iterator<Item = LaneId> {
    (0..crate::limits::LANES_MAX as u8).filter(move |lane| set >> lane & 1 != 0).map(LaneId)
}
