//! Lanes: one log and one array of words each, ordered within, independent of one another.
//!
//! What a reader may rely on, whatever carries the lane:
//! - log bytes become visible as a growing prefix; published bytes never change until every reader
//!   that is attached has released them;
//! - a word's visible value only grows and is never torn; a word set after log bytes of the *same*
//!   lane were published is visible no earlier than these bytes;
//! - words of a lane are not ordered among themselves, nor are lanes.

/// Index of a lane in [`Config::lanes`](crate::Config).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u8);

/// Membership and other rare records; attached and opened by itself when a link comes up.
pub const CONTROL: LaneId = LaneId(0);
/// The group's multicast.
pub const GROUP: LaneId = LaneId(1);
/// Bulk transfers, which must not delay the other lanes.
pub const BULK: LaneId = LaneId(2);

impl LaneId {
    /// Position in arrays of lanes.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Size of one lane of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSpec {
    /// For people: shown in counters and errors.
    pub name: &'static str,
    /// Number of u64 words.
    pub words: usize,
    /// Bytes of the ring log; a power of two.
    pub log_bytes: usize,
}
