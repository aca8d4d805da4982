//! Which pair of addresses is tried, and which one next.
//!
//! Either node knows its own addresses and is told how many the other one has. The offering side chooses for both, and
//! its offer says which of the other's addresses it means; so every pair is met, however many there are on either side.
//! Equal numbers come first: where hosts are built alike, these are the ones of the same network.

/// Pairs of addresses tried at most.
pub(super) const PAIRS_MAX: usize = 8;

/// Where one who makes offers has got to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Course {
    step: usize,
    /// How many addresses the peer has, once it has said so.
    theirs: Option<u8>,
}

impl Course {
    /// The peer says how many addresses it has.
    pub(super) fn learn(&mut self, theirs: u8) {
        self.theirs = Some(theirs);
    }

    /// Whether the peer has said anything: of one who has not, no address can be blamed.
    pub(super) fn is_answered(self) -> bool {
        self.theirs.is_some()
    }

    /// Numbers of our address and of the peer's, of `own` that we have.
    pub(super) fn pair(self, own: usize) -> (usize, usize) {
        let (own, theirs) = (own.max(1), self.theirs());
        let mine = self.step % own;
        (mine, (self.step / own + mine) % theirs)
    }

    /// That pair is of no use.
    pub(super) fn advance(&mut self) {
        self.step = self.step.wrapping_add(1);
    }

    /// Whether all that are tried have been tried.
    pub(super) fn is_over(self, own: usize) -> bool {
        self.step >= (own * self.theirs()).min(PAIRS_MAX)
    }

    /// Whether with this pair all have been tried as often.
    pub(super) fn ends_round(self, own: usize) -> bool {
        (self.step + 1).is_multiple_of((own * self.theirs()).max(1))
    }

    fn theirs(self) -> usize {
        usize::from(self.theirs.unwrap_or(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(own: usize, theirs: u8) -> Vec<(usize, usize)> {
        let mut course = Course::default();
        course.learn(theirs);
        let mut pairs = Vec::new();
        while !course.is_over(own) {
            pairs.push(course.pair(own));
            course.advance();
        }
        pairs
    }

    #[test]
    fn every_pair_is_met_once_however_many_addresses_either_side_has() {
        for (own, theirs) in
            [(1, 1), (1, 3), (3, 1), (2, 2), (2, 3), (3, 2), (4, 2), (1, 8), (8, 1)]
        {
            let mut pairs = all(own, theirs);
            assert_eq!(pairs.len(), own * usize::from(theirs));
            let equal = (0..own.min(usize::from(theirs))).map(|i| (i, i));
            assert!(
                equal.eq(pairs.iter().copied().take(own.min(usize::from(theirs)))),
                "{pairs:?}"
            );
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs.len(), own * usize::from(theirs), "{pairs:?}");
        }
    }

    #[test]
    fn a_round_ends_with_the_last_pair() {
        let mut course = Course::default();
        course.learn(3);
        let ends: Vec<bool> = (0..12)
            .map(|_| {
                let ends = course.ends_round(2);
                course.advance();
                ends
            })
            .collect();
        let sixth = |i: usize| i % 6 == 5;
        assert!(ends.iter().enumerate().all(|(i, &end)| end == sixth(i)), "{ends:?}");
    }

    #[test]
    fn there_is_an_end_and_each_address_is_tried_before_it() {
        for (own, theirs) in [(4, 4), (8, 8), (3, 8)] {
            let pairs = all(own, theirs);
            assert_eq!(pairs.len(), PAIRS_MAX);
            assert!((0..own).all(|i| pairs.iter().any(|pair| pair.0 == i)), "{pairs:?}");
        }
        assert_eq!(all(5, 0), all(5, 1), "a peer that says that it has none");
    }

    #[test]
    fn who_has_not_heard_of_the_peer_goes_through_its_own_addresses() {
        let mut course = Course::default();
        for mine in 0..3 {
            assert!(!course.is_over(3) && !course.is_answered());
            assert_eq!(course.pair(3), (mine, 0));
            course.advance();
        }
        assert!(course.is_over(3));
        course.learn(2);
        assert!(!course.is_over(3) && course.is_answered());
        assert_eq!(course.pair(3), (0, 1));
    }
}
