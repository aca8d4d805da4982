//! What each target does with its bytes.

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quintet_client::wire;
use quintet_manager::config::Config;
use quintet_manager::journal::Entry;
use quintet_manager::replica::{Message, Replica};
use quintet_transport::reliable::{
    Connection, Frames, GREETING_MAX, Greeting, HEADER_LEN, Handshake, Header, INIT_LEN, LaneShape,
    LaneTable, NOISE_AT, PacketView, Settings, Sink, Source, check_frames,
};
use quintet_transport::{Time, fuzz, stats};
use quintet_vsync::core::{Durable, check_control};

/// Datagrams as they come from the network, before and after they were opened.
pub(crate) fn packet(bytes: &[u8]) {
    let _ = black_box(Header::parse(bytes));
    if let Ok(view) = PacketView::parse(bytes) {
        let sound = check_frames(view.payload).is_ok();
        let all = Frames::new(view.payload).all(|frame| black_box(frame).is_ok());
        assert_eq!(sound, all, "a second walk over the frames says the same");
    }
}

/// Words and log bytes of a lane in [`connection`].
const WORDS: u32 = 8;
const LOG_BYTES: u64 = 4096;
/// Lanes of it.
pub(crate) const LANES: u8 = 3;

pub(crate) fn table() -> LaneTable {
    let lane = LaneShape { words: WORDS, log_bytes: LOG_BYTES };
    LaneTable::new([lane; LANES as usize]).expect("few lanes")
}

pub(crate) fn settings() -> Settings {
    let heartbeat = Duration::from_millis(5);
    Settings { remote: 7, own: table(), peer: table(), datagram: 1200, heartbeat }
}

/// A log of ones, and words that were set at its beginning.
pub(crate) struct Ones;

impl Source for Ones {
    fn log(&self, _: u8, _: u64, out: &mut [u8]) {
        out.fill(1);
    }

    fn word(&self, _: u8, index: u16) -> (u64, u64) {
        (u64::from(index) + 1, 0)
    }
}

/// Checks that nothing is placed where something visible and unreleased lies, nor beyond the ring.
struct Rings {
    visible: [u64; LANES as usize],
    released: [u64; LANES as usize],
}

impl Sink for Rings {
    fn place(&mut self, lane: u8, position: u64, bytes: &[u8]) {
        let lane = usize::from(lane);
        assert!(position >= self.visible[lane], "visible bytes are overwritten");
        let end = position.checked_add(bytes.len() as u64).expect("no wrap");
        assert!(end <= self.released[lane] + LOG_BYTES, "unreleased bytes are overwritten");
    }
}

/// A peer that has our keys and says whatever it likes: payloads, each after its length (u16) and a byte that says how
/// the packet's number and the time move on.
pub(crate) fn connection(bytes: &[u8]) {
    let mut now = Time::from_nanos(1_000_000_000);
    let mut connection = Connection::new(settings(), now);
    let (mut number, mut out) = (0u64, [0; 1500]);
    let mut rings = Rings { visible: [0; LANES as usize], released: [0; LANES as usize] };
    for lane in 0..LANES {
        connection.attach(lane, 0, 0, |_| false);
        connection.publish(lane, 1024);
        connection.mark_word(lane, 3);
        connection.open(lane, 0);
    }
    let mut rest = bytes;
    while let Some(([a, b, step], after)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([*a, *b])).min(after.len());
        let (payload, after) = after.split_at(len);
        rest = after;
        let (back, far) = (step & 1 != 0, u64::from(step >> 1));
        number = if back { number.wrapping_sub(far) } else { number.wrapping_add(far + 1) };
        now += Duration::from_micros(far * far * far);
        let packet = PacketView {
            header: Header { flags: 0, connection: 7, number },
            payload,
            congested: step & 4 != 0,
            waited: Duration::from_micros(far),
        };
        let _ = connection.handle_packet(now, &packet, &mut rings);
        for lane in 0..LANES {
            let at = usize::from(lane);
            let visible = connection.visible(lane);
            assert!(visible >= rings.visible[at], "what was visible stays so");
            assert!(visible - rings.released[at] <= LOG_BYTES, "no more than fits");
            assert!(connection.released(lane) <= 1024, "nothing is released that was not sent");
            rings.visible[at] = visible;
            if step & 2 != 0 {
                connection.release(lane, visible);
                rings.released[at] = visible;
            }
        }
        connection.handle_timeout(now);
        // What it makes us say is bounded.
        let said = (0..64).take_while(|_| connection.poll_transmit(now, &mut out, &Ones).is_some());
        assert!(said.count() < 64, "one packet makes us send without end");
    }
}

/// The handshake over UDP, in the open and under the seal.
pub(crate) fn handshake(bytes: &[u8]) {
    if let Ok((header, message)) = Handshake::parse(bytes) {
        let mut again = vec![0; INIT_LEN.max(NOISE_AT + bytes.len())];
        if !matches!(message, Handshake::Answer(_) | Handshake::Finish(_)) {
            let len = message.emit(header.connection, &mut again);
            assert_eq!(&again[..len], bytes, "one message, one spelling");
        }
    }
    if let Ok(greeting) = Greeting::parse(bytes) {
        let mut again = vec![0; GREETING_MAX.max(HEADER_LEN)];
        let len = greeting.emit(&mut again);
        assert_eq!(&again[..len], bytes, "one greeting, one spelling");
    }
}

/// What is said on the rendezvous socket of shared memory.
pub(crate) fn shm_hello(bytes: &[u8]) {
    fuzz::shm_hello(bytes);
}

/// A segment of shared memory: its words, changed.
pub(crate) fn shm_segment(bytes: &[u8]) {
    fuzz::shm_segment(bytes);
}

/// What a peer says about queue pairs.
pub(crate) fn verbs_note(bytes: &[u8]) {
    fuzz::verbs_note(bytes);
}

/// Counters in another process's memory.
pub(crate) fn stats(bytes: &[u8]) {
    if let Ok(shown) = stats::read(bytes) {
        assert!(shown.cells.iter().all(|(name, _)| (1..=stats::NAME_MAX).contains(&name.len())));
    }
}

/// Frames of clients.
pub(crate) fn frame(bytes: &[u8]) {
    if let Ok(Some(length)) = wire::frame_length(bytes, wire::limits::FRAME_BYTES_MAX) {
        assert!(length <= wire::limits::FRAME_BYTES_MAX);
    }
    let Some(body) = bytes.get(4..) else { return };
    if let Ok(frame) = wire::decode(Bytes::copy_from_slice(body)) {
        let mut again = BytesMut::new();
        let tail = wire::encode(&frame, &mut again).expect("what was read can be written");
        let mut again = again.to_vec();
        again.extend(tail.iter().flatten());
        assert_eq!(wire::decode(Bytes::copy_from_slice(&again[4..])), Ok(frame));
    }
}

/// The daemon's configuration.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = Config::parse(text) {
        assert!(!error.to_string().is_empty());
    }
}

/// Journal entries with a sum that is right whatever they hold, messages of the order, and snapshots.
pub(crate) fn journal(bytes: &[u8]) {
    if let Ok(Some((entry, len))) = Entry::decode(bytes) {
        let mut again = Vec::new();
        entry.encode(&mut again);
        assert_eq!(again, bytes[..len], "one entry, one spelling");
    }
    // Past the sum, as damage of the writer itself would be.
    if let Some((_, body)) = bytes.split_at_checked(8) {
        let length = (body.len() as u32).to_le_bytes();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&length);
        hasher.update(body);
        let summed = [&length[..], &hasher.finalize().to_le_bytes(), body].concat();
        let _ = black_box(Entry::decode(&summed).is_ok());
    }
    if let Ok((message, time_ns)) = Message::decode(bytes) {
        let again = message.encode(time_ns);
        assert_eq!(Message::decode(&again), Ok((message, time_ns)));
    }
    if let Ok(replica) = Replica::decode(bytes) {
        let again = replica.encode();
        let twice = Replica::decode(&again).expect("what was read can be written").encode();
        assert_eq!(again, twice);
    }
}

/// Control records of the group, and its durable record.
pub(crate) fn control(bytes: &[u8]) {
    check_control(bytes);
    if let Ok(durable) = Durable::decode(bytes) {
        assert_eq!(Durable::decode(&durable.encode()), Ok(durable));
    }
}
