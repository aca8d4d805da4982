//! Nodes as child processes, for tests that need `kill -9` and `SIGSTOP`.
//!
//! The child is this very test binary, run again with `child_node` as the only test and its task in the environment. It
//! reads commands on its input and writes its ledger's progress to its output.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use quintet_vsync::PathPolicy;

use super::{App, Ledger, Options, patience, wait_for};

/// What the parent knows of a child.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Applied, in order: position and text.
    pub entries: Vec<(u64, String)>,
    /// Id, and number of members, of the latest view.
    pub view: (u64, usize),
    pub blocked: bool,
    pub evictions: usize,
    /// It has left.
    pub left: bool,
    /// Ids that `commit` returned, in every incarnation.
    pub sent: Vec<u64>,
    /// Ids of the incarnation that ended last: delivered, indeterminate, not delivered.
    pub fates: [Vec<u64>; 3],
}

/// A node in a process of its own.
pub struct Process {
    child: Child,
    input: ChildStdin,
    seen: Arc<Mutex<Seen>>,
}

impl Process {
    pub fn start(options: &Options, index: usize) -> Process {
        let addresses: Vec<String> = options.addresses.iter().map(ToString::to_string).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_node", "--exact", "--nocapture", "--test-threads=1"])
            .env("QUINTET_CHILD", index.to_string())
            .env("QUINTET_CLUSTER", &options.cluster)
            .env("QUINTET_ADDRESSES", addresses.join(","))
            .env("QUINTET_DATA", options.data.as_deref().map_or("".as_ref(), |d| d.as_os_str()))
            .env("QUINTET_PATH", format!("{:?}", options.path))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        thread::spawn({
            let seen = seen.clone();
            move || {
                for line in output.lines().map_while(Result::ok) {
                    note(&mut seen.lock().unwrap(), &line);
                }
            }
        });
        Process { child, input, seen }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    pub fn send(&mut self, prefix: &str, count: usize) {
        writeln!(self.input, "send {prefix} {count}").unwrap();
    }

    pub fn leave(&mut self) {
        writeln!(self.input, "leave").unwrap();
    }

    pub fn signal(&self, signal: i32) {
        // The child is ours and not yet waited for, so its id is its own.
        let status = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(status.unwrap().success());
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn note(seen: &mut Seen, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["entry", index, at, text] => {
            let index: usize = index.parse().unwrap();
            seen.entries.truncate(index);
            assert_eq!(seen.entries.len(), index, "an entry is missing in the report");
            seen.entries.push((at.parse().unwrap(), text.into()));
        }
        ["clear"] => seen.entries.clear(),
        ["view", id, members] => seen.view = (id.parse().unwrap(), members.parse().unwrap()),
        ["blocked", yes] => seen.blocked = yes == "true",
        ["sent", id] => seen.sent.push(id.parse().unwrap()),
        ["fate", kind, id] => seen.fates[kind.parse::<usize>().unwrap()].push(id.parse().unwrap()),
        ["evictions", n] => seen.evictions = n.parse().unwrap(),
        ["left"] => seen.left = true,
        _ => {}
    }
}

/// Waits until all are in one view of `members`.
pub fn wait_for_view(processes: &[&Process], members: usize) {
    wait_for(&format!("one view of {members}"), || {
        let views: Vec<_> = processes.iter().map(|p| p.seen().view).collect();
        views.iter().all(|v| *v == views[0] && v.1 == members)
    });
}

/// Waits until all hold the same entries, at least `n`.
pub fn wait_for_equal(processes: &[&Process], n: usize) -> Vec<(u64, String)> {
    wait_for(&format!("{n} equal entries"), || {
        let all: Vec<_> = processes.iter().map(|p| p.seen().entries).collect();
        all[0].len() >= n && all.iter().all(|e| *e == all[0])
    });
    processes[0].seen().entries
}

/// The child's side.
pub fn child() {
    let Ok(index) = std::env::var("QUINTET_CHILD") else { return };
    let data = std::env::var("QUINTET_DATA").unwrap();
    let options = Options {
        cluster: std::env::var("QUINTET_CLUSTER").unwrap(),
        path: match &*std::env::var("QUINTET_PATH").unwrap() {
            "Shm" => PathPolicy::Shm,
            "Udp" => PathPolicy::Udp,
            "Verbs" => PathPolicy::Verbs,
            other => panic!("no path: {other}"),
        },
        addresses: std::env::var("QUINTET_ADDRESSES")
            .unwrap()
            .split(',')
            .map(|a| a.parse().unwrap())
            .collect(),
        data: (!data.is_empty()).then(|| data.into()),
        group_log: 1 << 20,
        queue: 1 << 12,
    };
    let app = Arc::new(App::start(options.config(index.parse().unwrap())));
    thread::spawn({
        let app = app.clone();
        move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                let words: Vec<&str> = line.split(' ').collect();
                match words[..] {
                    ["send", prefix, count] => {
                        for i in 0..count.parse::<usize>().unwrap() {
                            println!("sent {}", app.send_id(&format!("{prefix}{i}")).0);
                        }
                    }
                    ["leave"] => app.leave(),
                    _ => panic!("no command: {line}"),
                }
            }
            // The parent is gone, and so is our reason to be.
            std::process::exit(0);
        }
    });
    report(&app);
}

fn report_fates(ledger: &Ledger) {
    let Some((delivered, rest)) = ledger.ended.last() else { return };
    delivered.iter().for_each(|(_, id)| println!("fate 0 {}", id.0));
    rest.indeterminate.iter().for_each(|id| println!("fate 1 {}", id.0));
    rest.not_delivered.iter().for_each(|id| println!("fate 2 {}", id.0));
}

fn report(app: &App) {
    let (mut told, mut view, mut blocked, mut evictions, mut generation) = (0, 0, false, 0, 0);
    let mut left = false;
    // The test harness has begun a line of its own.
    println!();
    let start = std::time::Instant::now();
    // A child of a hung test must not stay for ever.
    while start.elapsed() < 10 * patience() {
        {
            let ledger = app.ledger();
            if ledger.evictions != evictions {
                evictions = ledger.evictions;
                report_fates(&ledger);
                println!("evictions {evictions}");
            }
            if ledger.left && !left {
                left = true;
                report_fates(&ledger);
                println!("left");
            }
            if ledger.entries.len() < told
                || (ledger.loaded > 0 && generation != ledger.evictions + 1)
            {
                generation = ledger.evictions + 1;
                told = 0;
                println!("clear");
            }
            for (i, e) in ledger.entries.iter().enumerate().skip(told) {
                println!("entry {i} {} {}", e.at.0, String::from_utf8_lossy(&e.bytes));
            }
            told = ledger.entries.len();
            if ledger.view().0 != view {
                view = ledger.view().0;
                println!("view {view} {}", ledger.members().len());
            }
            if ledger.blocked != blocked {
                blocked = ledger.blocked;
                println!("blocked {blocked}");
            }
        }
        thread::sleep(std::time::Duration::from_millis(2));
    }
}
