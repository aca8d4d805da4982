//! `quintet stat`: the counters of daemons as they lie in their memory; no daemon is asked, so none needs to answer.

use super::table::{Table, micros};
use super::{Error, Scope, print_json};
use crate::dev::layout::{Layout, default_dir};
use crate::print::{complain, say, text_as_it_is};
use crate::stats::{self, Found};
use clap::Args;
use quintet_transport::clock;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A poller that has said nothing for this long stands still: it turns ten times a second at least.
const STUCK_US: u64 = 1_000_000;

/// What `quintet stat` is told.
#[derive(Args)]
pub(super) struct Arguments {
    /// Data directory of a daemon on this machine; may be given several times. Without it: all of the development cluster.
    #[arg(short, long = "data-dir", value_name = "DIR")]
    data_dir: Vec<PathBuf>,
    /// Go on, once a second, with what was added since.
    #[arg(short, long)]
    watch: bool,
}

/// The counters of one daemon, and how alive it looks.
#[derive(Clone, Debug, Serialize)]
struct Stats {
    data_dir: PathBuf,
    node: u64,
    pid: u64,
    /// What the kernel says of the process: `running`, `sleeping`, `stopped`, …
    process: &'static str,
    /// How long ago its poller copied its figures here, microseconds; nothing if it has not begun.
    age_us: Option<u64>,
    counters: BTreeMap<String, u64>,
    /// What is said in words: of each link its state, path, and why that one.
    words: BTreeMap<String, String>,
}

/// Prints them; with `--watch` until somebody ends it.
pub(super) async fn stat(arguments: &Arguments, scope: &Scope, json: bool) -> Result<(), Error> {
    let dirs = directories(arguments, scope)?;
    let mut before: Option<Vec<Stats>> = None;
    loop {
        let (found, failed) = gather(&dirs);
        if json {
            print_json(&found)?;
        } else {
            print(&found, before.as_deref());
        }
        failed.iter().for_each(|why| complain!("note: {why}"));
        if found.is_empty() {
            return Err(Error::new("no counters could be read")
                .hint("the notes above say why; `quintet status` asks the daemons themselves"));
        }
        if !arguments.watch {
            return Ok(());
        }
        before = Some(found);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn directories(arguments: &Arguments, scope: &Scope) -> Result<Vec<PathBuf>, Error> {
    if !arguments.data_dir.is_empty() {
        return Ok(arguments.data_dir.clone());
    }
    let hint =
        "name the data directory of a daemon on this machine: quintet stat -d /var/lib/quintet";
    if !scope.admin.is_empty() {
        return Err(
            Error::new("counters are read from a data directory, not asked of a daemon").hint(hint)
        );
    }
    let dir = scope.cluster_dir.clone().unwrap_or_else(default_dir);
    let layout = Layout::load(&dir)
        .map_err(|why| Error::new(format!("no cluster found: {why}")).hint(hint))?;
    Ok(layout.nodes.into_iter().map(|node| node.data).collect())
}

fn gather(dirs: &[PathBuf]) -> (Vec<Stats>, Vec<String>) {
    let mut failed = Vec::new();
    let found = dirs.iter().filter_map(|dir| match stats::read(dir) {
        Ok(found) => Some(Stats::new(dir, found, clock::now().as_nanos(), process_state)),
        Err(why) => {
            failed.push(why.to_string());
            None
        }
    });
    (found.collect(), failed)
}

impl Stats {
    fn new(dir: &Path, found: Found, now_ns: u64, process: impl Fn(u64) -> &'static str) -> Stats {
        let counters: BTreeMap<_, _> = found.cells.into_iter().collect();
        let value = |name: &str| counters.get(name).copied().unwrap_or(0);
        let at = value("engine.at_ns");
        Stats {
            data_dir: dir.to_owned(),
            node: value("process.node"),
            pid: value("process.pid"),
            process: process(value("process.pid")),
            age_us: (at > 0).then(|| now_ns.saturating_sub(at) / 1000),
            counters,
            words: found.texts.into_iter().collect(),
        }
    }

    /// In a line: who it is, and whether it moves.
    fn describe(&self) -> String {
        let age = match self.age_us {
            None => "its poller has not begun".to_owned(),
            Some(age) if age > STUCK_US => {
                format!("ITS POLLER STANDS STILL, since {:.1} s", age as f64 / 1e6)
            }
            Some(age) => format!("as of {} ago", micros(age as f64)),
        };
        format!("node {} (process {}, {}): {age}", self.node, self.pid, self.process)
    }
}

/// The state of a process as `/proc` tells it.
fn process_state(pid: u64) -> &'static str {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
        Some('R') => "running",
        Some('S' | 'I') => "sleeping",
        Some('D') => "waiting for a disk",
        Some('T' | 't') => "stopped",
        Some('Z' | 'X') => "dead",
        _ => "not seen",
    }
}

fn print(found: &[Stats], before: Option<&[Stats]>) {
    if before.is_some() {
        let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "\n" };
        text_as_it_is(clear);
    }
    found.iter().for_each(|stats| say!("{}", stats.describe()));
    if !found.is_empty() {
        say!();
        table(found, before).print();
    }
}

/// A row for each counter, a column for each node; what was added since, where something was.
fn table(found: &[Stats], before: Option<&[Stats]>) -> Table {
    let nodes: Vec<String> = found.iter().map(|stats| format!(">node {}", stats.node)).collect();
    let head: Vec<&str> =
        std::iter::once("counter").chain(nodes.iter().map(String::as_str)).collect();
    let mut table = Table::new(&head);
    let names: std::collections::BTreeSet<&String> =
        found.iter().flat_map(|stats| stats.counters.keys().chain(stats.words.keys())).collect();
    for name in names {
        let cell = |stats: &Stats| {
            if let Some(words) = stats.words.get(name) {
                return words.clone();
            }
            let Some(value) = stats.counters.get(name) else { return String::new() };
            let earlier =
                before.and_then(|all| all.iter().find(|old| old.data_dir == stats.data_dir));
            let earlier = earlier.filter(|old| old.pid == stats.pid);
            match earlier.and_then(|old| value.checked_sub(*old.counters.get(name)?)) {
                Some(added) if added > 0 => format!("{value} (+{added})"),
                _ => value.to_string(),
            }
        };
        table.row(std::iter::once(name.clone()).chain(found.iter().map(cell)).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(at_ms: u64, calls: u64) -> Stats {
        let cells = [
            ("process.node", 2),
            ("process.pid", 77),
            ("engine.at_ns", at_ms * 1_000_000),
            ("manager.calls", calls),
        ];
        let cells = cells.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let texts = vec![("link.n1.reason".to_owned(), "it is near".to_owned())];
        Stats::new(Path::new("/d"), Found { cells, texts }, 5_000_000_000, |_| "stopped")
    }

    #[test]
    fn a_poller_that_stands_still_is_told_from_one_that_turns() {
        assert_eq!(stats(4_980, 1).describe(), "node 2 (process 77, stopped): as of 20.0 ms ago");
        let still = stats(2_500, 1).describe();
        assert!(still.contains("STANDS STILL, since 2.5 s"), "{still}");
        assert!(stats(0, 1).describe().contains("has not begun"));
    }

    #[test]
    fn what_was_added_since_stands_beside() {
        let (old, new) = ([stats(4_000, 10)], [stats(4_980, 17)]);
        let text = table(&new, Some(&old)).text();
        let reason = text.lines().find(|line| line.starts_with("link.n1.reason "));
        assert!(reason.is_some_and(|line| line.ends_with(" it is near")), "{text}");
        assert!(text.contains("17 (+7)") && text.lines().any(|l| l.ends_with("77")), "{text}");
        let mut other = stats(4_000, 10);
        other.pid = 78;
        assert!(!table(&new, Some(&[other])).text().contains('+'), "another process counts anew");
    }

    #[test]
    fn the_state_of_this_process_is_known() {
        let own = process_state(u64::from(std::process::id()));
        assert!(["running", "sleeping"].contains(&own), "{own}: of its first thread");
        assert_eq!(process_state(u64::MAX), "not seen");
    }
}
