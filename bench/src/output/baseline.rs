//! What changed since an earlier measurement.

use serde_json::Value;

/// A line for each figure that both have, and for what makes them hard to compare.
pub(super) fn changes(now: &Value, then: &Value) -> String {
    let mut text = "since the baseline\n".to_owned();
    for part in ["measurement", "parameters", "facts"] {
        if now[part] != then[part] {
            text += &format!("  {part} differ: {} then, {} now\n", then[part], now[part]);
        }
    }
    for part in ["name", "kernel", "cpu", "cores"] {
        if now["host"][part] != then["host"][part] {
            let (now, then) = (&now["host"][part], &then["host"][part]);
            text += &format!("  another machine: {part} was {then}, is {now}\n");
        }
    }
    let of = |value: &Value, part: &str| {
        value[part].as_object().cloned().unwrap_or_default().into_iter()
    };
    for (series, latency) in of(now, "latencies") {
        for (what, value) in latency.as_object().into_iter().flatten() {
            let Some(name) = what.strip_suffix("_ns") else { continue };
            let then = then["latencies"][&series][what].as_f64();
            if let (Some(value), Some(then)) = (value.as_f64(), then) {
                let (from, to) = (then / 1e3, value / 1e3);
                text += &line(&format!("{series} {name}"), from, to, " µs");
            }
        }
    }
    for (name, figure) in of(now, "figures") {
        let then = then["figures"][&name]["value"].as_f64();
        if let (Some(value), Some(then)) = (figure["value"].as_f64(), then) {
            text += &line(&name, then, value, "");
        }
    }
    text
}

fn line(name: &str, then: f64, now: f64, unit: &str) -> String {
    let percent = if then == now { 0.0 } else { 100.0 * (now / then - 1.0) };
    format!("  {name:<34} {then:.2} → {now:.2}{unit} ({percent:+.1} %)\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_are_told_and_so_is_what_makes_them_doubtful() {
        let outcome = |p50: f64, ratio: f64, size: u32, kernel: &str| {
            json!({
                "measurement": "pingpong",
                "parameters": { "size_bytes": size },
                "facts": {},
                "host": { "kernel": kernel },
                "latencies": { "rtt": { "p50_ns": p50, "count": 7 } },
                "figures": { "ratio_p50": { "value": ratio } },
            })
        };
        let same = changes(&outcome(11_000.0, 1.0, 64, "6"), &outcome(10_000.0, 2.0, 64, "6"));
        assert!(same.contains("rtt p50") && same.contains("10.00 → 11.00 µs (+10.0 %)"), "{same}");
        assert!(same.contains("2.00 → 1.00 (-50.0 %)"), "{same}");
        assert!(!same.contains("differ") && !same.contains("another machine"), "{same}");
        let other = changes(&outcome(1.0, 1.0, 64, "7"), &outcome(1.0, 1.0, 100, "6"));
        assert!(other.contains("parameters differ"), "{other}");
        assert!(other.contains("another machine: kernel was \"6\", is \"7\""), "{other}");
    }
}
