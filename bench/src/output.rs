//! What is done with a measurement: how often it runs, where its outcome goes, and whether it is good enough.

mod baseline;
mod condition;
mod csv;
mod hdr;
mod svg;

use crate::report::{Report, Run};
use condition::Condition;
use serde_json::Value;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// Flags of every measurement.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Outputs {
    /// Print JSON instead of a table.
    #[arg(long, conflicts_with = "csv")]
    pub(crate) json: bool,
    /// Print CSV instead of a table.
    #[arg(long)]
    csv: bool,
    /// Measure that often; figures are means, with their 95 % confidence intervals.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeat: u16,
    /// Fail if that is true of the outcome, such as 'p99>30us', 'raw_futex_rtt.p50>20us', 'ratio_p50>1.5', or with
    /// --baseline 'p99>1.2x'. May be given several times.
    #[arg(long = "fail-if", value_name = "CONDITION")]
    fail_if: Vec<Condition>,
    /// Also tell what changed since the measurement whose JSON is there.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write the distribution of each latency to FILE.NAME.hgrm, as HdrHistogram's plotter takes it.
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Write an HdrHistogram log, an interval for each run and a tag for each latency.
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// Write a plot of the percentiles.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write every single latency of what is measured, in nanoseconds, a line each, in order.
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
}

impl Outputs {
    /// Whether single latencies must be kept.
    pub(crate) fn wants_samples(&self) -> bool {
        self.samples.is_some()
    }

    /// Runs the measurement as often as asked, and hands on what came of it. An error if it is not good enough.
    pub(crate) fn take(
        &self,
        mut report: Report,
        mut measure: impl FnMut() -> Result<Run, Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        // Before the first run, so that nobody waits for a measurement in vain.
        let baseline = self.baseline.as_deref().map(read_json).transpose()?;
        for _ in 0..self.repeat {
            report.add(measure()?);
        }
        let json = report.json();
        if self.json {
            println!("{json:#}");
        } else if self.csv {
            print!("{}", csv::text(&report));
        } else {
            print!("{}", report.table());
        }
        self.write_files(&report)?;
        if let Some(baseline) = &baseline {
            eprint!("{}", baseline::changes(&json, baseline));
        }
        let mut failed = Vec::new();
        for condition in &self.fail_if {
            failed.extend(condition.met(&json, baseline.as_ref())?);
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
    }

    fn write_files(&self, report: &Report) -> Result<(), Box<dyn Error>> {
        if let Some(file) = &self.hgrm {
            for (name, histogram) in report.latencies() {
                let mut path = file.as_os_str().to_owned();
                path.push(format!(".{name}.hgrm"));
                hdr::distribution(&mut create(Path::new(&path))?, &histogram)?;
            }
        }
        if let Some(path) = &self.hlog {
            hdr::log(&mut create(path)?, report.runs())?;
        }
        if let Some(path) = &self.svg {
            let mut file = create(path)?;
            file.write_all(svg::plot(&report.title(), &report.latencies()).as_bytes())?;
            file.flush()?;
        }
        if let Some(path) = &self.samples {
            let mut file = create(path)?;
            for sample in report.runs().iter().flat_map(|run| &run.samples_ns) {
                writeln!(file, "{sample}")?;
            }
            file.flush()?;
        }
        Ok(())
    }
}

fn create(path: &Path) -> Result<BufWriter<File>, String> {
    File::create(path).map(BufWriter::new).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_json(path: &Path) -> Result<Value, String> {
    let said = |error: &dyn std::fmt::Display| format!("baseline {}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| said(&error))?;
    let json: Value = serde_json::from_str(&text).map_err(|error| said(&error))?;
    if json["schema"] == crate::report::SCHEMA {
        return Ok(json);
    }
    Err(said(&format!("its schema is not {}, measure it anew with --json", crate::report::SCHEMA)))
}
