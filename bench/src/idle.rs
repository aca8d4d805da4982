//! `--idle SECONDS`: what a message takes after nobody has sent any for long.
//!
//! A message after a minute is later than one of many for two reasons: both sides sleep, and caches, cores and whoever
//! owns the machine have gone on to other things. So round trips are also measured a millisecond apart, where both sides
//! sleep and nothing has been forgotten: the difference from there to after a minute is idleness alone. The raw programs
//! of `--compare raw` do the same.

use crate::exchange::seconds;
use crate::report::Run;
use crate::statistics::{histogram, record};
use hdrhistogram::Histogram;
use std::error::Error;
use std::time::Duration;

/// Short silences.
const SHORT: Duration = Duration::from_millis(1);
const SHORT_COUNT: u32 = 1000;

/// Flags about idleness.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Idle {
    /// Also tell what a message takes after so many seconds without any, and how much more that is than without them.
    #[arg(long = "idle", value_name = "SECONDS", value_parser = seconds, conflicts_with_all = ["nodes", "rate", "stages"])]
    seconds: Option<f64>,
    /// How often nobody sends for so long, in each run.
    #[arg(long = "idle-times", default_value_t = 3, requires = "seconds", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    times: u32,
}

/// What it is called.
pub(crate) struct Names {
    idle: &'static str,
    short: &'static str,
    ratio: &'static str,
    ratio_short: &'static str,
}

pub(crate) const TRANSPORT: Names = Names {
    idle: "after_idle",
    short: "after_1ms",
    ratio: "ratio_after_idle",
    ratio_short: "ratio_after_idle_to_after_1ms",
};

pub(crate) const RAW: Names = Names {
    idle: "raw_after_idle",
    short: "raw_after_1ms",
    ratio: "raw_ratio_after_idle",
    ratio_short: "raw_ratio_after_idle_to_after_1ms",
};

impl Idle {
    /// As a parameter of a report.
    pub(crate) fn told(self) -> Option<f64> {
        self.seconds
    }

    /// How many round trips there are with silences before them.
    pub(crate) fn count(self) -> u64 {
        self.seconds.map_or(0, |_| u64::from(SHORT_COUNT) + u64::from(self.times))
    }

    /// Times round trips with silences before them, if that was asked for; `warm` has those without. `exchange` is silent
    /// for so long, then tells what a round trip took.
    pub(crate) fn measure(
        self,
        warm: &Histogram<u64>,
        names: &Names,
        run: &mut Run,
        mut exchange: impl FnMut(Duration) -> Result<Duration, Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        let Some(seconds) = self.seconds else { return Ok(()) };
        let mut after = |silence: Duration, count: u32| {
            let mut latencies = histogram();
            for _ in 0..count {
                record(&mut latencies, exchange(silence)?);
            }
            Ok::<_, Box<dyn Error>>(latencies)
        };
        let short = after(SHORT, SHORT_COUNT)?;
        let idle = after(Duration::from_secs_f64(seconds), self.times)?;
        let middle = |latencies: &Histogram<u64>| latencies.value_at_percentile(50.0) as f64;
        run.figure(names.ratio, middle(&idle) / middle(warm));
        run.figure(names.ratio_short, middle(&idle) / middle(&short));
        run.latency(names.short, short);
        run.latency(names.idle, idle);
        Ok(())
    }
}
