//! This node's own lanes: what it publishes, and what is marked for the next flush.
//!
//! Providers read from here: shared memory copies heads and changed words into the segment, UDP seals
//! log ranges straight from the ring and words by value.

use crate::lane::{LaneId, LaneSpec};
use crate::log::{Committed, Published, Publisher, Ring};
use crate::traffic::LaneCounters;
use crate::wait::Waker;

/// A word as set by its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) value: u64,
    /// Published end of the lane's log when the value was set: a reader may see the value only once
    /// it sees the log up to here.
    pub(crate) after: u64,
}

/// One own lane.
pub(crate) struct OwnLane {
    pub(crate) spec: LaneSpec,
    pub(crate) log: Publisher,
    pub(crate) words: Vec<Word>,
    /// Words set since the last flush, each once.
    pub(crate) changed: Vec<u16>,
    is_changed: Vec<bool>,
    /// The owner knows that a record is committed (and perhaps must not publish it now).
    pub(crate) known: bool,
    /// Published end as of the last flush.
    pub(crate) flushed: u64,
    /// Values set.
    sets: u64,
}

/// All own lanes.
pub(crate) struct Own {
    pub(crate) lanes: Vec<OwnLane>,
    /// Lanes whose log has grown since the last flush, as a bit set.
    longer: u64,
    /// The same of lanes whose words have changed.
    changed: u64,
}

impl Own {
    /// One ring per lane.
    pub(crate) fn new(specs: &[LaneSpec], rings: Vec<Ring>, waker: &Waker) -> Own {
        let lanes = specs
            .iter()
            .zip(rings)
            .map(|(spec, ring)| OwnLane {
                spec: *spec,
                log: Publisher::new(ring, waker.clone()),
                words: vec![Word::default(); spec.words],
                changed: Vec::with_capacity(spec.words),
                is_changed: vec![false; spec.words],
                known: false,
                flushed: 0,
                sets: 0,
            })
            .collect();
        Own { lanes, longer: 0, changed: 0 }
    }

    #[inline]
    pub(crate) fn lane(&self, lane: LaneId) -> &OwnLane {
        &self.lanes[lane.index()]
    }

    #[inline]
    pub(crate) fn lane_mut(&mut self, lane: LaneId) -> &mut OwnLane {
        &mut self.lanes[lane.index()]
    }

    /// The oldest committed, unpublished record of a lane. Moves the published end over what readers skip anyway.
    #[inline]
    pub(crate) fn committed(&mut self, lane: LaneId) -> Option<Committed> {
        let own = &mut self.lanes[lane.index()];
        let head = own.log.head();
        let committed = own.log.committed();
        own.known = committed.is_some();
        if own.log.head() != head {
            self.longer |= 1 << lane.0;
        }
        committed
    }

    /// Publishes that record with the next flush, as number `index` of its sender.
    #[inline]
    pub(crate) fn publish(&mut self, lane: LaneId, index: u64) -> Published {
        let own = &mut self.lanes[lane.index()];
        own.known = false;
        self.longer |= 1 << lane.0;
        own.log.publish(index)
    }

    /// True if the value is news.
    pub(crate) fn set_word(&mut self, lane: LaneId, word: usize, value: u64) -> bool {
        let news = self.lanes[lane.index()].set_word(word, value);
        self.changed |= u64::from(news) << lane.0;
        news
    }

    /// Whether a log has grown since the last flush.
    #[inline]
    pub(crate) fn has_grown(&self) -> bool {
        self.longer != 0
    }

    /// The lanes of which there is anything to flush.
    #[inline]
    pub(crate) fn marked(&self) -> impl Iterator<Item = (LaneId, &OwnLane)> {
        let mut left = self.longer | self.changed;
        std::iter::from_fn(move || {
            let lane = LaneId(left.trailing_zeros() as u8);
            left &= left.wrapping_sub(1);
            (lane.0 < 64).then(|| (lane, &self.lanes[lane.index()]))
        })
    }

    /// Nothing is marked any more: every provider has taken what it needs. `looked_at`: a peer maps this memory.
    pub(crate) fn flushed(&mut self, looked_at: bool) {
        let mut left = std::mem::take(&mut self.longer) | std::mem::take(&mut self.changed);
        while left != 0 {
            let lane = &mut self.lanes[left.trailing_zeros() as usize];
            left &= left - 1;
            lane.flushed = lane.log.head();
            lane.log.flushed(looked_at);
            for &word in &lane.changed {
                lane.is_changed[usize::from(word)] = false;
            }
            lane.changed.clear();
        }
    }
}

impl OwnLane {
    /// True if the value is news.
    fn set_word(&mut self, word: usize, value: u64) -> bool {
        let after = self.log.head();
        let slot = &mut self.words[word];
        debug_assert!(value >= slot.value, "word {word} of {} must not decrease", self.spec.name);
        if value <= slot.value {
            return false;
        }
        *slot = Word { value, after };
        self.sets += 1;
        if !self.is_changed[word] {
            self.is_changed[word] = true;
            self.changed.push(word as u16);
        }
        true
    }

    /// What was published in it.
    pub(crate) fn counters(&self) -> LaneCounters {
        LaneCounters {
            bytes: self.log.head(),
            records: self.log.records(),
            words: self.sets,
            credit_stalls: self.log.stalls(),
        }
    }
}
