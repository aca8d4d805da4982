//! Whole drivers against each other over loopback, in one thread.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::socket::refusal;
use super::*;
use crate::clock;
use crate::config::PeerConfig;
use crate::lane::{CONTROL, GROUP};
use crate::log::Ring;
use crate::secure::Authority;
use crate::wait::{Bell, Waker};

/// A node without a poller.
pub(super) struct Node {
    pub(super) own: Own,
    pub(super) udp: Udp,
    pub(super) events: Vec<UdpEvent>,
    /// The network namespace that it lives in, if not that of the test.
    pub(super) space: Option<std::fs::File>,
}

/// Addresses that nobody else uses at the moment.
pub(super) fn addresses(count: usize) -> Vec<SocketAddr> {
    let sockets: Vec<_> =
        (0..count).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap()).collect()
}

pub(super) fn config(addrs: &[SocketAddr], me: usize, incarnation: u64) -> Config {
    let mut config = Config::new("test", Member::new(me as u16 + 1, incarnation), addrs[me]);
    for (index, &addr) in addrs.iter().enumerate().filter(|&(index, _)| index != me) {
        config.peers.push(PeerConfig { node: NodeId(index as u16 + 1), addr });
    }
    config.identity = Some(identity("test", me));
    config
}

/// An identity of the cluster whose authority's key follows from its name.
pub(super) fn identity(cluster: &str, me: usize) -> Arc<Identity> {
    let authority = Authority::new(cluster, [cluster.len() as u8; 32]).unwrap();
    Arc::new(authority.admit(NodeId(me as u16 + 1), [me as u8 + 1; 32]))
}

impl Node {
    pub(super) fn with(config: &Config) -> Self {
        let mut udp = Udp::new(config, clock::now()).unwrap();
        let rings =
            config.lanes.iter().map(|lane| Ring::private(lane.log_bytes).unwrap()).collect();
        let own = Own::new(&config.lanes, rings, &Waker::new(Bell::new().unwrap()));
        config.peers.iter().for_each(|peer| udp.want(peer.node, true));
        Node { own, udp, events: Vec::new(), space: None }
    }

    pub(super) fn start(addrs: &[SocketAddr], me: usize, incarnation: u64) -> Self {
        Node::with(&config(addrs, me, incarnation))
    }

    pub(super) fn turn(&mut self) {
        self.space.iter().for_each(namespaces::enter);
        let now = clock::now();
        self.udp.poll(now, &self.own);
        while let Some(event) = self.udp.poll_event() {
            self.events.push(event);
        }
        self.udp.flush(now, &self.own);
        self.own.flushed(false);
    }

    /// As if killed: the port closes, nobody is told.
    pub(super) fn kill(mut self) {
        self.udp.slots.clear();
    }

    pub(super) fn link_to(&self, node: usize) -> Option<UdpLink> {
        let peer = self.udp.peers.iter().position(|peer| peer.node.0 as usize == node + 1)?;
        let index = self.udp.live(peer)?;
        let up = self.udp.slots[index].link.as_ref()?.phase == Phase::Up;
        up.then(|| self.udp.handle(index))
    }

    fn publish(&mut self, lane: LaneId, text: &[u8], index: u64) -> u64 {
        let writer = self.own.lane(lane).log.writer();
        let mut reservation = writer.reserve(text.len()).expect("room");
        reservation.copy_from_slice(text);
        let position = reservation.commit();
        let published = self.own.publish(lane, index);
        assert_eq!(published.position, position);
        position
    }
}

pub(super) fn until(
    nodes: &mut [&mut Node],
    what: &str,
    mut done: impl FnMut(&mut [&mut Node]) -> bool,
) {
    let start = clock::now();
    loop {
        nodes.iter_mut().for_each(|node| node.turn());
        if done(nodes) {
            return;
        }
        assert!(clock::now().since(start) < Duration::from_secs(20), "{what}: not within 20 s");
        std::thread::sleep(Duration::from_micros(100));
    }
}

pub(super) fn linked(nodes: &mut [&mut Node]) -> bool {
    (0..nodes.len()).all(|a| (0..nodes.len()).all(|b| a == b || nodes[a].link_to(b).is_some()))
}

/// Two nodes with a link, and their addresses.
pub(super) fn linked_pair() -> (Vec<SocketAddr>, Node, Node) {
    let addrs = addresses(2);
    let (mut a, mut b) = (Node::start(&addrs, 0, 1), Node::start(&addrs, 1, 1));
    until(&mut [&mut a, &mut b], "links", linked);
    (addrs, a, b)
}

#[test]
fn three_nodes_link_and_read_each_other() {
    let addrs = addresses(3);
    let mut nodes: Vec<_> = (0..3).map(|me| Node::start(&addrs, me, 1)).collect();
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    a.publish(CONTROL, b"before anybody listens", 0);
    until(&mut [a, b, c], "links", linked);
    let Some(&UdpEvent::Up { link, control_from, .. }) =
        b.events.iter().find(|e| matches!(e, UdpEvent::Up { peer, .. } if peer.node.0 == 1))
    else {
        panic!("no event")
    };
    a.publish(CONTROL, b"hello", 1);
    a.own.set_word(CONTROL, 2, 7);
    until(&mut [a, b, c], "news", |n| n[1].udp.peer_word(link, CONTROL, 2) == 7);
    let record =
        b.udp.peek(link, CONTROL, control_from).unwrap().expect("a word never precedes its log");
    let mut last = record;
    while let Some(next) = b.udp.peek(link, CONTROL, last.end).unwrap() {
        last = next;
    }
    assert_eq!((last.payload, last.index), (&b"hello"[..], 1));
    let end = last.end;
    b.udp.release(link, CONTROL, end);
    let back = a.link_to(1).unwrap();
    until(&mut [a, b, c], "credit", |n| n[0].udp.released(back, CONTROL) == end);
    let before = clock::now();
    until(&mut [a, b, c], "confirmation", |n| n[0].udp.confirmed(back) > before);
    assert!(a.udp.heard(back) > before);
}

#[test]
fn a_lane_is_read_only_where_it_was_opened() {
    let (_, mut a, mut b) = linked_pair();
    let (ab, ba) = (a.link_to(1).unwrap(), b.link_to(0).unwrap());
    a.publish(GROUP, b"old", 0);
    let from = a.own.lane(GROUP).log.head();
    a.publish(GROUP, b"new", 1);
    a.udp.attach(ab, GROUP, from, &a.own);
    until(&mut [&mut a, &mut b], "some turns", |n| n[0].udp.counters(ab).packets_sent > 5);
    assert_eq!(b.udp.peek(ba, GROUP, 0).unwrap(), None);
    b.udp.open(ba, GROUP, from).unwrap();
    until(&mut [&mut a, &mut b], "record", |n| n[1].udp.peer_head(ba, GROUP) > from);
    assert_eq!(b.udp.peek(ba, GROUP, 0).unwrap().unwrap().payload, b"new");
    let bytes = b.udp.peer_bytes(ba, GROUP).unwrap();
    a.kill();
    // SAFETY: the record is visible and nobody has released it.
    assert_eq!(unsafe { bytes.get(from, 3) }, b"new");
}

#[test]
fn what_is_found_by_looking_is_taken_by_the_next_turn() {
    let (_, mut a, mut b) = linked_pair();
    let to_b = a.link_to(1).unwrap();
    (0..20).for_each(|_| [&mut a, &mut b].into_iter().for_each(Node::turn));
    for value in 1..50 {
        while a.udp.look() {
            a.turn();
        }
        b.own.set_word(CONTROL, 0, value);
        b.turn();
        let received = a.udp.counters(to_b).packets_received;
        assert!(a.udp.look() && a.udp.look(), "it has come, and waits");
        a.turn();
        assert!(a.udp.counters(to_b).packets_received > received, "{value}");
    }
    until(&mut [&mut a, &mut b], "words", |nodes| nodes[0].udp.peer_word(to_b, CONTROL, 0) == 49);
}

#[test]
fn one_whose_lanes_go_by_another_path_is_listened_to_at_ticks_and_after_sleeps() {
    let (_, mut a, mut b) = linked_pair();
    let (to_b, to_a) = (a.link_to(1).unwrap(), b.link_to(0).unwrap());
    let heard = |a: &mut Node, b: &mut Node, wake: bool| {
        b.udp.say(to_a, Note::new(b"are you there"));
        b.turn();
        a.udp.tick = Time::MAX;
        if wake {
            a.udp.expect_packets();
        }
        a.events.clear();
        a.turn();
        a.events.iter().any(|event| matches!(event, UdpEvent::Note { .. }))
    };
    assert!(heard(&mut a, &mut b, false), "its lanes go this way");
    a.udp.detach(to_b, CONTROL);
    assert!(!heard(&mut a, &mut b, false), "no system call in every turn");
    assert!(heard(&mut a, &mut b, true), "a sleep would end at once again");
    b.udp.say(to_a, Note::new(b"are you there"));
    b.turn();
    a.udp.tick = Time::ZERO;
    a.events.clear();
    a.turn();
    assert!(a.events.iter().any(|event| matches!(event, UdpEvent::Note { .. })), "a tick");
}

#[test]
fn a_restarted_peer_is_a_new_link() {
    let addrs = addresses(2);
    for restarted in 0..2 {
        let mut stays = Node::start(&addrs, 1 - restarted, 1);
        let mut first = Node::start(&addrs, restarted, 1);
        until(&mut [&mut stays, &mut first], "first link", |n| {
            n[0].link_to(restarted).is_some() && n[1].link_to(1 - restarted).is_some()
        });
        let old = stays.link_to(restarted).unwrap();
        first.kill();
        let mut second = Node::start(&addrs, restarted, 2);
        until(&mut [&mut stays, &mut second], "second link", |n| {
            n[0].link_to(restarted).is_some_and(|link| link != old)
        });
        assert!(
            stays.events.contains(&UdpEvent::Dead { link: old, evidence: Evidence::Restarted })
        );
        assert!(
            matches!(stays.events.last(), Some(UdpEvent::Up { peer, .. }) if peer.incarnation == Incarnation(2))
        );
    }
}

#[test]
fn a_closed_port_is_death_after_unanswered_probes() {
    let (_, mut a, b) = linked_pair();
    let link = a.link_to(1).unwrap();
    b.kill();
    until(&mut [&mut a], "death", |n| n[0].events.len() > 1);
    assert_eq!(a.events[1], UdpEvent::Dead { link, evidence: Evidence::PortUnreachable });
}

#[test]
fn a_false_alarm_is_answered_and_forgotten() {
    let (_, mut a, mut b) = linked_pair();
    let link = a.link_to(1).unwrap();
    a.udp.get_mut(link).unwrap().on_unreachable(clock::now());
    let before = clock::now();
    until(&mut [&mut a, &mut b], "time", |_| {
        clock::now().since(before) > Duration::from_millis(60)
    });
    assert_eq!(a.events.len(), 1, "{:?}", a.events);
}

#[test]
fn a_false_alarm_over_a_long_way_is_answered_too() {
    let (_, mut a, _b) = linked_pair();
    let now = clock::now();
    let link = a.link_to(1).unwrap();
    let link = a.udp.get_mut(link).unwrap();
    let way = Duration::from_millis(200);
    (0..50).for_each(|_| link.connection.assume_rtt(way));
    link.on_unreachable(now);
    assert_eq!(link.run_burst(now + way * 2), Change::None);
    assert_eq!(link.run_burst(now + way * 4), Change::Dead(Evidence::PortUnreachable));
}

#[test]
fn over_ipv6_datagrams_are_as_large_as_they_may_be_with_their_tag() {
    let sockets = [(); 2].map(|()| std::net::UdpSocket::bind("[::1]:0").unwrap());
    let addrs = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
    drop(sockets);
    let largest = Rc::new(Cell::new(0));
    let seen = largest.clone();
    refusal::set(move |_, bytes, call| {
        seen.set(seen.get().max(call.size(bytes)));
        None
    });
    let (mut a, mut b) = (Node::start(&addrs, 0, 1), Node::start(&addrs, 1, 1));
    until(&mut [&mut a, &mut b], "links", linked);
    stream(&mut a, &mut b, 40);
    // The header of IPv6 is in no packet's way here, but 20 bytes longer.
    assert_eq!(largest.get(), (1 << 16) - 48);
}

#[test]
fn a_fenced_link_shows_nothing_more_and_a_new_one_comes_up() {
    let (_, mut a, mut b) = linked_pair();
    let (ab, ba) = (a.link_to(1).unwrap(), b.link_to(0).unwrap());
    a.udp.close(ab);
    b.own.set_word(CONTROL, 0, 1);
    until(&mut [&mut a, &mut b], "new link", |n| {
        n[0].link_to(1).is_some_and(|link| link != ab)
            && n[1].link_to(0).is_some_and(|link| link != ba)
    });
    assert_eq!(a.udp.peer_word(ab, CONTROL, 0), 0, "fenced");
    assert!(b.events.contains(&UdpEvent::Dead { link: ba, evidence: Evidence::ClosedByPeer }));
    let fresh = a.link_to(1).unwrap();
    until(&mut [&mut a, &mut b], "word", |n| n[0].udp.peer_word(fresh, CONTROL, 0) == 1);
    a.udp.forget(ab);
    assert_eq!(a.udp.heard(ab), Time::ZERO);
}

#[test]
fn a_refused_incarnation_learns_it_and_a_later_one_is_welcome() {
    let addrs = addresses(2);
    let mut a = Node::start(&addrs, 0, 1);
    a.udp.refuse(Member::new(2, 5));
    let mut b = Node::start(&addrs, 1, 5);
    until(&mut [&mut a, &mut b], "refusal", |n| {
        n[1].events.contains(&UdpEvent::Refused { node: NodeId(1) })
    });
    assert!(a.events.is_empty());
    drop(b);
    let mut b = Node::start(&addrs, 1, 6);
    until(&mut [&mut a, &mut b], "links", linked);
}

#[test]
fn a_clean_end_is_told() {
    let (_, mut a, b) = linked_pair();
    let link = a.link_to(1).unwrap();
    drop(b);
    until(&mut [&mut a], "death", |n| n[0].events.len() > 1);
    assert_eq!(a.events[1], UdpEvent::Dead { link, evidence: Evidence::ClosedByPeer });
}

#[test]
fn clusters_do_not_mix_and_noise_is_harmless() {
    let addrs = addresses(2);
    let mut foreign = config(&addrs, 1, 1);
    foreign.cluster = "other".into();
    foreign.identity = Some(identity("other", 1));
    let (mut a, mut b) = (Node::start(&addrs, 0, 1), Node::with(&foreign));
    let noise = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let start = clock::now();
    let mut sent = 0u32;
    until(&mut [&mut a, &mut b], "time", |_| {
        sent += 1;
        let bytes: Vec<u8> = (0..sent % 300).map(|i| (i * sent) as u8).collect();
        noise.send_to(&bytes, addrs[0]).unwrap();
        clock::now().since(start) > Duration::from_millis(150)
    });
    assert!(a.events.is_empty() && b.events.is_empty());
    assert!(a.udp.strays > 0);
}

#[test]
fn a_dead_node_delays_nobody() {
    let addrs = addresses(3);
    let (mut a, mut b) = (Node::start(&addrs, 0, 1), Node::start(&addrs, 1, 1));
    until(&mut [&mut a, &mut b], "links", |n| {
        n[0].link_to(1).is_some() && n[1].link_to(0).is_some()
    });
    let link = b.link_to(0).unwrap();
    for value in 1..200 {
        a.own.set_word(CONTROL, 0, value);
        until(&mut [&mut a, &mut b], "word", |n| n[1].udp.peer_word(link, CONTROL, 0) == value);
    }
}

#[test]
fn a_long_stream_wraps_the_ring_many_times() {
    let addrs = addresses(2);
    let (mut a, mut b) = (Node::start(&addrs, 0, 1), Node::start(&addrs, 1, 1));
    #[cfg(feature = "faults")]
    {
        use crate::faults::FaultPolicy;
        let bad = |seed| {
            let policy = FaultPolicy { drop: 20, duplicate: 10, ..FaultPolicy::default() };
            FaultPolicy { reorder: 10, corrupt: 5, seed, ..policy }
        };
        b.udp.set_faults(bad(1));
        a.udp.set_faults(bad(2));
    }
    until(&mut [&mut a, &mut b], "links", linked);
    stream(&mut a, &mut b, 2000);
}

/// Records of odd sizes from `a` to `b`, as many at a time as fit, each one checked.
pub(super) fn stream(a: &mut Node, b: &mut Node, records: u64) {
    let (ab, ba) = (a.link_to(1).unwrap(), b.link_to(0).unwrap());
    let from = a.own.lane(CONTROL).log.head();
    let (mut sent, mut seen, mut at) = (0u64, 0u64, from);
    let writer = a.own.lane(CONTROL).log.writer();
    let start = clock::now();
    while seen < records {
        assert!(clock::now().since(start) < Duration::from_secs(20), "{seen} of {records} in 20 s");
        // Records of odd sizes, as many as fit.
        while sent < records {
            let len = (sent * 7919 % 9000) as usize;
            let Ok(mut reservation) = writer.reserve(len) else { break };
            reservation.fill(sent as u8);
            reservation.commit();
            a.own.publish(CONTROL, sent);
            sent += 1;
        }
        a.turn();
        b.turn();
        while let Some(record) = b.udp.peek(ba, CONTROL, at).unwrap() {
            assert_eq!(record.index, seen);
            assert_eq!(record.payload.len() as u64, seen * 7919 % 9000);
            assert!(record.payload.iter().all(|&byte| byte == seen as u8));
            at = record.end;
            seen += 1;
        }
        b.udp.release(ba, CONTROL, at);
        let released = a.udp.released(ab, CONTROL);
        a.own.lane_mut(CONTROL).log.reclaim(released);
    }
}

#[test]
fn a_sender_learns_that_its_packets_meet_congestion() {
    let (addrs, mut a, mut b) = linked_pair();
    let congested = |node: &mut Node| {
        node.udp.links_mut().map(|link| link.connection.counters().congested).sum::<u64>()
    };
    stream(&mut a, &mut b, 40);
    assert_eq!((congested(&mut a), congested(&mut b)), (0, 0));
    // As a switch on the way from `a` to `b` would.
    a.udp.peers[0].socket().unwrap().mark(addrs[1], socket::CE).unwrap();
    stream(&mut a, &mut b, 400);
    until(&mut [&mut a, &mut b], "news of it", |n| congested(n[0]) > 0);
    assert_eq!(congested(&mut b), 0);
}

#[test]
fn what_lay_in_the_socket_is_told_to_have_waited() {
    let (_, mut a, mut b) = linked_pair();
    stream(&mut a, &mut b, 1);
    // The turn before this is the last that has seen the socket empty.
    b.turn();
    let since = clock::now();
    std::thread::sleep(Duration::from_millis(2));
    let at = a.publish(CONTROL, b"late", 9);
    until(&mut [&mut a], "it has left", |nodes| {
        nodes[0].udp.links_mut().all(|link| link.connection.congestion().in_flight() > 0)
    });
    let least = clock::now().since(since);
    let link = b.link_to(0).unwrap();
    until(&mut [&mut b], "it has come", |nodes| nodes[0].udp.peer_head(link, CONTROL) > at);
    assert!(b.udp.arrival.waited >= least);
}

#[test]
fn what_opening_much_takes_is_not_the_networks_time() {
    let (_, mut a, mut b) = linked_pair();
    let link = b.link_to(0).unwrap();
    for index in 1..4 {
        a.publish(CONTROL, b"much", index);
        a.turn();
    }
    let began = clock::now();
    b.udp.expected = true;
    b.udp.poll(began, &b.own);
    assert!(b.udp.taken > 1, "{} messages", b.udp.taken);
    std::thread::sleep(Duration::from_millis(2));
    let opened = clock::now();
    b.udp.links_mut().for_each(|link| link.connection.probe());
    b.udp.flush(began, &b.own);
    a.turn();
    b.udp.expected = true;
    b.udp.poll(clock::now(), &b.own);
    assert!(b.udp.confirmed(link) >= opened, "it was packed when the turn began");
}

#[test]
fn drivers_say_notes_to_each_other() {
    let addrs = addresses(2);
    let (mut a, mut b) = (Node::start(&addrs, 0, 1), Node::start(&addrs, 1, 1));
    until(&mut [&mut a, &mut b], "linked", linked);
    let (to_b, to_a) = (a.link_to(1).unwrap(), b.link_to(0).unwrap());
    // Only the latest of what did not leave yet is said.
    a.udp.say(to_b, Note::new(b"never mind"));
    a.udp.say(to_b, Note::new(b"how do you do"));
    let heard = |node: &Node| {
        let notes = node.events.iter().filter_map(|event| match event {
            UdpEvent::Note { link, note } => Some((*link, note.bytes().to_vec())),
            _ => None,
        });
        notes.collect::<Vec<_>>()
    };
    until(&mut [&mut a, &mut b], "it is heard", |nodes| !heard(nodes[1]).is_empty());
    assert_eq!(heard(&b), [(to_a, b"how do you do".to_vec())]);
    assert_eq!(heard(&a), []);
}
