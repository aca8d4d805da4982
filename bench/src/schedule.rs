//! When messages are meant to be sent, however the last ones fare.
//!
//! Who sends the next message when the last one is answered sends nothing while the other side is stuck, and so
//! measures the stall once instead of for everybody who would have sent meanwhile ("coordinated omission", Gil Tene).
//! So the instants are fixed beforehand, and latency counts from them.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How far apart messages are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// All alike.
    #[default]
    Fixed,
    /// As of many who know nothing of each other.
    Poisson,
}

/// Messages per second that can be asked for.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(rate),
        _ => Err("messages per second, more than 0 and at most 1000000000".into()),
    }
}

/// Instants, counted from the beginning.
pub(crate) struct Schedule {
    arrivals: Arrivals,
    gap_ns: f64,
    at_ns: f64,
    random: u64,
}

impl Schedule {
    /// That many messages per second. The same seed gives the same instants.
    pub(crate) fn new(arrivals: Arrivals, rate: f64, seed: u64) -> Schedule {
        Schedule { arrivals, gap_ns: 1e9 / rate, at_ns: 0.0, random: seed }
    }

    /// Uniform in (0, 1]. SplitMix64 (Steele, Lea, Flood 2014).
    fn uniform(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON / 2.0
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let gap = match self.arrivals {
            Arrivals::Fixed => 1.0,
            Arrivals::Poisson => -self.uniform().ln(),
        };
        self.at_ns += gap * self.gap_ns;
        Some(Duration::from_nanos(self.at_ns as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_instants_do_not_drift() {
        let schedule: Vec<Duration> = Schedule::new(Arrivals::Fixed, 3.0, 1).take(3000).collect();
        assert_eq!(schedule[0], Duration::from_nanos(333_333_333));
        let last = schedule[2999].as_secs_f64();
        assert!((last - 1000.0).abs() < 1e-6, "{last}");
    }

    #[test]
    fn independent_arrivals_have_the_mean_and_the_spread_of_an_exponential() {
        let count = 200_000;
        let at: Vec<f64> = Schedule::new(Arrivals::Poisson, 1000.0, 7)
            .take(count)
            .map(|at| at.as_secs_f64())
            .collect();
        let gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1e-3).abs() < 1e-5, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "its deviation is its mean");
        let longer = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
        assert!((longer - (-1f64).exp()).abs() < 0.01, "{longer}");
    }

    #[test]
    fn a_seed_gives_the_same_instants() {
        let of = |seed| Schedule::new(Arrivals::Poisson, 10.0, seed).take(50).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert!(of(3).is_sorted());
    }
}
