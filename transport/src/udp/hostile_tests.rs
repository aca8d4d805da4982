//! What somebody on the network can do to links: delay them, and nothing else.

use std::cell::RefCell;
use std::net::UdpSocket;
use std::rc::Rc;

use super::socket::refusal;
use super::tests::{Node, addresses, config, identity, linked, linked_pair, stream, until};
use super::*;
use crate::lane::CONTROL;
use crate::reliable::{COOKIE_LEN, Claim, FLAG_KEY_PHASE, Handshake, INIT_LEN, NOISE_1_LEN};

/// Datagrams that were sent on this thread, with their destination.
type Tape = Rc<RefCell<Vec<(std::net::SocketAddr, Vec<u8>)>>>;

/// Listens on the wire, and loses what `loses` says.
fn wiretap(mut loses: impl FnMut(&[u8]) -> bool + 'static) -> Tape {
    let tape = Tape::default();
    let notes = tape.clone();
    refusal::set(move |peer, bytes, call| {
        for datagram in bytes.chunks(call.size(bytes).max(1)) {
            notes.borrow_mut().push((peer, datagram.to_vec()));
        }
        loses(bytes).then_some(libc::EPERM)
    });
    tape
}

fn pair() -> (Vec<Node>, Vec<std::net::SocketAddr>) {
    let addrs = addresses(2);
    let mut nodes: Vec<_> = (0..2).map(|me| Node::start(&addrs, me, 1)).collect();
    until(&mut nodes.iter_mut().collect::<Vec<_>>(), "links", linked);
    (nodes, addrs)
}

fn for_a_while(nodes: &mut [&mut Node], mut each: impl FnMut()) {
    let start = clock::now();
    until(nodes, "a while", |_| {
        each();
        clock::now().since(start) > Duration::from_millis(150)
    });
}

fn is_handshake(datagram: &[u8], kind: u8) -> bool {
    datagram[1] == FLAG_HANDSHAKE && datagram[crate::reliable::HEADER_LEN] == kind
}

#[test]
fn a_packet_sent_on_from_elsewhere_moves_nobody() {
    let (addrs, mut a, mut b) = linked_pair();
    (0..20).for_each(|_| [&mut a, &mut b].into_iter().for_each(Node::turn));
    // A packet of `b` that `a` has not seen: it is caught on its way, and comes from somebody else.
    let caught = Rc::new(RefCell::new(Vec::new()));
    let (net, to_a) = (caught.clone(), addrs[0]);
    refusal::set(move |peer, bytes, _| {
        let catch = peer == to_a && net.borrow().is_empty();
        catch.then(|| {
            net.borrow_mut().extend_from_slice(bytes);
            libc::ENETUNREACH
        })
    });
    b.own.set_word(CONTROL, 0, 1);
    b.turn();
    let packet = caught.borrow().clone();
    let sent = Rc::new(RefCell::new(Vec::new()));
    let notes = sent.clone();
    refusal::set(move |peer, bytes, _| {
        notes.borrow_mut().push((peer, bytes.len()));
        None
    });
    let elsewhere: std::net::IpAddr = "127.0.0.9".parse().unwrap();
    for _ in 0..3 {
        a.udp.arrival.from = Some(elsewhere);
        a.udp.on_datagram(clock::now(), &mut packet.clone(), &a.own);
    }
    let there: Vec<_> =
        sent.borrow().iter().filter(|(peer, _)| peer.ip() == elsewhere).copied().collect();
    let [(asked, len)] = there[..] else { panic!("{there:?}") };
    assert_eq!(asked.port(), addrs[1].port());
    assert!(len <= packet.len() * 3);
    // Nobody answers there, and the peer speaks from where it is.
    stream(&mut a, &mut b, 40);
    assert_eq!(a.udp.peers[0].socket().and_then(Socket::peer), Some(addrs[1]));
    assert!(sent.borrow().iter().filter(|(peer, _)| peer.ip() == elsewhere).count() == 1);
}

#[test]
fn nothing_is_sent_in_the_clear() {
    let tape = wiretap(|_| false);
    let (mut nodes, _) = pair();
    let [a, b] = &mut nodes[..] else { unreachable!() };
    stream(a, b, 40);
    let tape = tape.borrow();
    assert!(tape.len() > 20);
    for (_, datagram) in tape.iter() {
        // Records are filled with their number; a run of equal bytes is what a record looks like.
        let padding = datagram[1] == FLAG_HANDSHAKE && datagram.len() == INIT_LEN;
        assert!(padding || datagram[20..].windows(16).all(|w| w.iter().any(|&byte| byte != w[0])));
    }
}

#[test]
fn replayed_and_damaged_packets_change_nothing() {
    let tape = wiretap(|_| false);
    let (mut nodes, addrs) = pair();
    let [a, b] = &mut nodes[..] else { unreachable!() };
    stream(a, b, 40);
    // From here on `a` is silent: whatever `b` takes in, somebody else has sent.
    let link = b.link_to(0).unwrap();
    for_a_while(&mut [b], || {});
    let (received, heard) = (b.udp.counters(link).packets_received, b.udp.heard(link));
    let events = b.events.len();
    let strays = b.udp.strays;
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let seen = tape.borrow().clone();
    let to_b = seen.iter().filter(|(to, _)| *to == addrs[1]).map(|(_, datagram)| datagram);
    let mut flip = 7;
    for datagram in to_b {
        stranger.send_to(datagram, addrs[1]).unwrap();
        flip = (flip * 31 + 11) % (datagram.len() * 8);
        let mut damaged = datagram.clone();
        damaged[flip / 8] ^= 1 << (flip % 8);
        stranger.send_to(&damaged, addrs[1]).unwrap();
        b.turn();
    }
    assert_eq!(b.udp.counters(link).packets_received, received);
    assert_eq!((b.udp.heard(link), b.link_to(0)), (heard, Some(link)));
    assert_eq!(b.events.len(), events, "{:?}", b.events);
    assert!(b.udp.strays > strays);
}

#[test]
fn who_proves_nothing_gets_no_state_no_amplification_and_no_link_killed() {
    let (mut nodes, addrs) = pair();
    let [a, b] = &mut nodes[..] else { unreachable!() };
    let links = (a.link_to(1).unwrap(), b.link_to(0).unwrap());
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let claim = |from, to| Claim {
        cluster: identity("test", 0).cluster().tag(),
        from: Member::new(from, 99),
        to: NodeId(to),
    };
    let tape = wiretap(|_| false);
    let (mut forged, mut last) = (0, clock::now());
    for_a_while(&mut [&mut *a, &mut *b], || {
        // Within the budget for strangers, so that all are heard.
        if clock::now().since(last) < Duration::from_millis(4) {
            return;
        }
        last = clock::now();
        let mut packet = [0; INIT_LEN];
        Handshake::Knock(claim(1, 2)).emit(0, &mut packet);
        stranger.send_to(&packet, addrs[1]).unwrap();
        let init = Handshake::Init {
            claim: claim(2, 1),
            cookie: [forged as u8; COOKIE_LEN],
            noise: [9; NOISE_1_LEN],
        };
        init.emit(77, &mut packet);
        stranger.send_to(&packet, addrs[0]).unwrap();
        forged += 2 * INIT_LEN;
    });
    // A knock of a "later" incarnation made `b` ask, and what the real `a` said settled it.
    assert!(tape.borrow().iter().any(|(_, datagram)| is_handshake(datagram, 3)), "asked");
    assert!(a.udp.peers[0].answered.iter().flatten().all(|answered| answered.offered != 77));
    assert_eq!((a.events.len(), b.events.len()), (1, 1), "{:?} {:?}", a.events, b.events);
    assert_eq!((a.link_to(1), b.link_to(0)), (Some(links.0), Some(links.1)));
    let to = |addr, flags: u8| -> usize {
        let tape = tape.borrow();
        let sent = tape.iter().filter(|(to, bytes)| *to == addr && bytes[1] == flags);
        sent.map(|(_, bytes)| bytes.len()).sum()
    };
    let provoked = to(addrs[0], FLAG_HANDSHAKE) + to(addrs[1], FLAG_HANDSHAKE);
    assert!(provoked <= 3 * forged, "{provoked} bytes for {forged}");
    // Whoever asked, from wherever: only configured addresses hear of it.
    assert!(tape.borrow().iter().all(|(to, _)| addrs.contains(to)));
}

#[test]
fn a_node_cannot_be_another() {
    let addrs = addresses(2);
    for impostor in 0..2 {
        let mut honest = Node::start(&addrs, 1 - impostor, 1);
        let mut config = config(&addrs, impostor, 1);
        // A node of the same cluster, with the address of another.
        config.identity = Some(identity("test", 6));
        let mut impostor = Node::with(&config);
        for_a_while(&mut [&mut honest, &mut impostor], || {});
        assert!(honest.events.is_empty(), "{:?}", honest.events);
        assert!(impostor.events.iter().all(|event| !matches!(event, UdpEvent::Refused { .. })));
    }
}

#[test]
fn whatever_of_a_handshake_is_lost_is_said_again() {
    // Init, Retry, Answer, Finish, Knock.
    for kind in 1..=5 {
        let mut lost = 0;
        let tape = wiretap(move |bytes| {
            lost += u32::from(is_handshake(bytes, kind));
            is_handshake(bytes, kind) && lost <= 2
        });
        pair();
        assert!(tape.borrow().iter().any(|(_, bytes)| is_handshake(bytes, kind)), "kind {kind}");
    }
}

#[test]
fn keys_are_renewed_under_way() {
    let (mut nodes, _) = pair();
    let [a, b] = &mut nodes[..] else { unreachable!() };
    for node in [&mut *a, &mut *b] {
        node.udp.links_mut().for_each(|link| link.keys.limit(50, 100_000));
    }
    let tape = wiretap(|_| false);
    stream(a, b, 400);
    let tape = tape.borrow();
    let phases = tape.iter().map(|(_, datagram)| datagram[1] & FLAG_KEY_PHASE != 0);
    let changes = phases.clone().zip(phases.skip(1)).filter(|(a, b)| a != b).count();
    assert!(changes >= 3, "{changes} changes in {} datagrams", tape.len());
    assert_eq!((a.events.len(), b.events.len()), (1, 1));
}

#[test]
fn a_used_up_key_ends_the_link_and_another_comes_up() {
    let (mut nodes, _) = pair();
    let [a, b] = &mut nodes[..] else { unreachable!() };
    let old = a.link_to(1).unwrap();
    a.udp.links_mut().for_each(|link| link.keys.limit(u64::MAX, 20));
    until(&mut [&mut *a, &mut *b], "another link", |nodes| {
        let value = nodes[0].own.lane(CONTROL).words[0].value + 1;
        nodes[0].own.set_word(CONTROL, 0, value);
        nodes[0].link_to(1).is_some_and(|link| link != old) && nodes[1].events.len() > 2
    });
    assert!(matches!(a.events[1], UdpEvent::Dead { link, .. } if link == old));
}
