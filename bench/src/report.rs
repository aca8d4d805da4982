//! Percentiles and everything that a reader needs to judge them, for people or as JSON.

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Version of the JSON; fields are only ever added within a version.
const SCHEMA: u32 = 1;

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

const PERCENTILES: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 100.0];

/// One measurement's outcome.
pub(crate) struct Report {
    name: &'static str,
    fields: Map<String, Value>,
}

impl Report {
    /// A report of this measurement.
    pub(crate) fn new(name: &'static str) -> Report {
        Report { name, fields: Map::new() }
    }

    /// Adds a parameter or a figure.
    pub(crate) fn set(&mut self, name: &str, value: impl Serialize) {
        self.fields.insert(name.to_owned(), json!(value));
    }

    /// Adds percentiles of a latency.
    pub(crate) fn latency(&mut self, name: &str, histogram: &Histogram<u64>) {
        let mut value = Map::new();
        value.insert("count".into(), json!(histogram.len()));
        value.insert("mean_ns".into(), json!(histogram.mean()));
        for percentile in PERCENTILES {
            value.insert(label(percentile), json!(histogram.value_at_percentile(percentile)));
        }
        self.fields.insert(name.to_owned(), Value::Object(value));
    }

    /// Prints it.
    pub(crate) fn print(&self, json: bool) {
        if json {
            let mut whole = json!({ "schema": SCHEMA, "measurement": self.name, "host": host() });
            whole.as_object_mut().expect("made as an object").extend(self.fields.clone());
            println!("{whole:#}");
            return;
        }
        println!("{}", self.name);
        for (name, value) in &self.fields {
            match value {
                Value::Object(latency) => {
                    print!("  {name:<22}");
                    for percentile in PERCENTILES {
                        let label = label(percentile);
                        let ns = latency.get(&label).and_then(Value::as_u64).unwrap_or(0);
                        print!(" {} {:.2} µs ", label.trim_end_matches("_ns"), ns as f64 / 1e3);
                    }
                    println!();
                }
                Value::Number(number) if number.is_f64() => {
                    println!("  {name:<22} {:.3}", number.as_f64().unwrap_or(0.0))
                }
                Value::String(text) => println!("  {name:<22} {text}"),
                other => println!("  {name:<22} {other}"),
            }
        }
    }
}

fn label(percentile: f64) -> String {
    if percentile >= 100.0 { "max_ns".into() } else { format!("p{percentile}_ns") }
}

fn host() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": model.trim_start_matches([' ', '\t', ':']),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
    })
}

/// CPU time of this process and of its ended children.
pub(crate) fn cpu_time() -> Duration {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .into_iter()
        .map(|who| {
            let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
            // SAFETY: `usage` is writable memory of the type getrusage fills; zeroed bytes are a valid rusage.
            let usage = unsafe {
                libc::getrusage(who, usage.as_mut_ptr());
                usage.assume_init()
            };
            let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
            time(usage.ru_utime) + time(usage.ru_stime)
        })
        .sum()
}
