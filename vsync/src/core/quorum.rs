//! The one predicate that decides who may decide.
//!
//! The problem: after a failure, at most one part of the group may go on, whatever failed and whoever
//! comes back. "More than half" alone gives up when a view of two loses one, or a view of four is cut in
//! the middle; the naive repair, "exactly half is enough for whoever holds the lowest rank *or* the
//! arbiter", lets both halves go on, each with its own excuse.
//!
//! So: more than half of the view's nodes, or exactly half if the view's tie-breaker, its rank 0, is
//! among them. Any two sets that satisfy this share a node: two majorities overlap, a half and a majority
//! overlap, and of two complementary halves only one holds rank 0. Everything that needs agreement (votes,
//! the read lease, what is persisted) asks this function and no other. It is the dynamic linear voting of
//! Jajodia and Mutchler (1990) with the order of ranks as the linear order.

use super::view::View;

/// Whether `ranks` (bit r = the node of rank r) of a view of `members` members may decide for it.
pub const fn quorum(members: usize, ranks: u64) -> bool {
    let all = if members >= 64 { u64::MAX } else { (1 << members) - 1 };
    let have = (ranks & all).count_ones() as usize;
    2 * have > members || (2 * have == members && ranks & 1 == 1)
}

impl View {
    /// Whether `ranks` (bit r = the node of rank r) may decide for this view.
    pub fn quorum(&self, ranks: u64) -> bool {
        quorum(self.members.len(), ranks)
    }

    /// Bit of the rank that runs on `node`; 0 if none does.
    pub fn node_bit(&self, node: quintet_transport::NodeId) -> u64 {
        self.members.iter().position(|m| m.node == node).map_or(0, |r| 1 << r)
    }
}

#[cfg(test)]
mod tests {
    use super::quorum;

    #[test]
    fn two_quorums_always_meet() {
        for n in 1..=9usize {
            for a in 0..1u64 << n {
                for b in 0..1u64 << n {
                    assert!(!(quorum(n, a) && quorum(n, b)) || a & b != 0, "n={n} {a:b} {b:b}");
                }
            }
        }
    }

    #[test]
    fn half_needs_the_tie_breaker() {
        assert!(quorum(2, 0b01) && !quorum(2, 0b10));
        assert!(quorum(4, 0b0011) && !quorum(4, 0b1100));
        assert!(quorum(3, 0b110) && !quorum(3, 0b001));
        assert!(quorum(64, u64::MAX >> 31) && !quorum(64, u64::MAX << 32));
    }
}
