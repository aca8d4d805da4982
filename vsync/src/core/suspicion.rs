//! Who has to go when some members cannot hear each other.
//!
//! **Problem.** Links fail one by one and often one way: A hears B, B hears C, C does not hear A. If each member
//! removes whom it does not hear, the group falls apart into views that exclude each other for ever, or removes
//! far more than it must.
//!
//! **Naive answer.** Let the coordinator keep those *it* hears. Then two members that cannot hear each other stay
//! in one view, nothing becomes stable, and the next view change comes at once, and the next.
//!
//! **Algorithm.** Take the members that may be alive as vertices, and an edge for each pair of which one reported
//! the link lost. What may stay is a set without an edge inside: the complement of a *vertex cover*. We remove the
//! smallest cover; among the smallest, the one made of the highest ranks. It is a pure function of the matrix, so all
//! who have heard the same reports draw the same conclusion and know the same coordinator. A link that was lost
//! and came back counts as lost for the rest of the view: what was in flight is gone, and nobody knows what.
//!
//! The smallest cover is NP-hard in general and trivial here: a dead member is a star (its centre is taken at once),
//! a partition is a complete bipartite graph (decided by one vertex). A budget of steps bounds hostile matrices;
//! when it is spent, the best cover found so far is taken, and everybody spends it alike.

/// A symmetric matrix of lost links among up to 64 ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    lost: [u64; 64],
}

impl Matrix {
    /// Everybody hears everybody.
    pub(super) fn new() -> Matrix {
        Matrix { lost: [0; 64] }
    }

    /// One of the two reported the link between them lost.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        if a != b && a < 64 && b < 64 {
            self.lost[a] |= 1 << b;
            self.lost[b] |= 1 << a;
        }
    }

    /// The ranks to remove from `alive`, so that no lost link is left: the fewest, then the highest.
    pub(super) fn removal(&self, alive: u64) -> u64 {
        let mut search = Search { matrix: self, best: alive, steps: 20_000 };
        search.run(alive, 0);
        search.best
    }

    fn neighbours(&self, rank: usize, among: u64) -> u64 {
        self.lost[rank] & among
    }
}

struct Search<'a> {
    matrix: &'a Matrix,
    best: u64,
    steps: u32,
}

impl Search<'_> {
    fn better(&self, removed: u64) -> bool {
        let (new, old) = (removed.count_ones(), self.best.count_ones());
        new < old || (new == old && removed > self.best)
    }

    /// `left` is undecided, `removed` is out.
    fn run(&mut self, left: u64, removed: u64) {
        if self.steps == 0 || removed.count_ones() > self.best.count_ones() {
            return;
        }
        self.steps -= 1;
        let most = ranks(left).max_by_key(|r| (self.matrix.neighbours(*r, left).count_ones(), *r));
        let Some(most) = most.filter(|r| self.matrix.neighbours(*r, left) != 0) else {
            if self.better(removed) {
                self.best = removed;
            }
            return;
        };
        let neighbours = self.matrix.neighbours(most, left);
        self.run(left & !(1 << most), removed | 1 << most);
        self.run(left & !(1 << most) & !neighbours, removed | neighbours);
    }
}

/// The ranks in a mask, ascending.
pub(super) fn ranks(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let r = mask.trailing_zeros() as usize;
        if r == 64 {
            return None;
        }
        mask &= mask - 1;
        Some(r)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removal(n: usize, cuts: &[(usize, usize)]) -> Vec<usize> {
        let mut matrix = Matrix::new();
        for (a, b) in cuts {
            matrix.cut(*a, *b);
        }
        ranks(matrix.removal((1 << n) - 1)).collect()
    }

    #[test]
    fn nobody_goes_without_a_lost_link() {
        assert_eq!(removal(5, &[]), Vec::<usize>::new());
    }

    #[test]
    fn the_dead_go() {
        assert_eq!(removal(3, &[(0, 1), (0, 2)]), [0]);
        assert_eq!(removal(5, &[(2, 0), (2, 1), (2, 3), (2, 4), (4, 0), (4, 1), (4, 3)]), [2, 4]);
    }

    #[test]
    fn of_a_pair_the_higher_rank_goes() {
        assert_eq!(removal(2, &[(0, 1)]), [1]);
        assert_eq!(removal(3, &[(0, 1)]), [1]);
        assert_eq!(removal(4, &[(0, 1), (2, 3)]), [1, 3]);
    }

    #[test]
    fn a_minority_goes() {
        let cuts: Vec<_> = [0, 1].into_iter().flat_map(|a| [2, 3, 4].map(|b| (a, b))).collect();
        assert_eq!(removal(5, &cuts), [0, 1]);
    }

    #[test]
    fn a_large_partition_is_decided() {
        let cuts: Vec<_> = (0..31).flat_map(|a| (31..63).map(move |b| (a, b))).collect();
        assert_eq!(removal(63, &cuts), (0..31).collect::<Vec<_>>());
    }

    proptest::proptest! {
        #[test]
        fn what_stays_hears_each_other_and_nothing_smaller_would_do(
            cuts in proptest::collection::vec((0usize..7, 0usize..7), 0..12)
        ) {
            let mut matrix = Matrix::new();
            cuts.iter().for_each(|(a, b)| matrix.cut(*a, *b));
            let covers = |removed: u64| cuts.iter().all(|(a, b)| a == b || removed >> a & 1 == 1 || removed >> b & 1 == 1);
            let best = (0..1u64 << 7).filter(|m| covers(*m)).min_by_key(|m| (m.count_ones(), !m)).unwrap();
            assert_eq!(matrix.removal((1 << 7) - 1), best);
        }
    }
}
