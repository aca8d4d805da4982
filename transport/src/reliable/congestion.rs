//! Congestion window: NewReno as RFC 9002 §7 describes it, in bytes, with a cluster's constants; marks as DCTCP has it
//! (RFC 8257).
//!
//! Slow start doubles the window each round trip; the first loss of a round trip halves it; after that it
//! grows by one datagram each round trip. Losses of packets sent before the halving belong to the same
//! event. The window starts large (a cluster's switch holds more than ten packets) and never falls below
//! [`MIN_PACKETS`]: at thirty percent loss a link must still move. It grows only while it is the limit.
//!
//! Losses are the last news of congestion. Switches that mark packets (ECN) tell it before: at the end of each round trip
//! the window shrinks by half of the share that was marked of late, so that a short queue stays short and no packet
//! is lost. Where nobody marks, delay tells it, later than marks and before a loss: when a whole round trip was slow
//! doubling ends, and the window shrinks by as much as the round trip was too long (`delay`); when round trips are fast
//! again it grows by one datagram more in each than in the one before (TIMELY's hyperactive increase). What is not congested is not
//! held back by any of this, nor is anything computed for it: as long as nothing is marked and some packet of each round
//! trip is fast, delay costs a comparison for each ack. There is no pacing: acks set the pace, and even the smallest
//! window lasts longer than what pacing would have to smooth.
//!
//! What this window does not hold back: lanes other than the last (bulk) may exceed it by [`PRIORITY_RESERVE`]
//! bytes and the control lane by twice that, so that nothing small ever queues behind a bulk transfer. That is
//! bounded, hence harmless to the network.

use std::time::Duration;

use super::delay::{self, Delay};
use crate::time::Time;

const INITIAL_PACKETS: u64 = 64;
const INITIAL_BYTES: u64 = 256 << 10;
const MIN_PACKETS: u64 = 8;
/// But not more bytes, if only two datagrams fit.
const MIN_BYTES: u64 = 128 << 10;
const MAX_BYTES: u64 = 4 << 20;
/// Where slow need not mean a queue: by how much a whole round must be slower than the fastest of late to end doubling.
const SLOW: Duration = Duration::from_millis(1);
/// What stands for "all" in shares of marked packets.
const ALL: u64 = 1024;
/// Part of the latest share in the mean.
const GAIN: u64 = 16;
/// Bytes that lanes other than the bulk lane may have in flight beyond the window.
pub const PRIORITY_RESERVE: u64 = 16 << 10;

/// How urgent a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The last lane.
    Bulk = 0,
    /// Lanes between.
    Group = 1,
    /// The first lane.
    Control = 2,
}

/// Window of one direction of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Congestion {
    window: u64,
    threshold: u64,
    datagram: u64,
    in_flight: u64,
    /// Packets sent up to here belong to the recovery in progress.
    recovery_start: Option<Time>,
    /// Bytes acked since the window last grew, in congestion avoidance.
    credit: u64,
    /// Bytes whose acks may still grow the window: one window's worth since it last was the limit.
    growth: u64,
    /// Mean share of marked packets, of [`ALL`].
    marked: u64,
    delay: Delay,
    /// Rounds in a row that were fast, since delay has set the window.
    hurry: Option<u64>,
    round: Round,
    /// Times that the window shrank, for losses, marks or delay.
    events: u64,
}

/// What was heard since the packet that was sent last when it began.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    end: u64,
    acked: u64,
    marked: u64,
    /// The window was what held back.
    limited: bool,
}

impl Congestion {
    /// A window for datagrams of at most `datagram` bytes.
    pub fn new(datagram: usize) -> Self {
        let datagram = datagram as u64;
        Congestion {
            window: initial(datagram),
            threshold: u64::MAX,
            datagram,
            in_flight: 0,
            recovery_start: None,
            credit: 0,
            growth: 0,
            marked: ALL,
            delay: Delay::default(),
            hurry: None,
            round: Round::default(),
            events: 0,
        }
    }

    /// Another path: what is in flight is all that is known.
    pub fn restart(&mut self, datagram: usize, now: Time) {
        *self = Congestion {
            in_flight: self.in_flight,
            // What is lost of it was lost on the path before.
            recovery_start: Some(now),
            events: self.events,
            ..Congestion::new(datagram)
        };
    }

    /// Datagrams are larger or smaller from now on.
    pub fn resize(&mut self, datagram: usize) {
        self.datagram = datagram as u64;
        let least = if self.threshold == u64::MAX { initial(self.datagram) } else { self.min() };
        self.window = self.window.max(least);
    }

    fn min(&self) -> u64 {
        least(self.datagram)
    }

    /// Whether one more full datagram may be sent by lanes of that rank.
    pub fn allows(&mut self, rank: Rank) -> bool {
        let wanted = self.in_flight + self.datagram;
        if wanted > self.window {
            self.growth = self.window;
        }
        let reserve = PRIORITY_RESERVE.max(2 * self.datagram);
        wanted <= self.window + reserve * rank as u64
    }

    /// An ack-eliciting packet went out.
    pub fn on_sent(&mut self, bytes: u64) {
        self.in_flight += bytes;
    }

    /// A packet sent at `sent` left the network by being acked.
    pub fn on_acked(&mut self, bytes: u64, sent: Time) {
        self.on_discarded(bytes);
        let grows = self.growth > 0;
        self.round.limited |= grows;
        self.growth = self.growth.saturating_sub(bytes);
        if !grows || self.recovery_start.is_some_and(|start| sent <= start) {
            return;
        }
        if self.window < self.threshold {
            self.window = (self.window + bytes).min(MAX_BYTES);
        } else {
            self.credit += bytes;
            if self.credit >= self.window {
                self.credit -= self.window;
                self.window = (self.window + self.datagram).min(MAX_BYTES);
            }
        }
    }

    /// A packet sent at `sent` came back, after `elapsed` without what the peer held its ack. Up to `waited` of that it or
    /// its ack may have lain unread.
    pub fn on_round_trip(&mut self, now: Time, sent: Time, elapsed: Duration, waited: Duration) {
        // What left before the window shrank met the queue of the window before.
        if self.recovery_start.is_none_or(|start| sent > start) {
            self.delay.sample(now, elapsed, waited);
        }
    }

    /// An ack told of `acked` packets more, of which `marked` met congestion. `largest` is the newest of them, `next` the
    /// number of the packet that will be sent next.
    pub fn on_marks(&mut self, now: Time, acked: u32, marked: u32, largest: u64, next: u64) {
        self.round.acked += u64::from(acked);
        self.round.marked += u64::from(marked);
        if marked > 0 {
            self.threshold = self.threshold.min(self.window);
        }
        if largest < self.round.end || self.round.acked == 0 {
            return;
        }
        let round = std::mem::replace(&mut self.round, Round { end: next, ..Round::default() });
        let least = self.delay.end_round();
        let share = (round.marked * ALL / round.acked).min(ALL);
        self.marked = (self.marked * (GAIN - 1) + share) / GAIN;
        if round.marked > 0 {
            self.shrink(self.window * self.marked / (2 * ALL));
            self.hurry = None;
        } else if let Some(least) = least {
            if least > delay::TARGET {
                self.on_slow_round(least, round.limited, now);
            } else if self.hurry.is_some() && round.limited {
                self.on_fast_round(least);
            }
        }
    }

    /// Delay has set the window, and there is less of it: the longer so, the faster what was taken is given back.
    fn on_fast_round(&mut self, least: Duration) {
        let rounds = self.hurry.filter(|_| least <= delay::NEAR).map_or(0, |rounds| rounds + 1);
        self.hurry = Some(rounds);
        let more = (rounds * self.datagram).min(self.window / 2);
        self.window = (self.window + more).min(MAX_BYTES);
    }

    /// Each packet of a whole round was in the network for at least that long.
    fn on_slow_round(&mut self, least: Duration, limited: bool, now: Time) {
        if !self.delay.is_queue(least) {
            if least > self.delay.fastest() + SLOW {
                self.threshold = self.threshold.min(self.window);
            }
            return;
        }
        // Whose window is not the limit has no queue to make shorter.
        if !limited {
            return;
        }
        if self.window <= 2 * self.min() && !self.delay.can_be_helped() {
            self.threshold = u64::MAX;
            return;
        }
        self.shrink(self.window * Delay::cut(least) / delay::WHOLE);
        self.recovery_start = Some(now);
        self.hurry = Some(0);
    }

    fn shrink(&mut self, by: u64) {
        self.window = (self.window - by).max(self.min());
        self.threshold = self.window;
        self.credit = 0;
        self.events += 1;
    }

    /// A packet sent at `sent` was lost.
    pub fn on_lost(&mut self, bytes: u64, sent: Time, now: Time) {
        self.on_discarded(bytes);
        if self.recovery_start.is_some_and(|start| sent <= start) {
            return;
        }
        self.events += 1;
        self.recovery_start = Some(now);
        self.threshold = (self.window / 2).max(self.min());
        self.window = self.threshold;
        self.credit = 0;
        self.hurry = None;
    }

    /// A packet is no longer counted, whatever became of it.
    pub fn on_discarded(&mut self, bytes: u64) {
        debug_assert!(self.in_flight >= bytes, "more left the network than entered it");
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// Three probe time-outs in a row: the path is gone or new; start over carefully (RFC 9002 §7.6).
    pub fn on_persistent_congestion(&mut self) {
        self.window = self.min();
        self.recovery_start = None;
    }

    /// Times that the window shrank: once for all losses of a round trip, once for each round trip with marks, or that
    /// was slow.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Window in bytes.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Bytes in the network.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }
}

fn initial(datagram: u64) -> u64 {
    (INITIAL_PACKETS * datagram).min(INITIAL_BYTES).max(least(datagram))
}

fn least(datagram: u64) -> u64 {
    (MIN_PACKETS * datagram).min(MIN_BYTES).max(2 * datagram)
}

#[cfg(test)]
mod tests {
    use super::*;
    const MS: u64 = 1_000_000;

    fn fill(c: &mut Congestion) -> u64 {
        let mut sent = 0;
        while c.allows(Rank::Bulk) {
            c.on_sent(1000);
            sent += 1000;
        }
        sent
    }

    #[test]
    fn slow_start_doubles_and_a_loss_halves_once_per_round() {
        let mut c = Congestion::new(1000);
        let before = c.window();
        let sent = fill(&mut c);
        for _ in 0..sent / 1000 {
            c.on_acked(1000, Time::from_nanos(MS));
        }
        assert_eq!(c.window(), before + sent);
        fill(&mut c);
        let window = c.window();
        c.on_lost(1000, Time::from_nanos(2 * MS), Time::from_nanos(3 * MS));
        c.on_lost(1000, Time::from_nanos(2 * MS), Time::from_nanos(4 * MS));
        assert_eq!(c.window(), window / 2);
        c.on_lost(1000, Time::from_nanos(5 * MS), Time::from_nanos(6 * MS));
        assert_eq!(c.window(), window / 4);
    }

    #[test]
    fn two_of_the_largest_datagrams_always_fit_and_few_more() {
        for (datagram, least) in [(1200, 9600), (9000, 72_000), (65_491, MIN_BYTES)] {
            let mut c = Congestion::new(datagram);
            c.on_persistent_congestion();
            assert_eq!(c.window(), least);
        }
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut c = Congestion::new(1000);
        let before = c.window();
        for _ in 0..1000 {
            c.on_sent(1000);
            c.on_acked(1000, Time::from_nanos(MS));
        }
        assert_eq!(c.window(), before);
    }

    #[test]
    fn control_may_pass_a_full_window_but_not_without_end() {
        let mut c = Congestion::new(1000);
        fill(&mut c);
        let mut extra = 0;
        while c.allows(Rank::Control) {
            c.on_sent(1000);
            extra += 1000;
        }
        assert!(extra > PRIORITY_RESERVE && extra <= 2 * PRIORITY_RESERVE);
    }

    /// A round of `packets`, each of which took `elapsed`; if `waited` of that was spent unread.
    fn round(c: &mut Congestion, now: u64, packets: u64, elapsed: Duration, waited: Duration) {
        let (sent, back) = (Time::from_nanos(now * MS), Time::from_nanos(now * MS) + elapsed);
        for _ in 0..packets {
            c.on_acked(1000, sent);
            c.on_round_trip(back, sent, elapsed, waited);
        }
        c.on_marks(back, packets as u32, 0, now + 1, now + 1);
    }

    #[test]
    fn a_slow_round_shrinks_the_window_that_was_the_limit_and_no_other() {
        const SLOW_ROUND: Duration = Duration::from_millis(2);
        let mut c = Congestion::new(1000);
        let before = c.window();
        for at in 1..5 {
            (0..10).for_each(|_| c.on_sent(1000));
            round(&mut c, at * 10, 10, SLOW_ROUND, Duration::ZERO);
        }
        assert_eq!((c.window(), c.events()), (before, 0), "the window held nothing back");
        let packets = fill(&mut c) / 1000;
        round(&mut c, 50, packets, SLOW_ROUND, SLOW_ROUND);
        assert_eq!(c.events(), 0, "nobody looked at what had come");
        let packets = fill(&mut c) / 1000;
        let before = c.window();
        round(&mut c, 60, packets, SLOW_ROUND, Duration::ZERO);
        // It doubled first.
        assert_eq!((c.window(), c.events()), (before, 1));
    }

    #[test]
    fn what_was_taken_for_delay_is_given_back_ever_faster() {
        let (slow, fast) = (Duration::from_millis(2), Duration::from_micros(50));
        let mut c = Congestion::new(1000);
        let mut packets = fill(&mut c) / 1000;
        round(&mut c, 10, packets, slow, Duration::ZERO);
        let mut grown = Vec::new();
        for at in 2..8 {
            let before = c.window();
            packets = fill(&mut c) / 1000;
            round(&mut c, at * 10, packets, fast, Duration::ZERO);
            grown.push(c.window() - before);
        }
        assert!(grown.is_sorted() && grown[5] >= 6000, "{grown:?}");
        c.on_lost(0, Time::from_nanos(90 * MS), Time::from_nanos(91 * MS));
        let before = c.window();
        packets = fill(&mut c) / 1000;
        round(&mut c, 100, packets, fast, Duration::ZERO);
        assert!(c.window() - before <= 1000, "what a loss took is not");
    }

    #[test]
    fn the_window_never_closes() {
        let mut c = Congestion::new(1000);
        for i in 0..100 {
            c.on_sent(1000);
            c.on_lost(1000, Time::from_nanos((2 * i + 1) * MS), Time::from_nanos((2 * i + 2) * MS));
        }
        assert!(c.window() >= MIN_PACKETS * 1000);
        c.on_persistent_congestion();
        assert!(c.window() >= MIN_PACKETS * 1000);
    }
}
