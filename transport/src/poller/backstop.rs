//! Lost wake-ups: who watches the bells.
//!
//! A poller never sleeps for long, so a bell that did not ring delays and breaks nothing, and nobody would notice. So
//! whoever slept to the end of its time, and finds news, asks why it was not woken:
//!
//! - over shared memory the peer notes for which sleep it rang, after it did. What it does not ring for within a while,
//!   or has rung for and the next sleep is not told, is a lost wake-up;
//! - what an adapter tells of stays told until it is asked, so a sleep that begins a while later must be told;
//! - packets are gone once they are read, and what a thread of this process rings for is on its way. If either came at the
//!   very end of the time a second, short sleep is told.

use std::time::Duration;

use super::Poller;
use crate::id::LinkId;
use crate::roster::Wire;
use crate::shm::readable;
use crate::time::Time;
use crate::udp::Udp;
use crate::wait::Woken;

/// A peer that has stored its news rings within this time, however its host is loaded.
const LATE: Duration = Duration::from_millis(250);
/// What is on its way to a sleeper arrives within this time.
const ECHO: Duration = Duration::from_millis(20);

/// News beside which a sleep ended untold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    link: LinkId,
    /// Number of that sleep.
    generation: u64,
    noticed: Time,
    /// A sleep has been told since.
    heard: bool,
    /// The next sleep must be told.
    owed: bool,
}

impl Poller {
    /// A sleep has ended, and was told this. What it was told after all.
    pub(super) fn question(&mut self, mut woken: Woken, now: Time) -> Woken {
        let (mut rung, mut unread, mut called) = (false, false, None);
        if woken == Woken::default() {
            rung = self.waker.is_taken();
            unread = self.udp.iter().flat_map(Udp::fds).any(readable);
            called = self.called_by_adapters();
        }
        if rung || unread {
            woken = self.sleep.sleep(ECHO);
            if !(rung && woken.bell || unread && woken.packets) {
                self.rescued(None);
            }
        }
        if let Some(suspicion) = &mut self.suspicion {
            let told = match self.roster.get(suspicion.link).map(|link| &link.wire) {
                Some(Wire::Shm(_)) => woken.bell,
                _ => woken.packets,
            };
            suspicion.heard |= told;
            if !suspicion.heard && suspicion.owed {
                let link = suspicion.link;
                self.suspicion = None;
                self.rescued(Some(link));
            }
        } else if !woken.bell
            && let Some(link) = called.or(self.has_news())
        {
            let generation = self.generation;
            let (noticed, heard, owed) = (now, false, false);
            self.suspicion = Some(Suspicion { link, generation, noticed, heard, owed });
        }
        woken
    }

    /// A link over which something came for which a sleeper is to be woken.
    fn called_by_adapters(&mut self) -> Option<LinkId> {
        let mut called = None;
        for (id, link) in self.roster.iter_mut() {
            if let Wire::Verbs(_, verbs) = &mut link.wire
                && link.alive
                && verbs.notice()
                && verbs.was_called()
            {
                called = Some(id);
            }
        }
        called
    }

    /// Drops a suspicion that has proven wrong; else says what is still to come, or no more.
    pub(super) fn settle_suspicion(&mut self, now: Time) {
        let Some(suspicion) = &mut self.suspicion else { return };
        let late = now.since(suspicion.noticed) > LATE;
        let link = self.roster.get(suspicion.link).filter(|link| link.alive);
        let (rung, lost) = match link.map(|link| &link.wire) {
            Some(Wire::Shm(shm)) => {
                let rung = shm.rung_by_peer() >= suspicion.generation;
                (rung, late && !rung)
            }
            Some(Wire::Verbs(..)) => (suspicion.heard || late, false),
            Some(Wire::Udp(_)) | None => (true, false),
        };
        suspicion.owed = rung;
        if link.is_none() || rung && suspicion.heard {
            self.suspicion = None;
        } else if lost {
            let link = suspicion.link;
            self.suspicion = None;
            self.rescued(Some(link));
        }
    }

    /// Nothing is awaited of that link any more: its bell is gone.
    pub(super) fn acquit(&mut self, link: LinkId) {
        self.suspicion.take_if(|suspicion| suspicion.link == link);
    }

    fn rescued(&mut self, link: Option<LinkId>) {
        self.counters.rescues += 1;
        let link = link.map(|link| link.to_string());
        tracing::warn!(link, "a wake-up was lost; only the backstop ended the sleep");
    }

    /// Bells, packets and completions end this poller's sleeps no more, for good: as if each wake-up were lost.
    #[cfg(feature = "faults")]
    pub fn deafen(&mut self) {
        self.sleep.deafen();
    }
}
