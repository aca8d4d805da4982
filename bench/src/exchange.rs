//! What a round trip is, and how many of them are measured: common to all measurements of latency.

use crate::statistics::{histogram, record};
use hdrhistogram::Histogram;
use quintet_transport::clock;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::time::Duration;

/// What comes back.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// As much as was sent.
    Message,
    /// Only how many messages were taken.
    Word,
}

impl Answer {
    /// What a measurement is called that has it, and what is measured.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Answer::Message => ("pingpong", "rtt"),
            Answer::Word => ("put", "put_to_known"),
        }
    }
}

/// How many round trips are measured, or how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Round trips before those that count.
    pub(crate) warm_up: u64,
    /// Round trips that count, if not as many as a duration allows.
    pub(crate) count: u64,
    pub(crate) duration: Option<Duration>,
}

/// A span that is measured.
pub(crate) fn span(text: &str) -> Result<f64, String> {
    match seconds(text) {
        Ok(seconds) if seconds > 0.0 => Ok(seconds),
        _ => Err("seconds, more than 0 and at most a day".into()),
    }
}

/// A span that a measurement may take.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds, at most a day".into()),
    }
}

/// Times round trips, the transport's and the raw ones alike. Keeps as many single ones as there is room for.
pub(crate) fn timed(
    extent: Extent,
    samples_ns: &mut Vec<u64>,
    mut begin: impl FnMut(),
    mut exchange: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<Histogram<u64>, Box<dyn Error>> {
    for _ in 0..extent.warm_up {
        exchange()?;
    }
    let mut latencies = histogram();
    begin();
    let end = extent.duration.map(|duration| clock::now() + duration);
    loop {
        let start = clock::now();
        // One at least, so that there is something to tell.
        let enough = match end {
            Some(end) => start >= end && !latencies.is_empty(),
            None => latencies.len() >= extent.count,
        };
        if enough {
            break;
        }
        exchange()?;
        let latency = clock::now().since(start);
        record(&mut latencies, latency);
        keep(samples_ns, latency);
    }
    Ok(latencies)
}

/// Keeps a single one, if there is room.
pub(crate) fn keep(samples_ns: &mut Vec<u64>, latency: Duration) {
    if samples_ns.len() < samples_ns.capacity() {
        samples_ns.push(latency.as_nanos() as u64);
    }
}
