//! The keys of one link's packets, and sealing and opening in place.
//!
//! AES-256-GCM, a key for each direction, the packet number as nonce, the header as associated data. Sealing and
//! opening allocate nothing.
//!
//! A key does not last for ever. After [`RENEW_PACKETS`] or [`RENEW_AGE`] the sender derives the next one from it (one
//! way, HKDF) and flips the key phase bit; the receiver, which has the next one ready, follows at the first packet that
//! opens with it, and keeps the one before for what was overtaken on the way. With one bit for the phase a sender must not be two
//! ahead: it goes on only when a packet sealed with the current key was acknowledged. Should that never come, sealing
//! ends at [`SEALED_MAX`], far below what AES-GCM bears, and so does the link.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use zeroize::Zeroizing;

use crate::limits::DATAGRAM_MAX;
use crate::reliable::{FLAG_KEY_PHASE, HEADER_LEN, Header, TAG_LEN};
use crate::time::Time;

/// Packets after which a key is replaced.
const RENEW_PACKETS: u64 = 1 << 20;
/// Time after which a key is replaced.
const RENEW_AGE: Duration = Duration::from_secs(600);
/// Packets that one key seals at most (RFC 9001 §6.6 and B.1 have 2^23 for packets of up to 2^16 bytes).
const SEALED_MAX: u64 = 1 << 23;
const _: () = assert!(DATAGRAM_MAX <= 1 << 16, "packets are counted, hence bytes");
/// Packets after the first of a new phase in which old ones may still arrive.
const OVERLAP: u64 = 1 << 10;

/// What keys are derived from.
pub type Secret = Zeroizing<[u8; 32]>;

/// A packet was not sealed by the peer, or damaged on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packet is forged or damaged")]
pub struct Forged;

/// The key has sealed as much as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key of this link is used up")]
pub struct UsedUp;

/// Both directions of a link. `Debug` shows nothing of it.
pub struct PacketKeys {
    seal: Sealer,
    open: Opener,
}

struct Sealer {
    key: LessSafeKey,
    secret: Secret,
    phase: bool,
    since: Time,
    sealed: u64,
    /// Lowest number that was not used yet.
    next: u64,
    renew_packets: u64,
    sealed_max: u64,
}

struct Opener {
    current: LessSafeKey,
    phase: bool,
    /// Lowest number seen in this phase.
    first: u64,
    previous: Option<LessSafeKey>,
    /// When a packet with this number has come the previous key is forgotten.
    forget_at: u64,
    /// Ready, so that a forged phase bit costs no more than any forgery.
    next: LessSafeKey,
    next_secret: Secret,
}

fn derive(secret: &Secret, label: &'static str) -> Secret {
    let mut derived = Zeroizing::new([0; 32]);
    Prk::new_less_safe(HKDF_SHA256, &secret[..])
        .expand(&[label.as_bytes()], HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut derived[..]))
        .expect("a hash's length can be derived");
    derived
}

fn key(secret: &Secret) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, &derive(secret, "quintet packet key")[..]);
    LessSafeKey::new(key.expect("a key of 32 bytes"))
}

fn successor(secret: &Secret) -> Secret {
    derive(secret, "quintet next secret")
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl fmt::Debug for PacketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PacketKeys(..)")
    }
}

impl PacketKeys {
    /// Keys from the two secrets of a handshake that ended at `now`.
    pub fn new(send: &Secret, receive: &Secret, now: Time) -> Self {
        let next_secret = successor(receive);
        PacketKeys {
            seal: Sealer {
                key: key(send),
                secret: send.clone(),
                phase: false,
                since: now,
                sealed: 0,
                next: 0,
                renew_packets: RENEW_PACKETS,
                sealed_max: SEALED_MAX,
            },
            open: Opener {
                current: key(receive),
                phase: false,
                first: u64::MAX,
                previous: None,
                forget_at: 0,
                next: key(&next_secret),
                next_secret,
            },
        }
    }

    /// Smaller limits, so that a test meets them.
    #[cfg(test)]
    pub(crate) fn limit(&mut self, renew_packets: u64, sealed_max: u64) {
        self.seal.renew_packets = renew_packets;
        self.seal.sealed_max = sealed_max;
    }

    /// Replaces the sealing key if it is time. `confirmed`: the latest instant at which a packet was packed that the
    /// peer has acknowledged.
    pub fn renew(&mut self, now: Time, confirmed: Time) {
        let seal = &mut self.seal;
        let due = seal.sealed >= seal.renew_packets || now.since(seal.since) >= RENEW_AGE;
        if due && confirmed > seal.since {
            seal.secret = successor(&seal.secret);
            seal.key = key(&seal.secret);
            seal.phase = !seal.phase;
            seal.since = now;
            seal.sealed = 0;
        }
    }

    /// Seals a packet in place: header, frames, and [`TAG_LEN`] bytes of room.
    pub fn seal(&mut self, packet: &mut [u8]) -> Result<(), UsedUp> {
        self.seal_with(packet, &[])
    }

    /// The same of a packet whose last bytes before the room for its tag are not there yet: they are `tail`.
    pub fn seal_with(&mut self, packet: &mut [u8], tail: &[u8]) -> Result<(), UsedUp> {
        let seal = &mut self.seal;
        let number = Header::parse(packet).map_err(|_| UsedUp)?.number;
        // A nonce that was used before would give the key away.
        if seal.sealed >= seal.sealed_max || number < seal.next || number == u64::MAX {
            return Err(UsedUp);
        }
        seal.sealed += 1;
        seal.next = number + 1;
        if seal.phase {
            packet[1] |= FLAG_KEY_PHASE;
        }
        let (head, rest) = packet.split_at_mut(HEADER_LEN);
        let body = rest.len().checked_sub(tail.len() + TAG_LEN).ok_or(UsedUp)?;
        let (body, room) = rest.split_at_mut(body);
        seal.key
            .seal_in_place_scatter(nonce(number), Aad::from(&*head), body, tail, room)
            .map_err(|_| UsedUp)
    }

    /// Opens a packet in place and returns its length without the tag. One decryption at most, whatever arrives.
    pub fn open(&mut self, packet: &mut [u8]) -> Result<usize, Forged> {
        let header = Header::parse(packet).map_err(|_| Forged)?;
        let open = &mut self.open;
        let number = header.number;
        let same = (header.flags & FLAG_KEY_PHASE != 0) == open.phase;
        let (head, body) = packet.split_at_mut(HEADER_LEN);
        let ahead = !same && (number > open.first);
        let opens = match (same, ahead) {
            (true, _) => &open.current,
            (false, true) => &open.next,
            (false, false) => open.previous.as_ref().ok_or(Forged)?,
        };
        let len =
            opens.open_in_place(nonce(number), Aad::from(&*head), body).map_err(|_| Forged)?.len();
        if ahead {
            let next_secret = successor(&open.next_secret);
            let next = std::mem::replace(&mut open.next, key(&next_secret));
            open.previous = Some(std::mem::replace(&mut open.current, next));
            open.next_secret = next_secret;
            open.phase = !open.phase;
            open.first = number;
            open.forget_at = number.saturating_add(OVERLAP);
        } else if same {
            open.first = open.first.min(number);
            if number >= open.forget_at {
                open.previous = None;
            }
        }
        Ok(HEADER_LEN + len)
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
