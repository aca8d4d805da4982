//! What the peer writes: doorbells and completions taken, ends and words looked at.

use std::sync::atomic::Ordering;

use super::VerbsLink;
use crate::event::Evidence;
use crate::log::Malformed;
use crate::verbs::completion::{Completion, TAKEN};
use crate::verbs::immediate::{Immediate, rebuilt};
use crate::verbs::layout::{AT_HEADS, AT_RELEASED};
use crate::verbs::queue_pair::{RECEIVE, RECEIVES};

/// Doorbells taken in one turn: a flood cannot keep the poller from its other work.
const TAKES_PER_TURN: usize = 8;
/// Doorbells after which receive requests are posted anew: each call of the adapter costs, whatever it posts.
const REPOST: u32 = RECEIVES / 8;

impl VerbsLink {
    /// Takes doorbells and completions, and looks at what they tell of. True if anything happened.
    pub(crate) fn refresh(&mut self) -> bool {
        if self.pair.is_none() {
            return false;
        }
        if std::mem::take(&mut self.noticed) {
            return true;
        }
        let mut happened = false;
        for _ in 0..TAKES_PER_TURN {
            let (mut failed, mut finished) = (None, None);
            let VerbsLink { completions, lanes, memory, .. } = self;
            let (mut rung, mut stale, mut told, mut foreign) = (0, false, false, false);
            let mut called = false;
            let taken = completions.take(|Completion { id, failure, immediate }| match failure {
                Some(status) => failed = failed.or(Some(status)),
                None if id == RECEIVE => {
                    rung += 1;
                    match Immediate::parse(immediate) {
                        Immediate::Look { wakes } => {
                            stale = true;
                            called |= wakes;
                        }
                        Immediate::Proof => (stale, called) = (true, true),
                        Immediate::End { lane: index, low } => match lanes.get_mut(index) {
                            Some(lane) => {
                                // The inbox may know more: then this bell comes late, and changes nothing.
                                let at = AT_HEADS + 8 * index;
                                let known = memory.word(at).load(Ordering::Acquire).max(lane.rung);
                                lane.rung = rebuilt(low, known);
                                (told, called) = (true, true);
                            }
                            None => foreign = true,
                        },
                    }
                }
                None => finished = Some(id),
            });
            let Ok(taken) = taken else {
                self.failure = self.failure.or(Some(Evidence::PathBroken));
                return true;
            };
            self.called |= called || failed.is_some() || taken > 0 && self.armed_for_any;
            self.stale |= stale;
            self.told |= told;
            if foreign {
                self.malformed.set(true);
            }
            if let Some(status) = failed
                && self.pair.is_some()
                && self.failure.is_none()
            {
                tracing::debug!(status, "the queue pair failed");
                self.failure = Some(Evidence::PathBroken);
            }
            if let Some(id) = finished {
                self.finished(id);
            }
            if rung > 0 {
                self.proven.0 = true;
                self.repost(rung);
            }
            happened |= taken > 0;
            if taken < TAKEN {
                break;
            }
        }
        if (self.stale || self.told) && self.failure.is_none() && self.gate.passes() {
            happened = true;
            if self.look().is_err() {
                self.malformed.set(true);
            }
        }
        happened
    }

    /// As [`VerbsLink::refresh`], between two turns: what happened is told by the next one again.
    pub(crate) fn notice(&mut self) -> bool {
        self.noticed = self.refresh();
        self.noticed
    }

    /// Whether something came since the link was asked to wake a sleeper for which it should have done so.
    pub(crate) fn was_called(&self) -> bool {
        self.called
    }

    fn repost(&mut self, rung: u32) {
        self.taken += rung;
        if self.taken >= REPOST
            && let Some(pair) = &self.pair
        {
            let count = std::mem::take(&mut self.taken);
            if pair.receive(count).is_err() {
                self.failure = self.failure.or(Some(Evidence::PathBroken));
            }
        }
    }

    fn finished(&mut self, id: u64) {
        self.proven.1 = true;
        while self.batches.front().is_some_and(|batch| batch.id <= id) {
            let Some(batch) = self.batches.pop_front() else { break };
            self.posted -= batch.writes;
            for (lane, sent) in self.lanes.iter_mut().zip(batch.sent) {
                lane.done = lane.done.max(sent);
            }
        }
        self.hurry &= self.lanes.iter().any(|lane| lane.done < lane.sent);
    }

    /// Words before ends: the other way round a word might come whose log is not seen yet. An end that only its bell told
    /// has no words that speak of it.
    fn look(&mut self) -> Result<(), Malformed> {
        let stale = std::mem::take(&mut self.stale);
        self.told = false;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if stale {
                let said = self.memory.word(AT_RELEASED + 8 * index).load(Ordering::Acquire);
                lane.released = lane.released.max(said);
            }
            let Some(reader) = &mut lane.reader else { continue };
            let mut head = lane.rung;
            if stale {
                for (number, word) in lane.words.iter_mut().enumerate() {
                    let at = lane.place.words_at + 8 * number;
                    *word = (*word).max(self.memory.word(at).load(Ordering::Acquire));
                }
                head = head.max(self.memory.word(AT_HEADS + 8 * index).load(Ordering::Acquire));
            }
            reader.advance(head)?;
            // Trailing padding and aborts are nobody's to release.
            if reader.skip() {
                lane.freed = reader.released();
                self.owed.note(lane);
            }
        }
        Ok(())
    }
}
