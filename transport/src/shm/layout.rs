//! Where things are in a segment. Offsets in bytes; all values little-endian u64 unless said otherwise.
//!
//! ```text
//!      0  magic, version, incarnation, node, lanes, total bytes
//!     64  lane table: {words offset, words, log offset, log bytes} × LANES_MAX
//!    512  turn (flushes that wake), flushes that changed words, published end of each lane's log
//!         (one cache line: all a poll looks at)
//!    640  armed: number of the owner's sleep, 0 while it is awake
//!    768  heartbeat: the owner's clock when it was last alive; the thread that said so
//!    896  wanted: lanes in which the owner waits for space
//!   1024  reclaimed end of each lane's log
//!   4096  rows, one per peer: {session, echo, rung, -, released end of each of the peer's logs}
//!  20480  robust futex words (u32), one per peer, each on its own line
//!  24576  words and logs of the lanes, each on pages of its own
//! ```

use crate::lane::LaneSpec;
use crate::limits::{LANE_WORDS_MAX, LANES_MAX, LOG_BYTES_MAX, LOG_BYTES_MIN, NODES_MAX};
use crate::memory::{LanePlace, pages};

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"QNTSEGM\x01");
pub(super) const VERSION: u64 = 4;

pub(super) const AT_MAGIC: usize = 0;
pub(super) const AT_VERSION: usize = 8;
pub(super) const AT_INCARNATION: usize = 16;
pub(super) const AT_NODE: usize = 24;
pub(super) const AT_LANES: usize = 32;
pub(super) const AT_TOTAL: usize = 40;
pub(super) const AT_TABLE: usize = 64;
pub(super) const AT_TURN: usize = 512;
pub(super) const AT_WORDS: usize = 520;
pub(super) const AT_HEADS: usize = 528;
pub(super) const AT_ARMED: usize = 640;
pub(super) const AT_HEARTBEAT: usize = 768;
pub(super) const AT_THREAD: usize = 776;
pub(super) const AT_WANTED: usize = 896;
pub(super) const AT_LOW: usize = 1024;
/// What is before the rows.
pub(super) const HEADER_WORDS: usize = AT_ROWS / 8;
const AT_ROWS: usize = 4096;
const ROW: usize = 256;
const AT_ROBUST: usize = AT_ROWS + ROW * NODES_MAX;
pub(super) const ROBUST_STRIDE: usize = 64;
const AT_LANE_DATA: usize = AT_ROBUST + ROBUST_STRIDE * NODES_MAX;

const _: () = assert!(AT_HEADS + 8 * LANES_MAX <= AT_TURN + 64);
const _: () = assert!(AT_TABLE + 32 * LANES_MAX <= AT_TURN);
const _: () = assert!(AT_LANE_DATA.is_multiple_of(4096));

pub(super) const ROW_SESSION: usize = 0;
pub(super) const ROW_ECHO: usize = 8;
pub(super) const ROW_RUNG: usize = 16;
pub(super) const ROW_RELEASED: usize = 64;

pub(super) const fn row(index: usize) -> usize {
    AT_ROWS + ROW * index
}

pub(super) const fn robust(index: usize) -> usize {
    AT_ROBUST + ROBUST_STRIDE * index
}

/// A session as stored in a row: open under that number. Anything else: closed.
pub(super) const fn open(session: u64) -> u64 {
    session << 1 | 1
}

/// The places of the lanes, and the size of the whole segment.
pub(super) fn plan(lanes: &[LaneSpec]) -> (Vec<LanePlace>, usize) {
    let mut at = AT_LANE_DATA;
    let mut places = Vec::with_capacity(lanes.len());
    for lane in lanes {
        let words_at = at;
        let log_at = words_at + pages(8 * lane.words);
        at = log_at + pages(lane.log_bytes);
        places.push(LanePlace { words_at, words: lane.words, log_at, log_bytes: lane.log_bytes });
    }
    (places, at)
}

/// A place read from a stranger's lane table, if it is sound in a segment of `total` bytes.
pub(super) fn checked_place(raw: [u64; 4], total: usize) -> Option<LanePlace> {
    let [words_at, words, log_at, log_bytes] =
        raw.map(|v| usize::try_from(v).unwrap_or(usize::MAX));
    let inside = |at: usize, len: usize| at >= AT_LANE_DATA && at <= total && len <= total - at;
    let sound = words <= LANE_WORDS_MAX
        && log_bytes.is_power_of_two()
        && (LOG_BYTES_MIN..=LOG_BYTES_MAX).contains(&log_bytes)
        && words_at.is_multiple_of(8)
        && log_at.is_multiple_of(8)
        && inside(words_at, 8 * words)
        && inside(log_at, log_bytes);
    sound.then_some(LanePlace { words_at, words, log_at, log_bytes })
}
