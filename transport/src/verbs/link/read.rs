//! The peer's lanes, as they were seen when the inbox was looked at last.

use super::VerbsLink;
use crate::lane::LaneId;
use crate::log::{LogBytes, Malformed, Reader, Record, Ring};

impl VerbsLink {
    pub(crate) fn open(&mut self, lane: LaneId, from: u64) {
        let Some(l) = self.lanes.get_mut(lane.index()).filter(|_| !self.frozen) else {
            return;
        };
        match &mut l.reader {
            Some(reader) if from <= reader.visible() => _ = reader.release(from),
            reader => {
                let ring = Ring::new(self.memory.clone(), l.place.log_at, l.place.log_bytes);
                *reader = Some(Reader::new(ring, from));
                l.words = vec![0; l.place.words];
            }
        }
        l.freed = l.reader.as_ref().map_or(from, Reader::released);
        self.owed.now = true;
        self.stale = true;
    }

    /// Reads that log no more.
    pub(crate) fn shut(&mut self, lane: LaneId) {
        if let Some(l) = self.lanes.get_mut(lane.index()) {
            l.reader = None;
        }
    }

    fn reader(&self, lane: LaneId) -> Option<&Reader> {
        self.lanes.get(lane.index())?.reader.as_ref()
    }

    pub(crate) fn word(&self, lane: LaneId, word: usize) -> u64 {
        self.lanes.get(lane.index()).and_then(|l| l.words.get(word)).copied().unwrap_or(0)
    }

    pub(crate) fn head(&self, lane: LaneId) -> u64 {
        self.reader(lane).map_or(0, Reader::visible)
    }

    pub(crate) fn peek(&self, lane: LaneId, at: u64) -> Option<Record<'_>> {
        self.reader(lane)?.peek(at).unwrap_or_else(|Malformed| {
            self.malformed.set(true);
            None
        })
    }

    /// False once the peer's log has broken the format.
    pub(crate) fn intact(&self) -> bool {
        !self.malformed.get()
    }

    pub(crate) fn release(&mut self, lane: LaneId, upto: u64) {
        if let Some(l) = self.lanes.get_mut(lane.index())
            && let Some(reader) = &mut l.reader
            && reader.release(upto)
        {
            l.freed = reader.released();
            self.owed.note(l);
        }
    }

    /// The end of the peer's log that is written in the inbox, and the one that bells have told.
    #[cfg(test)]
    pub(in crate::verbs) fn told_end(&self, lane: LaneId) -> u64 {
        let at = crate::verbs::layout::AT_HEADS + 8 * lane.index();
        self.memory.word(at).load(std::sync::atomic::Ordering::Acquire)
    }

    #[cfg(test)]
    pub(in crate::verbs) fn rung(&self, lane: LaneId) -> u64 {
        self.lanes[lane.index()].rung
    }

    /// Says to have released what it likes: for tests of the other side.
    #[cfg(test)]
    pub(in crate::verbs) fn claim(&mut self, lane: LaneId, upto: u64) {
        self.lanes[lane.index()].freed = upto;
        self.owed.now = true;
    }

    pub(crate) fn bytes(&self, lane: LaneId) -> Option<LogBytes> {
        self.reader(lane).map(|reader| LogBytes::new(reader.ring().clone()))
    }
}
