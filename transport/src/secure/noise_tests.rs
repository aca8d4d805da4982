//! Handshakes of two sides in one place.

use proptest::prelude::*;

use super::*;
use crate::reliable::{Handshake, INIT_LEN, NOISE_AT, TAG_LEN};
use crate::secure::Authority;

const LONGEST: usize = PAYLOAD_MAX + NOISE_OVERHEAD;

fn identity(cluster: u8, node: u16) -> Identity {
    Authority::new("test", [cluster; 32]).unwrap().admit(NodeId(node), [node as u8; 32])
}

/// Message 2 of node 1 to node 2, and node 2's side of it.
fn answered(one: &Identity, two: &Identity, prologues: [&[u8]; 2]) -> (Noise, Noise, Vec<u8>) {
    let (initiator, first) = Noise::initiator(two, prologues[0], [11; 32]);
    let mut responder = Noise::responder(one, prologues[1], [12; 32], &first).unwrap();
    let mut out = [0; LONGEST];
    let len = responder.write(one, b"from one", &mut out).unwrap();
    (initiator, responder, out[..len].to_vec())
}

#[test]
fn both_sides_learn_who_the_other_is_and_get_the_same_keys() {
    let (one, two) = (identity(1, 1), identity(1, 2));
    let (mut initiator, mut responder, second) = answered(&one, &two, [b"same", b"same"]);
    let (mut greeting, mut out) = ([0; GREETING_MAX], [0; LONGEST]);
    let len = initiator.read(&two, NodeId(1), &second, &mut greeting).unwrap();
    assert_eq!(&greeting[..len], b"from one");
    let len = initiator.write(&two, b"from two", &mut out).unwrap();
    let len = responder.read(&one, NodeId(2), &out[..len], &mut greeting).unwrap();
    assert_eq!(&greeting[..len], b"from two");
    let now = Time::from_millis(1);
    let (mut a, mut b) = (initiator.keys(now), responder.keys(now));
    for (from, to) in [(0, 1), (1, 0)] {
        let keys = [&mut a, &mut b];
        let mut packet = [0; 40];
        crate::reliable::Header { flags: 0, connection: 1, number: 1 + from }.emit(&mut packet);
        let [a, b] = keys;
        let (seal, open) = if to == 1 { (a, b) } else { (b, a) };
        seal.seal(&mut packet).unwrap();
        assert_eq!(open.open(&mut packet), Ok(40 - TAG_LEN));
        assert!(packet[20..24].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn who_is_not_of_the_cluster_or_not_who_it_claims_is_refused() {
    let (one, two) = (identity(1, 1), identity(1, 2));
    let mut greeting = [0; GREETING_MAX];
    let mut read = |one: &Identity, prologues: [&[u8]; 2], from: u16| {
        let (mut initiator, _, second) = answered(one, &two, prologues);
        initiator.read(&two, NodeId(from), &second, &mut greeting).unwrap_err()
    };
    assert_eq!(read(&one, [b"said", b"changed"], 1), BROKEN);
    assert!(read(&identity(9, 1), [b"", b""], 1).0.contains("not one of this cluster"));
    assert!(read(&one, [b"", b""], 3).0.contains("another node"));
    // A certificate that was seen on the way, with a key of one's own.
    let (mut initiator, first) = Noise::initiator(&two, b"", [11; 32]);
    let thief = identity(1, 7);
    let mut responder = Noise::responder(&thief, b"", [12; 32], &first).unwrap();
    let mut out = [0; LONGEST];
    let len = responder.write(&one, b"", &mut out).unwrap();
    let refused = initiator.read(&two, NodeId(1), &out[..len], &mut greeting).unwrap_err();
    assert!(refused.0.contains("another key"));
}

#[test]
fn a_damaged_message_is_refused_and_the_whole_one_still_welcome() {
    let (one, two) = (identity(1, 1), identity(1, 2));
    let (mut initiator, _, second) = answered(&one, &two, [b"", b""]);
    let mut greeting = [0; GREETING_MAX];
    for bit in 0..second.len() * 8 {
        let mut bad = second.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // The highest bit of an X25519 key means nothing, but the transcript knows it.
        assert!(initiator.read(&two, NodeId(1), &bad, &mut greeting).is_err(), "bit {bit}");
    }
    for len in 0..second.len() {
        assert!(initiator.read(&two, NodeId(1), &second[..len], &mut greeting).is_err());
    }
    initiator.read(&two, NodeId(1), &second, &mut greeting).unwrap();
}

#[test]
fn a_damaged_end_leaves_the_whole_one_welcome_or_the_handshake_over() {
    let (one, two) = (identity(1, 1), identity(1, 2));
    let mut greeting = [0; GREETING_MAX];
    let mut ended = 0;
    // The sealed static key, its tag, and something of the payload.
    for byte in 0..60 {
        let (mut initiator, mut responder, second) = answered(&one, &two, [b"", b""]);
        initiator.read(&two, NodeId(1), &second, &mut greeting).unwrap();
        let mut out = [0; LONGEST];
        let len = initiator.write(&two, b"from two", &mut out).unwrap();
        let mut bad = out[..len].to_vec();
        bad[byte] ^= 1;
        assert!(responder.read(&one, NodeId(2), &bad, &mut greeting).is_err(), "byte {byte}");
        let over = responder.is_over();
        let whole = responder.read(&one, NodeId(2), &out[..len], &mut greeting);
        assert_eq!(over, whole.is_err(), "byte {byte}");
        ended += u32::from(over);
    }
    assert_eq!(ended, 12, "where the key was good");
}

#[test]
fn a_key_that_makes_no_secret_is_refused() {
    let one = identity(1, 1);
    let mut responder = Noise::responder(&one, b"", [12; 32], &[0; NOISE_1_LEN]).unwrap();
    assert!(responder.write(&one, b"", &mut [0; LONGEST]).is_err());
}

#[test]
fn no_answer_is_three_times_as_long_as_what_provoked_it() {
    let (one, two) = (identity(1, 1), identity(1, 2));
    let (_, first) = Noise::initiator(&two, b"", [11; 32]);
    let mut responder = Noise::responder(&one, b"", [12; 32], &first).unwrap();
    let longest = responder.write(&one, &[0; GREETING_MAX], &mut [0; LONGEST]).unwrap();
    let mut packet = [0; NOISE_AT + LONGEST];
    let len = Handshake::Answer(&[0; LONGEST][..longest]).emit(1, &mut packet);
    assert!(len <= 3 * INIT_LEN, "{len} bytes");
}

proptest! {
    #[test]
    fn noise_never_panics(first: [u8; NOISE_1_LEN], message in proptest::collection::vec(any::<u8>(), 0..LONGEST + 50)) {
        let (one, two) = (identity(1, 1), identity(1, 2));
        let mut greeting = [0; GREETING_MAX];
        let (mut initiator, _) = Noise::initiator(&two, b"", [11; 32]);
        prop_assert!(initiator.read(&two, NodeId(1), &message, &mut greeting).is_err());
        if let Ok(mut responder) = Noise::responder(&one, b"", [12; 32], &first)
            && responder.write(&one, b"", &mut [0; LONGEST]).is_ok()
        {
            prop_assert!(responder.read(&one, NodeId(2), &message, &mut greeting).is_err());
        }
    }
}
