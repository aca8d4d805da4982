//! The inbox: memory of a node that one peer writes, by remote writes. Both ends compute the same places from the
//! lanes, which are the same on every node.
//!
//! ```text
//! 0      proof of the connection's first write
//! 8      per lane: published end of the peer's log
//! 56     per lane: how far the peer has released our log
//! 128    per lane, each on lines of its own: the words
//! page   what is sent to prove a path, and read by nobody
//! page   per lane: the ring
//! ```

use crate::lane::LaneSpec;
use crate::limits::LANES_MAX;
use crate::memory::{LanePlace, pages};

pub(super) const AT_PROOF: usize = 0;
pub(super) const AT_HEADS: usize = 8;
pub(super) const AT_RELEASED: usize = AT_HEADS + 8 * LANES_MAX;
/// Bytes of all that, which one inline write carries.
pub(super) const HEADER: usize = AT_RELEASED + 8 * LANES_MAX;
/// u64s that tell ends and releases.
pub(super) const ENDS: usize = 2 * LANES_MAX;
const AT_WORDS: usize = 128;
const _: () = assert!(HEADER <= AT_WORDS);

/// Bytes of the largest packet.
pub(super) const PACKET_MAX: usize = 4096;

/// Where what is in an inbox.
pub(super) struct Plan {
    pub(super) lanes: Vec<LanePlace>,
    /// Room for one packet.
    pub(super) spare: usize,
    pub(super) size: usize,
}

/// Places of all lanes.
pub(super) fn plan(lanes: &[LaneSpec]) -> Plan {
    let mut end = AT_WORDS;
    let mut places: Vec<LanePlace> = lanes
        .iter()
        .map(|lane| {
            let place = LanePlace {
                words_at: end,
                words: lane.words,
                log_at: 0,
                log_bytes: lane.log_bytes,
            };
            end += (8 * lane.words).next_multiple_of(128);
            place
        })
        .collect();
    let spare = pages(end);
    end = spare + PACKET_MAX;
    for place in &mut places {
        place.log_at = pages(end);
        end = place.log_at + place.log_bytes;
    }
    Plan { lanes: places, spare, size: pages(end) }
}
