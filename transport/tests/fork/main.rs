//! Fork while memory is shared and links are busy: the parent's links do not notice, whatever the child does.

#[allow(dead_code, unused_macros, reason = "the other tests use more of it")]
#[path = "../behaviour/harness.rs"]
mod harness;
#[cfg(feature = "verbs")]
#[path = "../../../scripts/tidy/skip.rs"]
mod skip;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::*;
use quintet_transport::*;

on_every_path!(
    children_that_exec_or_end_are_not_noticed,
    a_child_that_lives_on_is_not_noticed,
    a_child_that_drops_what_it_inherited_is_not_noticed,
    a_child_cannot_write_to_its_parents_log,
    a_parent_that_dies_before_its_child_is_dead,
);

/// A child made by fork, which runs `f` and ends. Killed when dropped.
struct Forked(libc::pid_t);

impl Forked {
    fn new(f: impl FnOnce()) -> Forked {
        // SAFETY: no pointers. The child runs `f` and ends without returning: with threads in the parent it may do
        // what the allocator of the C library allows after a fork, which is anything that takes no other lock.
        match unsafe { libc::fork() } {
            0 => {
                f();
                // SAFETY: does not return.
                unsafe { libc::_exit(0) }
            }
            pid => {
                assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
                Forked(pid)
            }
        }
    }

    /// Waits for its end: the raw status.
    fn status(&self) -> i32 {
        let (mut status, start) = (0, Instant::now());
        // SAFETY: one writable integer; the child is ours.
        while unsafe { libc::waitpid(self.0, &raw mut status, libc::WNOHANG) } == 0 {
            assert!(start.elapsed() < PATIENCE, "the child does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        status
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        // SAFETY: plain numbers, and a null status; a child that was waited for already is nobody's pid of ours.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// Two nodes that send to each other all the time, each on its own thread.
struct Busy {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<Node>>,
}

impl Busy {
    fn start(path: PathPolicy) -> Busy {
        let mut configs = configs(2, path);
        for config in &mut configs {
            config.wait = Wait::Block;
        }
        let mut nodes = connected(configs);
        for (i, node) in nodes.iter_mut().enumerate() {
            let link = node.link(2 - i as u16);
            node.poller.attach(link, GROUP, 0);
            node.poller.open(link, GROUP, 0);
        }
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let run = |(i, mut node): (usize, Node)| {
            let (stop, rounds, link) = (stop.clone(), rounds.clone(), node.link(2 - i as u16));
            std::thread::spawn(move || {
                let (mut sent, mut at, mut seen) = (0u64, 0, 0u64);
                while !stop.load(Ordering::Relaxed) {
                    sent += u64::from(node.send(GROUP, sent, &sent.to_le_bytes()));
                    node.turn();
                    while let Some(record) = node.poller.peek(link, GROUP, at) {
                        assert_eq!((record.index, record.payload), (seen, &seen.to_le_bytes()[..]));
                        (at, seen) = (record.end, seen + 1);
                    }
                    node.poller.release(link, GROUP, at);
                    let released = node.poller.released(link, GROUP);
                    node.poller.reclaim(GROUP, released);
                    rounds.store(seen, Ordering::Relaxed);
                    assert_eq!(node.dead(link), None, "a fork is no reason to die");
                    let now = clock::now();
                    node.poller.park(now, Some(now + Duration::from_millis(1)), &mut || false);
                }
                node
            })
        };
        let threads = nodes.into_iter().enumerate().map(run).collect();
        Busy { stop, rounds, threads }
    }

    /// Until more has arrived, fifty times the records of one log.
    fn goes_on(&self) {
        let (before, start) = (self.rounds.load(Ordering::Relaxed), Instant::now());
        while self.rounds.load(Ordering::Relaxed) < before + 200 {
            assert!(start.elapsed() < PATIENCE, "nothing arrives any more");
            assert!(!self.threads.iter().any(|t| t.is_finished()), "a node gave up");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn end(self) {
        self.goes_on();
        self.stop.store(true, Ordering::Relaxed);
        // Nobody's node goes before the other's last turn: that it has gone would be noticed.
        let nodes = self.threads.into_iter().map(|thread| thread.join().expect("no node gave up"));
        for node in nodes.collect::<Vec<_>>() {
            assert_eq!(node.poller.counters().rescues, 0);
        }
    }
}

fn children_that_exec_or_end_are_not_noticed(path: PathPolicy) {
    let busy = Busy::start(path);
    for round in 0..40 {
        let child = Forked::new(|| {
            if round % 2 == 0 {
                let program = c"/bin/true".as_ptr();
                // SAFETY: terminated strings, and lists of them that end with null.
                unsafe { libc::execv(program, [program, std::ptr::null()].as_ptr()) };
            }
        });
        assert_eq!(child.status(), 0);
    }
    busy.goes_on();
    for _ in 0..10 {
        assert!(std::process::Command::new("true").status().unwrap().success());
    }
    busy.end();
}

fn a_child_that_lives_on_is_not_noticed(path: PathPolicy) {
    let busy = Busy::start(path);
    let children: Vec<Forked> = (0..4)
        .map(|_| {
            // SAFETY: no arguments.
            Forked::new(|| while unsafe { libc::pause() } == -1 {})
        })
        .collect();
    busy.goes_on();
    drop(children);
    busy.end();
}

fn a_child_that_drops_what_it_inherited_is_not_noticed(path: PathPolicy) {
    let mut nodes = connected(configs(2, path));
    let links = [nodes[0].link(2), nodes[1].link(1)];
    let dropped = nodes.pop().unwrap();
    let mut dropped = std::mem::ManuallyDrop::new(dropped);
    let child = Forked::new(|| {
        // SAFETY: once, in this process.
        unsafe { std::mem::ManuallyDrop::drop(&mut dropped) };
    });
    assert_eq!(child.status(), 0, "it does not hang, and does not fall");
    nodes.push(std::mem::ManuallyDrop::into_inner(dropped));
    for value in 1..300 {
        nodes[1].poller.set_word(CONTROL, 0, value);
        until(&mut nodes, "the word arrives", |nodes| {
            nodes[0].poller.peer_word(links[0], CONTROL, 0) == value
        });
    }
    assert_eq!([nodes[0].dead(links[0]), nodes[1].dead(links[1])], [None, None]);
}

fn a_child_cannot_write_to_its_parents_log(path: PathPolicy) {
    let mut nodes = connected(configs(2, path));
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    nodes[0].poller.attach(to, GROUP, 0);
    nodes[1].poller.open(from, GROUP, 0);
    let writer = nodes[0].poller.log(GROUP);
    let child = Forked::new(|| {
        // SAFETY: plain numbers: it shall fall without a word.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        let mut slot = writer.reserve(8).unwrap();
        slot.copy_from_slice(b"mischief");
        slot.commit();
    });
    let status = child.status();
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV, "{status:x}");
    assert!(nodes[0].poller.committed(GROUP).is_none(), "nothing of the child is in the log");
    assert!(nodes[0].send(GROUP, 0, b"parent"));
    until(&mut nodes, "the parent's record arrives", |n| {
        n[1].poller.peek(from, GROUP, 0).is_some()
    });
    assert_eq!(nodes[1].poller.peek(from, GROUP, 0).unwrap().payload, b"parent");
}

/// Not a test by itself: a node with a child that outlives it, and after a second lets go of what it inherited.
#[test]
fn parent() {
    let Some(config) = child_config() else { return };
    let mut node = Node::new(config);
    until(std::slice::from_mut(&mut node), "it is linked", |n| n[0].try_link(1).is_some());
    let child = Forked::new(|| {
        // SAFETY: plain numbers; the last word on this process is the alarm's.
        unsafe {
            libc::alarm(100);
            libc::sleep(1);
            libc::close_range(0, libc::c_uint::MAX, 0);
            libc::pause();
        }
    });
    std::mem::forget(child);
    node.poller.set_word(CONTROL, 0, 1);
    loop {
        node.turn();
        node.poller.park(clock::now(), None, &mut || false);
    }
}

fn a_parent_that_dies_before_its_child_is_dead(path: PathPolicy) {
    let configs = configs(2, path);
    let mut process = Process::start("parent", &as_arguments(&configs[1]));
    let mut nodes = vec![Node::new(configs[0].clone())];
    until(&mut nodes, "the child's word arrived", |nodes| {
        nodes[0].try_link(2).is_some_and(|l| nodes[0].poller.peer_word(l, CONTROL, 0) == 1)
    });
    let link = nodes[0].link(2);
    process.signal(libc::SIGKILL);
    assert!(!process.ends_well(), "it was killed");
    until(&mut nodes, "the death is known", |nodes| nodes[0].dead(link).is_some());
    if path == PathPolicy::Shm {
        assert_eq!(nodes[0].dead(link), Some(Evidence::ProcessExited));
    }
    // The rule: once the child has let go, the node can be started anew.
    let mut config = configs[1].clone();
    config.me.incarnation.0 += 1;
    let start = Instant::now();
    let again = loop {
        match Poller::new(config.clone()) {
            Ok(poller) => break Node { poller, events: Vec::new() },
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    nodes.push(again);
    until(&mut nodes, "the next run is linked", |nodes| nodes[1].try_link(1).is_some());
}
