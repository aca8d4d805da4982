//! What two processes say to each other on the rendezvous socket. Versioned from the first byte; a
//! message is one datagram, little-endian, at most [`MESSAGE_MAX`](super::socket::MESSAGE_MAX) bytes.
//!
//! ```text
//! initiator  ── Hello + 3 descriptors ──▶  listener
//!            ◀── Welcome + 3 descriptors ──     (or Refused)
//!            ── Ready ──▶                       (or Refused)
//! ```

use crate::id::{Incarnation, Member, NodeId};
use crate::limits::CLUSTER_NAME_MAX;

const MAGIC: [u8; 3] = *b"Qrv";
const VERSION: u8 = 1;

/// Who I am, and where in my segment to find what concerns you.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) from: Member,
    pub(super) to: NodeId,
    /// Which row of my segment is yours, and under which session it is open.
    pub(super) row: u16,
    pub(super) session: u64,
    /// Where my CONTROL log begins for you.
    pub(super) control_from: u64,
    pub(super) cluster: String,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// That incarnation has been fenced.
    Fenced = 1,
    /// Other version of this protocol.
    Version = 2,
    /// Other cluster, unknown node, or wrong direction.
    Stranger = 3,
    /// Not with that user.
    User = 5,
    /// Not now (too many links not yet forgotten, an older run's hello).
    Busy = 4,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Hello(Greeting),
    Welcome(Greeting),
    Ready,
    Refused(Refusal),
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        match self {
            Message::Hello(g) => g.encode(1, &mut out),
            Message::Welcome(g) => g.encode(2, &mut out),
            Message::Ready => out.push(3),
            Message::Refused(why) => out.extend([4, *why as u8]),
        }
        out
    }

    /// The refusal to send back if it can't be understood.
    pub(super) fn decode(bytes: &[u8]) -> Result<Message, Refusal> {
        let mut r = Bytes(bytes);
        if r.take::<3>().ok_or(Refusal::Version)? != MAGIC || r.u8() != Some(VERSION) {
            return Err(Refusal::Version);
        }
        let message = match r.u8() {
            Some(1) => Greeting::decode(&mut r).map(Message::Hello),
            Some(2) => Greeting::decode(&mut r).map(Message::Welcome),
            Some(3) => Some(Message::Ready),
            Some(4) => match r.u8() {
                Some(1) => Some(Message::Refused(Refusal::Fenced)),
                Some(2) => Some(Message::Refused(Refusal::Version)),
                Some(3) => Some(Message::Refused(Refusal::Stranger)),
                Some(4) => Some(Message::Refused(Refusal::Busy)),
                Some(5) => Some(Message::Refused(Refusal::User)),
                _ => None,
            },
            _ => None,
        };
        message.filter(|_| r.0.is_empty()).ok_or(Refusal::Stranger)
    }
}

impl Greeting {
    fn encode(&self, kind: u8, out: &mut Vec<u8>) {
        out.push(kind);
        out.extend(self.from.node.0.to_le_bytes());
        out.extend(self.from.incarnation.0.to_le_bytes());
        out.extend(self.to.0.to_le_bytes());
        out.extend(self.row.to_le_bytes());
        out.extend(self.session.to_le_bytes());
        out.extend(self.control_from.to_le_bytes());
        out.push(self.cluster.len() as u8);
        out.extend(self.cluster.as_bytes());
    }

    fn decode(r: &mut Bytes<'_>) -> Option<Greeting> {
        let node = NodeId(u16::from_le_bytes(r.take()?));
        let incarnation = Incarnation(u64::from_le_bytes(r.take()?));
        let to = NodeId(u16::from_le_bytes(r.take()?));
        let row = u16::from_le_bytes(r.take()?);
        let session = u64::from_le_bytes(r.take()?);
        let control_from = u64::from_le_bytes(r.take()?);
        let len = r.u8()? as usize;
        if len > CLUSTER_NAME_MAX || len > r.0.len() {
            return None;
        }
        let (name, rest) = r.0.split_at(len);
        r.0 = rest;
        let cluster = std::str::from_utf8(name).ok()?.to_owned();
        if session >> 62 != 0 || !control_from.is_multiple_of(8) {
            return None;
        }
        Some(Greeting {
            from: Member { node, incarnation },
            to,
            row,
            session,
            control_from,
            cluster,
        })
    }
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[b]| b)
    }
}

/// A message of each kind.
#[cfg(any(test, feature = "fuzz"))]
pub(super) fn samples(cluster: &str) -> [Message; 5] {
    let greeting = Greeting {
        from: Member::new(3, 77),
        to: NodeId(1),
        row: 5,
        session: 9,
        control_from: 4096,
        cluster: cluster.to_owned(),
    };
    [
        Message::Hello(greeting.clone()),
        Message::Welcome(greeting),
        Message::Ready,
        Message::Refused(Refusal::Fenced),
        Message::Refused(Refusal::User),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_survive_the_wire() {
        for message in samples(&"c".repeat(CLUSTER_NAME_MAX)) {
            let bytes = message.encode();
            assert!(bytes.len() <= super::super::socket::MESSAGE_MAX);
            assert_eq!(Message::decode(&bytes), Ok(message));
            for cut in 0..bytes.len() {
                assert!(Message::decode(&bytes[..cut]).is_err(), "truncated at {cut}");
            }
        }
        assert_eq!(Message::decode(b"Qrv\x02\x03"), Err(Refusal::Version));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_understood(tail in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = b"Qrv\x01".to_vec();
            bytes.extend(tail);
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }
    }
}
