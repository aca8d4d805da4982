//! Which calls of a connection take longer than their method allows.

use quintet_transport::Time;
use std::collections::{BTreeSet, HashMap};

/// Unanswered calls whose method has a deadline; as many at most as calls may wait.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_call: HashMap<u64, Time>,
    by_time: BTreeSet<(Time, u64)>,
}

impl Deadlines {
    /// A call was taken. If a copy of it was taken before, the later one counts.
    pub(super) fn insert(&mut self, seq: u64, at: Time) {
        if let Some(first) = self.by_call.insert(seq, at) {
            self.by_time.remove(&(first, seq));
        }
        self.by_time.insert((at, seq));
    }

    /// A call was answered.
    pub(super) fn remove(&mut self, seq: u64) {
        if let Some(at) = self.by_call.remove(&seq) {
            self.by_time.remove(&(at, seq));
        }
    }

    /// The first deadline to come.
    pub(super) fn next(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// A call whose deadline has passed. It is told once.
    pub(super) fn pop(&mut self, now: Time) -> Option<u64> {
        let (_, seq) = self.by_time.first().copied().filter(|(at, _)| *at <= now)?;
        self.remove(seq);
        Some(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unanswered_call_is_told_once_in_the_order_of_the_deadlines() {
        let at = Time::from_nanos;
        let mut deadlines = Deadlines::default();
        for (seq, time) in [(1, 30), (2, 10), (3, 20), (4, 40), (2, 35)] {
            deadlines.insert(seq, at(time));
        }
        deadlines.remove(3);
        deadlines.remove(99);
        assert_eq!((deadlines.next(), deadlines.pop(at(29))), (Some(at(30)), None));
        let told: Vec<u64> = std::iter::from_fn(|| deadlines.pop(at(39))).collect();
        assert_eq!(told, [1, 2]);
        deadlines.remove(4);
        assert_eq!((deadlines.next(), deadlines.by_call.len()), (None, 0));
    }
}
