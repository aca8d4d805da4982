//! What sealing and opening cost at least: AES-256-GCM of the library that the transport uses, in place, a packet each.
//!
//! A packet is its number, which is associated data and the nonce, the payload, and the tag. The key is no secret and
//! never renewed: nothing here is worth hiding, and nothing of it leaves a measurement.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::io;

const NUMBER: usize = 8;
/// Bytes of a packet that are no payload.
pub(crate) const OVERHEAD: usize = NUMBER + 16;

/// The sealing side, or the opening one.
pub(crate) struct Cipher {
    key: LessSafeKey,
    next: u64,
}

impl Cipher {
    /// Both sides have the same key.
    pub(crate) fn new() -> Cipher {
        let key = UnboundKey::new(&AES_256_GCM, &[1; 32]).expect("a key of 32 bytes");
        Cipher { key: LessSafeKey::new(key), next: 0 }
    }

    /// Seals a packet under the next number: what lies where the payload goes is the payload.
    pub(crate) fn seal(&mut self, packet: &mut [u8]) -> io::Result<()> {
        let number = self.next.to_be_bytes();
        self.next += 1;
        let (head, body) = packet.split_first_chunk_mut::<NUMBER>().ok_or_else(too_short)?;
        let (payload, room) = body.split_last_chunk_mut::<16>().ok_or_else(too_short)?;
        *head = number;
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(number), Aad::from(number), payload)
            .map_err(|_| io::Error::other("a packet could not be sealed"))?;
        room.copy_from_slice(tag.as_ref());
        Ok(())
    }

    /// The payload of a packet, if it is as it was sealed.
    pub(crate) fn open<'a>(&self, packet: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let (number, body) = packet.split_first_chunk_mut::<NUMBER>().ok_or_else(too_short)?;
        let opened = self.key.open_in_place(nonce(*number), Aad::from(*number), body);
        opened.map(|payload| &*payload).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "a packet is not as it was sealed")
        })
    }
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a packet has more than {OVERHEAD} bytes"))
}

fn nonce(number: [u8; NUMBER]) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number);
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_opens_as_it_was_sealed_and_no_other_does() {
        let (mut ours, theirs) = (Cipher::new(), Cipher::new());
        let mut packet = [7; 100 + OVERHEAD];
        ours.seal(&mut packet).expect("room");
        assert!(packet[NUMBER..].iter().filter(|byte| **byte == 7).count() < 10, "it is hidden");
        for bit in [0, 8 * NUMBER, 8 * packet.len() - 1] {
            let mut other = packet;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(theirs.open(&mut other).is_err(), "bit {bit}");
        }
        assert_eq!(theirs.open(&mut packet).expect("ours"), [7; 100]);
        let mut next = [7; 100 + OVERHEAD];
        ours.seal(&mut next).expect("room");
        assert_eq!(next[..NUMBER], 1u64.to_be_bytes(), "no number is used twice");
        assert_eq!(theirs.open(&mut next).expect("ours"), [7; 100]);
    }

    #[test]
    fn what_has_no_room_for_number_and_tag_is_no_packet() {
        for len in [0, NUMBER, OVERHEAD - 1] {
            assert!(Cipher::new().seal(&mut vec![0; len]).is_err(), "{len}");
            assert!(Cipher::new().open(&mut vec![0; len]).is_err(), "{len}");
        }
    }
}
