//! A bad network on demand (cargo feature `faults`): what it does to links of every path, and that they get over it.

use std::time::Duration;

use quintet_transport::*;

use crate::harness::*;
use crate::on_every_path;

on_every_path!(
    what_is_late_arrives_in_order,
    what_is_put_off_is_seen_when_that_ends,
    a_cut_ends_the_link_and_healing_brings_another,
);

fn late(delay: Duration) -> FaultPolicy {
    FaultPolicy { delay, ..FaultPolicy::default() }
}

fn what_is_late_arrives_in_order(path: PathPolicy) {
    const N: u64 = 300;
    let mut nodes = reading(path, GROUP);
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    for node in &mut nodes {
        node.poller.set_faults(late(Duration::from_millis(2)));
    }
    let (mut sent, mut seen, mut at) = (0u64, 0u64, 0);
    until(&mut nodes, "all of it is seen", |nodes| {
        if sent < N && nodes[0].send(GROUP, sent, &sent.to_le_bytes()) {
            sent += 1;
            nodes[0].poller.set_word(GROUP, 0, sent);
        }
        let released = nodes[0].poller.released(to, GROUP);
        nodes[0].poller.reclaim(GROUP, released);
        let word = nodes[1].poller.peer_word(from, GROUP, 0);
        while let Some(record) = nodes[1].poller.peek(from, GROUP, at) {
            assert_eq!((record.index, record.payload), (seen, &seen.to_le_bytes()[..]));
            seen += 1;
            at = record.end;
        }
        assert!(seen >= word, "word says {word}, only {seen} records are visible");
        nodes[1].poller.release(from, GROUP, at);
        // Sleepers wake for what is late.
        nodes[1].poller.park(clock::now(), None, &mut || false);
        seen == N
    });
    assert_eq!((nodes[0].dead(to), nodes[1].dead(from)), (None, None));
}

/// A third node shows when it would have been seen.
fn what_is_put_off_is_seen_when_that_ends(path: PathPolicy) {
    let mut configs = configs(3, path);
    for config in &mut configs {
        config.timing.suspect = PATIENCE * 8;
        config.timing.dead = PATIENCE * 16;
    }
    let mut nodes = connected(configs);
    let word = |node: &Node| node.poller.peer_word(node.link(1), CONTROL, 0);
    nodes[1].poller.set_faults(late(PATIENCE * 16));
    nodes[0].poller.set_word(CONTROL, 0, 7);
    until(&mut nodes, "the third sees it", |nodes| word(&nodes[2]) == 7);
    for _ in 0..1000 {
        nodes.iter_mut().for_each(|node| _ = node.turn());
    }
    assert_eq!(word(&nodes[1]), 0, "it is still on its way");
    nodes[1].poller.set_faults(FaultPolicy::default());
    until(&mut nodes, "the second sees it", |nodes| word(&nodes[1]) == 7);
}

fn a_cut_ends_the_link_and_healing_brings_another(path: PathPolicy) {
    let mut nodes = connected(configs(2, path));
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    nodes[1].poller.set_faults(FaultPolicy { cut: true, ..FaultPolicy::default() });
    let mut value = 0;
    until(&mut nodes, "both ends are dead", |nodes| {
        value += 1;
        nodes[0].poller.set_word(CONTROL, 0, value);
        assert_eq!(nodes[1].poller.peer_word(from, CONTROL, 0), 0, "through a cut");
        nodes[0].dead(to).is_some() && nodes[1].dead(from).is_some()
    });
    assert_eq!(nodes[1].dead(from), Some(Evidence::HeartbeatMissed));
    nodes[1].poller.set_faults(FaultPolicy::default());
    until(&mut nodes, "a new link carries words", |nodes| {
        nodes[0].poller.set_word(CONTROL, 0, value + 1);
        nodes[1].try_link(1).is_some_and(|link| {
            link != from && nodes[1].poller.peer_word(link, CONTROL, 0) == value + 1
        })
    });
}
