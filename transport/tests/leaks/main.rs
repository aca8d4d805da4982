//! Nothing is left behind: peers are connected and killed, and nodes made and dropped, thousands of times; what this
//! process holds of the kernel and of memory is as large at the end as it was near the beginning.
//!
//! A few hundred times by itself, as a part of the tests; as often as you like:
//!
//! ```sh
//! QUINTET_CYCLES=10000 cargo nextest run --release -p quintet-transport --test leaks --no-capture
//! ```

#[allow(dead_code, unused_macros, reason = "the other tests use more of it")]
#[path = "../behaviour/harness.rs"]
mod harness;
mod holdings;
#[cfg(feature = "verbs")]
#[path = "../../../scripts/tidy/skip.rs"]
mod skip;

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use harness::*;
use holdings::Holdings;
use quintet_transport::*;

on_every_path!(killed_peers_leave_nothing, dropped_nodes_leave_nothing);

/// Cycles, unless QUINTET_CYCLES says otherwise.
const CYCLES: u32 = 200;
/// Of these, before the first look: what is allocated once and kept.
const WARM: u32 = if cfg!(feature = "verbs") { 10 } else { 50 };

fn cycles() -> u32 {
    let told = std::env::var("QUINTET_CYCLES").ok().map(|n| n.parse().expect("a number of cycles"));
    WARM + told.unwrap_or(CYCLES)
}

/// What the process holds is looked at, so no two tests may run at once in it.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Looks as soon as `cycle` is one to look after; at the end compares.
fn look(first: &mut Option<Holdings>, cycle: u32) {
    if cycle == WARM {
        *first = Some(Holdings::now());
    }
    if cycle.is_multiple_of(1000) {
        println!("after {cycle} cycles: {}", Holdings::now());
    }
}

fn compare(first: Option<Holdings>, cycles: u32) {
    let (first, last) = (first.expect("looked"), Holdings::now());
    println!("after {WARM} cycles: {first}\nafter {cycles} cycles: {last}");
    last.is_no_more_than(&first);
}

/// Not a test by itself: a node that lives until it is killed, and has something to say.
#[test]
fn child() {
    let Some(config) = child_config() else { return };
    let mut node = Node::new(config);
    let mut value = 0;
    loop {
        value += 1;
        node.poller.set_word(CONTROL, 0, value);
        node.turn();
        node.poller.park(clock::now(), None, &mut || false);
    }
}

fn spawn(config: &Config) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact"]).env("QUINTET_TEST_CHILD", "1").stdout(Stdio::null());
    for (key, value) in as_arguments(config) {
        command.env(key, value);
    }
    // SAFETY: the closure makes one async-signal-safe call, with plain numbers.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    command.spawn().unwrap()
}

/// A turn, and a sleep if nothing happened.
fn turn(node: &mut Node) {
    if !node.turn() {
        let now = clock::now();
        node.poller.park(now, Some(now + Duration::from_millis(2)), &mut || false);
    }
}

/// Everything that came up is dead, and is forgotten.
fn forget(node: &mut Node) {
    let start = Instant::now();
    while node.poller.links().iter().any(|l| l.alive) {
        turn(node);
        assert!(start.elapsed() < PATIENCE, "it never died: {:?}", node.poller.links());
    }
    for link in node.poller.links() {
        node.poller.forget(link.link);
    }
    node.events.clear();
}

/// One in four is killed at an instant of its beginning, whatever it was about; the others when words flow.
fn killed_peers_leave_nothing(path: PathPolicy) {
    let _alone = alone();
    let mut configs = configs(2, path);
    for config in &mut configs {
        config.timing.suspect = Duration::from_millis(200);
        config.timing.dead = Duration::from_millis(600);
    }
    let mut theirs = configs[1].clone();
    let mut node = Node::new(configs[0].clone());
    let (cycles, mut first) = (cycles(), None);
    for cycle in 0..cycles {
        theirs.me.incarnation.0 += 1;
        let mut peer = spawn(&theirs);
        let start = Instant::now();
        if cycle % 4 == 3 {
            let life = Duration::from_micros(u64::from(cycle * 37 % 8000));
            while start.elapsed() < life {
                turn(&mut node);
            }
        } else {
            while node.try_link(2).is_none_or(|l| node.poller.peer_word(l, CONTROL, 0) == 0) {
                turn(&mut node);
                assert!(start.elapsed() < PATIENCE, "never linked: {:?}", node.events);
            }
        }
        peer.kill().unwrap();
        peer.wait().unwrap();
        // What it said last may still make a link.
        turn(&mut node);
        forget(&mut node);
        look(&mut first, cycle);
    }
    compare(first, cycles);
}

/// Both ends in this process; one is dropped and made anew, the other forgets it.
fn dropped_nodes_leave_nothing(path: PathPolicy) {
    let _alone = alone();
    let configs = configs(2, path);
    let mut theirs = configs[1].clone();
    let mut node = Node::new(configs[0].clone());
    let (cycles, mut first) = (cycles(), None);
    for cycle in 0..cycles {
        theirs.me.incarnation.0 += 1;
        let mut pair = vec![node, Node::new(theirs.clone())];
        until(&mut pair, "they are linked", |n| {
            n[0].try_link(2).is_some() && n[1].try_link(1).is_some()
        });
        let (to, from) = (pair[0].link(2), pair[1].link(1));
        pair[0].poller.attach(to, GROUP, 0);
        pair[1].poller.open(from, GROUP, 0);
        drop(pair.pop());
        node = pair.remove(0);
        forget(&mut node);
        look(&mut first, cycle);
    }
    compare(first, cycles);
}
