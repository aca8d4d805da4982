//! Two talks and what they say to each other, without pollers: which addresses they come to.

use std::collections::VecDeque;
use std::time::Instant;

use super::super::tests::{adapters, lanes};
use super::*;
use crate::clock;

/// One end of a talk.
struct Side {
    places: Vec<Place>,
    source: Arc<Memory>,
    talk: Talk,
    /// What it has to say.
    said: VecDeque<Vec<u8>>,
    psn: u32,
    end: Option<Outcome>,
}

impl Side {
    fn new(me: u16, places: Vec<Place>) -> Side {
        let ids = (Member::new(me, 1), Member::new(3 - me, 1));
        let talk = Talk::new(UdpLink::default(), ids, 0, clock::now());
        let source = Arc::new(Memory::anonymous(8192).unwrap());
        Side { places, source, talk, said: VecDeque::new(), psn: 100 * u32::from(me), end: None }
    }

    /// Its talk, and what that stands on.
    fn with<T>(
        &mut self,
        act: impl FnOnce(&mut Talk, &Ground<'_>, &mut VecDeque<Vec<u8>>) -> T,
    ) -> T {
        self.psn += 1;
        let Side { places, source, talk, said, psn, .. } = self;
        let lanes = &lanes();
        act(talk, &Ground { places, source, lanes, control_head: 0, psn: *psn, by_udp: true }, said)
    }

    fn poll(&mut self) {
        if self.end.is_none() {
            self.end = self.with(|talk, ground, said| {
                let mut say = |message: Message<'_>| {
                    let (bytes, len) = emit(&message);
                    said.push_back(bytes[..len].to_vec());
                };
                talk.poll(ground, clock::now(), &mut say)
            });
        }
    }

    fn hear(&mut self, message: Message<'_>) {
        if self.end.is_none() {
            self.with(|talk, ground, _| talk.note(ground, message, clock::now()));
        }
    }

    /// The latest offer that it has made.
    fn offer(&mut self) -> Offer {
        loop {
            self.poll();
            if let Some(note) = self.said.pop_back()
                && let Some(Message::Offer(offer)) = Message::parse(&note)
            {
                self.said.clear();
                return offer;
            }
        }
    }
}

/// One does what is due, and the other hears of it.
fn turn(from: &mut Side, to: &mut Side) {
    from.poll();
    while let Some(note) = from.said.pop_front() {
        to.hear(Message::parse(&note).expect("a note"));
    }
}

/// Lets the two talk until both have come to an end, and says which addresses the queue pair is of.
fn led_to(a: &mut Side, b: &mut Side) -> [String; 2] {
    let start = Instant::now();
    while a.end.is_none() || b.end.is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "they do not come to an end");
        turn(a, b);
        turn(b, a);
    }
    [a, b].map(|side| match side.end.as_ref().expect("an end") {
        Outcome::Up { link, .. } => link.via().to_owned(),
        Outcome::Down { why, .. } => panic!("{why}"),
    })
}

/// A place that says to be where nobody is.
fn elsewhere(place: &Place, last: u8) -> Place {
    let mut place = place.clone();
    place.gid[12..].copy_from_slice(&[10, 99, 0, last]);
    place
}

#[test]
fn all_addresses_of_the_peer_are_tried_however_few_there_are_here() {
    let Some([a, b]) = adapters() else { return };
    let bad = [1, 2].map(|last| elsewhere(&b, last));
    let good = [a.to_string(), b.to_string()];
    let many = vec![bad[0].clone(), bad[1].clone(), b.clone()];
    // Whoever makes the offers.
    let (mut x, mut y) = (Side::new(2, vec![a.clone()]), Side::new(1, many.clone()));
    assert_eq!(led_to(&mut x, &mut y), good);
    let (mut x, mut y) = (Side::new(1, vec![a]), Side::new(2, many));
    assert_eq!(led_to(&mut x, &mut y), good);
}

#[test]
fn an_answer_that_cannot_be_connected_to_costs_its_pair_and_no_more() {
    let Some([a, b]) = adapters() else { return };
    let other = elsewhere(&a, 1);
    let mut side = Side::new(2, vec![a.clone(), other.clone()]);
    let first = side.offer();
    assert_eq!((first.gid, first.places, first.wants), (a.gid, 2, 0));
    // Its lanes are others than ours.
    let answer = Offer {
        attempt: first.attempt,
        places: 2,
        inbox_len: first.inbox_len + 1,
        gid: b.gid,
        ..first
    };
    side.hear(Message::Answer(answer));
    let second = side.offer();
    assert_eq!((second.gid, second.wants), (other.gid, 1), "the next pair");
    assert_ne!(first.attempt, second.attempt);
}

#[test]
fn a_peer_that_says_nothing_costs_no_address() {
    let Some([a, _]) = adapters() else { return };
    let mut side = Side::new(2, vec![a.clone(), elsewhere(&a, 1)]);
    let first = side.offer();
    let again = loop {
        let offer = side.offer();
        if offer.attempt != first.attempt {
            break offer;
        }
    };
    assert_eq!((again.gid, again.wants), (first.gid, 0));
}

#[test]
fn ends_in_different_partitions_say_so_and_do_not_wait_for_data() {
    let Some([mut a, b]) = adapters() else { return };
    assert_eq!(b.partition, (0, 0xffff), "software RoCE has one");
    a.partition.1 = 0x8001;
    let (mut x, mut y) = (Side::new(2, vec![a]), Side::new(1, vec![b]));
    let start = Instant::now();
    while x.end.is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not come to an end");
        turn(&mut x, &mut y);
        turn(&mut y, &mut x);
    }
    let Some(Outcome::Down { why, .. }) = &x.end else { panic!("they are linked") };
    assert!(why.contains("partition 0x8001") && why.contains("0xffff"), "{why}");
    assert!(y.talk.last_why.contains("0x8001"), "{}", y.talk.last_why);
}
