//! HdrHistogram's two formats: the percentile distribution (.hgrm), and the log of intervals.

use crate::report::Run;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

/// Lines per halving of the distance to 100 %.
const TICKS: u32 = 5;

/// The distribution, in microseconds.
pub(super) fn distribution(out: &mut impl Write, histogram: &Histogram<u64>) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut below = 0;
    for step in histogram.iter_quantiles(TICKS) {
        below += step.count_since_last_iteration();
        let (value, quantile) = (us(step.value_iterated_to()), step.quantile_iterated_to());
        write!(out, "{value:>12.3} {quantile:>2.12} {below:>10}")?;
        if quantile < 1.0 {
            write!(out, " {:>14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    let (mean, deviation) = (histogram.mean() / 1e3, histogram.stdev() / 1e3);
    writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
    let (max, count) = (us(histogram.max()), histogram.len());
    writeln!(out, "#[Max     = {max:>12.3}, Total count    = {count:>12}]")?;
    let (buckets, halves) = (histogram.buckets(), histogram.distinct_values());
    writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {halves:>12}]")?;
    out.flush()
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// A log: the runs as intervals, values in nanoseconds.
pub(super) fn log(out: &mut impl Write, runs: &[Run]) -> Result<(), Box<dyn Error>> {
    let mut serializer = V2DeflateSerializer::new();
    let began = SystemTime::now();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("quintet-perf; nanoseconds; an interval is a run")
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(1e6)
        .begin_log_with(out, &mut serializer)?;
    let mut at = Duration::ZERO;
    for run in runs {
        for (name, histogram) in &run.latencies {
            log.write_histogram(histogram, at, run.took, Tag::new(name))
                .map_err(|error| format!("the log cannot be written: {error:?}"))?;
        }
        at += run.took;
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::{histogram, record};
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn thousand() -> Histogram<u64> {
        let mut latencies = histogram();
        for us in 1..=1000 {
            record(&mut latencies, Duration::from_micros(us));
        }
        latencies
    }

    #[test]
    fn a_distribution_rises_to_all() {
        let mut text = Vec::new();
        distribution(&mut text, &thousand()).expect("memory takes all");
        let text = String::from_utf8(text).expect("text");
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|field| field.parse().unwrap()).collect())
            .collect();
        assert!(rows.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1] && a[2] <= b[2]), "{text}");
        let last = rows.last().expect("rows");
        assert_eq!((last[1], last[2], last.len()), (1.0, 1000.0, 3));
        let middle = rows.iter().find(|row| row[1] == 0.5).expect("the median");
        assert!((middle[0] - 500.0).abs() < 1.0 && middle[3] == 2.0, "{text}");
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }

    #[test]
    fn a_log_is_read_back() {
        let (mut one, mut two) = (Run::default(), Run::default());
        (one.took, two.took) = (Duration::from_secs(2), Duration::from_secs(3));
        one.latency("rtt", thousand());
        two.latency("rtt", thousand());
        two.latency("half_rtt", histogram());
        let mut bytes = Vec::new();
        log(&mut bytes, &[one, two]).expect("memory takes all");
        let intervals: Vec<_> = IntervalLogIterator::new(&bytes)
            .filter_map(|entry| match entry.expect("a well-formed line") {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect();
        let said: Vec<_> = intervals
            .iter()
            .map(|i| {
                (i.tag().unwrap().as_str(), i.start_timestamp().as_secs(), i.duration().as_secs())
            })
            .collect();
        assert_eq!(said, [("rtt", 0, 2), ("rtt", 2, 3), ("half_rtt", 2, 3)]);
        let first = base64(intervals[0].encoded_histogram());
        let back: Histogram<u64> =
            Deserializer::new().deserialize(&mut &first[..]).expect("a histogram");
        assert_eq!((back.len(), back.max()), (1000, thousand().max()));
    }

    /// Decodes it. The log holds the standard alphabet.
    fn base64(text: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut bits, mut held, mut bytes) = (0u32, 0, Vec::new());
        for byte in text.bytes().filter(|byte| *byte != b'=') {
            let six = ALPHABET.iter().position(|known| *known == byte).expect("base64");
            (bits, held) = (bits << 6 | six as u32, held + 6);
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held) as u8);
            }
        }
        bytes
    }
}
