//! Running seeds: one, or many over two threads; shrinking a failing one.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::canary::{Plant, Trap};
use crate::panics;
use crate::plan::{Fault, Faults, Links, MS, Options};
use crate::world::{Report, World};

/// Runs one seed.
pub fn run(options: &Options, keep_tail: bool) -> Report {
    panics::caught(|| World::new(options, keep_tail).run(options))
}

/// Runs a planted bug's seeds until it is caught.
pub fn hunt(trap: &Trap, seeds: Range<u64>) -> Option<Report> {
    let links = matches!(trap.plant, Plant::Packets(_)).then_some(Links::Packets);
    seeds
        .map(|seed| run(&Options { bug: Some(trap.name), links, ..Options::seed(seed) }, false))
        .find(|report| report.violation.is_some())
}

/// Runs many, on `threads` threads; `each` sees the reports as they come, and says whether to go on.
pub fn run_many(all: &[Options], threads: usize, each: impl FnMut(Report) -> bool + Send) {
    let next = AtomicU64::new(0);
    let each = Mutex::new((each, true));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(options) = all.get(at) else { return };
                    let report = run(options, false);
                    let Ok(mut guard) = each.lock() else { return };
                    if !guard.1 {
                        return;
                    }
                    let go_on = guard.0(report);
                    guard.1 = go_on;
                }
            });
        }
    });
}

/// Shrinks a failing run: leaves out whole fault classes, shortens the faulty phase and cuts the fault tapes, as long as
/// the same invariant fails. Returns the smallest that does, and its report.
pub fn shrink(report: &Report) -> Report {
    let Some(violation) = &report.violation else { return report.clone() };
    let mut best = report.clone();
    let attempt = |options: Options, best: &mut Report| {
        let again = run(&options, false);
        let same = again.violation.as_ref().is_some_and(|v| v.invariant == violation.invariant);
        if same {
            *best = again;
        }
        same
    };
    if best.plan.packets {
        // If it fails over the model too, the packets have nothing to do with it.
        attempt(Options { links: Some(Links::Model), ..best.options.clone() }, &mut best);
    }
    loop {
        let mut smaller = false;
        for fault in Fault::ALL {
            if best.plan.faults.has(fault) {
                let without = Faults(best.options.without.0 | Faults::default().with(fault).0);
                smaller |= attempt(Options { without, ..best.options.clone() }, &mut best);
            }
        }
        let chaos = best.plan.chaos / MS;
        for ms in [chaos / 4, chaos / 2, chaos * 3 / 4] {
            if ms > 0
                && ms < chaos
                && attempt(Options { chaos_ms: Some(ms), ..best.options.clone() }, &mut best)
            {
                smaller = true;
                break;
            }
        }
        let tape = best.options.tape.unwrap_or(1 << 12);
        if tape > 8 {
            smaller |= attempt(Options { tape: Some(tape / 2), ..best.options.clone() }, &mut best);
        }
        if !smaller {
            return best;
        }
    }
}
