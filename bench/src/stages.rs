//! `--stages`: where the time of a round trip or of a multicast goes, on the asking side.
//!
//! The clock is read between the stages, about 25 ns each time, so their sum is a little more than all of it takes
//! without. Of a round trip what the other side and the way take is all in `until_taken`.

use crate::report::Run;
use crate::side::{STEP, Side};
use crate::statistics::{histogram, record};
use hdrhistogram::Histogram;
use quintet_transport::{Time, clock};
use std::error::Error;

/// A histogram of each stage.
pub(crate) struct Stages<const N: usize> {
    names: [&'static str; N],
    stages: [Histogram<u64>; N],
}

impl<const N: usize> Stages<N> {
    /// Nothing yet.
    pub(crate) fn new(names: [&'static str; N]) -> Stages<N> {
        Stages { names, stages: names.map(|_| histogram()) }
    }

    /// Something began and then passed each stage at these times.
    pub(crate) fn passed(&mut self, began: Time, passed: [Time; N]) {
        let mut before = began;
        for (stage, at) in self.stages.iter_mut().zip(passed) {
            record(stage, at.since(before));
            before = at;
        }
    }

    /// Adds them to a report.
    pub(crate) fn tell(self, run: &mut Run) {
        for (name, stage) in self.names.into_iter().zip(self.stages) {
            run.latency(name, stage);
        }
    }
}

/// Record reserved, written, committed and numbered; made visible, the peer woken; the answer visible and looked at;
/// both logs given back.
const ROUND_TRIP: [&str; 4] = ["stage_commit", "stage_flush", "stage_until_taken", "stage_release"];

/// Round trips in stages.
pub(crate) struct RoundTrips {
    warm_up: u64,
    stages: Stages<4>,
}

impl RoundTrips {
    /// Nothing yet; that many will not count.
    pub(crate) fn new(warm_up: u64) -> RoundTrips {
        RoundTrips { warm_up, stages: Stages::new(ROUND_TRIP) }
    }

    /// One round trip.
    pub(crate) fn exchange(
        &mut self,
        side: &mut Side,
        payload: &[u8],
    ) -> Result<(), Box<dyn Error>> {
        let began = clock::now();
        if !side.commit(payload)? {
            return Err("the log is full, though nothing is under way".into());
        }
        let committed = clock::now();
        side.poller.flush(committed);
        let flushed = clock::now();
        let mut now = flushed;
        loop {
            side.turn(now)?;
            if side.take(|_| ()).is_some() {
                break;
            }
            side.poller.flush(now);
            now = side.poller.park(now, None, &mut || false);
        }
        let taken = clock::now();
        side.give_back(STEP);
        if self.warm_up > 0 {
            self.warm_up -= 1;
        } else {
            self.stages.passed(began, [committed, flushed, taken, clock::now()]);
        }
        Ok(())
    }

    /// Adds them to a report.
    pub(crate) fn tell(self, run: &mut Run) {
        self.stages.tell(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_lasts_to_the_next() {
        let mut stages = Stages::new(["first", "second", "third"]);
        stages.passed(Time::from_micros(10), [11, 13, 23].map(Time::from_micros));
        stages.passed(Time::from_micros(50), [50, 51, 52].map(Time::from_micros));
        let mut run = Run::default();
        stages.tell(&mut run);
        let told: Vec<_> =
            run.latencies.iter().map(|(name, of)| (*name, of.len(), of.max() / 1000)).collect();
        assert_eq!(told, [("first", 2, 1), ("second", 2, 2), ("third", 2, 10)]);
    }
}
