//! `quintet-sim`: run seeds, replay one, hunt planted bugs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use quintet_sim::canary;
use quintet_sim::plan::{Fault, Faults, Links, MS, Options};
use quintet_sim::run::{hunt, run, run_many, shrink};
use quintet_sim::world::{Report, acted};

/// Deterministic simulator of the virtual-synchrony core: real protocol code, virtual everything else.
///
/// A seed is a whole run of a small cluster: how many nodes, which faults strike when, in which order things happen. The
/// invariants of the protocol are checked at every step, and the same seed always gives the same run.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    replay: Replay,
}

const EXAMPLES: &str = "\
Examples:
  quintet-sim run --seeds 0..300            300 runs, and a table of what they met; without arguments, the same
  quintet-sim --seed 7                      one of them again
  quintet-sim --seed 7 --trace | less       every step of it: virtual time, who, what
  quintet-sim --seed 7 --shrink             if it fails: the same failure with fewer faults, in less time
  quintet-sim canary                        is the simulator awake? it must find every bug planted in the core

A violation is printed with the command that replays it. The exit status is 0 if no invariant was violated (of `canary`: if
every planted bug was caught).";

#[derive(Subcommand)]
enum Command {
    /// Run many seeds and say what happened; the first violation ends it and is shrunk.
    ///
    /// The table says in how many seeds each fault class was used and how often it acted, what was sent, delivered and
    /// acknowledged, and how long after the last fault the cluster was whole again, in virtual time.
    Run(Many),
    /// Run each planted bug over its seeds and say which invariant caught it.
    ///
    /// The core carries known bugs behind a switch that only the simulator compiles in. One that is not caught means that
    /// a check, or a fault that provokes it, has been lost.
    Canary(Canary),
}

#[derive(Args)]
struct Many {
    /// Seeds, as FROM..TO; TO is not run.
    #[arg(long, default_value = "0..300", value_parser = range)]
    seeds: Range<u64>,
    /// Switch a planted bug on (`canary` names them).
    #[arg(long, value_parser = bug)]
    bug: Option<&'static str>,
    /// Threads; each runs a seed at a time.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// What links are, in all of them: a model of their promises, or packets of the real reliable core. Without it one
    /// seed in four draws packets.
    #[arg(long, value_parser = links)]
    links: Option<Links>,
    /// Run all seeds, also after a violation.
    #[arg(long)]
    keep_going: bool,
    /// Do not shrink a failing seed.
    #[arg(long)]
    no_shrink: bool,
}

#[derive(Args)]
struct Canary {
    /// Seeds tried per bug, at most.
    #[arg(long, default_value_t = 300)]
    most: u64,
}

#[derive(Args)]
struct Replay {
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print every step: virtual time, then what happened.
    #[arg(long)]
    trace: bool,
    /// Switch a planted bug on (`canary` names them).
    #[arg(long, value_parser = bug)]
    bug: Option<&'static str>,
    /// Fault classes to leave out, with commas (`run` names them).
    #[arg(long, value_parser = faults, default_value = "none")]
    without: Faults,
    /// Length of the faulty phase, milliseconds of virtual time.
    #[arg(long)]
    chaos_ms: Option<u64>,
    /// How much of the seed's fault schedule is used: draws per fault class.
    #[arg(long)]
    tape: Option<u64>,
    /// What links are, if not what the seed draws: a model of their promises, or packets of the real reliable core.
    #[arg(long, value_parser = links)]
    links: Option<Links>,
    /// If it fails, look for the same failure with fewer faults and in less time.
    #[arg(long)]
    shrink: bool,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("expected FROM..TO, as in 0..300")?;
    let number = |t: &str| t.trim().parse::<u64>().map_err(|e| format!("{t}: {e}"));
    let range = number(from)?..number(to)?;
    if range.is_empty() { Err(format!("no seed is in {text}: TO is not run")) } else { Ok(range) }
}

fn bug(text: &str) -> Result<&'static str, String> {
    canary::TABLE.iter().map(|t| t.name).find(|&n| n == text).ok_or_else(|| {
        let names: Vec<&str> = canary::TABLE.iter().map(|t| t.name).collect();
        format!("no such bug; there are {}", names.join(", "))
    })
}

fn links(text: &str) -> Result<Links, String> {
    let both = [Links::Model, Links::Packets];
    both.into_iter().find(|l| l.name() == text).ok_or("expected model or packets".to_string())
}

fn faults(text: &str) -> Result<Faults, String> {
    let names = text.split(',').filter(|n| !n.is_empty() && *n != "none");
    names
        .map(|n| Fault::parse(n).ok_or_else(|| format!("{n} is no fault class")))
        .try_fold(Faults::default(), |set, fault| Ok(set.with(fault?)))
}

/// `quintet-sim --seed 7 --trace | head` is to end with `head`, quietly, as other tools do.
fn end_with_reader() {
    // SAFETY: called before any other thread exists; SIG_DFL is a valid disposition for SIGPIPE.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

fn main() -> ExitCode {
    end_with_reader();
    let cli = Cli::parse();
    let good = match (cli.command, cli.replay) {
        (Some(Command::Run(many)), _) => run_seeds(&many),
        (Some(Command::Canary(canary)), _) => run_canary(&canary),
        (None, replay) => match replay.seed {
            Some(seed) => run_one(seed, &replay),
            None => run_seeds(&Many {
                seeds: 0..300,
                bug: None,
                links: None,
                threads: 2,
                keep_going: false,
                no_shrink: false,
            }),
        },
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_one(seed: u64, replay: &Replay) -> bool {
    let options = Options {
        seed,
        bug: replay.bug,
        without: replay.without,
        chaos_ms: replay.chaos_ms,
        tape: replay.tape,
        links: replay.links,
        trace: replay.trace,
    };
    let report = run(&options, false);
    println!("{}", line(&report));
    println!(
        "seed {seed}: {} nodes, links: {}, faults {}; trace hash {:016x}",
        report.plan.nodes,
        if report.plan.packets { Links::Packets } else { Links::Model }.name(),
        report.plan.faults,
        report.hash
    );
    explain(&report, replay.shrink);
    report.violation.is_none()
}

fn line(report: &Report) -> String {
    format!(
        "{} views, {} sends, {} deliveries, {} acknowledged, reads {}/{} answered/refused, {} boots, {} transfers, {} events, {} ms virtual, converged {}",
        report.views,
        report.sends,
        report.deliveries,
        report.acknowledged,
        report.reads.0,
        report.reads.1,
        report.stats.boots,
        report.stats.transfers,
        report.stats.events,
        report.length / MS,
        report.converged.map_or("never".to_string(), |t| format!("{} ms after the heal", t / MS)),
    )
}

fn explain(report: &Report, shrinking: bool) {
    let Some(violation) = &report.violation else { return };
    println!(
        "VIOLATION seed {} of invariant {}: {}",
        report.options.seed,
        violation.name(),
        violation.text
    );
    println!("  replay: {}", report.options.command());
    if shrinking {
        let small = shrink(report);
        if let Some(violation) = &small.violation {
            println!(
                "  shrunk to {} ms with faults {}: {}",
                small.plan.chaos / MS,
                small.plan.faults,
                violation.text
            );
            println!("  replay: {} --trace", small.options.command());
        }
    }
}

fn run_seeds(many: &Many) -> bool {
    let option = |seed| Options { bug: many.bug, links: many.links, ..Options::seed(seed) };
    let all: Vec<Options> = many.seeds.clone().map(option).collect();
    let begin = Instant::now();
    let mut reports: Vec<Report> = Vec::new();
    let keep_going = many.keep_going;
    run_many(&all, many.threads, |report| {
        let good = report.violation.is_none();
        if !good {
            explain(&report, false);
        }
        reports.push(report);
        good || keep_going
    });
    reports.sort_by_key(|r| r.options.seed);
    if !many.no_shrink
        && let Some(first) = reports.iter().find(|r| r.violation.is_some())
    {
        explain(first, true);
    }
    let spent = begin.elapsed().as_secs_f64();
    summary(&reports, spent);
    reports.iter().all(|r| r.violation.is_none())
}

fn summary(reports: &[Report], spent: f64) {
    let sum = |f: &dyn Fn(&Report) -> u64| reports.iter().map(f).sum::<u64>();
    let mut sizes: BTreeMap<u16, u64> = BTreeMap::new();
    for report in reports {
        *sizes.entry(report.plan.nodes).or_insert(0) += 1;
    }
    println!("fault          seeds     acts");
    for fault in Fault::ALL {
        let seeds = sum(&|r| u64::from(r.plan.faults.has(fault)));
        println!("  {:<12} {seeds:>5} {:>8}", fault.name(), sum(&|r| acted(r, fault)));
    }
    let sizes: Vec<String> = sizes.iter().map(|(n, c)| format!("{c}×{n}")).collect();
    println!("nodes          {}", sizes.join("  "));
    println!(
        "packets        in {} seeds: {} datagrams, {} lost, {} repeated, {} damaged",
        sum(&|r| u64::from(r.plan.packets)),
        sum(&|r| r.datagrams.sent),
        sum(&|r| r.datagrams.lost),
        sum(&|r| r.datagrams.repeated),
        sum(&|r| r.datagrams.damaged)
    );
    println!("views          {}", sum(&|r| r.views as u64));
    println!("sends          {}", sum(&|r| r.sends));
    println!("deliveries     {}", sum(&|r| r.deliveries));
    println!(
        "outcomes       {} delivered, {} re-sent on the way, {} not delivered, {} indeterminate, {} untold at a crash",
        sum(&|r| r.outcomes.delivered),
        sum(&|r| r.outcomes.resent),
        sum(&|r| r.outcomes.not_delivered),
        sum(&|r| r.outcomes.indeterminate),
        sum(&|r| r.outcomes.untold)
    );
    println!("acknowledged   {}", sum(&|r| r.acknowledged as u64));
    println!("reads          {} answered, {} refused", sum(&|r| r.reads.0), sum(&|r| r.reads.1));
    println!(
        "processes      {} started, {} state transfers",
        sum(&|r| r.stats.boots),
        sum(&|r| r.stats.transfers)
    );
    println!("given up       {} restarts below what was owed", sum(&|r| r.stats.recovered));
    let mut converged: Vec<u64> = reports.iter().filter_map(|r| r.converged).collect();
    converged.sort_unstable();
    if let (Some(&last), Some(middle)) = (converged.last(), converged.get(converged.len() / 2)) {
        println!(
            "convergence    {} ms median, {} ms worst, after the heal",
            middle / MS,
            last / MS
        );
    }
    let mut violations: BTreeMap<String, u64> = BTreeMap::new();
    for violation in reports.iter().filter_map(|r| r.violation.as_ref()) {
        *violations.entry(violation.name()).or_insert(0) += 1;
    }
    for (name, count) in violations {
        println!("violated       {name}: {count} seeds");
    }
    let virtual_s = sum(&|r| r.length) as f64 / 1e9;
    println!(
        "{} seeds in {spent:.1} s ({:.1} seeds/s, {virtual_s:.0} s of virtual time), {} violations",
        reports.len(),
        reports.len() as f64 / spent,
        sum(&|r| u64::from(r.violation.is_some()))
    );
}

fn run_canary(options: &Canary) -> bool {
    let mut all = true;
    for trap in canary::TABLE {
        let found = hunt(trap, trap.seeds.start..trap.seeds.start + options.most);
        match found {
            Some(report) => {
                let (name, text) =
                    report.violation.map_or_else(Default::default, |v| (v.name(), v.text));
                println!(
                    "{:<18} caught by invariant {name:<26} at seed {:>4} (range {:?}): {}",
                    trap.name,
                    report.options.seed,
                    trap.seeds,
                    text.lines().next().unwrap_or("")
                );
            }
            None => {
                all = false;
                println!("{:<18} NOT caught within {} seeds", trap.name, options.most);
            }
        }
    }
    all
}
