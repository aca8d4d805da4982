//! A bounded set of disjoint half-open ranges of u64, kept sorted.
//!
//! Three things are such sets: the log bytes that arrived ahead of the visible prefix, the log bytes that
//! must be sent again, and the packet numbers received. All three would grow without bound at a hostile or
//! unlucky network; here the space is taken once and the owner decides what a full set means: refuse
//! ([`RangeSet::insert`]), forget the oldest ([`RangeSet::insert_dropping_lowest`]), or cover a little more
//! than needed ([`RangeSet::insert_covering`]).

/// Sorted, disjoint, non-touching ranges `[start, end)`, at most `limit` of them.
#[derive(Clone, Debug)]
pub(crate) struct RangeSet {
    ranges: Vec<(u64, u64)>,
    limit: usize,
}

/// The set has no room for one more range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl RangeSet {
    pub(crate) fn new(limit: usize) -> Self {
        assert!(limit > 0, "a set that holds nothing");
        RangeSet { ranges: Vec::with_capacity(limit + 1), limit }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }

    pub(crate) fn first(&self) -> Option<(u64, u64)> {
        self.ranges.first().copied()
    }

    pub(crate) fn last(&self) -> Option<(u64, u64)> {
        self.ranges.last().copied()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + ExactSizeIterator {
        self.ranges.iter().copied()
    }

    pub(crate) fn contains(&self, value: u64) -> bool {
        let after = self.ranges.partition_point(|&(start, _)| start <= value);
        after > 0 && value < self.ranges[after - 1].1
    }

    /// Adds a range, or changes nothing if that needs more than `limit` ranges.
    pub(crate) fn insert(&mut self, start: u64, end: u64) -> Result<(), Full> {
        if start >= end {
            return Ok(());
        }
        // Everything from `low` up to `high` touches the new range and is merged into it.
        let low = self.ranges.partition_point(|&(_, e)| e < start);
        let high = self.ranges.partition_point(|&(s, _)| s <= end);
        if low == high {
            if self.ranges.len() == self.limit {
                return Err(Full);
            }
            self.ranges.insert(low, (start, end));
        } else {
            self.ranges[low] = (start.min(self.ranges[low].0), end.max(self.ranges[high - 1].1));
            self.ranges.drain(low + 1..high);
        }
        Ok(())
    }

    /// Adds a range; a full set forgets its lowest range, and returns it.
    pub(crate) fn insert_dropping_lowest(&mut self, start: u64, end: u64) -> Option<(u64, u64)> {
        if self.insert(start, end).is_ok() {
            return None;
        }
        let dropped = self.ranges.remove(0);
        let inserted = self.insert(start, end);
        debug_assert!(inserted.is_ok(), "one range was just removed");
        Some(dropped)
    }

    /// Adds a range; a full set is made smaller by joining the two ranges with the smallest hole between.
    pub(crate) fn insert_covering(&mut self, start: u64, end: u64) {
        while self.insert(start, end).is_err() {
            let hole =
                (1..self.ranges.len()).min_by_key(|&i| self.ranges[i].0 - self.ranges[i - 1].1);
            match hole {
                Some(i) => {
                    self.ranges[i - 1].1 = self.ranges[i].1;
                    self.ranges.remove(i);
                }
                None => {
                    let only = &mut self.ranges[0];
                    *only = (only.0.min(start), only.1.max(end));
                    return;
                }
            }
        }
    }

    /// Removes everything below `floor`.
    pub(crate) fn remove_below(&mut self, floor: u64) {
        let gone = self.ranges.partition_point(|&(_, end)| end <= floor);
        self.ranges.drain(..gone);
        if let Some(first) = self.ranges.first_mut() {
            first.0 = first.0.max(floor);
        }
    }

    /// Takes up to `max` values off the low end of the first range.
    pub(crate) fn take_front(&mut self, max: u64) -> Option<(u64, u64)> {
        let (start, end) = self.first()?;
        let cut = end.min(start.saturating_add(max));
        self.remove_below(cut);
        (cut > start).then_some((start, cut))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn touching_ranges_become_one() {
        let mut set = RangeSet::new(4);
        set.insert(10, 20).unwrap();
        set.insert(30, 40).unwrap();
        set.insert(20, 30).unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [(10, 40)]);
        assert!(set.contains(10) && set.contains(39) && !set.contains(40) && !set.contains(9));
    }

    #[test]
    fn a_full_set_does_what_its_owner_wants() {
        let full = || {
            let mut set = RangeSet::new(2);
            set.insert(0, 1).unwrap();
            set.insert(10, 11).unwrap();
            set
        };
        let mut set = full();
        assert_eq!(set.insert(20, 21), Err(Full));
        assert_eq!(set.iter().collect::<Vec<_>>(), [(0, 1), (10, 11)]);
        set.insert(11, 12).expect("growing a range needs no room");
        let mut set = full();
        assert_eq!(set.insert_dropping_lowest(20, 21), Some((0, 1)));
        assert_eq!(set.iter().collect::<Vec<_>>(), [(10, 11), (20, 21)]);
        let mut set = full();
        set.insert_covering(12, 13);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(0, 11), (12, 13)]);
    }

    #[test]
    fn the_front_is_taken_in_pieces() {
        let mut set = RangeSet::new(2);
        set.insert(0, 10).unwrap();
        assert_eq!(set.take_front(4), Some((0, 4)));
        assert_eq!(set.take_front(40), Some((4, 10)));
        assert_eq!(set.take_front(1), None);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_values(ops in proptest::collection::vec((0u64..200, 0u64..30, 0u8..5), 1..60)) {
            let mut set = RangeSet::new(1000);
            let mut oracle = BTreeSet::new();
            for (start, len, op) in ops {
                match op {
                    0 => {
                        set.remove_below(start);
                        oracle = oracle.split_off(&start);
                    }
                    1 => {
                        if let Some((s, e)) = set.take_front(len) {
                            for value in s..e { prop_assert!(oracle.remove(&value)); }
                        }
                    }
                    _ => {
                        set.insert(start, start + len).unwrap();
                        oracle.extend(start..start + len);
                    }
                }
                let mut last_end = None;
                for (s, e) in set.iter() {
                    prop_assert!(s < e && last_end.is_none_or(|l| l < s));
                    last_end = Some(e);
                }
                prop_assert_eq!(set.iter().flat_map(|(s, e)| s..e).collect::<Vec<_>>(), oracle.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
