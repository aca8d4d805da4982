//! What two nodes tell each other before they have a queue pair: notes, carried by their UDP link, whose peer is known.
//!
//! A note may be lost; who waits for an answer says it again. Layout, little-endian: version, kind, then per kind the
//! fields below in order, the link that is meant, or a reason in UTF-8.

use crate::limits::SERVICE_LEVEL_MAX;

/// Most bytes of a note.
pub(crate) const NOTE_MAX: usize = 200;
const VERSION: u8 = 3;

/// All that the peer must know to connect its queue pair with ours, and to write into our inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Which try this is. A later one replaces an earlier one.
    pub(crate) attempt: u8,
    /// `ibv_mtu` of the port.
    pub(crate) mtu: u8,
    /// How many addresses its sender has, and which of the other's it means.
    pub(crate) places: u8,
    pub(crate) wants: u8,
    /// The lanes of a link may go by UDP where no queue pair comes up again.
    pub(crate) by_udp: bool,
    /// Local id of the port (InfiniBand).
    pub(crate) lid: u16,
    /// Key of the partition, and the service level of what is sent (InfiniBand).
    pub(crate) partition: u16,
    pub(crate) service_level: u8,
    pub(crate) gid: [u8; 16],
    pub(crate) qpn: u32,
    pub(crate) psn: u32,
    /// The inbox: key, address, size.
    pub(crate) rkey: u32,
    pub(crate) inbox: u64,
    pub(crate) inbox_len: u64,
    /// Our CONTROL log begins here for the peer.
    pub(crate) control_from: u64,
    /// The link that shall go on over it: the packet number that its first queue pair began with here. 0: a new one.
    pub(crate) resumes: u32,
    /// Of that link's queue pair that failed: the packet number that the other's end of it began with.
    pub(crate) after: u32,
}

/// What the node says that may not make offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The link that shall go on, and which of its queue pairs failed, as in an offer.
    pub(crate) resumes: u32,
    pub(crate) after: u32,
    /// How many addresses it has.
    pub(crate) places: u8,
}

/// A note's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// From the node with the higher id: let us try this.
    Offer(Offer),
    /// To an offer, with the same attempt: connected, and waiting for your data.
    Answer(Offer),
    /// From the node with the lower id: make me an offer, or decline.
    Ask(Ask),
    /// No verbs with you, because.
    Decline(&'a str),
}

impl<'a> Message<'a> {
    /// Writes it; returns its length.
    pub(crate) fn emit(&self, out: &mut [u8; NOTE_MAX]) -> usize {
        let (kind, offer) = match self {
            Message::Offer(offer) => (1, Some(offer)),
            Message::Answer(offer) => (2, Some(offer)),
            Message::Ask(_) => (3, None),
            Message::Decline(_) => (4, None),
        };
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&[VERSION, kind]);
        if let Some(offer) = offer {
            put(&[offer.attempt, offer.mtu, offer.places, offer.wants, offer.by_udp.into()]);
            put(&offer.lid.to_le_bytes());
            put(&offer.partition.to_le_bytes());
            put(&[offer.service_level]);
            put(&offer.gid);
            for field in [offer.qpn, offer.psn, offer.rkey] {
                put(&field.to_le_bytes());
            }
            for field in [offer.inbox, offer.inbox_len, offer.control_from] {
                put(&field.to_le_bytes());
            }
            put(&offer.resumes.to_le_bytes());
            put(&offer.after.to_le_bytes());
        }
        if let Message::Ask(ask) = self {
            put(&ask.resumes.to_le_bytes());
            put(&ask.after.to_le_bytes());
            put(&[ask.places]);
        }
        if let Message::Decline(why) = self {
            let mut len = why.len().min(NOTE_MAX - 2);
            while !why.is_char_boundary(len) {
                len -= 1;
            }
            put(&why.as_bytes()[..len]);
        }
        at
    }

    /// Reads it; `None` if it is not one of ours.
    pub(crate) fn parse(note: &'a [u8]) -> Option<Message<'a>> {
        let (&[version, kind], body) = note.split_first_chunk()?;
        if version != VERSION {
            return None;
        }
        match kind {
            1 => Some(Message::Offer(parse_offer(body)?)),
            2 => Some(Message::Answer(parse_offer(body)?)),
            3 => Some(Message::Ask(parse_ask(body)?)),
            4 => Some(Message::Decline(std::str::from_utf8(body).ok()?)),
            _ => None,
        }
    }
}

fn take<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(*taken)
}

fn parse_ask(mut body: &[u8]) -> Option<Ask> {
    let body = &mut body;
    let resumes = u32::from_le_bytes(take(body)?);
    let after = u32::from_le_bytes(take(body)?);
    let [places] = take(body)?;
    body.is_empty().then_some(Ask { resumes, after, places })
}

fn parse_offer(mut body: &[u8]) -> Option<Offer> {
    let body = &mut body;
    let [attempt, mtu, places, wants, may] = take(body)?;
    let offer = Offer {
        attempt,
        mtu,
        places,
        wants,
        by_udp: may == 1,
        lid: u16::from_le_bytes(take(body)?),
        partition: u16::from_le_bytes(take(body)?),
        service_level: take::<1>(body)?[0],
        gid: take(body)?,
        qpn: u32::from_le_bytes(take(body)?),
        psn: u32::from_le_bytes(take(body)?),
        rkey: u32::from_le_bytes(take(body)?),
        inbox: u64::from_le_bytes(take(body)?),
        inbox_len: u64::from_le_bytes(take(body)?),
        control_from: u64::from_le_bytes(take(body)?),
        resumes: u32::from_le_bytes(take(body)?),
        after: u32::from_le_bytes(take(body)?),
    };
    let possible = may <= 1
        && offer.service_level <= SERVICE_LEVEL_MAX
        && (1..=5).contains(&offer.mtu)
        && offer.qpn < 1 << 24
        && offer.psn < 1 << 24
        && offer.inbox.checked_add(offer.inbox_len).is_some()
        && offer.control_from.is_multiple_of(8);
    (body.is_empty() && possible).then_some(offer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_this_one() {
        let offer = Offer {
            attempt: 3,
            mtu: 5,
            places: 6,
            wants: 7,
            by_udp: true,
            lid: 0x0201,
            partition: 0x8403,
            service_level: 9,
            gid: *b"0123456789abcdef",
            qpn: 0x0a0b0c,
            psn: 0x0d0e0f,
            rkey: 0x11121314,
            inbox: 0x2122232425262728,
            inbox_len: 0x1000,
            control_from: 0x40,
            resumes: 0x31323334,
            after: 0x41424344,
        };
        let mut out = [0; NOTE_MAX];
        let len = Message::Answer(offer).emit(&mut out);
        let mut expected = vec![3, 2, 3, 5, 6, 7, 1, 1, 2, 3, 0x84, 9];
        expected.extend(b"0123456789abcdef");
        expected.extend([0x0c, 0x0b, 0x0a, 0, 0x0f, 0x0e, 0x0d, 0, 0x14, 0x13, 0x12, 0x11]);
        expected.extend([0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]);
        expected.extend([0, 0x10, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0x34, 0x33, 0x32, 0x31, 0x44, 0x43, 0x42, 0x41]);
        assert_eq!(&out[..len], expected);
        assert_eq!(Message::parse(&expected), Some(Message::Answer(offer)));
        for cut in 0..expected.len() {
            assert_eq!(Message::parse(&expected[..cut]), None);
        }
    }

    #[test]
    fn asking_looks_like_this() {
        let ask = Message::Ask(Ask { resumes: 0x0a0b0c0d, after: 0x01020304, places: 2 });
        let mut out = [0; NOTE_MAX];
        let len = ask.emit(&mut out);
        let expected = [3, 3, 0x0d, 0x0c, 0x0b, 0x0a, 4, 3, 2, 1, 2];
        assert_eq!(out[..len], expected);
        assert_eq!(Message::parse(&expected), Some(ask));
        for cut in 0..expected.len() {
            assert_eq!(Message::parse(&expected[..cut]), None);
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let why = "é".repeat(NOTE_MAX);
        let mut out = [0; NOTE_MAX];
        let len = Message::Decline(&why).emit(&mut out);
        let Some(Message::Decline(read)) = Message::parse(&out[..len]) else { panic!("a reason") };
        assert!(why.starts_with(read) && read.len() > NOTE_MAX - 5);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(note in prop::collection::vec(any::<u8>(), 0..NOTE_MAX)) {
            if let Some(message) = Message::parse(&note) {
                let mut out = [0; NOTE_MAX];
                let len = message.emit(&mut out);
                prop_assert_eq!(&out[..len], &note[..]);
            }
        }
    }
}
