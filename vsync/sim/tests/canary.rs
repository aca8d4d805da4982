//! The simulator's own examination: each planted bug is caught within its seeds, by an invariant that it breaks.

use quintet_sim::canary::TABLE;
use quintet_sim::plan::{Links, Options};
use quintet_sim::run::{hunt, run, shrink};

#[test]
fn every_planted_bug_is_caught_within_its_seeds() {
    let mut missed = Vec::new();
    for trap in TABLE {
        match hunt(trap, trap.seeds.clone()).and_then(|report| report.violation) {
            Some(violation) if trap.invariants.contains(&violation.invariant) => {}
            other => missed.push(format!("{} within {:?}: {other:?}", trap.name, trap.seeds)),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// One that nobody can read about is one whose loss nobody would notice.
#[test]
fn every_planted_bug_has_its_line_in_the_architecture() {
    let page = include_str!("../../../ARCHITECTURE.md");
    let missing: Vec<&str> =
        TABLE.iter().map(|t| t.name).filter(|n| !page.contains(&format!("| `{n}` |"))).collect();
    assert_eq!(missing, Vec::<&str>::new());
    let lines = page.lines().skip_while(|l| !l.starts_with("| planted as |")).skip(2);
    assert_eq!(lines.take_while(|l| l.starts_with('|')).count(), TABLE.len());
}

#[test]
fn a_failing_run_shrinks_to_one_that_fails_alike_and_replays() {
    let failing = hunt(&TABLE[1], TABLE[1].seeds.clone()).expect("caught");
    let small = shrink(&failing);
    let again = run(&small.options, false);
    assert_eq!(again.hash, small.hash);
    assert_eq!(
        again.violation.as_ref().map(|v| v.invariant),
        failing.violation.as_ref().map(|v| v.invariant)
    );
    assert!(small.plan.faults.iter().count() <= failing.plan.faults.iter().count());
    assert!(small.plan.chaos <= failing.plan.chaos);
}

#[test]
fn the_command_of_a_report_names_everything_that_was_left_out() {
    let options = Options {
        bug: Some("no-fence"),
        chaos_ms: Some(50),
        tape: Some(9),
        links: Some(Links::Packets),
        ..Options::seed(12)
    };
    let command = options.command();
    for part in ["--seed 12", "--bug no-fence", "--chaos-ms 50", "--tape 9", "--links packets"] {
        assert!(command.contains(part), "{command}");
    }
}
