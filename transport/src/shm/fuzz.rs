//! Ways in for the fuzz targets: what is said on the rendezvous socket, and a segment whose every word a stranger chose.

use std::sync::atomic::Ordering;

use super::hello::{Message, samples};
use super::layout::*;
use super::replica::Replica;
use super::segment::sealed;
use crate::lane::{LaneId, LaneSpec};
use crate::log::Reader;

/// Takes a message of the rendezvous socket. What is understood has one spelling.
pub fn shm_hello(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        assert_eq!(message.encode(), bytes);
    }
}

/// Messages of the rendezvous socket, of each kind.
pub fn shm_hellos() -> Vec<Vec<u8>> {
    samples("cluster").iter().map(Message::encode).collect()
}

fn lanes() -> [LaneSpec; 2] {
    ["control", "group"].map(|name| LaneSpec { name, words: 8, log_bytes: 4096 })
}

/// Maps a segment that is sound but for the words that `bytes` change (each a u16, the number of the word, and its u64
/// value), and reads all there is to read as a link does.
pub fn shm_segment(bytes: &[u8]) {
    let (places, total) = plan(&lanes());
    let Ok((file, memory)) = sealed(c"quintet-fuzz", total) else { return };
    let put = |at: usize, value: u64| memory.word(at).store(value, Ordering::Relaxed);
    for (at, value) in [
        (AT_MAGIC, MAGIC),
        (AT_VERSION, VERSION),
        (AT_INCARNATION, 7),
        (AT_NODE, 1),
        (AT_LANES, 2),
        (AT_TOTAL, total as u64),
    ] {
        put(at, value);
    }
    for (i, p) in places.iter().enumerate() {
        for (j, value) in [p.words_at, p.words, p.log_at, p.log_bytes].into_iter().enumerate() {
            put(AT_TABLE + 32 * i + 8 * j, value as u64);
        }
    }
    for change in bytes.as_chunks::<10>().0 {
        let [a, b, value @ ..] = *change;
        let word = usize::from(u16::from_le_bytes([a, b])) % (total / 8);
        put(8 * word, u64::from_le_bytes(value));
    }
    let Ok(replica) = Replica::map(&file, 2, 5) else { return };
    for lane in [LaneId(0), LaneId(1)] {
        let seen: u64 =
            replica.words(lane).iter().fold(0, |sum, word| sum ^ word.load(Ordering::Relaxed));
        std::hint::black_box(seen);
        let mut reader = Reader::new(replica.ring(lane), 0);
        let _ = reader.advance(replica.head(lane));
        let (mut at, mut records) = (0, 0);
        while let Ok(Some(record)) = reader.peek(at) {
            assert!(record.end > at && record.payload.len() as u64 <= reader.ring().capacity());
            std::hint::black_box(record.payload.iter().fold(0u8, |sum, byte| sum ^ byte));
            at = record.end;
            records += 1;
        }
        assert!(records <= 4096 / 8, "a walk over a log ends");
        reader.release(at);
        assert!(reader.released() <= reader.visible());
        let _ = replica.low_after_reads(lane);
    }
    std::hint::black_box((replica.turns(), replica.owner_died(), replica.echo(), replica.wanted()));
}

/// Changes that make the second lane hold two records.
pub fn shm_segment_sample() -> Vec<u8> {
    let (places, _) = plan(&lanes());
    let log = places[1].log_at;
    let record = 1 << 32 | 20;
    let changes = [
        (AT_HEADS + 8, 80),
        (log, record),
        (log + 8, 1),
        (log + 40, record),
        (log + 48, 2),
        (AT_TURN, 1),
    ];
    let bytes = |(at, value): (usize, u64)| {
        let mut change = ((at / 8) as u16).to_le_bytes().to_vec();
        change.extend(value.to_le_bytes());
        change
    };
    changes.into_iter().flat_map(bytes).collect()
}
