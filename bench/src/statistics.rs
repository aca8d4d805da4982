//! Figures of several runs of the same: their mean, and how far it may be from the truth.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// Longest latency recorded, nanoseconds; a longer one counts as this.
const LONGEST_NS: u64 = 60_000_000_000;

/// A histogram of latencies in nanoseconds, three significant figures.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("constant bounds that fit together")
}

/// Adds a latency.
pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record((latency.as_nanos() as u64).max(1));
}

/// The same latencies, each halved: a way, where round trips were measured and both ways are alike.
pub(crate) fn halved(whole: &Histogram<u64>) -> Histogram<u64> {
    let mut half = histogram();
    for value in whole.iter_recorded() {
        half.saturating_record_n(
            (value.value_iterated_to() / 2).max(1),
            value.count_since_last_iteration(),
        );
    }
    half
}

/// What is told of a latency, each with its name.
pub(crate) fn told(histogram: &Histogram<u64>) -> Vec<(&'static str, f64)> {
    let percentile = |p| histogram.value_at_percentile(p) as f64;
    vec![
        ("mean_ns", histogram.mean()),
        ("p50_ns", percentile(50.0)),
        ("p90_ns", percentile(90.0)),
        ("p99_ns", percentile(99.0)),
        ("p99.9_ns", percentile(99.9)),
        ("p99.99_ns", percentile(99.99)),
        ("p99.999_ns", percentile(99.999)),
        ("max_ns", histogram.max() as f64),
    ]
}

/// A mean of runs, and between what the true mean lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Estimate {
    /// The mean.
    pub(crate) value: f64,
    /// Half the width of the interval around it; none for a single run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plus_minus: Option<f64>,
}

impl Estimate {
    /// Of these values, by Student's t, for few runs vary much in how much they vary.
    pub(crate) fn of(values: &[f64]) -> Estimate {
        let count = values.len() as f64;
        let value = values.iter().sum::<f64>() / count;
        let plus_minus = (values.len() > 1).then(|| {
            let squares: f64 = values.iter().map(|each| (each - value).powi(2)).sum();
            student(values.len() - 1) * (squares / (count - 1.0) / count).sqrt()
        });
        Estimate { value, plus_minus }
    }
}

/// How alike shares are: 1 if all are the same, 1/n if one of n has everything (Jain, Chiu, Hawe 1984).
pub(crate) fn fairness(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares > 0.0 { sum * sum / (shares.len() as f64 * squares) } else { 0.0 }
}

/// Student's t: 97.5 % lie below it, at that many degrees of freedom.
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    // Beyond the table an expansion about the normal distribution is exact to three places.
    TABLE.get(freedom.saturating_sub(1)).copied().unwrap_or(1.96 + 2.4 / freedom as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_students() {
        let five = Estimate::of(&[10.0, 12.0, 11.0, 13.0, 9.0]);
        assert_eq!(five.value, 11.0);
        // s = sqrt(2.5), t(4) = 2.776: 2.776 × sqrt(2.5 / 5).
        assert!((five.plus_minus.unwrap() - 1.963).abs() < 0.001, "{five:?}");
        assert_eq!(Estimate::of(&[5.0]), Estimate { value: 5.0, plus_minus: None });
        assert_eq!(Estimate::of(&[5.0, 5.0]).plus_minus, Some(0.0));
        assert!((student(60) - 2.000).abs() < 0.001 && (student(31) - 2.040).abs() < 0.003);
    }

    #[test]
    fn fair_is_when_all_have_the_same() {
        assert_eq!(fairness(&[5.0, 5.0, 5.0, 5.0]), 1.0);
        assert_eq!(fairness(&[8.0, 0.0, 0.0, 0.0]), 0.25);
        assert!((fairness(&[1.0, 3.0]) - 0.8).abs() < 1e-12);
        assert_eq!(fairness(&[0.0, 0.0]), 0.0, "nobody had anything");
    }

    #[test]
    fn a_half_keeps_the_count() {
        let mut whole = histogram();
        for ns in [1, 1000, 2000, 2000, 40_000] {
            record(&mut whole, Duration::from_nanos(ns));
        }
        let half = halved(&whole);
        assert_eq!((half.len(), half.value_at_percentile(50.0)), (5, 1000));
        assert_eq!(half.min(), 1);
    }

    #[test]
    fn percentiles_reach_to_one_in_a_hundred_thousand() {
        let mut latencies = histogram();
        for _ in 0..99_999 {
            record(&mut latencies, Duration::from_nanos(100));
        }
        record(&mut latencies, Duration::from_nanos(1000));
        let told = told(&latencies);
        let of = |name| told.iter().find(|(told, _)| *told == name).unwrap().1;
        assert_eq!((of("p50_ns"), of("p99.999_ns"), of("max_ns")), (100.0, 100.0, 1000.0));
        record(&mut latencies, Duration::from_nanos(1000));
        assert_eq!(super::told(&latencies)[6], ("p99.999_ns", 1000.0));
    }
}
