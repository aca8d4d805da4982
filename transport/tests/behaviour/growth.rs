//! What a message costs each of its readers does not grow with how many there are: packets of both directions, and what
//! is published. Instructions over shared memory are counted by `scripts/instructions`.
//!
//! One thread is the writer and its readers in turn, and hands them a time of its own, so that no timer of theirs depends
//! on how busy the machine is.

use quintet_transport::*;
use std::time::Duration;

use crate::harness::*;

const ROUNDS: u64 = 200;
/// What a round takes, by the time that is handed in: less than anything waits for.
const ROUND: Duration = Duration::from_micros(50);

/// Of one message to that many readers: packets for each of them, and what its writer published.
fn counted(readers: u16) -> (f64, LaneCounters) {
    let mut configs = configs(readers + 1, PathPolicy::Udp);
    let writer = configs[0].me.node;
    for config in &mut configs[1..] {
        config.peers.retain(|peer| peer.node == writer);
    }
    for config in &mut configs {
        config.timing.dead = Duration::from_secs(60);
        config.timing.suspect = Duration::from_secs(30);
        config.timing.heartbeat = Duration::from_secs(10);
    }
    let mut nodes: Vec<Node> = configs.into_iter().map(Node::new).collect();
    until(&mut nodes, "links", |nodes| {
        nodes[0].poller.links().len() == usize::from(readers)
            && nodes[1..].iter().all(|node| node.poller.links().len() == 1)
    });
    let links: Vec<LinkId> = nodes[0].poller.links().iter().map(|link| link.link).collect();
    for link in &links {
        nodes[0].poller.attach(*link, GROUP, 0);
    }
    let mut ends = Vec::new();
    for node in &mut nodes[1..] {
        let link = node.poller.links()[0].link;
        node.poller.open(link, GROUP, 0);
        ends.push((link, 0));
    }
    // What was begun before is done: sizes of datagrams are known, and the lanes are open.
    for _ in 0..200 {
        nodes.iter_mut().for_each(|node| _ = node.turn());
        std::thread::sleep(Duration::from_micros(100));
    }
    let (mut now, mut before, mut packets) = (clock::now(), LaneCounters::default(), 0);
    let sent = |node: &Node| -> u64 {
        node.poller.each_link().map(|l| l.counters.packets_sent + l.counters.packets_received).sum()
    };
    for round in 0..2 * ROUNDS {
        if round == ROUNDS {
            (before, packets) = (nodes[0].poller.lane_counters(GROUP), sent(&nodes[0]));
        }
        now += ROUND;
        let poller = &mut nodes[0].poller;
        poller.poll(now);
        let upto = links.iter().map(|link| poller.released(*link, GROUP)).min().unwrap();
        poller.reclaim(GROUP, upto);
        let log = poller.log(GROUP);
        let mut slot = log.reserve(64).expect("what was read is given back");
        slot.fill(round as u8);
        slot.commit_quietly();
        poller.committed(GROUP).expect("just committed");
        poller.publish(GROUP, round);
        poller.set_word(GROUP, 0, round + 1);
        poller.flush(now);
        for (node, (link, at)) in nodes[1..].iter_mut().zip(&mut ends) {
            let poller = &mut node.poller;
            poller.poll(now);
            let record = poller.peek(*link, GROUP, *at).expect("it is there at once");
            assert_eq!((record.index, record.payload), (round, &[round as u8; 64][..]));
            *at = record.end;
            assert_eq!(poller.peer_word(*link, GROUP, 0), round + 1);
            poller.release(*link, GROUP, *at);
            poller.flush(now);
        }
    }
    let after = nodes[0].poller.lane_counters(GROUP);
    let published = LaneCounters {
        bytes: after.bytes - before.bytes,
        records: after.records - before.records,
        words: after.words - before.words,
        credit_stalls: after.credit_stalls,
    };
    let packets = sent(&nodes[0]) - packets;
    (packets as f64 / (ROUNDS * u64::from(readers)) as f64, published)
}

#[test]
fn a_reader_more_makes_none_of_the_others_dearer() {
    let (few, published) = counted(2);
    assert_eq!((published.records, published.words), (ROUNDS, ROUNDS));
    println!("{few:.3} packets for each message and reader with 2 readers");
    assert!(few >= 1.0, "each message in a packet of its own, as it was published");
    for readers in [8, 32] {
        let (many, same) = counted(readers);
        println!("{many:.3} with {readers}");
        assert_eq!(same, published, "published once, however many read it");
        assert!(
            many <= 1.2 * few,
            "{many} packets for each message and reader with {readers}, {few} with 2"
        );
    }
}
