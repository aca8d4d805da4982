//! What is counted of lanes: of a node's own, and of each lane of a link.
//!
//! Nothing is counted for each reader while messages flow: a link remembers where its reader began, and the difference
//! is taken when somebody looks.

use crate::lane::LaneId;
use crate::limits::LANES_MAX;
use crate::own::OwnLane;

/// Counters of an own lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCounters {
    /// Bytes of log published, with headers and padding.
    pub bytes: u64,
    /// Records published.
    pub records: u64,
    /// Values of words published.
    pub words: u64,
    /// Times that the log became full, because a reader gave back no room.
    pub credit_stalls: u64,
}

/// Counters of one lane of a link, since its reader began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneTraffic {
    /// Bytes of log published to the peer.
    pub bytes_sent: u64,
    /// Bytes of log that became visible from the peer.
    pub bytes_received: u64,
    /// Records published to the peer.
    pub records: u64,
    /// Values of words published to the peer.
    pub words: u64,
    /// Lost pieces of log and words that were sent again (UDP).
    pub retransmits: u64,
    /// Bytes that the peer has not given back at the moment: who has the most holds the lane up.
    pub unreleased: u64,
}

/// Where the two directions of a link's lanes began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Begun {
    sent: [LaneCounters; LANES_MAX],
    received: [u64; LANES_MAX],
}

impl Begun {
    /// The peer reads that lane from byte `from` on.
    pub(crate) fn attached(&mut self, lane: LaneId, from: u64, own: &OwnLane) {
        self.sent[lane.index()] = LaneCounters { bytes: from, ..own.counters() };
    }

    /// The peer's lane is read from byte `from` on.
    pub(crate) fn opened(&mut self, lane: LaneId, from: u64) {
        self.received[lane.index()] = from;
    }

    /// What was published since.
    pub(crate) fn sent(&self, lane: LaneId, own: &OwnLane) -> LaneTraffic {
        let (now, then) = (own.counters(), self.sent[lane.index()]);
        LaneTraffic {
            bytes_sent: now.bytes.saturating_sub(then.bytes),
            records: now.records - then.records,
            words: now.words - then.words,
            ..LaneTraffic::default()
        }
    }

    /// What became visible up to byte `head` since.
    pub(crate) fn received(&self, lane: LaneId, head: u64) -> u64 {
        head.saturating_sub(self.received[lane.index()])
    }
}
