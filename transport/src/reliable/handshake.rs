//! Handshake messages: how two nodes agree that there is a link between them.
//!
//! ```text
//!  initiator (higher node id)                      responder
//!      Init{claim, its connection id}    ------>     keeps nothing
//!            <------  Retry{cookie}
//!      Init{.., cookie, noise 1}         ------>     keeps the half-done handshake, for a moment
//!            <------  Answer{noise 2: certificate, Hello}
//!      Finish{noise 3: certificate, Hello} ---->     up to the first packet
//!      first packet, with Start(control) ------>     up
//!      up               <------  first packet, with Start(control)
//! ```
//!
//! The naive way answers whoever asks. Here a message proves nothing before it was paid for: an answer goes to the
//! address that is configured for the node that the message *claims* to be from, and the cookie shows that somebody
//! there reads it. Before that nothing is remembered and no key is touched. What is said before the certificates is a
//! claim, and bound into the Noise handshake, so that nobody on the way can change it.
//!
//! An Init is repeated until it is answered, a Finish until the link is up. A node with the *lower* id, which may not
//! begin, knocks: the other side begins then, *beside* the link that may be there. Only a [`Greeting`], which comes
//! with a certificate, can end a link. `serial` grows with every hello of a process: one that was delayed in the
//! network is older than the link in place, and ignored.
//!
//! What may come unasked, Init and Knock, is padded to [`INIT_LEN`], so that no answer is three times as long.

use super::wire::{FLAG_HANDSHAKE, HEADER_LEN, Header, Reader, WireError, Writer};
use crate::id::{Incarnation, Member, NodeId};
use crate::limits::{LANE_WORDS_MAX, LANES_MAX, LOG_BYTES_MAX, LOG_BYTES_MIN};

/// Length of the packets that may come unasked.
pub const INIT_LEN: usize = 128;
/// Length of a cookie.
pub const COOKIE_LEN: usize = 16;
/// Length of the first Noise message: one public key.
pub const NOISE_1_LEN: usize = 32;
/// Longest [`Greeting`].
pub const GREETING_MAX: usize = 36 + LANES_MAX * 12;
/// Bytes of a handshake packet before its Noise message.
pub const NOISE_AT: usize = HEADER_LEN + 1;

/// Where the cookie of an Init is; a Knock has zeros there.
pub const COOKIE_AT: usize = NOISE_AT + 20;

const INIT: u8 = 1;
const RETRY: u8 = 2;
const ANSWER: u8 = 3;
const FINISH: u8 = 4;
const KNOCK: u8 = 5;

const HELLO: u8 = 1;
const REFUSED: u8 = 2;

/// Sizes of one lane, as its writer declares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LaneShape {
    /// Words of the lane.
    pub words: u32,
    /// Bytes of its log: a power of two.
    pub log_bytes: u64,
}

impl LaneShape {
    fn check(self) -> Result<(), WireError> {
        let log_ok = self.log_bytes.is_power_of_two()
            && (LOG_BYTES_MIN as u64..=LOG_BYTES_MAX as u64).contains(&self.log_bytes);
        match (log_ok, self.words as usize <= LANE_WORDS_MAX) {
            (false, _) => Err(WireError::Value("log size")),
            (_, false) => Err(WireError::Value("word count")),
            _ => Ok(()),
        }
    }
}

/// The lanes of a node, in order; a fixed table, so that parsing allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LaneTable {
    shapes: [LaneShape; LANES_MAX],
    len: u8,
}

impl LaneTable {
    /// A table of `shapes`; `None` if there are more than [`LANES_MAX`].
    pub fn new(shapes: impl IntoIterator<Item = LaneShape>) -> Option<Self> {
        let mut table = LaneTable::default();
        for shape in shapes {
            *table.shapes.get_mut(usize::from(table.len))? = shape;
            table.len += 1;
        }
        Some(table)
    }
    /// The lanes.
    pub fn as_slice(&self) -> &[LaneShape] {
        &self.shapes[..usize::from(self.len)]
    }
}

/// Who says to be speaking, before it is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Short name of the cluster: nodes of different clusters ignore each other.
    pub cluster: u64,
    /// Who speaks.
    pub from: Member,
    /// Which node it means to reach.
    pub to: NodeId,
}

/// A handshake message. The connection id is in the packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake<'a> {
    /// The higher id begins; packets to it shall carry the header's connection id.
    Init {
        /// Who it says to be.
        claim: Claim,
        /// What the last Retry said; zeros at first.
        cookie: [u8; COOKIE_LEN],
        /// First Noise message.
        noise: [u8; NOISE_1_LEN],
    },
    /// Say it again, with this.
    Retry {
        /// The cookie.
        cookie: [u8; COOKIE_LEN],
    },
    /// Second Noise message.
    Answer(&'a [u8]),
    /// Third Noise message.
    Finish(&'a [u8]),
    /// The lower id wants to be asked.
    Knock(Claim),
}

impl<'a> Handshake<'a> {
    /// Reads the message of a packet; what has a fixed length must have that.
    pub fn parse(packet: &'a [u8]) -> Result<(Header, Self), WireError> {
        let header = Header::parse(packet)?;
        if header.flags != FLAG_HANDSHAKE || header.number != 0 {
            return Err(WireError::Value("handshake header"));
        }
        let mut reader = Reader(&packet[HEADER_LEN..]);
        let message = match reader.u8()? {
            INIT => {
                let claim = read_claim(&mut reader)?;
                Handshake::Init { claim, cookie: reader.array()?, noise: reader.array()? }
            }
            RETRY => Handshake::Retry { cookie: reader.array()? },
            ANSWER => return Ok((header, Handshake::Answer(reader.0))),
            FINISH => return Ok((header, Handshake::Finish(reader.0))),
            KNOCK => Handshake::Knock(read_claim(&mut reader)?),
            other => return Err(WireError::FrameType(other)),
        };
        let padded = !matches!(message, Handshake::Retry { .. });
        if padded && packet.len() != INIT_LEN || !padded && !reader.0.is_empty() {
            return Err(WireError::Value("length"));
        }
        if reader.0.iter().any(|&byte| byte != 0) {
            return Err(WireError::Value("padding"));
        }
        Ok((header, message))
    }

    /// Writes a whole packet into `buffer` and returns its length. A buffer of [`INIT_LEN`] is enough for what has no
    /// Noise message of its own length, else [`NOISE_AT`] more than that.
    pub fn emit(&self, connection: u64, buffer: &mut [u8]) -> usize {
        let mut writer = Writer::packet(buffer);
        match self {
            Handshake::Init { claim, cookie, noise } => {
                writer.u8(INIT);
                write_claim(&mut writer, claim);
                writer.take(COOKIE_LEN).copy_from_slice(cookie);
                writer.take(NOISE_1_LEN).copy_from_slice(noise);
            }
            Handshake::Retry { cookie } => {
                writer.u8(RETRY);
                writer.take(COOKIE_LEN).copy_from_slice(cookie);
            }
            Handshake::Answer(noise) => {
                writer.u8(ANSWER);
                writer.take(noise.len()).copy_from_slice(noise);
            }
            Handshake::Finish(noise) => {
                writer.u8(FINISH);
                writer.take(noise.len()).copy_from_slice(noise);
            }
            Handshake::Knock(claim) => {
                writer.u8(KNOCK);
                write_claim(&mut writer, claim);
            }
        }
        if matches!(self, Handshake::Init { .. } | Handshake::Knock(_)) {
            let rest = INIT_LEN - writer.len();
            writer.take(rest).fill(0);
        }
        let len = writer.len();
        Header { flags: FLAG_HANDSHAKE, connection, number: 0 }.emit(&mut buffer[..len]);
        len
    }
}

/// What both sides tell each other once they know who they are: the end of a Noise payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// A link is wanted.
    Hello(Hello),
    /// This run of the peer was fenced: it is refused for ever and must start anew.
    Refused(Member),
}

/// The terms of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who speaks.
    pub from: Member,
    /// Number of this hello among all of `from`.
    pub serial: u64,
    /// Connection id that packets to `from` shall carry.
    pub connection: u64,
    /// The connection id of `from` in the link that it has with us; 0 if it has none. Says whether a handshake that
    /// somebody provoked has any business.
    pub holds: u64,
    /// The lanes `from` writes.
    pub lanes: LaneTable,
}

impl Greeting {
    /// Reads a greeting; trailing bytes are an error.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(bytes);
        let kind = reader.u8()?;
        let member = read_member(&mut reader)?;
        let greeting = match kind {
            HELLO => {
                let (serial, connection, holds) = (reader.u64()?, reader.u64()?, reader.u64()?);
                let mut lanes = LaneTable { len: reader.u8()?, ..LaneTable::default() };
                if lanes.len == 0 || usize::from(lanes.len) > LANES_MAX {
                    return Err(WireError::Value("lane count"));
                }
                for shape in &mut lanes.shapes[..usize::from(lanes.len)] {
                    *shape = LaneShape { words: reader.u32()?, log_bytes: reader.u64()? };
                    shape.check()?;
                }
                if connection == 0 {
                    return Err(WireError::Value("connection id"));
                }
                Greeting::Hello(Hello { from: member, serial, connection, holds, lanes })
            }
            REFUSED => Greeting::Refused(member),
            other => return Err(WireError::FrameType(other)),
        };
        if reader.0.is_empty() { Ok(greeting) } else { Err(WireError::Value("trailing bytes")) }
    }

    /// Writes it into `buffer` (at least [`GREETING_MAX`] long) and returns its length.
    pub fn emit(&self, buffer: &mut [u8]) -> usize {
        let mut writer = Writer::plain(buffer);
        match self {
            Greeting::Hello(hello) => {
                writer.u8(HELLO);
                write_member(&mut writer, hello.from);
                writer.u64(hello.serial);
                writer.u64(hello.connection);
                writer.u64(hello.holds);
                writer.u8(hello.lanes.len);
                for shape in hello.lanes.as_slice() {
                    writer.u32(shape.words);
                    writer.u64(shape.log_bytes);
                }
            }
            Greeting::Refused(about) => {
                writer.u8(REFUSED);
                write_member(&mut writer, *about);
            }
        }
        writer.len()
    }
}

fn read_member(reader: &mut Reader<'_>) -> Result<Member, WireError> {
    Ok(Member { node: NodeId(reader.u16()?), incarnation: Incarnation(reader.u64()?) })
}

fn write_member(writer: &mut Writer<'_>, member: Member) {
    writer.u16(member.node.0);
    writer.u64(member.incarnation.0);
}

fn read_claim(reader: &mut Reader<'_>) -> Result<Claim, WireError> {
    let cluster = reader.u64()?;
    Ok(Claim { cluster, from: read_member(reader)?, to: NodeId(reader.u16()?) })
}

fn write_claim(writer: &mut Writer<'_>, claim: &Claim) {
    writer.u64(claim.cluster);
    write_member(writer, claim.from);
    writer.u16(claim.to.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLAIM: Claim =
        Claim { cluster: 0x0102, from: Member::new(0x0304, 0x0506), to: NodeId(0x0708) };

    fn hello() -> Hello {
        Hello {
            from: Member::new(2, 3),
            serial: 5,
            connection: 6,
            holds: 7,
            lanes: LaneTable::new([
                LaneShape { words: 9, log_bytes: 1024 },
                LaneShape { words: 0, log_bytes: 128 },
            ])
            .unwrap(),
        }
    }

    fn messages() -> [Handshake<'static>; 5] {
        [
            Handshake::Init { claim: CLAIM, cookie: [3; COOKIE_LEN], noise: [4; NOISE_1_LEN] },
            Handshake::Retry { cookie: [5; COOKIE_LEN] },
            Handshake::Answer(b"second"),
            Handshake::Finish(b"third"),
            Handshake::Knock(CLAIM),
        ]
    }

    #[test]
    fn messages_survive_the_way() {
        for message in messages() {
            let mut buffer = [0; 200];
            let len = message.emit(77, &mut buffer);
            let (header, parsed) = Handshake::parse(&buffer[..len]).unwrap();
            assert_eq!((header.connection, parsed), (77, message));
        }
    }

    #[test]
    fn what_comes_unasked_has_one_length_and_no_hidden_content() {
        for message in [messages()[0], messages()[4]] {
            let mut buffer = [0xff; 200];
            assert_eq!(message.emit(77, &mut buffer), INIT_LEN);
            assert!(Handshake::parse(&buffer[..INIT_LEN - 1]).is_err());
            buffer[INIT_LEN - 1] = 1;
            assert_eq!(Handshake::parse(&buffer[..INIT_LEN]), Err(WireError::Value("padding")));
        }
    }

    #[test]
    fn an_init_looks_as_it_always_did() {
        let mut buffer = [0; INIT_LEN];
        messages()[0].emit(0x1112, &mut buffer);
        let mut expected = vec![4, 4, 0, 0, 0x12, 0x11];
        expected.resize(HEADER_LEN, 0);
        expected.extend([1, 2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 6, 5, 0, 0, 0, 0, 0, 0, 8, 7]);
        assert_eq!(expected.len(), COOKIE_AT);
        expected.extend([3; COOKIE_LEN]);
        expected.extend([4; NOISE_1_LEN]);
        expected.resize(INIT_LEN, 0);
        assert_eq!(buffer[..], expected[..]);
    }

    #[test]
    fn greetings_survive_the_way_and_the_largest_fits() {
        let mut big = hello();
        big.lanes = LaneTable::new([LaneShape { words: 1, log_bytes: 128 }; LANES_MAX]).unwrap();
        assert!(LaneTable::new([LaneShape { words: 1, log_bytes: 128 }; LANES_MAX + 1]).is_none());
        let mut longest = 0;
        for greeting in
            [Greeting::Hello(hello()), Greeting::Hello(big), Greeting::Refused(Member::new(1, 2))]
        {
            let mut buffer = [0; GREETING_MAX];
            let len = greeting.emit(&mut buffer);
            longest = longest.max(len);
            assert_eq!(Greeting::parse(&buffer[..len]), Ok(greeting));
            assert!(Greeting::parse(&buffer[..len - 1]).is_err());
        }
        assert_eq!(longest, GREETING_MAX);
    }

    #[test]
    fn a_log_size_that_is_no_power_of_two_is_refused() {
        let mut bad = hello();
        bad.lanes.shapes[0].log_bytes = 1000;
        let mut buffer = [0; GREETING_MAX];
        let len = Greeting::Hello(bad).emit(&mut buffer);
        assert_eq!(Greeting::parse(&buffer[..len]), Err(WireError::Value("log size")));
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Handshake::parse(&noise);
            let _ = Greeting::parse(&noise);
            let mut framed = noise.clone();
            framed.resize(INIT_LEN.max(noise.len()), 0);
            Header { flags: FLAG_HANDSHAKE, connection: 1, number: 0 }.emit(&mut framed);
            let _ = Handshake::parse(&framed);
        }
    }
}
