//! `--fail-if 'p99>30us'`: when a measurement is not good enough.

use super::names::{Names, STATISTICS};
use serde_json::Value;
use std::str::FromStr;

/// A figure, a comparison and a bound.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    text: String,
    metric: String,
    relation: Relation,
    bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Relation {
    Above,
    AtLeast,
    Below,
    AtMost,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    /// Of a figure, in its own unit.
    Plain(f64),
    /// Of a latency.
    Nanos(f64),
    /// Times the baseline's.
    Times(f64),
}

const RELATIONS: [(&str, Relation); 4] = [
    (">=", Relation::AtLeast),
    ("<=", Relation::AtMost),
    (">", Relation::Above),
    ("<", Relation::Below),
];

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        let wrong = |what: &str| format!("{what}; a condition is such as 'p99>30us'");
        let (sign, relation) = RELATIONS
            .into_iter()
            .find(|(sign, _)| text.contains(sign))
            .ok_or_else(|| wrong("it needs <, <=, > or >="))?;
        let (metric, bound) = text.split_once(sign).ok_or_else(|| wrong("no comparison"))?;
        let (metric, bound) = (metric.trim(), bound.trim());
        if metric.is_empty() {
            return Err(wrong("it names no figure"));
        }
        let unit_at = bound.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(bound.len());
        let (number, unit) = bound.split_at(unit_at);
        let number: f64 =
            number.parse().map_err(|_| wrong(&format!("{bound:?} begins with no number")))?;
        let bound = match unit.trim() {
            "" | "%" => Bound::Plain(number),
            "k" => Bound::Plain(number * 1e3),
            "M" => Bound::Plain(number * 1e6),
            "ns" => Bound::Nanos(number),
            "us" | "µs" => Bound::Nanos(number * 1e3),
            "ms" => Bound::Nanos(number * 1e6),
            "s" => Bound::Nanos(number * 1e9),
            "x" => Bound::Times(number),
            unit => {
                return Err(wrong(&format!("{unit:?} is no unit (ns, us, ms, s, k, M, %, x)")));
            }
        };
        Ok(Condition { text: text.to_owned(), metric: metric.to_owned(), relation, bound })
    }
}

impl Condition {
    /// Before anything is measured: whether it can be told of what has these names. An error if not.
    pub(super) fn check(&self, known: &Names, has_baseline: bool) -> Result<(), String> {
        let failed = |what: String| format!("--fail-if '{}': {what}", self.text);
        let is_latency = !known.figures.contains(&self.metric.as_str());
        let of_series = |series: &&str| {
            let rest = self.metric.strip_prefix(*series).and_then(|rest| rest.strip_prefix('.'));
            rest.is_some_and(|what| STATISTICS.contains(&what))
        };
        let about = !known.latencies.is_empty() && STATISTICS.contains(&self.metric.as_str());
        if is_latency && !about && !known.latencies.iter().any(of_series) {
            let latencies = known.latencies.iter().map(|series| format!("{series}.p99"));
            let plain = if known.latencies.is_empty() { &[][..] } else { &STATISTICS[..] };
            let figures = plain.iter().chain(known.figures).map(|name| (*name).to_owned());
            let names: Vec<String> = figures.chain(latencies).collect();
            let (metric, measurement) = (&self.metric, known.measurement);
            let names = names.join(", ");
            return Err(failed(format!("there is no {metric}; {measurement} may tell {names}")));
        }
        match self.bound {
            Bound::Plain(_) if is_latency => {
                Err(failed("a latency needs a unit: ns, us, ms, s".into()))
            }
            Bound::Nanos(_) if !is_latency => Err(failed("that figure is no time".into())),
            Bound::Times(_) if !has_baseline => {
                Err(failed("x is times the --baseline, give one".into()))
            }
            _ => Ok(()),
        }
    }

    /// What to say if the outcome meets it. An error if it cannot be told.
    pub(super) fn met(
        &self,
        outcome: &Value,
        baseline: Option<&Value>,
    ) -> Result<Option<String>, String> {
        let failed = |what: String| format!("--fail-if '{}': {what}", self.text);
        let (value, is_latency) = find(outcome, &self.metric).ok_or_else(|| {
            failed(format!("there is no {}; there are {}", self.metric, names(outcome)))
        })?;
        let bound = match self.bound {
            Bound::Plain(bound) if !is_latency => bound,
            Bound::Nanos(bound) if is_latency => bound,
            Bound::Plain(_) => return Err(failed("a latency needs a unit: ns, us, ms, s".into())),
            Bound::Nanos(_) => return Err(failed("that figure is no time".into())),
            Bound::Times(times) => {
                let baseline =
                    baseline.ok_or_else(|| failed("x is times the --baseline, give one".into()))?;
                let (then, _) = find(baseline, &self.metric)
                    .ok_or_else(|| failed("the baseline has no such figure".into()))?;
                times * then
            }
        };
        let met = match self.relation {
            Relation::Above => value > bound,
            Relation::AtLeast => value >= bound,
            Relation::Below => value < bound,
            Relation::AtMost => value <= bound,
        };
        let shown =
            if is_latency { format!("{:.2} us", value / 1e3) } else { format!("{value:.3}") };
        Ok(met.then(|| failed(format!("it is {shown}"))))
    }
}

/// A figure of an outcome, and whether it is a latency: `p99` of what was measured, `raw_futex_rtt.p99`, `ratio_p50`.
pub(super) fn find(outcome: &Value, metric: &str) -> Option<(f64, bool)> {
    if let Some(value) = outcome["figures"][metric]["value"].as_f64() {
        return Some((value, false));
    }
    let about = outcome["about"].as_str().unwrap_or_default();
    let of = |series: &str, metric: &str| {
        let series = &outcome["latencies"][series];
        let value = series[format!("{metric}_ns")].as_f64()?;
        // Of nothing there are no percentiles, whatever is printed.
        (series["count"] != 0).then_some((value, true))
    };
    // A percentile has a point itself: the series ends at the first one.
    of(about, metric).or_else(|| {
        let (series, metric) = metric.split_once('.')?;
        of(series, metric)
    })
}

fn names(outcome: &Value) -> String {
    let keys = |value: &Value| {
        value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
    };
    let about = &outcome["latencies"][outcome["about"].as_str().unwrap_or_default()];
    let mut names: Vec<String> = keys(about)
        .iter()
        .filter(|_| about["count"] != 0)
        .filter_map(|key| key.strip_suffix("_ns").map(str::to_owned))
        .collect();
    names.extend(keys(&outcome["figures"]));
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn outcome(p99_ns: f64) -> Value {
        json!({
            "about": "rtt",
            "latencies": {
                "rtt": { "p99_ns": p99_ns, "p99.9_ns": 90_000.0, "count": 5 },
                "raw_futex_rtt": { "p99.9_ns": 20_000.0 },
            },
            "figures": { "ratio_p50": { "value": 1.5 }, "messages_per_s": { "value": 2.5e6 } },
        })
    }

    fn met(text: &str, baseline: Option<&Value>) -> Result<bool, String> {
        text.parse::<Condition>()?.met(&outcome(31_000.0), baseline).map(|met| met.is_some())
    }

    #[test]
    fn bounds_have_units() {
        for (text, expected) in [
            ("p99>30us", true),
            ("p99 > 32 µs", false),
            ("p99>=31us", true),
            ("p99>31us", false),
            ("p99<=31000ns", true),
            ("p99.9<0.1ms", true),
            ("rtt.p99.9<0.00008s", false),
            ("raw_futex_rtt.p99.9>19us", true),
            ("ratio_p50>1.4", true),
            ("ratio_p50<1.4", false),
            ("messages_per_s<3M", true),
            ("messages_per_s<2400k", false),
        ] {
            assert_eq!(met(text, None), Ok(expected), "{text}");
        }
    }

    #[test]
    fn nothing_measured_is_never_good_enough() {
        let mut outcome = outcome(0.0);
        outcome["latencies"]["rtt"]["count"] = 0.into();
        for text in ["p99>30us", "rtt.p99>30us", "p99<30us"] {
            let condition: Condition = text.parse().expect("a condition");
            let error = condition.met(&outcome, None).expect_err(text);
            assert!(error.contains("there is no ") && !error.contains("p99.9"), "{error}");
        }
    }

    #[test]
    fn a_wrong_name_is_known_before_anything_is_measured() {
        let check = |measurement, text: &str, has_baseline| {
            let condition: Condition = text.parse().expect("a condition");
            condition.check(&super::super::names::of(measurement), has_baseline)
        };
        for (measurement, text) in [
            ("pingpong", "p99>30us"),
            ("pingpong", "raw_futex_rtt.p99.9>1ms"),
            ("put", "ratio_p50>2"),
            ("rate", "messages_per_s<3M"),
            ("detect", "fault_to_dead.max>1s"),
        ] {
            assert_eq!(check(measurement, text, false), Ok(()), "{measurement} {text}");
        }
        for (measurement, text, said) in [
            ("pingpong", "p98>30us", "there is no p98; pingpong may tell mean, p50"),
            ("pingpong", "rtt.p98>30us", "there is no rtt.p98"),
            ("pingpong", "fairness<1", "there is no fairness"),
            ("rate", "p99>30us", "there is no p99; rate may tell messages_per_s"),
            ("multicast", "p99>1.2x", "--baseline"),
            ("multicast", "p99>1", "needs a unit"),
            ("multicast", "messages_per_s<1ms", "no time"),
        ] {
            let error = check(measurement, text, false).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
        assert_eq!(check("multicast", "p99>1.2x", true), Ok(()));
    }

    #[test]
    fn a_baseline_is_a_unit() {
        let then = outcome(25_000.0);
        assert_eq!(met("p99>1.2x", Some(&then)), Ok(true));
        assert_eq!(met("p99>1.25x", Some(&then)), Ok(false));
        assert_eq!(met("messages_per_s<0.9x", Some(&then)), Ok(false));
        assert!(met("p99>1.2x", None).is_err_and(|error| error.contains("--baseline")));
    }

    #[test]
    fn what_cannot_be_told_is_an_error_and_never_passes() {
        for (text, said) in [
            ("p99", "needs <"),
            (">30us", "names no figure"),
            ("p99>fast", "no number"),
            ("p99>30min", "no unit"),
            ("p98>30us", "there is no p98; there are p99.9, p99, messages_per_s, ratio_p50"),
            ("p99>30", "needs a unit"),
            ("ratio_p50>1us", "no time"),
        ] {
            let error = met(text, None).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn who_fails_says_why() {
        let condition: Condition = "p99>30us".parse().expect("a condition");
        let said = condition.met(&outcome(31_000.0), None).expect("told").expect("met");
        assert_eq!(said, "--fail-if 'p99>30us': it is 31.00 us");
    }
}
