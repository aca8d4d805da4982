//! How long a manager bears with a client that does not take its answers, or is not there any more.
//!
//! An answer that waits for its client holds a place that another call could have. TCP alone gives a
//! peer that was paused, or vanished without a farewell, a quarter of an hour and more. So a
//! connection is looked at now and then: of what waited at one look, a fair part must be gone at the
//! next, and a client that has said nothing between two looks is asked for a sign of life.

use std::mem::take;

/// What a client has to take between two looks, if so much waits for it: a slow line may be slow.
const FAIR_BYTES: u64 = 64 << 10;
/// Silent looks after which a client is given up.
const SILENT_MAX: u32 = 3;

/// What two looks at a connection gave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sign {
    /// It takes what is sent, and speaks.
    Fine,
    /// It has said nothing: ask it.
    Ask,
    /// It does not take what is sent.
    Stalled,
    /// It was asked and does not answer.
    Gone,
}

/// What was seen at the looks so far.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Bytes that must have been taken by the next look.
    due: u64,
    heard: bool,
    silent: u32,
}

impl Patience {
    /// A frame came.
    pub(super) fn heard(&mut self) {
        self.heard = true;
    }

    /// Looks: `written` bytes were taken ever, `queued` wait. While nobody listens to the client
    /// (too much waits for it), its silence means nothing.
    pub(super) fn look(&mut self, written: u64, queued: usize, listening: bool) -> Sign {
        if written < self.due {
            return Sign::Stalled;
        }
        self.due = written + FAIR_BYTES.min(queued as u64);
        if take(&mut self.heard) || !listening {
            self.silent = 0;
            return Sign::Fine;
        }
        self.silent += 1;
        if self.silent > SILENT_MAX { Sign::Gone } else { Sign::Ask }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_a_fair_part_or_all_is_borne_with() {
        let mut patience = Patience::default();
        patience.heard();
        assert_eq!(patience.look(0, 10, true), Sign::Fine, "it has just begun to wait");
        patience.heard();
        assert_eq!(patience.look(10, 1 << 20, true), Sign::Fine, "all was taken");
        patience.heard();
        assert_eq!(patience.look(10 + FAIR_BYTES, 9 << 20, true), Sign::Fine, "slow, but moving");
        patience.heard();
        assert_eq!(patience.look(9 + 2 * FAIR_BYTES, 8 << 20, true), Sign::Stalled);
    }

    #[test]
    fn the_silent_are_asked_before_they_are_given_up() {
        let mut patience = Patience::default();
        for _ in 0..2 {
            for _ in 0..SILENT_MAX {
                assert_eq!(patience.look(0, 0, true), Sign::Ask);
            }
            patience.heard();
            assert_eq!(patience.look(0, 0, true), Sign::Fine);
        }
        for _ in 0..=SILENT_MAX {
            assert_ne!(patience.look(0, 0, false), Sign::Gone, "nobody listened");
        }
        for _ in 0..SILENT_MAX {
            assert_eq!(patience.look(0, 0, true), Sign::Ask);
        }
        assert_eq!(patience.look(0, 0, true), Sign::Gone);
    }
}
