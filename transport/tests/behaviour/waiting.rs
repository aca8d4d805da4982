//! Sleeping and waking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quintet_transport::*;

use crate::harness::*;
use crate::on_every_path;

on_every_path!(a_ball_wakes_its_catcher, eight_pollers_on_few_cores, a_commit_wakes_its_poller);

/// Every node passes on the ball when it has come from the node before: `rounds` times around, or until a wake-up is
/// lost. `prepare` is given each node.
fn pass_the_ball(
    path: PathPolicy,
    n: u16,
    rounds: u64,
    (wait, io_uring): (Wait, bool),
    prepare: fn(&mut Poller),
) -> Vec<PollerCounters> {
    let mut configs = configs(n, path);
    for config in &mut configs {
        config.wait = wait;
        config.io_uring = io_uring;
        // Far away: a lost wake-up would be a rescue, and seen.
        config.backstop = Duration::from_secs(2);
    }
    let nodes = connected(configs);
    let lost = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = nodes
        .into_iter()
        .enumerate()
        .map(|(i, mut node)| {
            let lost = lost.clone();
            std::thread::spawn(move || {
                prepare(&mut node.poller);
                let before = node.link(if i == 0 { n } else { i as u16 });
                let mut passed = 0;
                // Stay a little after the last pass: others still need our signs of life.
                let mut last = None::<Time>;
                while last.is_none_or(|at| clock::now().since(at) < Duration::from_millis(400))
                    && !lost.load(Ordering::Relaxed)
                {
                    let mut progress = node.turn();
                    let ball = node.poller.peer_word(before, CONTROL, 0);
                    let due = if i == 0 { ball + 1 } else { ball };
                    if due > passed && due <= rounds {
                        assert_eq!(due, passed + 1);
                        passed = due;
                        node.poller.set_word(CONTROL, 0, passed);
                        node.poller.flush(clock::now());
                        progress = true;
                    }
                    if passed == rounds && last.is_none() && (i != 0 || ball == rounds) {
                        last = Some(clock::now());
                    }
                    if !progress {
                        let now = clock::now();
                        node.poller.park(now, Some(now + Duration::from_secs(1)), &mut || false);
                    }
                    lost.fetch_or(node.poller.counters().rescues > 0, Ordering::Relaxed);
                }
                node.poller.counters()
            })
        })
        .collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

fn a_ball_wakes_its_catcher(path: PathPolicy) {
    for io_uring in [true, false] {
        for (wait, rounds) in [(Wait::Block, 2_000), (Wait::Adaptive, 5_000)] {
            for counters in pass_the_ball(path, 2, rounds, (wait, io_uring), |_| {}) {
                assert_eq!(counters.rescues, 0, "{wait:?} io_uring={io_uring}: {counters:?}");
                assert!(counters.parks > 0);
            }
        }
    }
}

fn eight_pollers_on_few_cores(path: PathPolicy) {
    for counters in pass_the_ball(path, 8, 300, (Wait::Adaptive, true), |_| {}) {
        assert_eq!(counters.rescues, 0, "{counters:?}");
    }
}

/// That there are no rescues says something: who hears no bell is rescued, and it is counted.
#[cfg(feature = "faults")]
mod deaf {
    use super::*;

    on_every_path!(a_catcher_is_rescued, a_committer_is_rescued);

    fn a_committer_is_rescued(path: PathPolicy) {
        assert!(commit_and_sleep(path, Poller::deafen).poller.counters().rescues > 0);
    }

    fn a_catcher_is_rescued(path: PathPolicy) {
        for io_uring in [true, false] {
            for wait in [Wait::Block, Wait::Adaptive] {
                let nodes = pass_the_ball(path, 2, u64::MAX, (wait, io_uring), Poller::deafen);
                assert!(nodes.iter().any(|n| n.rescues > 0), "{wait:?} io_uring={io_uring}");
            }
        }
    }
}

fn a_commit_wakes_its_poller(path: PathPolicy) {
    let node = commit_and_sleep(path, |_| {});
    assert_eq!(node.poller.counters().rescues, 0);
    let (index, bytes) = node.poller.own_record(GROUP, 49 * 24).unwrap();
    assert_eq!((index, bytes), (49, &49u64.to_le_bytes()[..]));
}

/// A thread commits fifty records, each to a sleeping poller; or until a wake-up is lost.
fn commit_and_sleep(path: PathPolicy, prepare: fn(&mut Poller)) -> Node {
    let mut config = configs(1, path).remove(0);
    config.backstop = Duration::from_secs(1);
    let mut node = Node::new(config);
    prepare(&mut node.poller);
    let writer = node.poller.log(GROUP);
    let sender = std::thread::spawn(move || {
        for i in 0..50u64 {
            std::thread::sleep(Duration::from_millis(1));
            let mut slot = writer.reserve(8).unwrap();
            slot.copy_from_slice(&i.to_le_bytes());
            slot.commit();
        }
    });
    let mut published = 0;
    while published < 50 && node.poller.counters().rescues == 0 {
        node.turn();
        while node.poller.committed(GROUP).is_some() {
            node.poller.publish(GROUP, published);
            published += 1;
        }
        if published < 50 {
            node.poller.park(clock::now(), None, &mut || false);
        }
    }
    sender.join().unwrap();
    node
}

/// Over shared memory; packets wake by themselves.
#[test]
fn a_release_wakes_who_waits_for_space() {
    let mut configs = configs(2, PathPolicy::Shm);
    configs[0].wait = Wait::Block;
    let mut nodes = connected(configs);
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    nodes[0].poller.attach(to, GROUP, 0);
    nodes[1].poller.open(from, GROUP, 0);
    let (mut sender, done) = (nodes.remove(0), Arc::new(AtomicBool::new(false)));
    let is_done = done.clone();
    let sending = std::thread::spawn(move || {
        let mut index = 0;
        while !is_done.load(Ordering::Relaxed) {
            while sender.send(GROUP, index, &[0; 100]) {
                index += 1;
            }
            sender.turn();
            let released = sender.poller.released(to, GROUP);
            sender.poller.reclaim(GROUP, released);
            let now = clock::now();
            sender.poller.park(now, Some(now + Duration::from_secs(1)), &mut || false);
        }
    });
    let mut at = 0;
    until(&mut nodes, "a release rang the doorbell", |nodes| {
        std::thread::sleep(Duration::from_millis(1));
        let poller = &mut nodes[0].poller;
        at = poller.peek(from, GROUP, at).map_or(at, |record| record.end);
        poller.release(from, GROUP, at);
        // The reader says nothing, so whatever it rings for is space.
        poller.links()[0].counters.doorbells > 0
    });
    done.store(true, Ordering::Relaxed);
    sending.join().unwrap();
}

#[test]
fn the_time_after_waiting_is_one_of_the_wait() {
    for wait in [Wait::Spin, Wait::Adaptive, Wait::Block] {
        let mut config = configs(1, PathPolicy::Shm).remove(0);
        config.wait = wait;
        let mut poller = Poller::new(config).unwrap();
        // Each way that a wait can go: work at once, none, and an instant to wait for that has passed.
        for (work, until) in [(true, None), (false, None), (false, Some(Time::ZERO))] {
            let before = clock::now();
            let after = poller.park(before, until, &mut || work);
            assert!(before <= after && after <= clock::now(), "{wait:?}");
            let turn = poller.park(Time::from_micros(1), until, &mut || work);
            assert!(after <= turn, "{wait:?}: the time of the turn before is no answer");
        }
    }
}

#[test]
fn one_who_spins_looks_for_work_between_turns() {
    let mut config = configs(1, PathPolicy::Shm).remove(0);
    config.wait = Wait::Spin;
    let mut poller = Poller::new(config).unwrap();
    let mut asked = 0;
    let mut third_time = || {
        asked += 1;
        asked == 3
    };
    poller.park(clock::now(), None, &mut third_time);
    assert_eq!(asked, 3, "and returns as soon as there is some");
    poller.park(clock::now(), None, &mut || false);
}
