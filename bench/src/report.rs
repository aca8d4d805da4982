//! One measurement's outcome: what was measured, where, and what came of it, for people or as JSON.

use crate::host;
use crate::statistics::{Estimate, told};
use hdrhistogram::Histogram;
use quintet_transport::{LinkStatus, Path};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::time::Duration;

/// Version of the JSON; fields are only ever added within a version.
pub(crate) const SCHEMA: u32 = 2;

/// What one run showed.
#[derive(Default)]
pub(crate) struct Run {
    /// How long it took.
    pub(crate) took: Duration,
    /// Single latencies of what is measured, if they were asked for.
    pub(crate) samples_ns: Vec<u64>,
    /// Latencies in nanoseconds; the first is what the measurement is about.
    pub(crate) latencies: Vec<(&'static str, Histogram<u64>)>,
    /// Rates, ratios, counts; the name ends with the unit.
    pub(crate) figures: Vec<(&'static str, f64)>,
    /// What is no number: the provider and why.
    pub(crate) facts: Vec<(&'static str, Value)>,
}

impl Run {
    /// Adds a latency.
    pub(crate) fn latency(&mut self, name: &'static str, histogram: Histogram<u64>) {
        self.latencies.push((name, histogram));
    }

    /// Adds a figure.
    pub(crate) fn figure(&mut self, name: &'static str, value: f64) {
        self.figures.push((name, value));
    }

    /// Tells of the link that carried it, which receives at that address.
    pub(crate) fn link(&mut self, link: &LinkStatus, own: IpAddr) {
        self.fact("provider", link.path.to_string());
        self.fact("reason", &*link.reason);
        if link.path == Path::Udp {
            self.fact("nic", host::nic(own));
        }
        self.figure("retransmits", link.counters.retransmits as f64);
    }

    /// Adds a fact.
    pub(crate) fn fact(&mut self, name: &'static str, value: impl Serialize) {
        self.facts.push((name, json!(value)));
    }
}

/// All runs of a measurement.
pub(crate) struct Report {
    measurement: &'static str,
    parameters: Map<String, Value>,
    runs: Vec<Run>,
}

impl Report {
    /// A report of this measurement, with these parameters.
    pub(crate) fn new(measurement: &'static str, parameters: Value) -> Report {
        let Value::Object(parameters) = parameters else { panic!("parameters have names") };
        Report { measurement, parameters, runs: Vec::new() }
    }

    /// Bytes of a message, where there are messages.
    pub(crate) fn size(&self) -> String {
        self.parameters.get("size_bytes").map_or_else(String::new, Value::to_string)
    }

    /// What was measured, in a line.
    pub(crate) fn title(&self) -> String {
        let of = |name: &str| match self.parameters.get(name).or(self.facts().get(name)) {
            Some(Value::String(text)) => format!(", {text}"),
            Some(value) => format!(", {value}"),
            None => String::new(),
        };
        let size = if self.size().is_empty() { String::new() } else { of("size_bytes") + " B" };
        format!("{}{}{size}{}", self.measurement, of("provider"), of("wait"))
    }

    /// Adds a run. All runs of a report say the same things.
    pub(crate) fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// Each run.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// What was measured.
    pub(crate) fn measurement(&self) -> &'static str {
        self.measurement
    }

    /// Latencies by name, over all runs.
    pub(crate) fn latencies(&self) -> Vec<(&'static str, Histogram<u64>)> {
        let mut all: Vec<(&'static str, Histogram<u64>)> = Vec::new();
        for (name, one) in self.runs.iter().flat_map(|run| &run.latencies) {
            match all.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += one,
                None => all.push((name, one.clone())),
            }
        }
        all
    }

    /// What is told of a latency: of all runs together, with how much single runs differ.
    pub(crate) fn estimates(
        &self,
        name: &str,
        all: &Histogram<u64>,
    ) -> Vec<(&'static str, Estimate)> {
        let runs: Vec<Vec<(&str, f64)>> = self
            .runs
            .iter()
            .flat_map(|run| run.latencies.iter().find(|(known, _)| *known == name))
            .map(|(_, histogram)| told(histogram))
            .collect();
        told(all)
            .into_iter()
            .enumerate()
            .map(|(at, (what, value))| {
                let values: Vec<f64> = runs.iter().map(|run| run[at].1).collect();
                (what, Estimate { value, ..Estimate::of(&values) })
            })
            .collect()
    }

    /// Figures by name, over all runs.
    pub(crate) fn figures(&self) -> Vec<(&'static str, Estimate)> {
        let Some(first) = self.runs.first() else { return Vec::new() };
        first
            .figures
            .iter()
            .map(|(name, _)| {
                let of = |run: &Run| run.figures.iter().find(|(n, _)| n == name).map(|f| f.1);
                (*name, Estimate::of(&self.runs.iter().filter_map(of).collect::<Vec<_>>()))
            })
            .collect()
    }

    /// The whole of it, for programs.
    pub(crate) fn json(&self) -> Value {
        let latencies: Map<String, Value> = self
            .latencies()
            .into_iter()
            .map(|(name, all)| {
                let mut value = Map::from_iter([("count".to_owned(), json!(all.len()))]);
                let mut around = Map::new();
                for (what, estimate) in self.estimates(name, &all) {
                    value.insert(what.into(), json!(estimate.value));
                    if let Some(plus_minus) = estimate.plus_minus {
                        around.insert(what.into(), json!(plus_minus));
                    }
                }
                if !around.is_empty() {
                    value.insert("plus_minus".into(), Value::Object(around));
                }
                (name.to_owned(), Value::Object(value))
            })
            .collect();
        let figures: Map<String, Value> = self
            .figures()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        json!({
            "schema": SCHEMA,
            "measurement": self.measurement,
            "parameters": self.parameters,
            "host": host::describe(),
            "about": self.latencies().first().map(|(name, _)| *name),
            "runs": self.runs.len(),
            "facts": self.facts(),
            "latencies": latencies,
            "figures": figures,
        })
    }

    fn facts(&self) -> Map<String, Value> {
        let facts = self.runs.iter().flat_map(|run| &run.facts);
        facts.map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    /// Percentiles in microseconds, with a head line.
    fn rows(&self) -> Vec<Vec<String>> {
        let latencies = self.latencies();
        let Some((_, first)) = latencies.first() else { return Vec::new() };
        let names = told(first).into_iter().map(|(what, _)| what.trim_end_matches("_ns").into());
        let mut rows = vec![std::iter::once("µs".to_owned()).chain(names).collect()];
        for (name, all) in &latencies {
            let estimates = self.estimates(name, all).into_iter().map(|(_, estimate)| {
                let around = |pm: f64| format!(" ±{:.2}", pm / 1e3);
                let around = estimate.plus_minus.map_or_else(String::new, around);
                format!("{:.2}{around}", estimate.value / 1e3)
            });
            rows.push(std::iter::once((*name).to_owned()).chain(estimates).collect());
        }
        rows
    }

    /// The whole of it, for people.
    pub(crate) fn table(&self) -> String {
        let runs = match self.runs.len() {
            1 => String::new(),
            runs => format!(", {runs} runs; ± is the 95 % confidence interval of their mean"),
        };
        let mut text = format!("{}{runs}\n", self.measurement);
        let known = |(_, value): &(&String, &Value)| !value.is_null();
        for (name, value) in self.parameters.iter().chain(&self.facts()).filter(known) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text += &format!("  {name:<26} {value}\n");
        }
        text += &columns(&self.rows());
        for (name, estimate) in self.figures() {
            let around = estimate.plus_minus.map_or_else(String::new, |pm| format!(" ±{pm:.2}"));
            text += &format!("  {name:<26} {:.2}{around}\n", estimate.value);
        }
        text
    }
}

/// Names to the left, figures to the right, at least two spaces between.
fn columns(rows: &[Vec<String>]) -> String {
    let width = |cell: &String| cell.chars().count() + 2;
    let width = rows.iter().flat_map(|row| &row[1..]).map(width).max().unwrap_or(0).max(16);
    let mut text = String::new();
    for row in rows {
        text += &format!("  {:<26}", row[0]);
        text.extend(row[1..].iter().map(|cell| format!("{cell:>width$}")));
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::{histogram, record};

    fn run(latency_us: u64, ratio: f64) -> Run {
        let (mut run, mut latencies) = (Run::default(), histogram());
        record(&mut latencies, Duration::from_micros(latency_us));
        run.latency("rtt", latencies);
        run.figure("ratio", ratio);
        run.fact("provider", "shm");
        run
    }

    #[test]
    fn json_has_everything_by_name() {
        let mut report = Report::new("pingpong", json!({ "size_bytes": 64 }));
        report.add(run(10, 1.5));
        let json = report.json();
        assert_eq!(json["schema"], 2);
        assert_eq!(json["measurement"], "pingpong");
        assert_eq!(json["about"], "rtt");
        assert_eq!(json["parameters"]["size_bytes"], 64);
        assert_eq!(json["facts"]["provider"], "shm");
        assert_eq!(json["latencies"]["rtt"]["count"], 1);
        assert_eq!(json["latencies"]["rtt"]["p99.999_ns"], json["latencies"]["rtt"]["max_ns"]);
        assert_eq!(json["figures"]["ratio"], json!({ "value": 1.5 }));
        assert!(
            json["latencies"]["rtt"].get("plus_minus").is_none(),
            "one run says nothing of others"
        );
        for known in ["name", "kernel", "cpu", "cores"] {
            assert!(json["host"].get(known).is_some(), "{known}");
        }
    }

    #[test]
    fn runs_are_put_together() {
        let mut report = Report::new("pingpong", json!({}));
        report.add(run(10, 1.0));
        report.add(run(20, 3.0));
        let json = report.json();
        assert_eq!(json["latencies"]["rtt"]["count"], 2);
        assert_eq!(json["figures"]["ratio"]["value"], 2.0);
        assert!(json["figures"]["ratio"]["plus_minus"].as_f64() > Some(12.0));
        assert!(json["latencies"]["rtt"]["plus_minus"]["p50_ns"].as_f64() > Some(60_000.0));
        let table = report.table();
        assert!(table.contains("2 runs") && table.contains("p99.999"), "{table}");
        assert!(table.contains("2.00 ±12.71"), "{table}");
    }

    #[test]
    fn columns_do_not_run_together() {
        let mut report = Report::new("pingpong", json!({}));
        report.add(run(1_000_000, 1.0));
        report.add(run(59_000_000, 1.0));
        let table = report.table();
        let line = table.lines().find(|line| line.trim_start().starts_with("rtt")).expect("a line");
        let words = line.split_whitespace().count();
        assert_eq!(words, 1 + 2 * told(&histogram()).len(), "a value and an interval each: {line}");
    }
}
