//! A peer that writes where it may not, over the queue pair of a real link: what it costs, and whom.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::{Config, PathPolicy, PeerConfig, VerbsConfig};
use crate::event::{Event, Evidence};
use crate::id::{LinkId, Member, NodeId};
use crate::lane::CONTROL;
use crate::poller::Poller;
use crate::roster::Wire;
use crate::secure::Authority;
use crate::verbs::{Ask, Message};

struct Node {
    poller: Poller,
    up: Vec<(NodeId, LinkId)>,
    deaths: Vec<(LinkId, Evidence)>,
    value: u64,
}

impl Node {
    /// Sets a word that grows, so that every link carries something, and does a turn.
    fn turn(&mut self) {
        let now = clock::now();
        self.poller.poll(now);
        while let Some(event) = self.poller.poll_event() {
            match event {
                Event::Up { link, peer, .. } => self.up.push((peer.node, link)),
                Event::Dead { link, evidence, .. } => self.deaths.push((link, evidence)),
                _ => {}
            }
        }
        self.value += 1;
        self.poller.set_word(CONTROL, 0, self.value);
        self.poller.flush(now);
    }

    fn link(&self, node: u16) -> LinkId {
        self.up.iter().rev().find(|up| up.0 == NodeId(node)).expect("a link").1
    }

    fn reason(&self, link: LinkId) -> String {
        let found = self.poller.links().into_iter().find(|status| status.link == link);
        found.expect("a link").reason.to_string()
    }

    /// Writes to `at` of that peer's inbox with a key that differs from the right one in these bits.
    fn trespasses(&mut self, link: LinkId, key: u32, at: u64) {
        let Some(Wire::Verbs(_, verbs)) = self.poller.roster.get_mut(link).map(|l| &mut l.wire)
        else {
            panic!("no link over verbs");
        };
        verbs.trespass(key, at);
    }
}

fn nodes(count: u16) -> Option<Vec<Node>> {
    if std::env::var_os("QUINTET_RXE").is_none() {
        crate::skip::skip("no adapters: run it with scripts/soft-roce-vm");
        return None;
    }
    let sockets: Vec<UdpSocket> =
        (0..count).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let addrs: Vec<SocketAddr> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
    drop(sockets);
    let authority = Authority::new("trespass", [8; 32]).unwrap();
    let node = |i: u16| {
        let me = Member::new(i + 1, 1);
        let mut config = Config::new("trespass", me, addrs[usize::from(i)]);
        config.peers = (0..count)
            .filter(|&j| j != i)
            .map(|j| PeerConfig { node: NodeId(j + 1), addr: addrs[usize::from(j)] })
            .collect();
        config.path = PathPolicy::Verbs;
        config.identity = Some(Arc::new(authority.admit(me.node, [i as u8 + 1; 32])));
        config.verbs = VerbsConfig {
            trusted_fabric: true,
            device: Some(format!("rxe{}", i % 2)),
            ..VerbsConfig::default()
        };
        config.lanes.iter_mut().for_each(|lane| lane.log_bytes = 1 << 16);
        config.timing.suspect = Duration::from_secs(4);
        config.timing.dead = Duration::from_secs(8);
        Node { poller: Poller::new(config).unwrap(), up: vec![], deaths: vec![], value: 0 }
    };
    Some((0..count).map(node).collect())
}

fn until(nodes: &mut [Node], what: &str, mut done: impl FnMut(&mut [Node]) -> bool) {
    let start = Instant::now();
    while !done(nodes) {
        assert!(start.elapsed() < Duration::from_secs(100), "{what}: not in time");
        nodes.iter_mut().for_each(Node::turn);
        std::thread::yield_now();
    }
}

/// Whether all that these nodes have set by now has arrived at the other.
fn carries(nodes: &mut [Node], from: usize, to: usize) {
    let value = nodes[from].value;
    let link = nodes[to].link(from as u16 + 1);
    until(nodes, "a word arrives", |nodes| nodes[to].poller.peer_word(link, CONTROL, 0) > value);
}

#[test]
fn what_was_said_of_a_queue_pair_that_is_replaced_costs_the_next_one_nothing() {
    let Some(mut nodes) = nodes(2) else { return };
    until(&mut nodes, "they are linked", |nodes| nodes.iter().all(|node| node.up.len() == 1));
    let link = nodes[0].link(2);
    let state = |nodes: &[Node]| {
        let link = nodes[0].poller.roster.get(link).expect("a link");
        let Wire::Verbs(handle, verbs) = &link.wire else { panic!("by verbs") };
        let keys = (verbs.remote().rkey, verbs.remote().inbox);
        (*handle, verbs.name().1, verbs.psn(), verbs.failures(), keys)
    };
    let (handle, resumes, first, _, keys) = state(&nodes);
    nodes[0].trespasses(link, 0x5500, 0);
    let has_another = |nodes: &mut [Node]| !nodes[0].reason(link).contains("being made");
    until(&mut nodes, "the queue pair is replaced", |nodes| {
        has_another(nodes) && state(nodes).3 == 1
    });
    let (_, name, second, ..) = state(&nodes);
    assert!(name == resumes && first != second);
    assert_eq!(state(&nodes).4, keys, "the peer has registered nothing anew");
    for (after, failures) in [(first, 1), (0, 1), (second, 2)] {
        let ask = Message::Ask(Ask { resumes, after, places: 1 });
        nodes[0].poller.take_note_of_link(link, handle, ask, clock::now());
        assert_eq!(state(&nodes).3, failures, "after {after}, of {first} and {second}");
    }
    until(&mut nodes, "the queue pair is replaced again", has_another);
    carries(&mut nodes, 0, 1);
    assert!(nodes.iter().all(|node| node.deaths.is_empty()));
}

#[test]
fn who_writes_where_it_may_not_costs_queue_pairs_and_then_its_own_link_alone() {
    let Some(mut nodes) = nodes(3) else { return };
    until(&mut nodes, "all are linked", |nodes| nodes.iter().all(|node| node.up.len() == 2));
    let (victim, hostile) = (nodes[0].link(2), nodes[1].link(1));
    // Keys that are none, then the right one for what is beyond the inbox and far before it.
    let wrongs = [(0x5500, 0), (0x0001, 0), (0, 1 << 30), (0, u64::MAX << 40)];
    for (count, (key, at)) in wrongs.into_iter().enumerate() {
        nodes[1].trespasses(hostile, key, at);
        let said = format!("queue pairs that failed lately: {}", count + 1);
        until(&mut nodes, "both have another queue pair", |nodes| {
            nodes[0].reason(victim).ends_with(&said) && nodes[1].reason(hostile).ends_with(&said)
        });
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
            carries(&mut nodes, from, to);
        }
    }
    assert!(nodes.iter().all(|node| node.deaths.is_empty()));
    // Again and again.
    until(&mut nodes, "enough is enough", |nodes| {
        let live = nodes[1].poller.roster.get(hostile).is_some_and(|link| {
            link.alive && link.verbs().is_some_and(|verbs| !verbs.is_suspended())
        });
        if live {
            nodes[1].trespasses(hostile, 0x5500, 0);
        }
        !nodes[0].deaths.is_empty() && !nodes[1].deaths.is_empty()
    });
    assert!(nodes[0].deaths.iter().all(|death| death.0 == victim), "{:?}", nodes[0].deaths);
    // Who behaves has not noticed.
    for (node, other) in [(0, 3), (2, 1)] {
        let link = nodes[node].link(other);
        assert!(!nodes[node].reason(link).contains("failed"), "{}", nodes[node].reason(link));
    }
    assert!(nodes[2].deaths.is_empty());
    carries(&mut nodes, 0, 2);
    carries(&mut nodes, 2, 0);
}
