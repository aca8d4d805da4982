//! What a quorum agrees on at least: the basis of the read lease and of `persisted_by_quorum`.
//!
//! Every member has a value (the instant it confirmed, the position it made durable). The greatest value that a quorum
//! has reached is what no decision of another quorum can have missed, because two quorums of a view share a member.

/// The greatest `v` such that the members whose value is at least `v` are a quorum. `quorum` gets a mask of ranks.
pub(crate) fn reached_by_quorum(values: &[u64], quorum: impl Fn(u64) -> bool) -> Option<u64> {
    debug_assert!(values.len() <= 64, "a mask has 64 ranks");
    let reached = |v: u64| {
        values.iter().enumerate().fold(0, |mask, (rank, x)| mask | u64::from(*x >= v) << rank)
    };
    values.iter().copied().filter(|v| quorum(reached(*v))).max()
}

#[cfg(test)]
mod tests {
    use super::reached_by_quorum;

    /// More than half, or exactly half with rank 0.
    fn quorum(n: u32) -> impl Fn(u64) -> bool {
        move |ranks| 2 * ranks.count_ones() > n || (2 * ranks.count_ones() == n && ranks & 1 == 1)
    }

    #[test]
    fn of_three_the_median() {
        assert_eq!(reached_by_quorum(&[10, 20, 30], quorum(3)), Some(20));
        assert_eq!(reached_by_quorum(&[30, 0, 0], quorum(3)), Some(0));
        assert_eq!(reached_by_quorum(&[7, 7, 7], quorum(3)), Some(7));
    }

    #[test]
    fn of_two_what_rank_zero_reached() {
        assert_eq!(reached_by_quorum(&[10, 20], quorum(2)), Some(10));
        assert_eq!(reached_by_quorum(&[20, 10], quorum(2)), Some(20));
    }

    #[test]
    fn alone_what_it_reached_itself() {
        assert_eq!(reached_by_quorum(&[5], quorum(1)), Some(5));
        assert_eq!(reached_by_quorum(&[], quorum(1)), None);
    }

    #[test]
    fn of_four_half_counts_only_with_rank_zero() {
        assert_eq!(reached_by_quorum(&[9, 9, 1, 1], quorum(4)), Some(9));
        assert_eq!(reached_by_quorum(&[1, 9, 9, 1], quorum(4)), Some(1));
    }
}
