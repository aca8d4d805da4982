//! `pingpong --stages`: where the time of a round trip goes on the asking side.
//!
//! The clock is read between the stages, about 25 ns each time, so their sum is a little more than a round trip takes
//! without. What the other side and the way take is all in `until_taken`.

use crate::report::Run;
use crate::side::{STEP, Side};
use crate::statistics::{histogram, record};
use hdrhistogram::Histogram;
use quintet_transport::{Time, clock};
use std::error::Error;

/// In order: record reserved, written, committed and numbered; made visible, the peer woken; the answer visible and
/// looked at; both logs given back.
const NAMES: [&str; 4] = ["stage_commit", "stage_flush", "stage_until_taken", "stage_release"];

/// A histogram of each stage.
pub(crate) struct Stages {
    warm_up: u64,
    stages: [Histogram<u64>; 4],
}

impl Stages {
    /// Nothing yet; that many round trips will not count.
    pub(crate) fn new(warm_up: u64) -> Stages {
        Stages { warm_up, stages: NAMES.map(|_| histogram()) }
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
        self.passed([began, committed, flushed, taken, clock::now()]);
        Ok(())
    }

    fn passed(&mut self, at: [Time; 5]) {
        if self.warm_up > 0 {
            self.warm_up -= 1;
            return;
        }
        for (stage, ends) in self.stages.iter_mut().zip(at.windows(2)) {
            record(stage, ends[1].since(ends[0]));
        }
    }

    /// Adds them to a report.
    pub(crate) fn tell(self, run: &mut Run) {
        for (name, stage) in NAMES.into_iter().zip(self.stages) {
            run.latency(name, stage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_lasts_to_the_next() {
        let mut stages = Stages::new(1);
        stages.passed([1, 2, 3, 4, 5].map(Time::from_micros));
        stages.passed([10, 11, 13, 23, 24].map(Time::from_micros));
        let mut run = Run::default();
        stages.tell(&mut run);
        let told: Vec<_> =
            run.latencies.iter().map(|(name, of)| (*name, of.len(), of.max() / 1000)).collect();
        let expected = [
            ("stage_commit", 1, 1),
            ("stage_flush", 1, 2),
            ("stage_until_taken", 1, 10),
            ("stage_release", 1, 1),
        ];
        assert_eq!(told, expected);
    }
}
