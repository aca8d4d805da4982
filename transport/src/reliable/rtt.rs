//! Round-trip time: a smoothed mean, its deviation, and the time-outs derived from them (RFC 6298, RFC 9002 §5).
//!
//! The floors are those of a cluster, not of the Internet: a probe time-out is at least a millisecond, so
//! that a scheduler hiccup of the peer is not taken for a loss, and a loss is still repaired within one.

use std::time::Duration;

/// Below this no time-out goes, however short the round trip is.
pub const RTO_MIN: Duration = Duration::from_millis(1);
/// Above this no backed-off time-out goes: a healed link is found again at once.
pub const RTO_MAX: Duration = Duration::from_millis(50);
/// Smallest deviation assumed: what a busy machine adds to any round trip.
const GRANULARITY: Duration = Duration::from_micros(200);
/// Assumed before the first sample.
const INITIAL: Duration = Duration::from_millis(1);

/// Estimate of one path.
#[derive(Clone, Copy, Debug)]
pub struct Rtt {
    smoothed: Duration,
    deviation: Duration,
    latest: Duration,
    min: Duration,
    sampled: bool,
}

impl Default for Rtt {
    fn default() -> Self {
        Rtt {
            smoothed: INITIAL,
            deviation: INITIAL / 2,
            latest: INITIAL,
            min: Duration::MAX,
            sampled: false,
        }
    }
}

impl Rtt {
    /// A packet came back after `elapsed`, of which the peer says it held it for `delay`.
    pub fn sample(&mut self, elapsed: Duration, delay: Duration) {
        self.latest = elapsed;
        self.min = self.min.min(elapsed);
        // The peer's word is believed only as far as it stays plausible.
        let adjusted = if elapsed >= self.min + delay { elapsed - delay } else { elapsed };
        if !self.sampled {
            self.sampled = true;
            self.smoothed = adjusted;
            self.deviation = adjusted / 2;
            return;
        }
        self.deviation = (self.deviation * 3 + self.smoothed.abs_diff(adjusted)) / 4;
        self.smoothed = (self.smoothed * 7 + adjusted) / 8;
    }

    /// Smoothed round-trip time.
    pub fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// Mean deviation.
    pub fn deviation(&self) -> Duration {
        self.deviation
    }

    /// How long a packet may be overtaken before it counts as lost: 9/8 of the round trip, and more where
    /// reordering was seen (`stretch` eighths on top, RFC 8985's adaptive window).
    pub fn loss_delay(&self, stretch: u32) -> Duration {
        let base = self.smoothed.max(self.latest);
        (base + base / 8 * (1 + stretch)).max(GRANULARITY)
    }

    /// Probe time-out for the `attempt`-th probe in a row (0 = first).
    pub fn probe_timeout(&self, ack_delay: Duration, attempt: u32) -> Duration {
        let base = self.smoothed + (self.deviation * 4).max(GRANULARITY) + ack_delay;
        (base.max(RTO_MIN) * (1 << attempt.min(10))).min(RTO_MAX.max(base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const US: Duration = Duration::from_micros(1);

    #[test]
    fn the_estimate_follows_the_samples() {
        let mut rtt = Rtt::default();
        for _ in 0..50 {
            rtt.sample(US * 100, Duration::ZERO);
        }
        assert_eq!(rtt.smoothed(), US * 100);
        assert!(rtt.deviation() < US);
        for _ in 0..50 {
            rtt.sample(US * 10_000, Duration::ZERO);
        }
        assert!(rtt.smoothed() > US * 9_000);
        assert_eq!(rtt.min, US * 100);
    }

    #[test]
    fn a_claimed_delay_cannot_push_the_estimate_below_the_minimum() {
        let mut rtt = Rtt::default();
        rtt.sample(US * 100, Duration::ZERO);
        rtt.sample(US * 110, US * 100_000);
        assert!(rtt.smoothed() >= US * 100);
    }

    #[test]
    fn time_outs_have_floors_and_a_ceiling() {
        let mut rtt = Rtt::default();
        for _ in 0..50 {
            rtt.sample(US * 20, Duration::ZERO);
        }
        assert_eq!(rtt.probe_timeout(Duration::ZERO, 0), RTO_MIN);
        assert_eq!(rtt.probe_timeout(Duration::ZERO, 2), RTO_MIN * 4);
        assert_eq!(rtt.probe_timeout(Duration::ZERO, 30), RTO_MAX);
        assert!(rtt.loss_delay(0) >= US * 22);
        assert!(rtt.loss_delay(8) >= rtt.loss_delay(0));
    }

    #[test]
    fn a_slow_path_gets_slow_time_outs() {
        let mut rtt = Rtt::default();
        for _ in 0..50 {
            rtt.sample(US * 80_000, Duration::ZERO);
        }
        assert!(rtt.probe_timeout(Duration::ZERO, 5) >= US * 80_000);
    }
}
