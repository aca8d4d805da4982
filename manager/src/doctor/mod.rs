//! `quintet doctor`: what of this host stands in the way of a daemon, why it matters, and what to do about it.
//!
//! Looking and judging are apart. Each file has a struct of facts, a function that looks (through [`Host`], so that a
//! directory can stand for the machine) and one function per check that judges facts and touches nothing; so every
//! verdict is a test with planted facts. What cannot be looked at, for want of rights or of a configuration, is said and
//! counts as no problem: the doctor runs beside a daemon or without one, as root or not.
//!
//! Exit status: 0 without a problem (warnings are none), 2 with one, 1 if it could not do its work.

mod clock;
mod fabric;
mod files;
mod host;
mod kernel;
mod memory;
mod network;
mod packets;
mod paths;
mod print;
mod processors;
mod system;
mod verbs;

use crate::config::Config;
use crate::print::{complain, say, text_as_it_is};
use clap::Args;
use host::Host;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// What `quintet doctor` is told.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A daemon's configuration: its addresses, directories and peers are looked at too.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What is to be said of one thing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but worse than it could, or not always.
    Warning,
    /// A daemon will not start, or not serve.
    Problem,
    /// Does not concern this host.
    NotApplicable,
    /// Could not be looked at.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Check {
    /// What it belongs to: `kernel`, `memory`, …
    area: &'static str,
    /// Its name within the area.
    name: String,
    verdict: Verdict,
    /// What is there.
    found: String,
    /// What it is needed for.
    why: &'static str,
    /// The command or setting that helps, where something is to be done.
    fix: Option<String>,
}

impl Check {
    fn new(
        area: &'static str,
        name: impl Into<String>,
        why: &'static str,
        (verdict, found, fix): Judgement,
    ) -> Check {
        Check { area, name: name.into(), verdict, found, why, fix }
    }
}

/// Verdict, what was found, and what to do.
type Judgement = (Verdict, String, Option<String>);

fn fine(found: impl Into<String>) -> Judgement {
    (Verdict::Ok, found.into(), None)
}

fn warning(found: impl Into<String>, fix: impl Into<String>) -> Judgement {
    (Verdict::Warning, found.into(), Some(fix.into()))
}

fn problem(found: impl Into<String>, fix: impl Into<String>) -> Judgement {
    (Verdict::Problem, found.into(), Some(fix.into()))
}

fn not_applicable(found: impl Into<String>) -> Judgement {
    (Verdict::NotApplicable, found.into(), None)
}

fn unknown(found: impl Into<String>) -> Judgement {
    (Verdict::Unknown, found.into(), None)
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Report {
    /// The worst of the verdicts: `ok`, `warning` or `problem`.
    verdict: Verdict,
    checks: Vec<Check>,
}

impl Report {
    fn new(checks: Vec<Check>) -> Report {
        let any = |verdict| checks.iter().any(|check| check.verdict == verdict);
        let verdict = match (any(Verdict::Problem), any(Verdict::Warning)) {
            (true, _) => Verdict::Problem,
            (false, true) => Verdict::Warning,
            (false, false) => Verdict::Ok,
        };
        Report { verdict, checks }
    }

    fn status(&self) -> ExitCode {
        if self.verdict == Verdict::Problem { ExitCode::from(2) } else { ExitCode::SUCCESS }
    }
}

/// Looks at everything and prints it.
pub(crate) fn main(arguments: &Arguments, json: bool) -> ExitCode {
    let report = Report::new(examine(&Host::this(), arguments));
    if !json {
        text_as_it_is(&print::text(&report));
    } else {
        match serde_json::to_string_pretty(&report) {
            Ok(text) => say!("{text}"),
            Err(error) => {
                complain!("error: cannot print: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    report.status()
}

fn examine(host: &Host, arguments: &Arguments) -> Vec<Check> {
    // What is wrong with the file is one check; as much of it as can be read serves the others.
    let config = arguments.config.as_ref().and_then(|file| Config::load(file).ok());
    let config = config.as_ref();
    let mut checks = Vec::new();
    checks.extend(kernel::Facts::look(host).judge());
    checks.extend(processors::Facts::look(host, config).judge());
    checks.extend(clock::Facts::look().judge());
    checks.extend(memory::Facts::look(host, config).judge());
    checks.extend(network::Facts::look(host).judge());
    checks.extend(packets::Facts::look(config).judge());
    checks.extend(verbs::Facts::look(host, config).judge());
    checks.extend(fabric::Facts::look(host).judge());
    checks.extend(files::Facts::look(arguments.config.as_deref(), config).judge());
    checks.extend(paths::Facts::look(config).judge());
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: &[Verdict]) -> Report {
        let check = |verdict: &Verdict| {
            Check::new("kernel", "it", "for this", (*verdict, "that".into(), None))
        };
        Report::new(verdicts.iter().map(check).collect())
    }

    #[test]
    fn the_worst_verdict_decides_and_only_a_problem_fails() {
        use Verdict::*;
        for (verdicts, worst, status) in [
            (&[][..], Ok, ExitCode::SUCCESS),
            (&[Ok, NotApplicable, Unknown], Ok, ExitCode::SUCCESS),
            (&[Ok, Warning], Warning, ExitCode::SUCCESS),
            (&[Problem, Warning, Ok], Problem, ExitCode::from(2)),
        ] {
            let report = report(verdicts);
            assert_eq!(report.verdict, worst);
            assert_eq!(format!("{:?}", report.status()), format!("{status:?}"));
        }
    }

    #[test]
    fn every_check_of_this_machine_says_what_it_found_and_what_is_wrong_has_a_fix() {
        let checks = examine(&Host::this(), &Arguments { config: None });
        for check in &checks {
            assert!(!check.found.is_empty() && check.why.len() > 20, "{check:?}");
            let wrong = matches!(check.verdict, Verdict::Warning | Verdict::Problem);
            assert_eq!(wrong, check.fix.is_some(), "{check:?}");
        }
        let areas: Vec<_> = checks.iter().map(|check| check.area).collect();
        for area in ["kernel", "processors", "clock", "memory", "network", "rdma", "files", "peers"]
        {
            assert!(areas.contains(&area), "{area}");
        }
    }

    /// A machine of which nothing can be seen at all: everything is said to be unknown, or judged by a system call.
    #[test]
    fn an_empty_machine_is_no_reason_to_fail() {
        let dir = tempfile::tempdir().unwrap();
        let checks = examine(&Host::at(dir.path()), &Arguments { config: None });
        assert!(checks.iter().any(|check| check.verdict == Verdict::Unknown));
    }
}
