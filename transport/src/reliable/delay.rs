//! Delay: how long packets of one path stand in queues of the network, as the window wants to know it.
//!
//! A round trip holds more than the way: the peer does not read a packet when it comes but when its poller is run, it
//! holds the ack for a while, and the ack waits here until we are run. Where pollers outnumber processors that is most
//! of it, and a window that shrank for it would help nobody. So a packet that is taken in comes with the longest that it may
//! have lain in the socket (the time since that was seen empty), the ack tells the peer's part, and what remains is the
//! *least* that the network can have taken. Its minimum over a round trip is a queue that stood all the time; a
//! round trip that is all waiting says nothing, which is right.
//!
//! The limit is absolute ([`TARGET`]), as in TIMELY (SIGCOMM '15; eRPC, NSDI '19) and Swift (SIGCOMM '20), not a distance
//! from the fastest round trip as in LEDBAT (RFC 6817): whoever comes to a queue takes that for the length of the way, makes another
//! on top, and starves those who came before. The fastest round trip of late serves one question: whether the way is
//! short enough that a slow one must be a queue ([`NEAR`]). If it is not (a long way, or a queue of somebody who minds only
//! losses), and hardly a window is left, delay says nothing here, until a fast one comes.

use std::time::Duration;

use crate::time::Time;

/// Round trips may take that long, the queue in them included.
pub(super) const TARGET: Duration = Duration::from_micros(300);
/// A way that was passed in that time of late is short. What [`Delay::cut`] takes at least empties queues as far.
pub(super) const NEAR: Duration = TARGET.checked_mul(3).unwrap().checked_div(4).unwrap();
/// A round trip counts as one of late for that long, and up to twice.
const WINDOW: Duration = Duration::from_secs(5);
/// What stands for the whole window in [`Delay::cut`].
pub(super) const WHOLE: u64 = 1024;

/// What is known of one path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delay {
    /// The fastest round trip of this stretch of time, and of the one before.
    fastest: [Duration; 2],
    stretch: Time,
    /// The least that the network took in this round.
    least: Option<Duration>,
    /// Whether slow means queue here.
    heeded: bool,
}

impl Default for Delay {
    fn default() -> Delay {
        Delay { fastest: [Duration::MAX; 2], stretch: Time::ZERO, least: None, heeded: true }
    }
}

impl Delay {
    /// A packet came back after `elapsed`, without what the peer held its ack. Up to `waited` of that it or its ack may have
    /// lain unread.
    pub(super) fn sample(&mut self, now: Time, elapsed: Duration, waited: Duration) {
        if now.since(self.stretch) > WINDOW {
            self.fastest = [elapsed, self.fastest[0]];
            self.stretch = now;
        }
        self.fastest[0] = self.fastest[0].min(elapsed);
        self.heeded |= elapsed <= NEAR;
        let least = elapsed.saturating_sub(waited);
        self.least = Some(self.least.map_or(least, |other| other.min(least)));
    }

    /// The fastest round trip of late.
    pub(super) fn fastest(&self) -> Duration {
        self.fastest[0].min(self.fastest[1])
    }

    /// A round is over: what the network took at least, all the time, if that is known.
    pub(super) fn end_round(&mut self) -> Option<Duration> {
        self.least.take()
    }

    /// Whether a round in which the network took at least that much had a queue in it that ought to be shorter.
    pub(super) fn is_queue(&self, least: Duration) -> bool {
        self.heeded && least > TARGET
    }

    /// Hardly a window is left and does not make it shorter: it is not ours, if no short way is known. Whether delay still counts.
    pub(super) fn can_be_helped(&mut self) -> bool {
        self.heeded = self.fastest() <= NEAR;
        self.heeded
    }

    /// The share of the window, of [`WHOLE`], that is too much: as much as the round trip is too long (Swift's rule), but not
    /// so little that the queue would never be seen shorter than [`NEAR`], nor more than a loss takes.
    pub(super) fn cut(least: Duration) -> u64 {
        let over = least.saturating_sub(TARGET).as_nanos() as u64 * WHOLE;
        (over / (least.as_nanos() as u64).max(1)).clamp(WHOLE / 4, WHOLE / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const US: Duration = Duration::from_micros(1);

    #[test]
    fn a_round_is_as_slow_as_the_least_that_the_network_can_have_taken() {
        let mut delay = Delay::default();
        assert_eq!(delay.end_round(), None);
        let now = Time::from_millis(1);
        delay.sample(now, US * 900, Duration::ZERO);
        delay.sample(now, US * 4000, US * 3200);
        assert_eq!(delay.end_round(), Some(US * 800));
        delay.sample(now, US * 900, US * 1000);
        assert_eq!(delay.end_round(), Some(Duration::ZERO));
        assert_eq!(delay.end_round(), None, "each sample counts once");
    }

    #[test]
    fn the_fastest_round_trip_is_forgotten_after_a_while() {
        let mut delay = Delay::default();
        let mut now = Time::from_millis(1);
        delay.sample(now, US * 50, Duration::ZERO);
        for _ in 0..3 {
            assert_eq!(delay.fastest(), US * 50);
            now += WINDOW / 2;
            delay.sample(now, US * 5000, Duration::ZERO);
        }
        for _ in 0..3 {
            now += WINDOW;
            delay.sample(now, US * 5000, Duration::ZERO);
        }
        assert_eq!(delay.fastest(), US * 5000);
    }

    #[test]
    fn a_way_that_no_window_makes_short_is_long_until_it_was_short() {
        let mut delay = Delay::default();
        let now = Time::from_millis(1);
        delay.sample(now, US * 5000, Duration::ZERO);
        assert!(delay.is_queue(US * 5000), "it may be a queue");
        assert!(!delay.can_be_helped());
        assert!(!delay.is_queue(US * 5000), "it is not ours");
        delay.sample(now, US * 100, Duration::ZERO);
        assert!(delay.is_queue(US * 5000), "the way is short");
        assert!(delay.can_be_helped());
        assert!(delay.is_queue(US * 5000), "and known to be");
    }

    #[test]
    fn more_is_taken_of_what_is_slower_within_bounds() {
        let cuts = [301, 400, 500, 600, 60_000].map(|us| Delay::cut(US * us));
        assert_eq!(cuts, [WHOLE / 4, WHOLE / 4, WHOLE * 2 / 5, WHOLE / 2, WHOLE / 2]);
    }
}
