//! A link over real packets: the reliable UDP core of the transport beneath one side.
//!
//! In most seeds a link is a model: what a flush sends arrives as a whole, and the contract of the lanes is kept by
//! construction ([`Side`](crate::link::Side)). In the others the same flush is published to the lanes of a real
//! [`Connection`], travels in its datagrams over a network that loses, repeats, reorders and damages them, and what the
//! peer's connection makes visible is handed to its side as if one flush had brought just that. So the packet core is
//! held against everything the layer above relies on, and the layer above meets the timing that the packet core has:
//! pieces, credit, congestion, probes, and `heard` and `confirmed` as they really are.
//!
//! Three lanes, as in life: control, group with the words of the row, bulk. A record's bytes follow from its position
//! and the message it carries, so that a byte out of place is noticed.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use quintet_transport::reliable::{
    Bug, CloseReason, Connection, LaneShape, LaneTable, PacketView, Settings, Sink, Source,
};
use quintet_transport::{BULK, CONTROL, GROUP, Time};

use crate::app::Entry;
use crate::check::words::WORDS;
use crate::entropy::mix;
use crate::link::{Chunk, Data, Record};
use crate::process::HEARTBEAT;

/// Largest datagram before its seal.
const DATAGRAM: usize = 1200;
/// Bytes of the control and bulk logs.
const LOG: u64 = 1 << 18;
/// Bytes of a record's header in any lane.
pub const HEADER: u64 = 16;
/// Bytes of the number that damage is noticed by. In life that is the tag of the encryption.
const SEAL: usize = 4;
const LANES: usize = 3;

/// Own published bytes of one lane, from what the peer has released on.
#[derive(Debug, Default)]
struct Outgoing {
    base: u64,
    bytes: VecDeque<u8>,
}

impl Outgoing {
    fn head(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    fn restart(&mut self, at: u64) {
        self.base = at;
        self.bytes.clear();
    }

    fn forget(&mut self, released: u64) {
        let count = released.saturating_sub(self.base).min(self.bytes.len() as u64);
        self.bytes.drain(..count as usize);
        self.base += count;
    }
}

/// What the connection reads: published bytes, and each word with the head of the log when it was set.
#[derive(Debug, Default)]
struct Own {
    logs: [Outgoing; LANES],
    words: [(u64, u64); WORDS],
}

impl Source for Own {
    fn log(&self, lane: u8, position: u64, out: &mut [u8]) {
        let log = &self.logs[usize::from(lane)];
        assert!(
            position >= log.base && position + out.len() as u64 <= log.head(),
            "lane {lane}: asked for {position}+{}, has {}..{}",
            out.len(),
            log.base,
            log.head()
        );
        let from = (position - log.base) as usize;
        for (byte, &own) in out.iter_mut().zip(log.bytes.range(from..)) {
            *byte = own;
        }
    }

    fn word(&self, _lane: u8, index: u16) -> (u64, u64) {
        self.words[usize::from(index)]
    }
}

/// The peer's logs, as rings, and how far each was visible before the packet at hand.
#[derive(Debug)]
struct Rings {
    bytes: [Vec<u8>; LANES],
    visible: [u64; LANES],
}

impl Rings {
    fn copy(&self, lane: usize, position: u64, len: u64) -> Vec<u8> {
        let ring = &self.bytes[lane];
        let mask = ring.len() as u64 - 1;
        (position..position + len).map(|at| ring[(at & mask) as usize]).collect()
    }
}

impl Sink for Rings {
    fn place(&mut self, lane: u8, position: u64, bytes: &[u8]) {
        let lane = usize::from(lane);
        assert!(position >= self.visible[lane], "lane {lane}: visible bytes are written again");
        let ring = &mut self.bytes[lane];
        let mask = ring.len() as u64 - 1;
        for (at, &byte) in (position..).zip(bytes) {
            ring[(at & mask) as usize] = byte;
        }
    }
}

/// What a datagram did to a link.
#[derive(Debug)]
pub enum Arrived {
    /// Nothing: damaged, known, outdated, not for this connection.
    Nothing,
    /// It was a sign of life, and this became visible.
    Visible(Box<Data>),
    /// The peer has closed the connection.
    Closed,
}

/// One side of a link, over packets.
#[derive(Debug)]
pub struct Wire {
    /// Connection id that datagrams to this side carry.
    id: u64,
    connection: Connection,
    own: Own,
    rings: Rings,
    /// How far each of the peer's logs was taken apart.
    taken: [u64; LANES],
    /// Number of the next record of the peer's control log and of its bulk log.
    records: [u64; LANES],
    words: [u64; WORDS],
}

impl Wire {
    /// The side of `me` in a session with `peer`, whose control log begins with record `control_from` here. Group logs
    /// have `log_bytes`.
    pub fn new(
        session: u64,
        (me, peer): (u16, u16),
        control_from: u64,
        log_bytes: u64,
        now: Time,
    ) -> Wire {
        let words = WORDS as u32;
        let shapes = [(0, LOG), (words, log_bytes), (0, LOG)]
            .map(|(words, log_bytes)| LaneShape { words, log_bytes });
        let table = LaneTable::new(shapes).expect("three lanes");
        let id = |node| session << 16 | u64::from(node);
        let heartbeat = Duration::from_nanos(HEARTBEAT);
        let settings =
            Settings { remote: id(peer), own: table, peer: table, datagram: DATAGRAM, heartbeat };
        let mut connection = Connection::new(settings, now);
        for lane in [CONTROL, BULK] {
            connection.attach(lane.0, 0, 0, |_| false);
            connection.open(lane.0, 0);
        }
        Wire {
            id: id(me),
            connection,
            own: Own::default(),
            rings: Rings {
                bytes: shapes.map(|shape| vec![0; shape.log_bytes as usize]),
                visible: [0; LANES],
            },
            taken: [0; LANES],
            records: [control_from, 0, 0],
            words: [0; WORDS],
        }
    }

    /// Plants a bug in the connection.
    pub fn plant(&mut self, bug: Bug) {
        self.connection.plant(bug);
    }

    /// Begins to send the group log, from byte `from` on.
    pub fn attach(&mut self, from: u64) {
        self.own.logs[usize::from(GROUP.0)].restart(from);
        self.own.words = [(0, 0); WORDS];
        self.connection.attach(GROUP.0, from, from, |_| false);
    }

    /// Is the peer a reader of the group log that has not released all below `reclaimed`?
    pub fn lags_behind(&self, reclaimed: u64) -> bool {
        self.connection.is_attached(GROUP.0) && self.connection.released(GROUP.0) < reclaimed
    }

    /// Sends the group log no longer.
    pub fn detach(&mut self) {
        self.connection.detach(GROUP.0);
    }

    /// Begins to read the peer's group log at byte `from`.
    pub fn open(&mut self, from: u64) {
        self.connection.open(GROUP.0, from);
        self.taken[usize::from(GROUP.0)] = from;
    }

    /// The link is over on this side; the peer is told.
    pub fn close(&mut self) {
        self.connection.close(CloseReason::Fenced);
    }

    /// Publishes what a flush sends.
    pub fn publish(&mut self, data: Data) {
        if let Some((_, records)) = data.control {
            let lane = usize::from(CONTROL.0);
            records.iter().for_each(|bytes| self.append(lane, bytes));
        }
        if let Some((_, chunks)) = data.bulk {
            let lane = usize::from(BULK.0);
            chunks.iter().for_each(|chunk| self.append(lane, &encode(chunk)));
        }
        if let Some((from, end, records)) = data.group {
            let log = &mut self.own.logs[usize::from(GROUP.0)];
            assert_eq!(log.head(), from, "the group log has a gap");
            records.iter().for_each(|record| log.bytes.extend(body(record)));
            assert_eq!(log.head(), end, "records and positions do not agree");
        }
        for lane in [CONTROL, GROUP, BULK] {
            self.connection.publish(lane.0, self.own.logs[usize::from(lane.0)].head());
        }
        for (word, news) in data.words.into_iter().enumerate() {
            if let Some(news) = news {
                self.own.words[word] = news;
                self.connection.mark_word(GROUP.0, word as u16);
            }
        }
    }

    /// The peer's group log is not needed below `upto`.
    pub fn release(&mut self, upto: u64) {
        if self.connection.visible(GROUP.0) >= upto {
            self.connection.release(GROUP.0, upto);
        }
    }

    /// When the connection wants to be looked at.
    pub fn next_timeout(&self) -> Option<Time> {
        self.connection.next_timeout()
    }

    /// The datagrams that are to be sent now.
    pub fn poll(&mut self, now: Time) -> Vec<Vec<u8>> {
        self.connection.handle_timeout(now);
        let mut datagrams = Vec::new();
        let mut buffer = [0; DATAGRAM];
        while let Some(packed) = self.connection.poll_transmit(now, &mut buffer, &self.own) {
            datagrams.push(sealed(&buffer[..packed.len]));
        }
        datagrams
    }

    /// A datagram arrived.
    pub fn arrive(&mut self, datagram: &[u8], now: Time) -> Arrived {
        let Some(packet) = opened(datagram) else { return Arrived::Nothing };
        if packet.header.connection != self.id {
            return Arrived::Nothing;
        }
        for (lane, visible) in self.rings.visible.iter_mut().enumerate() {
            *visible = self.connection.visible(lane as u8);
        }
        match self.connection.handle_packet(now, &packet, &mut self.rings) {
            Err(_) => Arrived::Nothing,
            Ok(received) if received.closed.is_some() => Arrived::Closed,
            Ok(_) => Arrived::Visible(Box::new(self.take())),
        }
    }

    /// Own clock when the peer was heard last.
    pub fn heard(&self) -> u64 {
        self.connection.heard().as_nanos()
    }

    /// What has become visible since the last time.
    pub fn take(&mut self) -> Data {
        for (lane, log) in self.own.logs.iter_mut().enumerate() {
            log.forget(self.connection.released(lane as u8));
        }
        let mut data = Data {
            echo: self.connection.confirmed().as_nanos(),
            released: self.connection.released(GROUP.0),
            ..Data::default()
        };
        let (first, records) = self.take_framed(CONTROL.0);
        if !records.is_empty() {
            data.control = Some((first, records.into_iter().map(Rc::from).collect()));
        }
        let (first, chunks) = self.take_framed(BULK.0);
        if !chunks.is_empty() {
            data.bulk = Some((first, chunks.iter().map(|bytes| decode(bytes)).collect()));
        }
        let from = self.taken[usize::from(GROUP.0)];
        let records = self.take_group();
        if let Some(last) = records.last() {
            data.group = Some((from, last.end, records));
        }
        for word in 0..WORDS {
            let value = self.connection.word(GROUP.0, word);
            if value != self.words[word] {
                assert!(value > self.words[word], "word {word} went back");
                self.words[word] = value;
                // The connection has let it wait for its bytes: nothing is to wait any more.
                data.words[word] = Some((value, 0));
            }
        }
        data
    }

    /// Appends a record: its length and its checksum, then its bytes.
    fn append(&mut self, lane: usize, payload: &[u8]) {
        let log = &mut self.own.logs[lane];
        let padded = payload.len().next_multiple_of(8);
        assert!(padded as u64 + HEADER <= LOG, "a record larger than its log");
        log.bytes.extend((payload.len() as u64).to_le_bytes());
        log.bytes.extend(u64::from(crc32fast::hash(payload)).to_le_bytes());
        log.bytes.extend(payload);
        log.bytes.extend(std::iter::repeat_n(0, padded - payload.len()));
    }

    /// Whole records of a lane whose records have a length in front, and the number of the first.
    fn take_framed(&mut self, lane: u8) -> (u64, Vec<Vec<u8>>) {
        let (index, visible) = (usize::from(lane), self.connection.visible(lane));
        let mut records = Vec::new();
        while visible - self.taken[index] >= HEADER {
            let at = self.taken[index];
            let head = self.rings.copy(index, at, HEADER);
            let (len, sum) = (number(&head[..8]), number(&head[8..]));
            let end = at + HEADER + len.next_multiple_of(8);
            if end > visible {
                break;
            }
            let payload = self.rings.copy(index, at + HEADER, len);
            assert_eq!(
                u64::from(crc32fast::hash(&payload)),
                sum,
                "lane {lane}: wrong bytes at {at}"
            );
            records.push(payload);
            self.taken[index] = end;
        }
        self.connection.release(lane, self.taken[index]);
        let first = self.records[index];
        self.records[index] += records.len() as u64;
        (first, records)
    }

    fn take_group(&mut self) -> Vec<Record> {
        let index = usize::from(GROUP.0);
        let visible = self.connection.visible(GROUP.0);
        let mut records = Vec::new();
        while visible.saturating_sub(self.taken[index]) >= HEADER + 8 {
            let position = self.taken[index];
            let head = self.rings.copy(index, position, HEADER + 8);
            let len = number(&head[16..]) as u32;
            let end = position + HEADER + u64::from(len).next_multiple_of(8);
            if end > visible {
                break;
            }
            let (at, message) = (number(&head[..8]), number(&head[8..16]));
            let record = Record { index: at, position, end, len, message };
            assert_eq!(
                self.rings.copy(index, position, end - position),
                body(&record),
                "bytes of {record:?} are not what was published"
            );
            records.push(record);
            self.taken[index] = end;
        }
        records
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |n, &byte| n << 8 | u64::from(byte))
}

/// The bytes of a record of the group log: its numbers, then what follows from them.
fn body(record: &Record) -> Vec<u8> {
    let size = (record.end - record.position) as usize;
    let mut bytes = Vec::with_capacity(size);
    bytes.extend(record.index.to_le_bytes());
    bytes.extend(record.message.to_le_bytes());
    bytes.extend(u64::from(record.len).to_le_bytes());
    let mut at = record.position;
    while bytes.len() < size {
        at += 8;
        bytes.extend(mix(at ^ mix(record.message)).to_le_bytes());
    }
    bytes
}

/// The bytes of a piece of a state transfer: what it is, then its numbers.
fn encode(chunk: &Chunk) -> Vec<u8> {
    let numbers: Vec<u64> = match chunk {
        Chunk::Begin => vec![0],
        Chunk::Entries(entries) => {
            let numbers = entries.iter().flat_map(|entry| [entry.position, entry.message]);
            std::iter::once(1).chain(numbers).collect()
        }
        Chunk::Loaded => vec![2],
        Chunk::Finish(view) => vec![3, *view],
    };
    numbers.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn decode(bytes: &[u8]) -> Chunk {
    let numbers: Vec<u64> = bytes.chunks_exact(8).map(number).collect();
    match *numbers {
        [0] => Chunk::Begin,
        [1, ref rest @ ..] => {
            let entry = |pair: &[u64]| Entry { position: pair[0], message: pair[1] };
            Chunk::Entries(rest.chunks_exact(2).map(entry).collect())
        }
        [2] => Chunk::Loaded,
        [3, view] => Chunk::Finish(view),
        _ => panic!("a piece of a transfer that nobody sent: {numbers:?}"),
    }
}

fn sealed(packet: &[u8]) -> Vec<u8> {
    [packet, &crc32fast::hash(packet).to_le_bytes()].concat()
}

fn opened(datagram: &[u8]) -> Option<PacketView<'_>> {
    let (packet, sum) = datagram.split_last_chunk::<SEAL>()?;
    (crc32fast::hash(packet).to_le_bytes() == *sum).then(|| PacketView::parse(packet).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: u64, position: u64, len: u32) -> Record {
        let end = position + HEADER + u64::from(len).next_multiple_of(8);
        Record { index, position, end, len, message: 70 + index }
    }

    fn pair() -> [Wire; 2] {
        let now = Time::from_millis(1);
        [Wire::new(9, (1, 2), 5, 4096, now), Wire::new(9, (2, 1), 0, 4096, now)]
    }

    /// Lets all datagrams of `from` arrive at `to` but those that `lost` names; what became visible, in order.
    fn carry(wires: &mut [Wire; 2], from: usize, now: u64, lost: &[usize]) -> Vec<Data> {
        let now = Time::from_micros(now);
        let datagrams = wires[from].poll(now);
        let through = datagrams.iter().enumerate().filter(|(at, _)| !lost.contains(at));
        let arrived = through.map(|(_, datagram)| wires[1 - from].arrive(datagram, now));
        arrived
            .map(|arrived| match arrived {
                Arrived::Visible(data) => *data,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn settle(wires: &mut [Wire; 2], from: u64) -> Vec<Data> {
        let mut all = Vec::new();
        for round in 0..40 {
            carry(wires, 0, from + 500 * round, &[]);
            all.extend(carry(wires, 1, from + 500 * round, &[]));
        }
        all
    }

    #[test]
    fn what_a_flush_sends_becomes_visible_over_packets() {
        let mut wires = pair();
        let records = vec![record(3, 100 * 8, 1), record(4, 100 * 8 + 24, 1500)];
        let end = records[1].end;
        wires[1].attach(800);
        wires[0].open(800);
        let control: Vec<Rc<[u8]>> = vec![vec![1, 2, 3].into(), vec![4; 3000].into()];
        let entries = vec![Entry { position: 7, message: 8 }, Entry::mark(2)];
        wires[1].publish(Data {
            control: Some((0, control.clone())),
            group: Some((800, end, records.clone())),
            words: [Some((5, end)), None, None, None],
            bulk: Some((0, vec![Chunk::Begin, Chunk::Entries(entries), Chunk::Finish(6)])),
            ..Data::default()
        });
        let (mut heard, mut seen, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
        let mut word = None;
        for data in settle(&mut wires, 2_000) {
            if let Some((first, records)) = data.control {
                assert_eq!(first, 5 + heard.len() as u64);
                heard.extend(records);
            }
            if let Some((from, _, records)) = data.group {
                assert_eq!(from, seen.last().map_or(800, |r: &Record| r.end));
                seen.extend(records);
            }
            if let Some((value, _)) = data.words[0] {
                assert_eq!(seen, records, "a word before its bytes");
                word = Some(value);
            }
            chunks.extend(data.bulk.into_iter().flat_map(|(_, chunks)| chunks));
        }
        assert_eq!((heard, seen, word), (control, records, Some(5)));
        assert!(
            matches!(&chunks[..], [Chunk::Begin, Chunk::Entries(e), Chunk::Finish(6)] if e.len() == 2)
        );
    }

    #[test]
    fn what_is_lost_is_sent_again() {
        let mut wires = pair();
        wires[1].attach(0);
        wires[0].open(0);
        settle(&mut wires, 2_000);
        let records = vec![record(0, 0, 2000)];
        wires[1]
            .publish(Data { group: Some((0, records[0].end, records.clone())), ..Data::default() });
        let at_once = carry(&mut wires, 1, 50_000, &[0]);
        assert!(at_once.iter().all(|data| data.group.is_none()), "the first half is missing");
        let later: Vec<Record> = settle(&mut wires, 50_500)
            .into_iter()
            .flat_map(|data| data.group)
            .flat_map(|g| g.2)
            .collect();
        assert_eq!(later, records);
    }

    #[test]
    fn what_is_damaged_or_of_another_session_is_nothing() {
        let mut wires = pair();
        let now = Time::from_millis(2);
        let good = wires[1].poll(now).remove(0);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(matches!(wires[0].arrive(&bad, now), Arrived::Nothing), "byte {at}");
        }
        let mut other = Wire::new(10, (1, 2), 0, 4096, now);
        assert!(matches!(other.arrive(&good, now), Arrived::Nothing));
        assert!(matches!(wires[0].arrive(&good, now), Arrived::Visible(_)));
    }

    #[test]
    fn the_peer_hears_of_the_end() {
        let mut wires = pair();
        wires[1].close();
        let datagrams = wires[1].poll(Time::from_millis(2));
        assert!(matches!(wires[0].arrive(&datagrams[0], Time::from_millis(2)), Arrived::Closed));
    }
}
