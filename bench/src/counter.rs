//! What arrives, from some time after the first arrival on, for some time.

use quintet_transport::Time;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What was counted.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Counted {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

impl Counted {
    pub(crate) fn messages_per_s(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    pub(crate) fn megabytes_per_s(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e6
    }
}

/// Counts. It is told what time it is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Counter {
    warm_up: Duration,
    duration: Duration,
    /// Counted are as many messages instead.
    wanted: Option<u64>,
    /// From when on it counts, in nanoseconds.
    from: Option<u64>,
    messages: u64,
    bytes: u64,
}

impl Counter {
    /// Counts for `duration`, from `warm_up` after the first arrival on.
    pub(crate) fn new(warm_up: Duration, duration: Duration) -> Counter {
        Counter { warm_up, duration, wanted: None, from: None, messages: 0, bytes: 0 }
    }

    /// Counts as many messages, however long that takes.
    pub(crate) fn of(warm_up: Duration, messages: u64) -> Counter {
        Counter { wanted: Some(messages), ..Counter::new(warm_up, Duration::ZERO) }
    }

    /// How long a stream must go on to be counted, with much to spare: a machine may be busy.
    pub(crate) fn patience(&self) -> Duration {
        self.warm_up + self.duration + Duration::from_secs(30)
    }

    /// That many have arrived. Says what was counted when it is time.
    pub(crate) fn arrived(&mut self, messages: u64, bytes: u64, now: Time) -> Option<Counted> {
        let from = match self.from {
            Some(from) => Time::from_nanos(from),
            None if messages == 0 => return None,
            None => {
                self.from = Some((now + self.warm_up).as_nanos());
                now + self.warm_up
            }
        };
        // What arrived by the first instant that counts arrived before it.
        if now > from {
            self.messages += messages;
            self.bytes += bytes;
        }
        let passed = now.since(from);
        // A machine that had other things to do has measured nothing yet.
        let enough = match self.wanted {
            Some(wanted) => self.messages >= wanted,
            None => passed >= self.duration && self.messages > 0,
        };
        enough.then_some(Counted {
            messages: self.messages,
            bytes: self.bytes,
            seconds: passed.as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_between_the_warm_up_and_the_end() {
        let at = |ms: u64| Time::from_millis(1000 + ms);
        let mut counter = Counter::new(Duration::from_millis(10), Duration::from_millis(100));
        assert_eq!(counter.arrived(0, 0, at(0)), None, "nothing came: the warm-up has not begun");
        assert_eq!(counter.arrived(7, 700, at(500)), None);
        assert_eq!(counter.arrived(7, 700, at(510)), None);
        assert_eq!(counter.arrived(1, 100, at(511)), None);
        assert_eq!(counter.arrived(2, 200, at(609)), None);
        let counted = counter.arrived(1, 100, at(660)).expect("time is up");
        assert_eq!(counted, Counted { messages: 4, bytes: 400, seconds: 0.15 });
        let mut ten = Counter::of(Duration::from_millis(10), 10);
        assert_eq!(ten.arrived(50, 5000, at(0)), None, "the warm-up");
        assert_eq!(ten.arrived(9, 900, at(20)), None);
        let after = ten.arrived(3, 300, at(9000)).expect("more than ten");
        assert_eq!((after.messages, after.seconds), (12, 8.99));
        let mut stalled = Counter::new(Duration::ZERO, Duration::from_millis(100));
        assert_eq!(stalled.arrived(3, 300, at(0)), None);
        assert_eq!(stalled.arrived(0, 0, at(200)), None, "nothing came in that time");
        assert_eq!(stalled.arrived(2, 200, at(400)).map(|counted| counted.messages), Some(2));
        assert!((counted.megabytes_per_s() - 400e-6 / 0.15).abs() < 1e-9);
        assert!((counted.messages_per_s() - 4.0 / 0.15).abs() < 1e-9);
    }
}
