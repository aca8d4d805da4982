//! What is done with a measurement: how often it runs, where its outcome goes, and whether it is good enough.

mod baseline;
mod condition;
mod csv;
mod hdr;
mod names;
mod svg;

use crate::report::{Report, Run};
use condition::Condition;
use serde_json::Value;
use std::error::Error;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
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
        let known = names::of(report.measurement());
        for condition in &self.fail_if {
            condition.check(&known, baseline.is_some())?;
        }
        self.files().into_iter().try_for_each(writable)?;
        for _ in 0..self.repeat {
            report.add(measure()?);
            debug_assert!(known.have(&report), "names.rs does not know all: {:#}", report.json());
        }
        let json = report.json();
        let text = if self.json {
            format!("{json:#}\n")
        } else if self.csv {
            csv::text(&report)
        } else {
            report.table()
        };
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.map_err(|error| format!("the outcome cannot be printed: {error}"))?;
        self.write_files(&report)?;
        if let Some(baseline) = &baseline {
            let changes = baseline::changes(&json, baseline);
            let written = io::stderr().write_all(changes.as_bytes());
            written.map_err(|error| format!("the changes cannot be printed: {error}"))?;
        }
        let mut failed = Vec::new();
        for condition in &self.fail_if {
            failed.extend(condition.met(&json, baseline.as_ref())?);
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
    }

    /// Where something is written beside what is printed.
    fn files(&self) -> Vec<&Path> {
        let files = [&self.hgrm, &self.hlog, &self.svg, &self.samples];
        files.into_iter().flatten().map(PathBuf::as_path).collect()
    }

    fn write_files(&self, report: &Report) -> Result<(), Box<dyn Error>> {
        if let Some(file) = &self.hgrm {
            for (name, histogram) in report.latencies() {
                let mut path = file.as_os_str().to_owned();
                path.push(format!(".{name}.hgrm"));
                write(Path::new(&path), |out| Ok(hdr::distribution(out, &histogram)?))?;
            }
        }
        if let Some(path) = &self.hlog {
            write(path, |out| hdr::log(out, report.runs()))?;
        }
        if let Some(path) = &self.svg {
            let plot = svg::plot(&report.title(), &report.latencies());
            write(path, |out| Ok(out.write_all(plot.as_bytes())?))?;
        }
        if let Some(path) = &self.samples {
            let mut samples = report.runs().iter().flat_map(|run| &run.samples_ns);
            write(path, |out| Ok(samples.try_for_each(|sample| writeln!(out, "{sample}"))?))?;
        }
        Ok(())
    }
}

/// A new file with what that writes; an error names it.
fn write(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> Result<(), Box<dyn Error>>,
) -> Result<(), String> {
    let all = || {
        let mut out = BufWriter::new(File::create(path)?);
        content(&mut out)?;
        Ok::<_, Box<dyn Error>>(out.flush()?)
    };
    all().map_err(|error| format!("{}: {error}", path.display()))
}

/// Whether it looks as if a file could be written there. Nothing is left behind.
fn writable(path: &Path) -> Result<(), String> {
    let (at, how) = match path.parent() {
        _ if path.is_dir() => return Err(format!("{}: is a directory", path.display())),
        _ if path.exists() => (path, libc::W_OK),
        Some(dir) if dir != Path::new("") => (dir, libc::W_OK | libc::X_OK),
        _ => (Path::new("."), libc::W_OK | libc::X_OK),
    };
    let name = CString::new(at.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: the name is NUL-terminated and lives through the call.
    if unsafe { libc::access(name.as_ptr(), how) } < 0 {
        return Err(format!("{}: {}", path.display(), io::Error::last_os_error()));
    }
    Ok(())
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
