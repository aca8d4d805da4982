//! One line per figure: of all runs together, then of each run.

use crate::report::Report;
use crate::statistics::told;

/// With a head line.
pub(super) fn text(report: &Report) -> String {
    let mut text = "size_bytes,run,name,figure,value,plus_minus\n".to_owned();
    let size = report.size();
    let mut line = |run: &str, name: &str, figure: &str, value: f64, around: Option<f64>| {
        let around = around.map_or_else(String::new, |around| around.to_string());
        text += &format!("{size},{run},{name},{figure},{value},{around}\n");
    };
    for (name, all) in report.latencies() {
        for (figure, estimate) in report.estimates(name, &all) {
            line("all", name, figure, estimate.value, estimate.plus_minus);
        }
    }
    for (figure, estimate) in report.figures() {
        line("all", "", figure, estimate.value, estimate.plus_minus);
    }
    for (run, number) in report.runs().iter().zip(1..) {
        let number = number.to_string();
        for (name, histogram) in &run.latencies {
            told(histogram)
                .into_iter()
                .for_each(|(figure, value)| line(&number, name, figure, value, None));
        }
        run.figures.iter().for_each(|(figure, value)| line(&number, "", figure, *value, None));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Run;
    use crate::statistics::{histogram, record};
    use std::time::Duration;

    #[test]
    fn every_line_has_the_columns_of_the_head() {
        let mut report = Report::new("pingpong", serde_json::json!({ "size_bytes": 64 }));
        for ratio in [1.0, 2.0] {
            let (mut run, mut latencies) = (Run::default(), histogram());
            record(&mut latencies, Duration::from_nanos(100));
            run.latency("rtt", latencies);
            run.figure("ratio_p50", ratio);
            report.add(run);
        }
        let text = text(&report);
        assert!(text.lines().all(|line| line.split(',').count() == 6), "{text}");
        assert!(text.contains("\n64,all,rtt,p99_ns,100,0\n"), "{text}");
        assert!(text.contains("\n64,all,,ratio_p50,1.5,6.353\n"), "{text}");
        assert!(text.contains("\n64,2,,ratio_p50,2,\n"), "{text}");
    }
}
