//! The report for people: a line for each check, and what to do beneath those that ask for it.

use super::{Report, Verdict};
use std::fmt::Write as _;

/// All of it.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut area = "";
    let width = report.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    for check in &report.checks {
        if check.area != area {
            area = check.area;
            let _ = writeln!(text, "{}{area}", if text.is_empty() { "" } else { "\n" });
        }
        let (word, found) = (word(check.verdict), &check.found);
        let _ = writeln!(text, "  {word:14}  {:width$}  {found}", check.name);
        if let Some(fix) = &check.fix {
            let _ = writeln!(text, "{:18}why: {}\n{:18}fix: {fix}", "", check.why, "");
        }
    }
    let count = |verdict| report.checks.iter().filter(|check| check.verdict == verdict).count();
    let (problems, warnings) = (count(Verdict::Problem), count(Verdict::Warning));
    let many =
        |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let _ = writeln!(text, "\n{}, {}", many(problems, "problem"), many(warnings, "warning"));
    text
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Problem => "PROBLEM",
        Verdict::NotApplicable => "not applicable",
        Verdict::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Check, fine, problem};
    use super::*;

    #[test]
    fn what_is_wrong_comes_with_why_and_fix() {
        let report = Report::new(vec![
            Check::new("kernel", "version", "for all", fine("6.1")),
            Check::new("network", "rmem_max", "bursts are lost", problem("1 kB", "sysctl -w a=b")),
        ]);
        let spaces = " ".repeat(18);
        assert_eq!(
            text(&report),
            format!(
                "kernel\n  ok              version   6.1\n\nnetwork\n  PROBLEM         rmem_max  1 kB\n\
                 {spaces}why: bursts are lost\n{spaces}fix: sysctl -w a=b\n\n1 problem, 0 warnings\n"
            )
        );
    }
}
