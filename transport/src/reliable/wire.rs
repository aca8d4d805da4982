//! Bytes on the wire: packet header and frames.
//!
//! A datagram is one packet: a fixed header, then frames until the tag. Everything is little-endian,
//! so that x86-64 and aarch64 interoperate, and the first byte is the version.
//!
//! ```text
//!  0      1      2          4                12              20         len-16      len
//!  +------+------+----------+----------------+---------------+---------+------------+
//!  | ver. | flags| reserved | connection id  | packet number | frames… | tag        |
//!  +------+------+----------+----------------+---------------+---------+------------+
//! ```
//!
//! The header holds what authenticated encryption needs: a key phase, the connection id that selects the
//! keys, and a packet number that is never reused (the nonce). The frames are encrypted and the header is not, but both
//! are covered by the tag. Sealing and opening are the driver's, with the keys of the link (`secure`): here packets
//! are in the clear, without a tag. Handshake messages have the same header and no tag; they protect themselves.
//!
//! Reading is split in two, so that nothing is applied of a packet that turns out to be malformed:
//! [`Header::parse`] checks the envelope; [`check_frames`] walks all frames once; after that the same
//! walk, [`Frames`], is used to apply them. No input makes any of this panic: a test feeds it noise.

use std::time::Duration;

/// Version of everything in this file, and of the handshake.
pub const VERSION: u8 = 4;
/// Bytes before the first frame.
pub const HEADER_LEN: usize = 20;
/// Where the upper half of the connection id begins.
pub const CONNECTION_MARK_AT: usize = 8;
/// Bytes that sealing appends to a packet.
pub const TAG_LEN: usize = 16;
/// The packet is a heartbeat: it asks for nothing and may wait in a queue of its own until the receiver
/// looks there anyway.
pub const FLAG_QUIET: u8 = 0x01;
/// Which of two successive keys sealed the packet.
pub const FLAG_KEY_PHASE: u8 = 0x02;
/// The payload is one handshake message, not frames.
pub const FLAG_HANDSHAKE: u8 = 0x04;
const KNOWN_FLAGS: u8 = FLAG_QUIET | FLAG_KEY_PHASE | FLAG_HANDSHAKE;

/// Bytes of a log frame before its payload.
pub(crate) const LOG_OVERHEAD: usize = 12;
/// Bytes of a words frame before its entries.
pub(crate) const WORDS_OVERHEAD: usize = 3;
/// Bytes of one entry of a words frame.
pub(crate) const WORD_ENTRY: usize = 18;
/// Bytes of a credit frame.
pub(crate) const CREDIT_LEN: usize = 10;
/// Bytes of a start frame.
pub(crate) const START_LEN: usize = 10;
/// Bytes of an ack frame without its extra ranges.
pub(crate) const ACK_OVERHEAD: usize = 22;
/// Bytes of one extra range of an ack frame.
pub(crate) const ACK_RANGE: usize = 8;
/// Bytes of a note frame before its content.
pub(crate) const NOTE_OVERHEAD: usize = 2;
/// Most bytes of a note.
pub(crate) const NOTE_MAX: usize = 200;
/// Extra ranges an ack frame may carry.
pub(crate) const ACK_RANGES_MAX: usize = 32;

const PADDING: u8 = 0;
const LOG: u8 = 1;
const WORDS: u8 = 2;
const ACK: u8 = 3;
const CREDIT: u8 = 4;
const PING: u8 = 5;
const CLOSE: u8 = 6;
const START: u8 = 7;
const NOTE: u8 = 8;
const CHALLENGE: u8 = 9;
const RESPONSE: u8 = 10;

/// Why a packet or a message in it was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than its own structure.
    #[error("packet is cut short")]
    Truncated,
    /// A version this build does not speak.
    #[error("packet has version {0}, this build speaks {VERSION}")]
    Version(u8),
    /// Flags or reserved bits that have no meaning yet.
    #[error("packet has unknown flags {0:#04x}")]
    Flags(u8),
    /// A frame type that does not exist.
    #[error("packet holds an unknown frame type {0}")]
    FrameType(u8),
    /// A field with an impossible value.
    #[error("packet holds an impossible value: {0}")]
    Value(&'static str),
}

/// Header fields of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `FLAG_*`.
    pub flags: u8,
    /// Connection of the receiver; 0 in a first hello.
    pub connection: u64,
    /// Counts the packets of one direction of a connection; never reused.
    pub number: u64,
}

impl Header {
    /// Checks length, version and flags of a datagram and reads its header. Nothing of it is known to be true yet.
    pub fn parse(datagram: &[u8]) -> Result<Self, WireError> {
        let mut fields = Reader(datagram);
        let (version, flags, reserved) = (fields.u8()?, fields.u8()?, fields.u16()?);
        let header = Header { flags, connection: fields.u64()?, number: fields.u64()? };
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        if flags & !KNOWN_FLAGS != 0 || reserved != 0 {
            return Err(WireError::Flags(flags));
        }
        Ok(header)
    }

    /// Writes the header of the packet whose payload stands at `packet[HEADER_LEN..]`.
    pub(crate) fn emit(&self, packet: &mut [u8]) {
        assert!(packet.len() >= HEADER_LEN, "a packet has a header");
        packet[0] = VERSION;
        packet[1] = self.flags;
        packet[2..4].fill(0);
        packet[4..12].copy_from_slice(&self.connection.to_le_bytes());
        packet[12..20].copy_from_slice(&self.number.to_le_bytes());
    }
}

/// A packet in the clear: opened, or never sealed.
#[derive(Clone, Copy, Debug)]
pub struct PacketView<'a> {
    /// Its header.
    pub header: Header,
    /// Its frames.
    pub payload: &'a [u8],
    /// The network says that it met congestion on its way: the mark CE of its IP header.
    pub congested: bool,
    /// How long it may have lain unread at most.
    pub waited: Duration,
}

impl<'a> PacketView<'a> {
    /// Header and frames of a packet without its tag.
    pub fn parse(packet: &'a [u8]) -> Result<Self, WireError> {
        let header = Header::parse(packet)?;
        let payload = &packet[HEADER_LEN..];
        Ok(PacketView { header, payload, congested: false, waited: Duration::ZERO })
    }
}

/// Reads fixed fields; every read is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }
    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_le_bytes)
    }
    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }
    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }
    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Appends fields to a packet that is being built in a fixed buffer.
///
/// Who writes asks [`Writer::space`] first: running over the end is a defect of the packer, and asserted.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// Begins after the header.
    pub(crate) fn packet(buffer: &'a mut [u8]) -> Self {
        assert!(buffer.len() >= HEADER_LEN, "no room for a header");
        Writer { buffer, len: HEADER_LEN }
    }
    /// Begins at the beginning.
    pub(crate) fn plain(buffer: &'a mut [u8]) -> Self {
        Writer { buffer, len: 0 }
    }
    /// Bytes written, the header included.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
    /// Bytes that still fit.
    pub(crate) fn space(&self) -> usize {
        self.buffer.len() - self.len
    }
    /// The next `len` bytes, to be filled by the caller.
    pub(crate) fn take(&mut self, len: usize) -> &mut [u8] {
        let at = self.len;
        self.len += len;
        &mut self.buffer[at..at + len]
    }
    pub(crate) fn u8(&mut self, value: u8) {
        self.take(1)[0] = value;
    }
    pub(crate) fn u16(&mut self, value: u16) {
        self.take(2).copy_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn u32(&mut self, value: u32) {
        self.take(4).copy_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn u64(&mut self, value: u64) {
        self.take(8).copy_from_slice(&value.to_le_bytes());
    }

    /// Begins a log frame; the caller fills the returned bytes.
    pub(crate) fn log(&mut self, lane: u8, position: u64, len: u16) -> &mut [u8] {
        self.u8(LOG);
        self.u8(lane);
        self.u16(len);
        self.u64(position);
        self.take(usize::from(len))
    }
    /// Begins a words frame; exactly `count` calls of [`Writer::word`] follow.
    pub(crate) fn words(&mut self, lane: u8, count: u8) {
        self.u8(WORDS);
        self.u8(lane);
        self.u8(count);
    }
    /// One entry of a words frame.
    pub(crate) fn word(&mut self, entry: WordEntry) {
        self.u16(entry.index);
        self.u64(entry.value);
        self.u64(entry.after);
    }
    /// An ack frame: `ranges` are inclusive packet numbers, newest first, disjoint and not touching.
    pub(crate) fn ack(
        &mut self,
        held: Duration,
        waited: Duration,
        congested: u32,
        mut ranges: impl ExactSizeIterator<Item = (u64, u64)>,
    ) {
        let Some((first, largest)) = ranges.next() else { return };
        let fits = (self.space() - ACK_OVERHEAD) / ACK_RANGE;
        let count = ranges.len().min(fits).min(ACK_RANGES_MAX);
        self.u8(ACK);
        self.u64(largest);
        self.u16(clamp_us(held));
        self.u16(clamp_us(waited));
        self.u32(congested);
        self.u32(clamp_u32(largest - first));
        self.u8(count as u8);
        let mut low = first;
        for (first, last) in ranges.take(count) {
            self.u32(clamp_u32(low - last));
            self.u32(clamp_u32(last - first));
            low = first;
        }
    }
    /// A credit frame: everything of `lane` below `released` may be overwritten.
    pub(crate) fn credit(&mut self, lane: u8, released: u64) {
        self.u8(CREDIT);
        self.u8(lane);
        self.u64(released);
    }
    /// A start frame: the sender's log of `lane` begins at `from` for this reader.
    pub(crate) fn start(&mut self, lane: u8, from: u64) {
        self.u8(START);
        self.u8(lane);
        self.u64(from);
    }
    /// A ping: please acknowledge at once.
    pub(crate) fn ping(&mut self) {
        self.u8(PING);
    }
    /// A challenge of a path.
    pub(crate) fn challenge(&mut self, token: u64) {
        self.u8(CHALLENGE);
        self.u64(token);
    }
    /// The response to a challenge.
    pub(crate) fn response(&mut self, token: u64) {
        self.u8(RESPONSE);
        self.u64(token);
    }
    /// Padding up to the end.
    pub(crate) fn padding(&mut self) {
        let space = self.space();
        self.take(space).fill(PADDING);
    }
    /// A note of the driver.
    pub(crate) fn note(&mut self, bytes: &[u8]) {
        self.u8(NOTE);
        self.u8(bytes.len() as u8);
        self.take(bytes.len()).copy_from_slice(bytes);
    }
    /// The sender has closed the connection.
    pub(crate) fn close(&mut self, reason: u8) {
        self.u8(CLOSE);
        self.u8(reason);
    }
}

fn clamp_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn clamp_us(time: Duration) -> u16 {
    u16::try_from(time.as_micros()).unwrap_or(u16::MAX)
}

/// One published word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WordEntry {
    /// Which word of the lane.
    pub index: u16,
    /// Its value when it was published.
    pub value: u64,
    /// End of the lane's published log at that moment: the word is visible when the log is up to there.
    pub after: u64,
}

/// A frame, borrowing from the packet.
#[derive(Clone, Copy, Debug)]
pub enum Frame<'a> {
    /// Log bytes with their absolute position.
    Log {
        /// Lane index.
        lane: u8,
        /// Absolute position of the first byte.
        position: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Published words of one lane.
    Words {
        /// Lane index.
        lane: u8,
        /// The entries.
        entries: WordEntries<'a>,
    },
    /// Packet numbers received.
    Ack(AckFrame<'a>),
    /// How far the receiver of a log has released it.
    Credit {
        /// Lane index.
        lane: u8,
        /// Everything below may be reused.
        released: u64,
    },
    /// The sender has attached this reader to a lane.
    Start {
        /// Lane index.
        lane: u8,
        /// Where its log begins for this reader.
        from: u64,
    },
    /// Asks for an immediate ack.
    Ping,
    /// All the rest of the packet.
    Padding,
    /// Asks whoever reads at the address that this was sent to to say the number.
    Challenge(u64),
    /// The number of a challenge.
    Response(u64),
    /// What one driver says to the other, outside of all lanes; it may be lost.
    Note {
        /// At most 200 bytes, whose meaning is the drivers'.
        bytes: &'a [u8],
    },
    /// The peer has closed the connection.
    Close {
        /// A [`CloseReason`](super::CloseReason) as a number.
        reason: u8,
    },
}

/// Entries of a words frame.
#[derive(Clone, Copy, Debug)]
pub struct WordEntries<'a>(&'a [u8]);

impl Iterator for WordEntries<'_> {
    type Item = WordEntry;
    fn next(&mut self) -> Option<WordEntry> {
        let mut reader = Reader(self.0);
        let entry = WordEntry {
            index: reader.u16().ok()?,
            value: reader.u64().ok()?,
            after: reader.u64().ok()?,
        };
        self.0 = reader.0;
        Some(entry)
    }
}

/// An ack frame.
#[derive(Clone, Copy, Debug)]
pub struct AckFrame<'a> {
    /// Newest packet received.
    pub largest: u64,
    /// Microseconds between taking it in and sending this, or [`u16::MAX`] if more.
    pub held_us: u16,
    /// Microseconds that it lay unread before, at most; [`u16::MAX`] if more.
    pub waited_us: u16,
    /// How many packets, modulo 2³², have met congestion on their way (RFC 3168).
    pub congested: u32,
    first_len: u32,
    extra: &'a [u8],
}

impl<'a> AckFrame<'a> {
    /// Acked packet numbers as inclusive ranges, newest first. Stops at the first range that is impossible.
    pub fn ranges(&self) -> AckRanges<'a> {
        AckRanges { next: Some((self.largest, self.first_len)), extra: Reader(self.extra) }
    }
}

/// Iterator over the ranges of an ack frame.
#[derive(Clone, Debug)]
pub struct AckRanges<'a> {
    next: Option<(u64, u32)>,
    extra: Reader<'a>,
}

impl Iterator for AckRanges<'_> {
    type Item = (u64, u64);
    fn next(&mut self) -> Option<(u64, u64)> {
        let (last, len) = self.next.take()?;
        let first = last.checked_sub(u64::from(len))?;
        if let (Ok(gap), Ok(len)) = (self.extra.u32(), self.extra.u32())
            && gap > 0
        {
            self.next = first.checked_sub(u64::from(gap)).map(|last| (last, len));
        }
        Some((first, last))
    }
}

/// Walks the frames of a payload.
#[derive(Clone, Debug)]
pub struct Frames<'a>(Reader<'a>);

impl<'a> Frames<'a> {
    /// Begins at the first frame.
    pub fn new(payload: &'a [u8]) -> Self {
        Frames(Reader(payload))
    }

    fn frame(&mut self) -> Result<Frame<'a>, WireError> {
        let reader = &mut self.0;
        match reader.u8()? {
            LOG => {
                let lane = reader.u8()?;
                let len = reader.u16()?;
                let position = reader.u64()?;
                let bytes = reader.bytes(usize::from(len))?;
                if position.checked_add(u64::from(len)).is_none() {
                    return Err(WireError::Value("log position"));
                }
                Ok(Frame::Log { lane, position, bytes })
            }
            WORDS => {
                let lane = reader.u8()?;
                let count = usize::from(reader.u8()?);
                Ok(Frame::Words { lane, entries: WordEntries(reader.bytes(count * WORD_ENTRY)?) })
            }
            ACK => {
                let largest = reader.u64()?;
                let (held_us, waited_us) = (reader.u16()?, reader.u16()?);
                let congested = reader.u32()?;
                let first_len = reader.u32()?;
                let count = usize::from(reader.u8()?);
                if count > ACK_RANGES_MAX {
                    return Err(WireError::Value("ack range count"));
                }
                let extra = reader.bytes(count * ACK_RANGE)?;
                let first = AckFrame { largest, held_us, waited_us, congested, first_len, extra };
                Ok(Frame::Ack(first))
            }
            CREDIT => Ok(Frame::Credit { lane: reader.u8()?, released: reader.u64()? }),
            START => Ok(Frame::Start { lane: reader.u8()?, from: reader.u64()? }),
            PING => Ok(Frame::Ping),
            CHALLENGE => Ok(Frame::Challenge(reader.u64()?)),
            RESPONSE => Ok(Frame::Response(reader.u64()?)),
            PADDING => {
                reader.0 = &[];
                Ok(Frame::Padding)
            }
            NOTE => {
                let len = usize::from(reader.u8()?);
                if len > NOTE_MAX {
                    return Err(WireError::Value("note length"));
                }
                Ok(Frame::Note { bytes: reader.bytes(len)? })
            }
            CLOSE => Ok(Frame::Close { reason: reader.u8()? }),
            other => Err(WireError::FrameType(other)),
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, WireError>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.0.is_empty() {
            return None;
        }
        let frame = self.frame();
        if frame.is_err() {
            self.0.0 = &[];
        }
        Some(frame)
    }
}

/// Walks all frames once; `Ok` means that a second walk meets no error.
pub fn check_frames(payload: &[u8]) -> Result<(), WireError> {
    Frames::new(payload).try_for_each(|frame| frame.map(drop))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
