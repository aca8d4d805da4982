//! Handshake messages: how two nodes agree that there is a link between them.
//!
//! ```text
//!  initiator (higher node id)                     responder
//!      Hello{serial, its connection id}  ------>    keeps the offer
//!            <------  HelloAck{serial, its id, echo of the initiator's id}
//!      first packet, with Start(control) ------>    up
//!      up               <------  first packet, with Start(control)
//! ```
//!
//! A hello is repeated until it is answered, so there is no other timer. A node with the *lower* id says
//! hello too while it has no link (a knock): it makes the other side notice a restart at once instead of
//! after a time-out, and say its own hello. `serial` grows with every offer and answer of a process: a hello
//! that was delayed in the network is older than the link in place, and ignored.

use super::wire::{FLAG_HANDSHAKE, HEADER_LEN, Header, Reader, WireError, Writer, seal};
use crate::id::{Incarnation, Member, NodeId};
use crate::limits::{LANE_WORDS_MAX, LANES_MAX, LOG_BYTES_MAX, LOG_BYTES_MIN};

/// Largest handshake packet.
pub const HANDSHAKE_MAX: usize = HEADER_LEN + 80 + LANES_MAX * 12;

const HELLO: u8 = 1;
const HELLO_ACK: u8 = 2;
const REFUSED: u8 = 3;

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

/// What both sides tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Hash of the cluster's name: nodes of different clusters ignore each other.
    pub cluster: u64,
    /// Who speaks.
    pub from: Member,
    /// Which node it means to reach.
    pub to: NodeId,
    /// Number of this offer or answer among all of `from`.
    pub serial: u64,
    /// Connection id that packets to `from` shall carry.
    pub connection: u64,
    /// In an answer: the connection id of the hello it answers; 0 in a hello.
    pub echo: u64,
    /// The lanes `from` writes.
    pub lanes: LaneTable,
}

/// A handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// An offer (from the higher id), or a knock (from the lower).
    Hello(Hello),
    /// The answer to an offer.
    HelloAck(Hello),
    /// `about` was fenced by `from`: it is refused for ever and must start anew.
    Refused {
        /// Hash of the cluster's name.
        cluster: u64,
        /// Who refuses.
        from: NodeId,
        /// Who is refused.
        about: Member,
    },
}

impl Handshake {
    /// Reads a message; trailing bytes are an error.
    pub fn parse(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(payload);
        let kind = reader.u8()?;
        let message = match kind {
            HELLO | HELLO_ACK => {
                let mut hello = Hello {
                    cluster: reader.u64()?,
                    from: member(&mut reader)?,
                    to: NodeId(reader.u16()?),
                    serial: reader.u64()?,
                    connection: reader.u64()?,
                    echo: reader.u64()?,
                    lanes: LaneTable::default(),
                };
                let count = reader.u8()?;
                if count == 0 || usize::from(count) > LANES_MAX {
                    return Err(WireError::Value("lane count"));
                }
                for shape in &mut hello.lanes.shapes[..usize::from(count)] {
                    *shape = LaneShape { words: reader.u32()?, log_bytes: reader.u64()? };
                    shape.check()?;
                }
                hello.lanes.len = count;
                if hello.connection == 0 {
                    return Err(WireError::Value("connection id"));
                }
                if kind == HELLO { Handshake::Hello(hello) } else { Handshake::HelloAck(hello) }
            }
            REFUSED => Handshake::Refused {
                cluster: reader.u64()?,
                from: NodeId(reader.u16()?),
                about: member(&mut reader)?,
            },
            other => return Err(WireError::FrameType(other)),
        };
        if reader.0.is_empty() { Ok(message) } else { Err(WireError::Value("trailing bytes")) }
    }

    /// Writes a whole packet into `buffer` (at least [`HANDSHAKE_MAX`] long) and returns its length.
    pub fn emit(&self, buffer: &mut [u8]) -> usize {
        let mut writer = Writer::packet(buffer);
        let connection = match self {
            Handshake::Hello(hello) | Handshake::HelloAck(hello) => {
                writer.u8(if matches!(self, Handshake::Hello(_)) { HELLO } else { HELLO_ACK });
                writer.u64(hello.cluster);
                writer.u16(hello.from.node.0);
                writer.u64(hello.from.incarnation.0);
                writer.u16(hello.to.0);
                writer.u64(hello.serial);
                writer.u64(hello.connection);
                writer.u64(hello.echo);
                writer.u8(hello.lanes.len);
                for shape in hello.lanes.as_slice() {
                    writer.u32(shape.words);
                    writer.u64(shape.log_bytes);
                }
                hello.echo
            }
            Handshake::Refused { cluster, from, about } => {
                writer.u8(REFUSED);
                writer.u64(*cluster);
                writer.u16(from.0);
                writer.u16(about.node.0);
                writer.u64(about.incarnation.0);
                0
            }
        };
        let len = writer.len();
        seal(&mut buffer[..len], Header { flags: FLAG_HANDSHAKE, connection, number: 0 });
        len
    }
}

fn member(reader: &mut Reader<'_>) -> Result<Member, WireError> {
    Ok(Member { node: NodeId(reader.u16()?), incarnation: Incarnation(reader.u64()?) })
}

#[cfg(test)]
mod tests {
    use super::super::wire::PacketView;
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            cluster: 1,
            from: Member { node: NodeId(2), incarnation: Incarnation(3) },
            to: NodeId(4),
            serial: 5,
            connection: 6,
            echo: 7,
            lanes: LaneTable::new([
                LaneShape { words: 9, log_bytes: 1024 },
                LaneShape { words: 0, log_bytes: 128 },
            ])
            .unwrap(),
        }
    }

    #[test]
    fn messages_survive_the_way() {
        let about = Member { node: NodeId(1), incarnation: Incarnation(2) };
        for message in [
            Handshake::Hello(hello()),
            Handshake::HelloAck(hello()),
            Handshake::Refused { cluster: 1, from: NodeId(9), about },
        ] {
            let mut buffer = [0; HANDSHAKE_MAX];
            let len = message.emit(&mut buffer);
            let view = PacketView::parse(&buffer[..len]).unwrap();
            assert_eq!(view.header.flags, FLAG_HANDSHAKE);
            assert_eq!(Handshake::parse(view.payload), Ok(message));
        }
    }

    #[test]
    fn the_largest_hello_fits() {
        let mut big = hello();
        big.lanes = LaneTable::new([LaneShape { words: 1, log_bytes: 128 }; LANES_MAX]).unwrap();
        let mut buffer = [0; HANDSHAKE_MAX];
        let len = Handshake::Hello(big).emit(&mut buffer);
        assert_eq!(Handshake::parse(&buffer[HEADER_LEN..len]), Ok(Handshake::Hello(big)));
        assert!(LaneTable::new([LaneShape { words: 1, log_bytes: 128 }; LANES_MAX + 1]).is_none());
    }

    #[test]
    fn a_log_size_that_is_no_power_of_two_is_refused() {
        let mut bad = hello();
        bad.lanes.shapes[0].log_bytes = 1000;
        let mut buffer = [0; HANDSHAKE_MAX];
        let len = Handshake::Hello(bad).emit(&mut buffer);
        assert_eq!(Handshake::parse(&buffer[HEADER_LEN..len]), Err(WireError::Value("log size")));
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Handshake::parse(&noise);
        }
    }
}
