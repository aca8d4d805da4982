//! Where no queue pair comes up again, the lanes of a link go by UDP until one does.
//!
//! What the peer's packets bring is put into the inbox, at the same places: positions are the same by either path, so
//! readers go on with the memory that they have, and nothing is copied or told anew. That is sound because nobody else
//! writes there: a queue pair that is tried meanwhile carries a proof and no log, and its first write of one comes when
//! its end of the link has left UDP. Then both paths may write the same bytes to the same places for a moment.

use super::VerbsLink;
use crate::lane::LaneId;
use crate::log::{Reader, Ring};
use crate::udp::Lent;

impl VerbsLink {
    /// The peer's lanes as far as they have come, for another path.
    pub(crate) fn lend(&mut self) -> Lent {
        let mut lent = Lent::default();
        for lane in &mut self.lanes {
            let place = lane.place;
            lent.rings.push(Ring::new(self.memory.clone(), place.log_at, place.log_bytes));
            lent.readers.push(lane.reader.take());
            lent.words.push(std::mem::take(&mut lane.words));
        }
        lent
    }

    /// They come back.
    pub(crate) fn take_back(&mut self, lent: Lent) {
        let read = lent.readers.into_iter().zip(lent.words);
        for (lane, (reader, words)) in self.lanes.iter_mut().zip(read) {
            lane.rung = lane.rung.max(reader.as_ref().map_or(0, Reader::visible));
            lane.freed = reader.as_ref().map_or(lane.freed, Reader::released);
            lane.words = if reader.is_some() { words } else { Vec::new() };
            lane.reader = reader;
        }
    }

    /// How far the peer has released our lane meanwhile, if it reads it.
    pub(crate) fn took(&mut self, lane: LaneId, released: Option<u64>) {
        let Some(lane) = self.lanes.get_mut(lane.index()) else { return };
        lane.attached = released;
        let from = released.unwrap_or(lane.released);
        (lane.released, lane.sent, lane.done) = (from, from, from);
    }
}
