//! Spin, yield or park?
//!
//! Measured (three pollers, two cores): pure spinning costs milliseconds per message, since the one who
//! has the answer waits for a core; parking at once costs 10 µs and more for the wake-up; a few yields
//! first, 2.5 µs. But beside busy foreign threads a yield may lose a whole scheduler tick. So: spin a
//! little only if every poller has a core; yield for about 20 µs; then park; and when a yield took long,
//! do without yields for a while. Sans-IO: told what happened, says what to do.

use std::time::Duration;

use crate::time::Time;

/// Looks before the first yield, if there are cores for everybody.
const SPINS: u32 = 20;
/// How long to yield before parking.
const YIELDING: Duration = Duration::from_micros(20);
/// A yield that takes longer has given the core to somebody who keeps it.
const YIELD_LONG: Duration = Duration::from_micros(300);
const PENALTY_MIN: Duration = Duration::from_millis(50);
const PENALTY_MAX: Duration = Duration::from_secs(1);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Spin,
    Yield,
    Park,
}

/// Decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adaptive {
    cores: usize,
    spins: u32,
    idle_since: Option<Time>,
    no_yield_until: Time,
    penalty: Duration,
}

impl Adaptive {
    pub(crate) fn new(cores: usize) -> Adaptive {
        Adaptive {
            cores,
            spins: 0,
            idle_since: None,
            no_yield_until: Time::ZERO,
            penalty: PENALTY_MIN,
        }
    }

    /// There was something to do. A wake-up alone is not something: who was woken by a timer and finds
    /// nothing sleeps again at once, and idling costs no yields.
    pub(crate) fn busy(&mut self) {
        self.spins = 0;
        self.idle_since = None;
    }

    /// There is nothing to do, on a host with that many pollers.
    pub(crate) fn idle(&mut self, now: Time, pollers: usize) -> Step {
        if self.spins < SPINS && pollers <= self.cores {
            self.spins += 1;
            return Step::Spin;
        }
        if now < self.no_yield_until {
            return Step::Park;
        }
        let since = *self.idle_since.get_or_insert(now);
        if now.since(since) < YIELDING { Step::Yield } else { Step::Park }
    }

    /// A yield lasted that long, until `now`.
    pub(crate) fn yielded(&mut self, took: Duration, now: Time) {
        if took > YIELD_LONG {
            // A second offence soon after the first: doubled.
            let repeated = now.since(self.no_yield_until) < self.penalty;
            self.penalty = if repeated { (self.penalty * 2).min(PENALTY_MAX) } else { PENALTY_MIN };
            self.no_yield_until = now + self.penalty;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(n: u64) -> Time {
        Time::from_micros(10_000_000 + n)
    }

    #[test]
    fn spins_only_if_every_poller_has_a_core() {
        let mut a = Adaptive::new(2);
        for _ in 0..SPINS {
            assert_eq!(a.idle(us(0), 2), Step::Spin);
        }
        assert_eq!(a.idle(us(1), 2), Step::Yield);
        a.busy();
        assert_eq!(a.idle(us(2), 3), Step::Yield);
    }

    #[test]
    fn parks_after_a_while_and_starts_over_when_busy() {
        let mut a = Adaptive::new(1);
        assert_eq!(a.idle(us(0), 3), Step::Yield);
        assert_eq!(a.idle(us(19), 3), Step::Yield);
        assert_eq!(a.idle(us(20), 3), Step::Park);
        a.busy();
        assert_eq!(a.idle(us(30), 3), Step::Yield);
    }

    #[test]
    fn a_long_yield_is_not_repeated_soon_and_the_penalty_doubles() {
        let mut a = Adaptive::new(1);
        let mut at = 0;
        for penalty_ms in [50, 100, 200, 400, 800, 1000, 1000] {
            a.busy();
            assert_eq!(a.idle(us(at), 3), Step::Yield);
            a.yielded(Duration::from_micros(301), us(at));
            at += penalty_ms * 1000;
            assert_eq!(a.idle(us(at - 1), 3), Step::Park);
        }
        // Long after, the first offence is small again.
        at += 5_000_000;
        a.busy();
        assert_eq!(a.idle(us(at), 3), Step::Yield);
        a.yielded(Duration::from_micros(301), us(at));
        a.busy();
        assert_eq!(a.idle(us(at + 50_000), 3), Step::Yield);
    }
}
