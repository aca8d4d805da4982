//! This node's own lanes: what it publishes, and what is marked for the next flush.
//!
//! Providers read from here: shared memory copies heads and changed words into the segment, UDP seals
//! log ranges straight from the ring and words by value.

use crate::lane::{LaneId, LaneSpec};
use crate::log::{Publisher, Ring};
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
        Own { lanes }
    }

    #[inline]
    pub(crate) fn lane(&self, lane: LaneId) -> &OwnLane {
        &self.lanes[lane.index()]
    }

    #[inline]
    pub(crate) fn lane_mut(&mut self, lane: LaneId) -> &mut OwnLane {
        &mut self.lanes[lane.index()]
    }

    /// Nothing is marked any more: every provider has taken what it needs.
    pub(crate) fn flushed(&mut self) {
        for lane in &mut self.lanes {
            lane.flushed = lane.log.head();
            for &word in &lane.changed {
                lane.is_changed[usize::from(word)] = false;
            }
            lane.changed.clear();
        }
    }
}

impl OwnLane {
    /// True if the value is news.
    pub(crate) fn set_word(&mut self, word: usize, value: u64) -> bool {
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

    /// Whether there is anything to flush.
    pub(crate) fn is_marked(&self) -> bool {
        !self.changed.is_empty() || self.flushed != self.log.head()
    }
}
