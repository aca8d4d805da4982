//! A queue pair that failed is replaced, and the link goes on.
//!
//! A queue pair only carries; what makes a link is the inbox, and what both ends know of their lanes. Log bytes stay as
//! they are until the reader has released them, and their place follows from their position; ends, words and releases
//! only grow. So it does not matter how much of what was posted has arrived: all that the reader is not known to have
//! released is written again over the next queue pair, to the same places, and what it knows already changes nothing.
//! Nothing is lost or doubled by that, and the two ends need not tell each other how far they got.
//!
//! Each end destroys its old queue pair before it makes the next: what the peer still has under way over the old pair
//! meets nobody, and what we had posted is read by the adapter no more.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::VerbsLink;
use super::send::Owed;
use crate::faults::Gate;
use crate::lane::LaneSpec;
use crate::memory::Memory;
use crate::time::Time;
use crate::verbs::course::Course;
use crate::verbs::discover::Place;
use crate::verbs::layout::AT_HEADS;
use crate::verbs::region::Held;

/// Queue pairs of one link that may fail within [`MEMORY`]: after that what breaks them is believed to stay.
const FAILURES_MAX: u32 = 8;
const MEMORY: Duration = Duration::from_secs(60);

/// What the next queue pair of a link must be made for.
#[derive(Clone)]
pub(crate) struct Kept {
    /// The inbox, and what of it and of our logs is registered. It stays so between two queue pairs: nobody can use it then,
    /// and to register it anew, on the poller, would take as long as it is large.
    memory: Arc<Memory>,
    held: Option<Arc<Held>>,
    /// By what this link is called in notes: ours, and the peer's.
    pub(in crate::verbs) name: (u32, u32),
    /// The packet number that the peer's end of the last one began with.
    pub(in crate::verbs) after: u32,
    /// Between which addresses the last one went.
    pub(in crate::verbs) course: Course,
    /// Too many have failed lately.
    pub(crate) often: bool,
}

impl VerbsLink {
    /// Destroys the queue pair, so that another can take its place.
    pub(crate) fn suspend(&mut self, now: Time) -> Kept {
        if self.failures == 0 || now.since(self.failing_since) > MEMORY {
            (self.failing_since, self.failures) = (now, 0);
        }
        self.failures += 1;
        (self.pair, self.suspended) = (None, now);
        // Nothing is written to the inbox any more. An end there that no bell told of must not be lost: words that came
        // after it speak of it, and the peer's next queue pair may write a lower one first.
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let end = self.memory.word(AT_HEADS + 8 * index).load(Ordering::Acquire);
            lane.rung = lane.rung.max(end);
        }
        self.batches.clear();
        (self.posted, self.unsignaled) = (0, 0);
        (self.hurry, self.asks, self.failure) = (false, false, None);
        Kept {
            memory: self.memory.clone(),
            held: self.held.take(),
            name: self.name,
            after: self.remote.psn,
            course: self.course,
            often: self.failures > FAILURES_MAX,
        }
    }

    /// A queue pair for a link that goes on.
    pub(in crate::verbs) fn going_on(
        kept: &Kept,
        place: &Place,
        source: &Arc<Memory>,
        lanes: &[LaneSpec],
    ) -> std::io::Result<VerbsLink> {
        let held = match &kept.held {
            Some(held) if held.is_of(&place.device) => held.clone(),
            _ => Held::new(&place.device, &kept.memory, source)?,
        };
        VerbsLink::over(kept.memory.clone(), held, place, lanes)
    }

    /// How long there has been no queue pair.
    pub(crate) fn stalled(&self, now: Time) -> Option<Duration> {
        self.is_suspended().then(|| now.since(self.suspended))
    }

    /// Between two queue pairs: nothing is sent or received.
    pub(crate) fn is_suspended(&self) -> bool {
        self.pair.is_none() && !self.frozen
    }

    /// By what this link is called in notes: ours, and the peer's.
    pub(crate) fn name(&self) -> (u32, u32) {
        self.name
    }

    /// The packet number that our end of its queue pair began with.
    pub(crate) fn psn(&self) -> u32 {
        self.psn
    }

    /// How often its queue pair failed lately.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Goes on as `old`, whose inbox it was made for.
    pub(crate) fn inherit(&mut self, old: &mut VerbsLink) {
        (self.name, self.failures) = (old.name, old.failures);
        self.failing_since = old.failing_since;
        self.malformed = Cell::new(old.malformed.get());
        self.doorbells += old.doorbells;
        self.gate = std::mem::replace(&mut old.gate, Gate::open());
        for (lane, was) in self.lanes.iter_mut().zip(&mut old.lanes) {
            lane.reader = was.reader.take();
            lane.words = std::mem::take(&mut was.words);
            (lane.freed, lane.said) = (was.freed, 0);
            lane.rung = lane.rung.max(was.rung);
            lane.released = lane.released.max(was.released);
            lane.attached = was.attached;
            if let Some(from) = was.attached {
                lane.sent = from.max(lane.released.min(was.sent));
                lane.done = lane.sent;
                (lane.told, lane.kept) = (None, None);
                lane.dirty = (lane.place.words > 0).then(|| (0, lane.place.words - 1));
            }
        }
        self.owed = Owed { now: true, later: true };
        (self.unfinished, self.wakes, self.stale) = (true, true, true);
    }
}
