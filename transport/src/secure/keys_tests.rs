//! The keys of packets, by themselves.

use super::*;

const LEN: usize = HEADER_LEN + 5 + TAG_LEN;

fn secret(byte: u8) -> Secret {
    Zeroizing::new([byte; 32])
}

fn pair() -> (PacketKeys, PacketKeys) {
    let start = Time::from_millis(1);
    (PacketKeys::new(&secret(1), &secret(2), start), PacketKeys::new(&secret(2), &secret(1), start))
}

fn sealed(keys: &mut PacketKeys, number: u64) -> [u8; LEN] {
    let mut packet = [0; LEN];
    Header { flags: 0, connection: 7, number }.emit(&mut packet);
    packet[HEADER_LEN..][..5].copy_from_slice(b"hello");
    keys.seal(&mut packet).unwrap();
    packet
}

fn opens(keys: &mut PacketKeys, packet: &[u8; LEN]) -> bool {
    let mut packet = *packet;
    let opened = keys.open(&mut packet).map(|len| packet[HEADER_LEN..len] == *b"hello");
    assert_ne!(opened, Ok(false));
    opened.is_ok()
}

fn later(millis: u64) -> Time {
    Time::from_millis(1 + millis)
}

#[test]
fn a_sealed_packet_looks_as_it_always_did() {
    let (mut a, mut b) = pair();
    let packet = sealed(&mut a, 9);
    let hex: String = packet.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, SEALED);
    assert!(opens(&mut b, &packet));
    assert!(!opens(&mut a, &packet), "each direction has a key of its own");
}

const SEALED: &str =
    "0400000007000000000000000900000000000000c25c3f63123e9eca3d78e1b215044921f04570ec4e";

#[test]
fn a_tail_that_lies_elsewhere_makes_no_difference() {
    for (len, tail) in [(0, 0), (1, 1), (100, 31), (100, 99), (5000, 4096), (65_000, 64_935)] {
        let mut whole = vec![0; HEADER_LEN + len + TAG_LEN];
        Header { flags: 0, connection: 7, number: 9 }.emit(&mut whole);
        let content = whole[HEADER_LEN..][..len].iter_mut();
        content.enumerate().for_each(|(at, byte)| *byte = at as u8 ^ (at >> 8) as u8);
        let at = HEADER_LEN + len - tail;
        let (mut parted, elsewhere) = (whole.clone(), whole[at..][..tail].to_vec());
        parted[at..].fill(0xff);
        pair().0.seal(&mut whole).unwrap();
        pair().0.seal_with(&mut parted, &elsewhere).unwrap();
        assert_eq!(parted, whole, "{len} {tail}");
    }
    let mut short = sealed(&mut pair().0, 9);
    assert_eq!(pair().0.seal_with(&mut short, &[0; 6]), Err(UsedUp), "longer than the packet");
}

#[test]
fn every_flipped_bit_and_every_missing_byte_is_noticed() {
    let (mut a, mut b) = pair();
    let good = sealed(&mut a, 9);
    assert!(opens(&mut b, &good));
    for bit in 0..good.len() * 8 {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens(&mut b, &bad), "bit {bit}");
    }
    for len in 0..good.len() {
        assert_eq!(b.open(&mut good[..len].to_vec()), Err(Forged));
    }
    assert!(opens(&mut b, &good));
}

#[test]
fn a_number_is_never_sealed_twice_and_a_key_ends() {
    let (mut a, _) = pair();
    sealed(&mut a, 9);
    for number in [9, 8, u64::MAX] {
        let mut packet = [0; LEN];
        Header { flags: 0, connection: 7, number }.emit(&mut packet);
        assert_eq!(a.seal(&mut packet), Err(UsedUp));
    }
    a.seal.sealed_max = 3;
    sealed(&mut a, 10);
    sealed(&mut a, 11);
    let mut packet = [0; LEN];
    Header { flags: 0, connection: 7, number: 12 }.emit(&mut packet);
    assert_eq!(a.seal(&mut packet), Err(UsedUp));
    assert!(packet[HEADER_LEN..].iter().all(|&byte| byte == 0), "nothing was sealed");
}

#[test]
fn keys_are_renewed_again_and_again_whatever_is_overtaken() {
    let (mut a, mut b) = pair();
    let mut held = None;
    for phase in 0..5u64 {
        let at = later(phase * 1000);
        a.seal.sealed = RENEW_PACKETS;
        let before = sealed(&mut a, 100 * phase + 1);
        // Nothing of the current phase is confirmed: to go on would be two ahead.
        a.renew(at, a.seal.since);
        assert_eq!(a.seal.phase, phase % 2 == 1);
        assert!(opens(&mut b, &before));
        let overtaken = sealed(&mut a, 100 * phase + 2);
        a.renew(at + Duration::from_millis(500), at + Duration::from_millis(400));
        assert_eq!(a.seal.phase, phase % 2 == 0, "renewed");
        let (late, first) = (sealed(&mut a, 100 * phase + 3), sealed(&mut a, 100 * phase + 4));
        assert!(opens(&mut b, &first));
        assert!(opens(&mut b, &overtaken), "of the phase before");
        assert!(opens(&mut b, &late), "of the new phase, though older than its first");
        if let Some(outdated) = held.replace(overtaken) {
            assert!(!opens(&mut b, &outdated), "two phases ago");
        }
    }
}

#[test]
fn an_old_key_is_renewed_and_forgotten_in_the_end() {
    let (mut a, mut b) = pair();
    let first = sealed(&mut a, 1);
    assert!(opens(&mut b, &first));
    a.renew(later(1000), later(999));
    assert!(!a.seal.phase, "neither old nor worn");
    let overtaken = sealed(&mut a, 2);
    a.renew(later(0) + RENEW_AGE, later(999));
    assert!(a.seal.phase);
    assert!(opens(&mut b, &sealed(&mut a, 3)));
    assert!(opens(&mut b, &overtaken));
    assert!(opens(&mut b, &sealed(&mut a, 3 + OVERLAP)));
    assert!(!opens(&mut b, &overtaken), "the previous key is gone");
}

#[test]
fn secrets_are_not_shown() {
    assert_eq!(format!("{:?}", pair().0), "PacketKeys(..)");
}
