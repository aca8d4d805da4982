//! What the immediate of a batch's last write says: 32 bits that come with the doorbell.
//!
//! Often a batch is the news of one log and nothing else. Then the bell carries the published end itself, and the write
//! of the log is the only one: a second write would cost both adapters as much as the first. The low bits of the end
//! suffice, since it lies within a ring of what was told before, or is late by two at most; of rings too large for that no
//! bell tells the end ([`RING_MAX`]). An end told by the bell is *not* in the inbox, so it
//! orders nothing: before words that speak of it go, it is written there ([`super::link`]).
//!
//! ```text
//! 0      look at the inbox when you like   1      look at it; this was the connection's first write
//! 2      look at it now
//! 1 | lane: 3 bits | end / 8: 28 bits      the lane's log is published to `end`
//! ```

use crate::limits::LANES_MAX;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Immediate {
    /// The inbox has news. `wakes`: for which a sleeper is woken, as it is by all other bells.
    Look { wakes: bool },
    /// It has the proof of the connection.
    Proof,
    /// A log's published end, as far as it fits.
    End { lane: usize, low: u32 },
}

const END: u32 = 1 << 31;
const LOW_BITS: u32 = 28;
const LOW: u32 = (1 << LOW_BITS) - 1;
/// Largest ring whose ends bells tell. Such an end is at most a ring beyond one that is known. It may also come late: what
/// rang after it may have been looked at, all of it released, and another ring written. So three rings must be told apart.
pub(super) const RING_MAX: usize = 1 << 29;
const _: () = assert!(LANES_MAX <= 8 && 3 * RING_MAX as u64 <= 8 << LOW_BITS);

impl Immediate {
    /// Tells the end of a lane's log.
    pub(super) fn end(lane: usize, end: u64) -> Immediate {
        Immediate::End { lane, low: (end / 8) as u32 & LOW }
    }

    pub(super) fn emit(self) -> u32 {
        match self {
            Immediate::Look { wakes } => 2 * u32::from(wakes),
            Immediate::Proof => 1,
            Immediate::End { lane, low } => END | (lane as u32) << LOW_BITS | low,
        }
    }

    /// Anything is a bell: who rings nonsense is looked at.
    pub(super) fn parse(immediate: u32) -> Immediate {
        match immediate {
            1 => Immediate::Proof,
            _ if immediate & END != 0 => {
                Immediate::End { lane: (immediate >> LOW_BITS & 7) as usize, low: immediate & LOW }
            }
            _ => Immediate::Look { wakes: immediate == 2 },
        }
    }
}

/// The end that `low` stands for, beside one that was told before it or after it. Never less than that one: what seems
/// further ahead than the largest ring is older.
pub(super) fn rebuilt(low: u32, known: u64) -> u64 {
    let ahead = 8 * u64::from(low.wrapping_sub((known / 8) as u32) & LOW);
    if ahead > RING_MAX as u64 { known } else { known.saturating_add(ahead) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bells_are_what_they_were() {
        let ends = (0..LANES_MAX).map(|lane| Immediate::end(lane, 8 * 0x0fed_cba9));
        let looks = [false, true].map(|wakes| Immediate::Look { wakes });
        for bell in ends.chain(looks).chain([Immediate::Proof]) {
            assert_eq!(Immediate::parse(bell.emit()), bell);
        }
        // As the other end reads it, whatever it was built from.
        assert_eq!(Immediate::end(2, 8 * 0x1000_0005).emit(), 0xa000_0005);
        assert_eq!(Immediate::parse(0xf000_0001), Immediate::End { lane: 7, low: 1 });
        assert_eq!(Immediate::parse(0x7fff_ffff), Immediate::Look { wakes: false });
    }

    #[test]
    fn ends_are_rebuilt_over_the_wrap_and_never_go_back() {
        let low = |end| match Immediate::end(0, end) {
            Immediate::End { low, .. } => low,
            other => panic!("{other:?}"),
        };
        for size in [128, 4096, RING_MAX] {
            let ring = size as u64;
            for known in [0, 8, ring - 8, 2 * ring - 8, 2 * ring, (7 << 40) + 16] {
                for ahead in [0, 8, 64, ring - 8, ring] {
                    assert_eq!(rebuilt(low(known + ahead), known), known + ahead);
                }
                // One that comes late, by as much as it may.
                for late in [8, 64, ring, ring + 8, 2 * ring - 8] {
                    assert_eq!(rebuilt(low(known), known + late), known + late);
                }
            }
            // What is known may be as high as a stranger likes.
            for known in [u64::MAX, u64::MAX - 7, u64::MAX - 8] {
                for low in [0, 1, LOW / 2, LOW] {
                    assert!(rebuilt(low, known) >= known);
                }
            }
        }
    }
}
