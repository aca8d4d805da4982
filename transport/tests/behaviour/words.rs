//! Words: they grow, and never run ahead of the log.

use quintet_transport::*;

use crate::harness::*;
use crate::on_every_path;

on_every_path!(
    travel_and_grow,
    are_never_seen_before_the_log_they_speak_of,
    quiet_ones_arrive_too,
    of_a_lane_that_is_opened_late_are_there,
    arrive_between_records_alone,
);

fn travel_and_grow(path: PathPolicy) {
    let mut nodes = connected(configs(3, path));
    for i in 0..3u64 {
        nodes[i as usize].poller.set_word(CONTROL, 3, 100 + i);
    }
    until(&mut nodes, "everybody sees everybody's word", |nodes| {
        nodes.iter().enumerate().all(|(me, node)| {
            (0..3u64)
                .filter(|&p| p != me as u64)
                .all(|p| node.poller.peer_word(node.link(p as u16 + 1), CONTROL, 3) == 100 + p)
        })
    });
    let link = nodes[0].link(2);
    assert_eq!(nodes[0].poller.peer_word(link, CONTROL, 1000), 0, "no such word");
    assert_eq!(nodes[0].poller.peer_word(link, GROUP, 3), 0, "that lane is not open");
}

fn are_never_seen_before_the_log_they_speak_of(path: PathPolicy) {
    const N: u64 = 2000;
    let mut nodes = reading(path, GROUP);
    let to = nodes[0].link(2);
    let mut node = nodes.remove(0);
    let reader = std::thread::spawn(move || {
        let mut node = nodes.remove(0);
        let from = node.link(1);
        let (mut seen, mut at) = (0, 0);
        while seen < N {
            node.turn();
            // The word first, then the log: all that the word counts must be there.
            let word = node.poller.peer_word(from, GROUP, 0);
            while let Some(record) = node.poller.peek(from, GROUP, at) {
                assert_eq!(record.index, seen);
                seen += 1;
                at = record.end;
            }
            assert!(seen >= word, "word says {word}, only {seen} records are visible");
            node.poller.release(from, GROUP, at);
        }
        node
    });
    let mut sent = 0;
    while !reader.is_finished() {
        if sent < N && node.send(GROUP, sent, &sent.to_le_bytes()) {
            sent += 1;
            node.poller.set_word(GROUP, 0, sent);
        }
        node.turn();
        let released = node.poller.released(to, GROUP);
        node.poller.reclaim(GROUP, released);
    }
    reader.join().unwrap();
}

fn quiet_ones_arrive_too(path: PathPolicy) {
    let mut nodes = connected(configs(2, path));
    nodes[0].poller.set_word_quietly(CONTROL, 1, 42);
    let from = nodes[1].link(1);
    until(&mut nodes, "the word arrived", |nodes| {
        nodes[1].poller.peer_word(from, CONTROL, 1) == 42
    });
}

fn of_a_lane_that_is_opened_late_are_there(path: PathPolicy) {
    let mut nodes = connected(configs(2, path));
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    nodes[0].poller.attach(to, GROUP, 0);
    nodes[0].poller.set_word(GROUP, 2, 7);
    nodes[0].poller.set_word(CONTROL, 2, 8);
    until(&mut nodes, "words of a lane that is open", |nodes| {
        nodes[1].poller.peer_word(from, CONTROL, 2) == 8
    });
    nodes[1].poller.open(from, GROUP, 0);
    // Nothing more is said.
    until(&mut nodes, "words of the other", |nodes| nodes[1].poller.peer_word(from, GROUP, 2) == 7);
}

fn arrive_between_records_alone(path: PathPolicy) {
    let mut nodes = reading(path, GROUP);
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    let mut at = 0;
    for round in 1..=50 {
        assert!(nodes[0].send(GROUP, round - 1, b"a record alone"));
        until(&mut nodes, "the record", |nodes| {
            let poller = &mut nodes[1].poller;
            at = poller.peek(from, GROUP, at).map_or(at, |record| record.end);
            poller.release(from, GROUP, at);
            poller.peer_head(from, GROUP) == at && at >= 32 * round
        });
        let released = nodes[0].poller.released(to, GROUP);
        nodes[0].poller.reclaim(GROUP, released);
        nodes[0].poller.set_word(GROUP, 0, round);
        until(&mut nodes, "the word", |nodes| nodes[1].poller.peer_word(from, GROUP, 0) == round);
    }
}

/// Through shared memory a record alone is seen before the news of its flush. A stream of them keeps no word back.
#[test]
fn are_at_most_one_turn_behind_a_stream_of_records_alone() {
    let mut nodes = reading(PathPolicy::Shm, GROUP);
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    let (mut at, mut seen) = (0, 0);
    for round in 1..=2000 {
        assert!(nodes[0].send(GROUP, round - 1, b"a record alone"));
        nodes[0].poller.set_word(GROUP, 0, round);
        nodes[0].turn();
        nodes[1].turn();
        let poller = &mut nodes[1].poller;
        while let Some(record) = poller.peek(from, GROUP, at) {
            (at, seen) = (record.end, record.index + 1);
        }
        poller.release(from, GROUP, at);
        let word = poller.peer_word(from, GROUP, 0);
        assert!(
            seen == round && (round - 1..=seen).contains(&word),
            "{word} of {round}, {seen} seen"
        );
        let released = nodes[0].poller.released(to, GROUP);
        nodes[0].poller.reclaim(GROUP, released);
    }
}
