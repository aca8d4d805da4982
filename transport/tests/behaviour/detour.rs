//! Where no queue pair comes up again the lanes of a link go by UDP, and back, in the guest of scripts/soft-roce-vm.

use std::time::{Duration, Instant};

use quintet_transport::*;

use crate::harness::*;
use crate::trouble::*;

/// Two nodes that may use any path and do not find each other's shared memory.
fn linked() -> Vec<Node> {
    let mut nodes: Vec<Node> = patient([PathPolicy::Auto; 2]).into_iter().map(Node::new).collect();
    nodes.iter_mut().for_each(|node| node.poller.hide_shared_memory());
    meet(&mut nodes);
    nodes
}

fn all_by(nodes: &[Node], path: Path) -> bool {
    nodes.iter().all(|node| node.poller.links()[0].path == path)
}

/// Longer than a link may be without a queue pair where it has no other way.
const LONG: Duration = Duration::from_secs(12);

#[test]
fn lanes_go_by_udp_while_verbs_are_away_and_come_back_with_them() {
    if !has_adapters() {
        return;
    }
    let mut nodes = linked();
    assert!(all_by(&nodes, Path::Verbs));
    let mut group = Traffic::on(GROUP, &mut nodes);
    let much_more = |nodes: &mut [Node], traffic: &mut [&mut Traffic], what: &str| {
        let before: Vec<[u64; 2]> = traffic.iter().map(|traffic| traffic.got).collect();
        until(nodes, what, |nodes| {
            traffic.iter_mut().for_each(|traffic| traffic.go_on(nodes, true));
            assert!(no_link_died(nodes), "{:?}", nodes[0].events);
            let more = |(now, then): (&&mut Traffic, &[u64; 2])| {
                (0..2).all(|i| now.got[i] > then[i] + 500)
            };
            traffic.iter().zip(&before).all(more)
        });
    };
    much_more(&mut nodes, &mut [&mut group], "the rings have wrapped");
    let (down, start) = (Down::now(), Instant::now());
    until(&mut nodes, "both go by udp", |nodes| {
        group.go_on(nodes, true);
        all_by(nodes, Path::Udp)
    });
    for node in &nodes {
        let reason = &node.poller.links()[0].reason;
        assert!(reason.contains("no queue pair") && reason.contains("by udp"), "{reason}");
    }
    // What is begun meanwhile goes on as well.
    let mut bulk = Traffic::on(BULK, &mut nodes);
    while start.elapsed() < LONG {
        much_more(&mut nodes, &mut [&mut group, &mut bulk], "much more by udp");
    }
    drop(down);
    until(&mut nodes, "both go by verbs", |nodes| {
        group.go_on(nodes, true);
        bulk.go_on(nodes, true);
        all_by(nodes, Path::Verbs)
    });
    much_more(&mut nodes, &mut [&mut group, &mut bulk], "much more by verbs");
    // And once more, as a second time is different: what lies in the inbox is old.
    let down = Down::now();
    until(&mut nodes, "both go by udp again", |nodes| {
        group.go_on(nodes, true);
        bulk.go_on(nodes, true);
        all_by(nodes, Path::Udp)
    });
    much_more(&mut nodes, &mut [&mut group, &mut bulk], "much more by udp again");
    drop(down);
    until(&mut nodes, "both go by verbs again", |nodes| {
        group.go_on(nodes, true);
        bulk.go_on(nodes, true);
        all_by(nodes, Path::Verbs)
    });
    until(&mut nodes, "all of it arrived", |nodes| {
        group.go_on(nodes, false);
        bulk.go_on(nodes, false);
        group.all_arrived(nodes) && bulk.all_arrived(nodes)
    });
    assert!(no_link_died(&nodes));
    for node in &nodes {
        let told = |event: &Event| match event {
            Event::Path { path, .. } => Some(*path),
            _ => None,
        };
        let paths: Vec<Path> = node.events.iter().filter_map(told).collect();
        assert_eq!(paths, [Path::Udp, Path::Verbs, Path::Udp, Path::Verbs]);
    }
}

#[test]
fn what_is_closed_and_begun_anew_by_udp_is_read_from_there_by_verbs() {
    if !has_adapters() {
        return;
    }
    let mut nodes = linked();
    let links = [nodes[0].link(2), nodes[1].link(1)];
    let mut bulk = Traffic::on(BULK, &mut nodes);
    until(&mut nodes, "some by verbs", |nodes| {
        bulk.go_on(nodes, true);
        bulk.got.iter().all(|&got| got > 500)
    });
    let down = Down::now();
    until(&mut nodes, "both go by udp", |nodes| {
        bulk.go_on(nodes, true);
        all_by(nodes, Path::Udp)
    });
    for (node, link) in nodes.iter_mut().zip(links) {
        node.poller.detach(link, BULK);
        node.poller.shut(link, BULK);
        // More than a ring that nobody reads.
        let ring = 2 * lanes()[BULK.index()].log_bytes as u64;
        let goal = node.poller.head(BULK) + ring;
        while node.poller.head(BULK) < goal {
            node.send(BULK, 1, &[1; 1000]);
            let head = node.poller.head(BULK);
            node.poller.reclaim(BULK, head);
        }
    }
    drop(down);
    until(&mut nodes, "both go by verbs", |nodes| all_by(nodes, Path::Verbs));
    let before = bulk.sent;
    let mut bulk = Traffic::from(BULK, &mut nodes, before);
    until(&mut nodes, "some by verbs again", |nodes| {
        bulk.go_on(nodes, true);
        assert!(no_link_died(nodes), "{:?}", nodes[0].events);
        (0..2).all(|i| bulk.got[i] > before[1 - i] + 500)
    });
}

#[test]
fn a_peer_that_dies_while_udp_carries_its_lanes_is_dead() {
    if !has_adapters() {
        return;
    }
    let mut nodes = linked();
    let mut group = Traffic::on(GROUP, &mut nodes);
    let _down = Down::now();
    until(&mut nodes, "both go by udp", |nodes| {
        group.go_on(nodes, true);
        all_by(nodes, Path::Udp)
    });
    let link = nodes[0].link(2);
    drop(nodes.pop());
    until(&mut nodes, "it is dead", |nodes| nodes[0].dead(link).is_some());
    assert_eq!(nodes[0].dead(link), Some(Evidence::ClosedByPeer));
    assert!(nodes[0].poller.peer_head(link, GROUP) > 0, "frozen, and readable");
}
