//! Handshakes, message by message: nothing goes by itself, the test carries what it wants, when it wants.

use std::cell::RefCell;
use std::rc::Rc;

use super::dial::{COMPLAIN_EVERY, HELLO_APART, HELLO_EVERY, PENDING_MAX};
use super::socket::refusal;
use super::tests::{Node, addresses, identity};
use super::*;
use crate::reliable::{COOKIE_LEN, Claim, HEADER_LEN, Handshake, INIT_LEN, NOISE_1_LEN, VERSION};

const INIT: u8 = 1;
const RETRY: u8 = 2;
const ANSWER: u8 = 3;
const FINISH: u8 = 4;
const KNOCK: u8 = 5;

/// Two nodes, of which the second begins, and what they wanted to send.
struct Post {
    low: Node,
    high: Node,
    now: Time,
    sent: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Post {
    fn new() -> Post {
        let sent = Rc::new(RefCell::new(Vec::new()));
        let notes = sent.clone();
        refusal::set(move |_, bytes, _| {
            notes.borrow_mut().push(bytes.to_vec());
            Some(libc::EPERM)
        });
        let addrs = addresses(2);
        let (low, high) = (Node::start(&addrs, 0, 1), Node::start(&addrs, 1, 1));
        Post { low, high, now: clock::now(), sent }
    }

    fn later(&mut self, time: Duration) {
        self.now += time;
    }

    /// What was sent of that kind since the last call, and forgets the rest.
    fn take(&mut self, kind: u8) -> Vec<Vec<u8>> {
        let mut sent = self.sent.take();
        sent.retain(|packet| packet[1] == FLAG_HANDSHAKE && packet[HEADER_LEN] == kind);
        sent
    }

    fn only(&mut self, kind: u8) -> Vec<u8> {
        let mut sent = self.take(kind);
        assert_eq!(sent.len(), 1, "of kind {kind}");
        sent.remove(0)
    }

    fn low_gets(&mut self, packet: &[u8]) {
        self.low.udp.on_datagram(self.now, &mut packet.to_vec(), &self.low.own);
    }

    fn high_gets(&mut self, packet: &[u8]) {
        self.high.udp.on_datagram(self.now, &mut packet.to_vec(), &self.high.own);
    }

    /// From the first Init of the higher node, or one that a knock provokes, to the answer.
    fn answered(&mut self) -> Vec<u8> {
        let mut knock = [0; INIT_LEN];
        Handshake::Knock(claim(1, 2)).emit(0, &mut knock);
        self.later(HELLO_EVERY);
        self.high_gets(&knock);
        let init = self.only(INIT);
        self.low_gets(&init);
        let retry = self.only(RETRY);
        self.high_gets(&retry);
        let init = self.only(INIT);
        self.low_gets(&init);
        self.only(ANSWER)
    }

    /// Own and the peer's connection id of the link that each has.
    fn ids(&self) -> [Option<(u64, u64)>; 2] {
        [&self.low, &self.high].map(|node| {
            let link = node.udp.slots[node.udp.live(0)?].link.as_deref()?;
            Some((link.id, link.connection.remote()))
        })
    }

    fn is_one_link(&self) -> bool {
        let [low, high] = self.ids();
        low.is_some() && low == high.map(|(own, remote)| (remote, own))
    }
}

fn claim(from: u16, to: u16) -> Claim {
    Claim {
        cluster: identity("test", 0).cluster().tag(),
        from: Member::new(from, 1),
        to: NodeId(to),
    }
}

#[test]
fn messages_one_by_one_make_a_link_and_repeated_ones_change_nothing() {
    let mut post = Post::new();
    let answer = post.answered();
    post.high_gets(&answer);
    let finish = post.only(FINISH);
    post.low_gets(&finish);
    assert!(post.is_one_link());
    let ids = post.ids();
    for _ in 0..3 {
        post.high_gets(&answer);
        post.low_gets(&finish);
    }
    assert_eq!(post.ids(), ids);
    assert!(post.take(ANSWER).is_empty() && post.take(FINISH).is_empty());
}

#[test]
fn two_handshakes_that_overlap_end_in_one_link() {
    let mut post = Post::new();
    let first = post.answered();
    post.high_gets(&first);
    let slow = post.only(FINISH);
    // The lower node has no link yet and says so; the higher one gives its half of the first up for a second.
    let second = post.answered();
    post.low_gets(&slow);
    post.high_gets(&second);
    let finish = post.only(FINISH);
    post.low_gets(&finish);
    assert!(post.is_one_link(), "{:?}", post.ids());
    let ids = post.ids();
    post.low_gets(&slow);
    assert_eq!(post.ids(), ids);
}

#[test]
fn who_reads_a_cookie_buys_one_answer_at_a_time_and_no_more_than_two_places() {
    let mut post = Post::new();
    let mut init = [0; INIT_LEN];
    let mut write = |id: u64, cookie, noise: u8| {
        let claim = claim(2, 1);
        Handshake::Init { claim, cookie, noise: [noise; NOISE_1_LEN] }.emit(id, &mut init);
        init
    };
    let first = write(7, [0; COOKIE_LEN], 9);
    post.low_gets(&first);
    let retry = post.only(RETRY);
    let Ok((_, Handshake::Retry { cookie })) = Handshake::parse(&retry) else { panic!("a retry") };
    for _ in 0..10 {
        post.later(HELLO_APART);
        for noise in 1..50 {
            let packet = write(7, cookie, noise);
            post.low_gets(&packet);
        }
        let answers = post.take(ANSWER);
        // One that is new, and again what is already paid for, to who repeats itself.
        assert!(!answers.is_empty() && answers.len() <= PENDING_MAX + 1, "{}", answers.len());
        assert!(answers.iter().all(|answer| answer.len() <= 3 * INIT_LEN));
    }
    // The cookie is for that connection id, and for a while.
    let other = write(8, cookie, 60);
    post.low_gets(&other);
    assert!(post.take(ANSWER).is_empty());
    post.later(Duration::from_secs(10));
    let late = write(7, cookie, 61);
    post.low_gets(&late);
    assert!(post.take(ANSWER).is_empty());
    assert!(post.low.udp.slots.iter().all(|slot| slot.link.is_none()));
}

#[test]
fn a_handshake_under_way_makes_no_link_that_is_not_wanted_any_more() {
    for unwanted in [NodeId(1), NodeId(2)] {
        let mut post = Post::new();
        let answer = post.answered();
        post.high.udp.want(unwanted, false);
        post.high_gets(&answer);
        let finish = post.take(FINISH);
        assert_eq!(finish.is_empty(), unwanted == NodeId(1));
        post.low.udp.want(unwanted, false);
        finish.iter().for_each(|finish| post.low_gets(finish));
        assert_eq!(post.ids()[0], None, "at the lower node");
    }
}

#[test]
fn another_version_and_another_cluster_are_told_but_not_again_and_again() {
    let mut post = Post::new();
    let mut old = [0; INIT_LEN];
    for version in [VERSION - 1, VERSION + 1] {
        old[0] = version;
        post.low_gets(&old);
    }
    assert_eq!(post.low.udp.strangers.foreign, Some(VERSION - 1));
    let mut knock = [0; INIT_LEN];
    Handshake::Knock(Claim { cluster: 5, ..claim(1, 2) }).emit(0, &mut knock);
    let mut told = Vec::new();
    for _ in 0..4 {
        post.high_gets(&knock);
        told.push(post.high.udp.peers[0].complained);
        post.later(COMPLAIN_EVERY / 2);
    }
    assert_eq!((told[0], told[2]), (told[1], told[3]));
    assert!(told[0].is_some() && told[0] < told[2]);
    assert!(post.take(KNOCK).is_empty());
}

/// Whatever arrives: nothing is sent that is longer than three times of it, nothing ends, nobody panics.
#[test]
fn noise_of_all_kinds_changes_nothing() {
    let mut post = Post::new();
    let answer = post.answered();
    post.high_gets(&answer);
    let finish = post.only(FINISH);
    post.low_gets(&finish);
    // A second handshake is pending at both.
    let pending = post.answered();
    let ids = post.ids();
    let known: Vec<u64> = [&answer, &finish, &pending]
        .map(|packet| Header::parse(packet).unwrap().connection)
        .into_iter()
        .chain([0, 1])
        .collect();
    let mut state = 1_u64;
    let mut random = move |bound: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    for _ in 0..20_000 {
        let len = if random(2) == 0 { INIT_LEN } else { random(500) };
        let mut packet: Vec<u8> = (0..len).map(|_| random(256) as u8).collect();
        if let Some(header) = packet.first_chunk_mut::<{ HEADER_LEN + 1 }>() {
            let flags = [0, 1, 2, FLAG_HANDSHAKE, FLAG_HANDSHAKE, FLAG_HANDSHAKE][random(6)];
            let connection = known[random(known.len())];
            let number = if flags == FLAG_HANDSHAKE { 0 } else { random(100) as u64 };
            Header { flags, connection, number }.emit(header);
            header[HEADER_LEN] = random(7) as u8;
        }
        post.sent.take();
        post.low_gets(&packet);
        post.high_gets(&packet);
        let provoked: usize = post.sent.borrow().iter().map(Vec::len).sum();
        assert!(provoked <= 3 * len, "{provoked} bytes for {len}");
        assert_eq!(post.ids(), ids);
    }
    assert!(post.low.events.is_empty() && post.high.events.is_empty());
}
