//! Deaths, hangs and own stalls, with real processes.

use std::time::Duration;

use quintet_transport::*;

use crate::harness::*;
use crate::on_every_path;

on_every_path!(
    a_killed_process_is_noticed,
    a_stopped_process_is_suspected_then_dead_and_learns_it,
    an_own_stall_kills_nobody,
);

/// Not a test by itself: a node that publishes and lives until it is killed.
#[test]
fn child() {
    let Some(config) = child_config() else { return };
    let mut node = Node::new(config);
    node.poller.set_word(CONTROL, 0, 1);
    loop {
        node.turn();
        node.poller.park(clock::now(), None, &mut || false);
    }
}

/// Binds the calling thread to the first processor, so that it competes with all others that are bound to it.
fn bind_to_first_processor() {
    // SAFETY: an all-zero set is a valid value; the set is live, and of the stated size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &set), 0, "processor 0 is ours");
    }
}

/// Not a test by itself: a node that gets the least share of a processor that others want.
#[test]
fn poor_child() {
    if child_config().is_none() {
        return;
    }
    bind_to_first_processor();
    // SAFETY: plain numbers; 0 is the calling thread.
    assert_eq!(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) }, 0);
    child();
}

/// Not a test by itself: wants the first processor for itself, until it is killed.
#[test]
fn busy_child() {
    if child_argument("QUINTET_TEST_CHILD").is_none() {
        return;
    }
    bind_to_first_processor();
    loop {
        std::hint::spin_loop();
    }
}

/// Silent for longer than a peer may be, again and again, for want of a processor only.
#[test]
fn who_waits_for_a_processor_is_not_dead() {
    let mut configs = configs(2, PathPolicy::Shm);
    for config in &mut configs {
        config.timing.suspect = Duration::from_millis(50);
        config.timing.dead = Duration::from_millis(150);
    }
    let mut nodes = vec![Node::new(configs[0].clone())];
    let process = Process::start("deaths::poor_child", &as_arguments(&configs[1]));
    until(&mut nodes, "the child is linked", |nodes| nodes[0].try_link(2).is_some());
    let link = nodes[0].link(2);
    let busy: Vec<Process> = (0..4).map(|_| Process::start("deaths::busy_child", &[])).collect();
    // Where this process has to wait for a processor too, its own stalls excuse the peer first.
    let start = std::time::Instant::now();
    while nodes[0].poller.counters().pardons < 3 && start.elapsed() < PATIENCE / 2 {
        nodes[0].turn();
        std::thread::yield_now();
    }
    drop(busy);
    assert_eq!(nodes[0].dead(link), None, "it was let live");
    // Stopped is no excuse.
    process.signal(libc::SIGSTOP);
    until(&mut nodes, "the hang is known", |nodes| nodes[0].dead(link).is_some());
    assert_eq!(nodes[0].dead(link), Some(Evidence::HeartbeatMissed));
}

fn with_child(path: PathPolicy) -> (Vec<Node>, Process, Config) {
    let configs = configs(2, path);
    let process = Process::start("deaths::child", &as_arguments(&configs[1]));
    let mut nodes = vec![Node::new(configs[0].clone())];
    until(&mut nodes, "the child's word arrived", |nodes| {
        nodes[0].try_link(2).is_some_and(|l| nodes[0].poller.peer_word(l, CONTROL, 0) == 1)
    });
    (nodes, process, configs[1].clone())
}

fn a_killed_process_is_noticed(path: PathPolicy) {
    let (mut nodes, process, mut config) = with_child(path);
    let link = nodes[0].link(2);
    process.signal(libc::SIGKILL);
    until(&mut nodes, "the death is known", |nodes| nodes[0].dead(link).is_some());
    let evidence = nodes[0].dead(link).unwrap();
    match path {
        PathPolicy::Shm => assert_eq!(evidence, Evidence::ProcessExited),
        _ => assert!(matches!(evidence, Evidence::PortUnreachable | Evidence::HeartbeatMissed)),
    }
    assert_eq!(nodes[0].poller.peer_word(link, CONTROL, 0), 1, "its replica stays readable");
    drop(process);
    config.me.incarnation.0 += 1;
    let _again = Process::start("deaths::child", &as_arguments(&config));
    until(&mut nodes, "the next run is linked", |nodes| nodes[0].try_link(2) != Some(link));
}

/// A sleeping poller is woken by the death itself: its own timers are further away than the test is long.
#[test]
fn a_death_wakes_a_sleeper() {
    for io_uring in [true, false] {
        let mut configs = configs(2, PathPolicy::Shm);
        for config in &mut configs {
            config.timing.suspect = PATIENCE * 8;
            config.timing.dead = PATIENCE * 16;
            config.wait = Wait::Block;
            config.backstop = PATIENCE * 8;
            config.io_uring = io_uring;
        }
        let process = Process::start("deaths::child", &as_arguments(&configs[1]));
        let mut nodes = vec![Node::new(configs[0].clone())];
        until(&mut nodes, "the child is linked", |nodes| nodes[0].try_link(2).is_some());
        let link = nodes[0].link(2);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            process.signal(libc::SIGKILL);
            process
        });
        let start = std::time::Instant::now();
        while nodes[0].dead(link).is_none() {
            if !nodes[0].turn() {
                nodes[0].poller.park(clock::now(), None, &mut || false);
            }
        }
        assert_eq!(nodes[0].dead(link), Some(Evidence::ProcessExited));
        assert!(start.elapsed() < PATIENCE);
        drop(killer.join().unwrap());
    }
}

fn a_stopped_process_is_suspected_then_dead_and_learns_it(path: PathPolicy) {
    let (mut nodes, process, config) = with_child(path);
    let link = nodes[0].link(2);
    process.signal(libc::SIGSTOP);
    until(&mut nodes, "the hang is known", |nodes| nodes[0].dead(link).is_some());
    assert_eq!(nodes[0].dead(link), Some(Evidence::HeartbeatMissed));
    assert!(nodes[0].events.contains(&Event::Suspected { link }));
    assert!(!nodes[0].dead(link).unwrap().certain());
    process.signal(libc::SIGCONT);
    // Not refused, so the same incarnation comes back under another link.
    until(&mut nodes, "it is linked again", |nodes| nodes[0].try_link(2) != Some(link));
    let again = nodes[0].poller.links().into_iter().find(|l| l.alive).unwrap();
    assert_eq!(again.peer, config.me);
}

fn an_own_stall_kills_nobody(path: PathPolicy) {
    let (mut nodes, _process, _) = with_child(path);
    let link = nodes[0].link(2);
    let before = nodes[0].poller.counters().stalls;
    // As if this process had been stopped for longer than a silent peer may live.
    std::thread::sleep(Duration::from_millis(1500));
    nodes[0].turn();
    assert!(nodes[0].poller.counters().stalls > before);
    if path == PathPolicy::Shm {
        // The peer saw us hang, and may have closed; but we did not declare it silent.
        assert_ne!(nodes[0].dead(link), Some(Evidence::HeartbeatMissed));
    }
    until(&mut nodes, "the link is up, or up again", |nodes| {
        nodes[0].poller.links().iter().any(|l| l.alive)
    });
    assert_ne!(nodes[0].dead(link), Some(Evidence::HeartbeatMissed));
}
