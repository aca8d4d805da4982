//! What we write to the peer: the news of our lanes since the last flush, as one batch.
//!
//! Adapters take about as long for a small write as for a few kilobytes, so what counts is how many there are:
//! - news of one log and nothing else are one write, whose bell tells the end;
//! - else the published ends go in a write of their own, with all releases, and the words after that;
//! - releases that nobody waits for go with the next ends, at the next housekeeping at the latest;
//! - so do requests for a completion: with the next batch, whatever it is of.

use super::{Batch, Lane, VerbsLink};
use crate::event::Evidence;
use crate::lane::LaneId;
use crate::limits::LANES_MAX;
use crate::own::Own;
use crate::verbs::immediate::{Immediate, RING_MAX};
use crate::verbs::layout::{AT_HEADS, AT_PROOF, ENDS, PACKET_MAX};
use crate::verbs::queue_pair::{Ending, SENDS, Write};

/// Bytes of one write: adapters have a largest message, 8 MiB for some.
const PIECE: u64 = 1 << 20;
/// Unsignaled writes at most.
const SIGNAL_EVERY: u32 = SENDS / 8;
/// Free places in the send queue below which a flush waits for completions.
const ROOM_MIN: usize = 8;

/// Releases that the peer does not know of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owed {
    /// They go with the next flush.
    pub(super) now: bool,
    /// They may wait for the next ends, or for housekeeping.
    pub(super) later: bool,
}

impl Owed {
    /// Something of the peer's lane was released. It may wait as long as the peer has space.
    pub(super) fn note(&mut self, lane: &Lane) {
        let untold = lane.freed.saturating_sub(lane.said);
        self.later = true;
        self.now |= untold >= lane.place.log_bytes as u64 / 8;
    }
}

/// The logs whose new ends the peer must be told: how many, and the last of them.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    count: usize,
    lane: usize,
    /// The peer has an end of that lane in its inbox.
    known: bool,
}

impl VerbsLink {
    /// The peer reads our lane from `from` on.
    pub(crate) fn attach(&mut self, lane: LaneId, from: u64) {
        let Some(l) = self.lanes.get_mut(lane.index()) else { return };
        l.attached = Some(from);
        l.sent = from;
        l.done = l.done.min(from);
        (l.told, l.kept) = (None, None);
        l.dirty = (l.place.words > 0).then(|| (0, l.place.words - 1));
        for batch in &mut self.batches {
            batch.sent[lane.index()] = batch.sent[lane.index()].min(from);
        }
        self.unfinished = true;
    }

    pub(crate) fn detach(&mut self, lane: LaneId) {
        if let Some(l) = self.lanes.get_mut(lane.index()) {
            l.attached = None;
            l.dirty = None;
        }
    }

    /// How far the peer has released our log, of which `head` is published; `None` if it does not read it.
    pub(crate) fn released(&self, lane: LaneId, head: u64) -> Option<u64> {
        let l = self.lanes.get(lane.index())?;
        // What was not sent cannot have been released, whatever the peer says.
        Some(l.attached?.max(l.released.min(l.sent).min(head)))
    }

    /// Our log at and above this may still be read by the adapter. Asking for more makes the next batch ask for a
    /// completion.
    pub(crate) fn floor(&mut self, lane: LaneId, upto: u64) -> u64 {
        if self.batches.is_empty() && self.unsignaled == 0 {
            // Nothing is under way: what a lane seems to have beside that was never posted.
            self.lanes.iter_mut().for_each(|lane| lane.done = lane.sent);
        }
        match self.lanes.get(lane.index()) {
            Some(l) if self.pair.is_some() && l.done < l.sent && l.done < upto => {
                self.hurry = true;
                l.done
            }
            _ => upto,
        }
    }

    /// Whether a flush has something to do, beyond what is marked in `own`.
    pub(crate) fn has_work(&self) -> bool {
        self.unfinished || self.owed.now
    }

    /// What was put off has waited long enough.
    pub(super) fn remember(&mut self) {
        self.owed.now |= self.owed.later;
        self.asks |= self.hurry && self.unsignaled > 0;
    }

    /// Posts all that was published and marked since the last flush.
    pub(crate) fn flush(&mut self, own: &Own, wakes: bool) {
        if self.pair.is_none() || self.failure.is_some() {
            return;
        }
        self.wakes |= wakes;
        let mut marked = self.has_work() || self.asks;
        for (mine, lane) in own.lanes.iter().zip(&mut self.lanes) {
            if lane.attached.is_none() {
                continue;
            }
            marked |= lane.sent != mine.log.head();
            for word in mine.changed.iter().map(|&word| usize::from(word)) {
                let (low, high) = lane.dirty.unwrap_or((word, word));
                lane.dirty = Some((low.min(word), high.max(word)));
                marked = true;
            }
        }
        if !marked {
            return;
        }
        let room = (SENDS - self.posted) as usize;
        if room < ROOM_MIN {
            self.unfinished = true;
            return;
        }
        self.fill(own, room);
    }

    /// One batch, of at most `room` writes.
    fn fill(&mut self, own: &Own, room: usize) {
        let mut writes = std::mem::take(&mut self.writes);
        let mut stage = std::mem::take(&mut self.stage);
        writes.clear();
        self.unfinished = false;
        let news = self.fill_logs(own, room - 1, &mut writes);
        let mut bell = Immediate::Look { wakes: self.wakes };
        let (words, behind) = self.words_to_go(own);
        let small = self.lanes.get(news.lane).is_some_and(|l| l.place.log_bytes <= RING_MAX);
        let told = news.count == 1 && news.known && small;
        let alone = told && !words && !self.owed.now && self.wakes;
        if alone {
            bell = Immediate::end(news.lane, self.lanes[news.lane].sent);
        } else if news.count > 0
            || behind
            || self.owed.now
            || self.asks && writes.is_empty() && !words
        {
            self.owed = Owed::default();
            for (index, lane) in self.lanes.iter_mut().enumerate() {
                (lane.kept, lane.said) = (lane.told, lane.freed);
                stage[index] = lane.told.unwrap_or(0);
                stage[LANES_MAX + index] = lane.freed;
            }
            writes.push(self.inline(&stage[..ENDS], AT_HEADS));
        }
        self.fill_words(own, room, &mut stage[ENDS..], &mut writes);
        if !writes.is_empty() {
            self.post(&writes, bell);
        }
        self.writes = writes;
        self.stage = stage;
    }

    /// The logs' news; of which lanes the peer must be told new ends. It is told only of whole records.
    fn fill_logs(&mut self, own: &Own, room: usize, writes: &mut Vec<Write>) -> News {
        let mut news = News::default();
        let key = self.held.as_ref().map_or(0, |held| held.source.local_key());
        let inline_max = self.pair.as_ref().map_or(0, |pair| pair.inline_max as u64);
        for (index, (mine, lane)) in own.lanes.iter().zip(&mut self.lanes).enumerate() {
            if lane.attached.is_none() {
                continue;
            }
            if lane.sent < mine.log.low() {
                // Its owner reclaimed what this reader has not released: it no longer counts among the readers.
                lane.attached = None;
                continue;
            }
            let (head, capacity) = (mine.log.head(), lane.place.log_bytes as u64);
            while lane.sent < head && writes.len() < room {
                let slot = lane.sent & (capacity - 1);
                let len = (head - lane.sent).min(capacity - slot).min(PIECE);
                let inline = len <= inline_max;
                writes.push(Write {
                    local: mine.log.ring().address(lane.sent),
                    local_key: key,
                    len: len as u32,
                    remote: self.remote.inbox + lane.place.log_at as u64 + slot,
                    inline,
                });
                // What is copied when it is posted is read by then.
                if inline && lane.done == lane.sent {
                    lane.done += len;
                }
                lane.sent += len;
            }
            self.unfinished |= lane.sent != head;
            if lane.sent == head && lane.told != Some(head) {
                lane.told = Some(head);
                news = News { count: news.count + 1, lane: index, known: lane.kept.is_some() };
            }
        }
        news
    }

    /// Whether there are words to go now, and whether some speak of an end that is not in the peer's inbox.
    fn words_to_go(&self, own: &Own) -> (bool, bool) {
        let (mut any, mut behind) = (false, false);
        for (mine, lane) in own.lanes.iter().zip(&self.lanes) {
            let goes =
                lane.attached.is_some() && lane.dirty.is_some() && lane.sent == mine.log.head();
            any |= goes;
            behind |= goes && lane.kept != lane.told;
        }
        (any, behind)
    }

    /// Words of the lanes whose log is posted as far as it is published, by the value they have been set to.
    fn fill_words(&mut self, own: &Own, room: usize, stage: &mut [u64], writes: &mut Vec<Write>) {
        let chunk = self.pair.as_ref().map_or(1, |pair| pair.inline_max / 8);
        let mut used = 0;
        for (index, mine) in own.lanes.iter().enumerate() {
            let lane = &mut self.lanes[index];
            if lane.attached.is_none() || lane.sent != mine.log.head() {
                continue;
            }
            let (place, dirty) = (lane.place, lane.dirty.take());
            let Some((mut low, high)) = dirty else { continue };
            while low <= high {
                if writes.len() >= room {
                    self.lanes[index].dirty = Some((low, high));
                    self.unfinished = true;
                    break;
                }
                let len = chunk.min(high + 1 - low);
                let values = &mut stage[used..used + len];
                for (value, word) in values.iter_mut().zip(&mine.words[low..]) {
                    *value = word.value;
                }
                writes.push(self.inline(values, place.words_at + 8 * low));
                used += len;
                low += len;
            }
        }
    }

    /// A write of `values`, which must stay where they are until it is posted, to `at` in the peer's inbox.
    fn inline(&self, values: &[u64], at: usize) -> Write {
        Write {
            local: values.as_ptr() as u64,
            local_key: 0,
            len: 8 * values.len() as u32,
            remote: self.remote.inbox + at as u64,
            inline: true,
        }
    }

    /// Writes into the peer's inbox what only we can know: its own packet number, seen in its offer. Before it goes one
    /// packet as large as they get, to where nobody reads: a path that only carries small ones is found out here, and not by
    /// a link that dies of its first large write, again and again.
    pub(in crate::verbs) fn prove(&mut self) {
        let proof = [u64::from(self.remote.psn)];
        let Some(held) = &self.held else { return };
        let large = Write {
            local: held.inbox.address() + self.spare,
            local_key: held.inbox.local_key(),
            len: self.packet.min(PACKET_MAX as u32),
            remote: self.remote.inbox + self.spare,
            inline: false,
        };
        self.post(&[large, self.inline(&proof, AT_PROOF)], Immediate::Proof);
    }

    /// Rings as it likes, and writes nothing but a value that is there already: for tests of the other side.
    #[cfg(test)]
    pub(in crate::verbs) fn lie(&mut self, immediate: u32) {
        let nothing = [0];
        let at = crate::verbs::layout::AT_HEADS;
        let ending =
            Ending { id: self.next, doorbell: Some(immediate), wakes: true, signaled: false };
        let write = self.inline(&nothing, at);
        let pair = self.pair.as_mut().expect("a queue pair");
        // SAFETY: an inline value, which lives until it is posted.
        unsafe { pair.post(&[write], self.remote.rkey, ending) }.expect("posted");
        self.posted += 1;
        self.unsignaled += 1;
    }

    /// Writes to anywhere, with any key: for tests of the other side.
    #[cfg(test)]
    pub(crate) fn trespass(&mut self, key: u32, at: u64) {
        let values = [0x0bad];
        let mut write = self.inline(&values, 0);
        write.remote = write.remote.wrapping_add(at);
        let ending = Ending { id: self.next, doorbell: Some(0), wakes: true, signaled: false };
        let pair = self.pair.as_mut().expect("a queue pair");
        // SAFETY: an inline value, which lives until it is posted.
        unsafe { pair.post(&[write], self.remote.rkey ^ key, ending) }.expect("posted");
        self.posted += 1;
        self.unsignaled += 1;
    }

    fn post(&mut self, writes: &[Write], bell: Immediate) {
        let Some(pair) = &mut self.pair else { return };
        let count = writes.len() as u32;
        let late = |lane: &Lane| lane.sent - lane.done >= lane.place.log_bytes as u64 / 4;
        let signaled = self.hurry
            || bell == Immediate::Proof
            || self.unsignaled + count >= SIGNAL_EVERY
            || self.lanes.iter().any(late);
        self.next += 1;
        let wakes = std::mem::take(&mut self.wakes) || bell == Immediate::Proof;
        let ending = Ending { id: self.next, doorbell: Some(bell.emit()), wakes, signaled };
        // SAFETY: log ranges are published bytes of our rings, which lie in the source region that the key names.
        // Nobody writes them until they are reclaimed, and `Poller::reclaim` stops at `floor`, which this batch's
        // completion moves; or the queue pair is destroyed first (`freeze`, `suspend`, `drop`). A proof is of the inbox's
        // spare room, which is registered, and whose content matters to nobody. Inline values are in `stage` or are such
        // log bytes, and `stage` is not touched before the call returns.
        if unsafe { pair.post(writes, self.remote.rkey, ending) }.is_err() {
            self.failure = self.failure.or(Some(Evidence::PathBroken));
            return;
        }
        self.doorbells += 1;
        self.posted += count;
        self.unsignaled += count;
        self.asks = false;
        if signaled {
            let mut sent = [0; LANES_MAX];
            for (sent, lane) in sent.iter_mut().zip(&self.lanes) {
                *sent = lane.sent;
            }
            self.batches.push_back(Batch { id: self.next, writes: self.unsignaled, sent });
            self.unsignaled = 0;
        }
    }
}
