//! The ring log against a queue, at tiny capacities: wrap, full, abort, slow committers, many threads.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::wait::{Bell, Waker};

/// A log, and a reader of its memory as a peer would have it.
struct Pair {
    publisher: Publisher,
    reader: Reader,
    next: u64,
}

impl Pair {
    fn new(capacity: usize) -> Pair {
        let ring = Ring::private(capacity).unwrap();
        let waker = Waker::new(Bell::new().unwrap());
        Pair {
            publisher: Publisher::new(ring.clone(), waker),
            reader: Reader::new(ring, 0),
            next: 0,
        }
    }

    fn publish_all(&mut self) -> usize {
        self.flush(false).0
    }

    /// As a flush does; by `looked_at` the next record may have lines of its own. How many were published, and whether the
    /// reader knew by the record itself.
    fn flush(&mut self, looked_at: bool) -> (usize, bool) {
        let (mut n, before) = (0, self.reader.visible());
        while self.publisher.committed().is_some() {
            self.publisher.publish(self.next);
            self.next += 1;
            n += 1;
        }
        self.publisher.show_if_alone(before);
        self.publisher.flushed(looked_at);
        let shown = self.reader.shown();
        if let Some(word) = shown {
            self.reader.show(word).unwrap();
            assert!(self.reader.visible() <= self.publisher.head());
        }
        self.reader.advance(self.publisher.head()).unwrap();
        (n, shown.is_some())
    }

    /// Takes the oldest visible record.
    fn take(&mut self) -> Option<(u64, Vec<u8>)> {
        let record = self.reader.peek(0).unwrap()?;
        let (index, payload, end) = (record.index, record.payload.to_vec(), record.end);
        self.reader.release(end);
        Some((index, payload))
    }

    fn reclaim(&mut self) {
        self.reader.skip();
        self.publisher.reclaim(self.reader.released());
    }
}

fn send(writer: &LogWriter, payload: &[u8]) -> Result<u64, ReserveError> {
    let mut slot = writer.reserve(payload.len())?;
    assert!(slot.iter().all(|&b| b == 0), "fresh space is zero");
    slot.copy_from_slice(payload);
    Ok(slot.commit())
}

#[test]
fn a_record_travels_with_its_number_and_position() {
    let mut log = Pair::new(128);
    let writer = log.publisher.writer();
    assert_eq!(send(&writer, b"hello"), Ok(0));
    assert_eq!(send(&writer, b""), Ok(24));
    assert_eq!(log.publisher.committed(), Some(Committed { len: 5 }));
    assert_eq!(log.publisher.publish(7), Published { position: 0, len: 5 });
    assert_eq!(log.publisher.payload(0), Some((7, &b"hello"[..])));
    assert_eq!(log.publisher.payload(24), None, "not published yet");
    log.reader.advance(log.publisher.head()).unwrap();
    let record = log.reader.peek(0).unwrap().unwrap();
    assert_eq!(
        (record.index, record.position, record.end, record.payload),
        (7, 0, 24, &b"hello"[..])
    );
    assert_eq!(log.reader.peek(24), Ok(None));
}

#[test]
fn full_is_a_state_and_too_large_an_error() {
    let mut log = Pair::new(128);
    let writer = log.publisher.writer();
    assert_eq!(writer.len_max(), 48);
    assert_eq!(send(&writer, &[0; 49]), Err(ReserveError::TooLarge));
    send(&writer, &[1; 48]).unwrap();
    send(&writer, &[2; 48]).unwrap();
    assert_eq!(send(&writer, b""), Err(ReserveError::Full));
    assert!(log.publisher.starved());
    assert_eq!(log.publish_all(), 2);
    assert_eq!(log.publisher.committed(), None, "a full ring is not read over again");
    assert_eq!(send(&writer, b""), Err(ReserveError::Full), "published is not released");
    log.take().unwrap();
    log.reclaim();
    assert!(!log.publisher.starved());
    send(&writer, &[3; 48]).unwrap();
    assert_eq!(send(&writer, b""), Err(ReserveError::Full));
}

#[test]
fn what_does_not_fit_before_the_end_goes_to_the_beginning() {
    // 8 bytes are left at the end: padding shorter than a header.
    let mut log = Pair::new(128);
    let writer = log.publisher.writer();
    for (payload, position) in [(&[1u8; 40][..], 0), (&[2; 48], 56)] {
        assert_eq!(send(&writer, payload), Ok(position));
    }
    log.publish_all();
    assert_eq!(log.take(), Some((0, vec![1; 40])));
    assert_eq!(log.take(), Some((1, vec![2; 48])));
    log.reclaim();
    assert_eq!(send(&writer, &[3; 48]), Ok(128));
    log.publish_all();
    assert_eq!(log.take(), Some((2, vec![3; 48])));
}

#[test]
fn a_slow_committer_holds_back_what_follows_and_nothing_else() {
    let mut log = Pair::new(256);
    let writer = log.publisher.writer();
    send(&writer, b"first").unwrap();
    let mut slow = writer.reserve(4).unwrap();
    send(&writer, b"third").unwrap();
    assert_eq!(log.publish_all(), 1);
    slow.copy_from_slice(b"2nd.");
    slow.commit();
    assert_eq!(log.publish_all(), 2);
    let got: Vec<_> = std::iter::from_fn(|| log.take()).map(|(_, p)| p).collect();
    assert_eq!(got, [&b"first"[..], b"2nd.", b"third"]);
}

#[test]
fn a_dropped_reservation_leaves_no_trace() {
    let mut log = Pair::new(256);
    let writer = log.publisher.writer();
    // The last one is taken back...
    let mut last = writer.reserve(30).unwrap();
    last.fill(0xff);
    drop(last);
    assert_eq!(send(&writer, b"again at 0"), Ok(0));
    // ...one in the middle is skipped.
    let mut middle = writer.reserve(30).unwrap();
    middle.fill(0xff);
    send(&writer, b"after").unwrap();
    drop(middle);
    assert_eq!(log.publish_all(), 2);
    assert_eq!(log.take(), Some((0, b"again at 0".to_vec())));
    assert_eq!(log.take(), Some((1, b"after".to_vec())));
    log.reclaim();
    assert_eq!(log.publisher.low(), log.publisher.head());
}

#[test]
fn a_record_alone_shows_itself_in_lines_of_its_own() {
    let mut log = Pair::new(1024);
    let writer = log.publisher.writer();
    send(&writer, b"not aligned").unwrap();
    assert_eq!(log.flush(true), (1, true), "alone, wherever it is");
    for round in 0..100 {
        // Lines of its own, in the first laps and when what they held was reclaimed. Padding goes before the first one.
        for is_shown in [false, true, true] {
            let position = send(&writer, &[round; 64]).unwrap();
            assert!(position.is_multiple_of(128));
            assert_eq!(log.flush(true), (1, is_shown));
            assert_eq!(log.reader.shown(), None, "what lies there of one lap ago");
        }
        // Two are told of by the end of the log, and only the first of them is on its own when it is written.
        let [a, b] = [1, 2].map(|_| send(&writer, &[round; 64]).unwrap());
        assert_eq!((a % 128, b - a), (0, 128));
        assert_eq!(log.flush(true), (2, false));
        while log.take().is_some() {}
        log.reclaim();
    }
    // A flush that nobody looks for in this memory.
    log.flush(false);
    send(&writer, b"one").unwrap();
    log.flush(false);
    let [a, b] = [b"one", b"two"].map(|text| send(&writer, text).unwrap());
    assert_eq!(b - a, 24, "close to each other");
}

#[test]
fn what_was_reclaimed_before_it_was_flushed_is_not_marked() {
    let mut log = Pair::new(128);
    let writer = log.publisher.writer();
    send(&writer, &[1; 48]).unwrap();
    send(&writer, &[2; 48]).unwrap();
    log.publisher.committed().unwrap();
    log.publisher.publish(0);
    // Nobody reads it: it may be reclaimed at once, and is somebody's again before the flush.
    log.publisher.reclaim(64);
    send(&writer, &[3; 48]).unwrap();
    let before = log.publisher.ring().word(0).load(crate::sync::Ordering::Relaxed);
    log.publisher.show_if_alone(0);
    assert_eq!(log.publisher.ring().word(0).load(crate::sync::Ordering::Relaxed), before);
}

#[test]
fn what_fits_is_not_refused_for_lines_of_its_own() {
    let mut log = Pair::new(256);
    let writer = log.publisher.writer();
    send(&writer, &[1; 112]).unwrap();
    send(&writer, &[2; 8]).unwrap();
    log.flush(true);
    assert_eq!(send(&writer, &[3; 80]), Ok(152), "where no lines are left that would be its own");
    log.flush(true);
    assert_eq!(send(&writer, b""), Err(ReserveError::Full));
}

#[test]
fn a_record_that_shows_itself_and_is_none_is_refused() {
    use crate::sync::Ordering::Relaxed;
    let ring = Ring::private(256).unwrap();
    for word in [
        0,                     // no kind
        4 << 32,               // no such kind
        1 << 32 | 0xffff_ffff, // longer than the ring
        1 << 32 | 241,         // by one byte
        2 << 32 | 113,         // by its lines
        3 << 32,               // padding of no length
        3 << 32 | 4,           // unaligned
        3 << 32 | 0xffff_fff8, // longer than the ring
    ] {
        ring.word(128).store(1 << 40 | word, Relaxed);
        let mut reader = Reader::new(ring.clone(), 128);
        let shown = reader.shown().expect("the mark of the first lap");
        assert_eq!(reader.show(shown), Err(Malformed), "{word:x}");
        assert_eq!(reader.visible(), 128);
        ring.word(128).store(3 << 40 | word, Relaxed);
        assert_eq!(reader.shown(), None, "of another lap");
    }
    // A log that begins where no more positions are.
    let last = 0u64.wrapping_sub(128);
    let mark = super::entry::shown(ring.lap(last)) << super::entry::SHOWN_SHIFT;
    ring.word(last).store(mark | 2 << 32 | 112, Relaxed);
    let mut reader = Reader::new(ring, last);
    let shown = reader.shown().unwrap();
    assert_eq!(reader.show(shown), Err(Malformed));
}

#[test]
fn what_a_hostile_writer_leaves_is_refused() {
    use crate::sync::Ordering::Relaxed;
    let ring = Ring::private(128).unwrap();
    for word in [
        0,                     // nothing there
        4 << 32,               // no such kind
        3 << 32,               // padding of no length: would loop for ever
        3 << 32 | 4,           // unaligned
        3 << 32 | 0xffff_fff8, // longer than the ring
        1 << 32 | 0xffff_ffff, // so is a message
        1 << 32 | 113,         // one byte too long for the ring
        1 << 32 | 49,          // beyond what is visible
        u64::MAX,
    ] {
        ring.word(0).store(word, Relaxed);
        let mut reader = Reader::new(ring.clone(), 0);
        reader.advance(64).unwrap();
        assert_eq!(reader.peek(0), Err(Malformed), "{word:x}");
        assert!(!reader.skip());
    }
    // Padding up to the end, then a message that would lie across it.
    ring.word(0).store(3 << 32 | 120, Relaxed);
    ring.word(120).store(1 << 32, Relaxed);
    let mut reader = Reader::new(ring.clone(), 0);
    reader.advance(128).unwrap();
    assert_eq!(reader.peek(0), Err(Malformed));
    // Ends of the log that can't be.
    assert_eq!(Reader::new(ring.clone(), 0).advance(136), Err(Malformed));
    assert_eq!(Reader::new(ring.clone(), 0).advance(12), Err(Malformed));
    assert_eq!(Reader::new(ring.clone(), 64).advance(0), Ok(false), "going back is ignored");
    assert_eq!(Reader::new(ring, 0).peek(u64::MAX), Ok(None));
}

#[derive(Clone, Debug)]
enum Op {
    Reserve(usize),
    /// Commit or drop the n-th open reservation.
    Commit(usize),
    Abort(usize),
    /// Whether somebody looks at this memory.
    Publish(bool),
    Take,
    Reclaim,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0usize..60).prop_map(Op::Reserve),
        4 => (0usize..4).prop_map(Op::Commit),
        1 => (0usize..4).prop_map(Op::Abort),
        2 => any::<bool>().prop_map(Op::Publish),
        3 => Just(Op::Take),
        2 => Just(Op::Reclaim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn behaves_like_a_queue(capacity in prop_oneof![Just(128usize), Just(256), Just(1024)],
                            ops in prop::collection::vec(op(), 1..300)) {
        let mut log = Pair::new(capacity);
        let writer = log.publisher.writer();
        let mut open: Vec<Reservation<'_>> = Vec::new();
        // In order of position: payload once committed.
        let mut model: VecDeque<(u64, Option<Vec<u8>>)> = VecDeque::new();
        let mut visible: VecDeque<Vec<u8>> = VecDeque::new();
        let (mut stamp, mut taken) = (0u8, 0u64);
        for op in ops {
            match op {
                Op::Reserve(len) => if let Ok(mut slot) = writer.reserve(len) {
                    prop_assert!(slot.iter().all(|&b| b == 0));
                    stamp = stamp.wrapping_add(1);
                    slot.fill(stamp);
                    model.push_back((slot.position(), None));
                    open.push(slot);
                },
                Op::Commit(n) if n < open.len() => {
                    let slot = open.remove(n);
                    let payload = slot.to_vec();
                    let position = slot.commit();
                    model.iter_mut().find(|(p, _)| *p == position).unwrap().1 = Some(payload);
                }
                Op::Abort(n) if n < open.len() => {
                    let slot = open.remove(n);
                    let position = slot.position();
                    drop(slot);
                    model.retain(|(p, _)| *p != position);
                }
                Op::Commit(_) | Op::Abort(_) => {}
                Op::Publish(looked_at) => {
                    let mut expected = 0;
                    while let Some((_, Some(_))) = model.front() {
                        visible.push_back(model.pop_front().unwrap().1.unwrap());
                        expected += 1;
                    }
                    prop_assert_eq!(log.flush(looked_at).0, expected);
                }
                Op::Take => match (log.take(), visible.pop_front()) {
                    (Some((index, payload)), Some(expected)) => {
                        prop_assert_eq!(index, taken);
                        prop_assert_eq!(payload, expected);
                        taken += 1;
                    }
                    (None, None) => {}
                    (got, expected) => prop_assert!(false, "{:?} instead of {:?}", got, expected),
                },
                Op::Reclaim => log.reclaim(),
            }
        }
    }

    #[test]
    fn many_threads_lose_and_mix_nothing(seed in any::<u64>(), capacity in prop_oneof![Just(128usize), Just(512)]) {
        const EACH: u64 = 100;
        const THREADS: u64 = 3;
        let mut log = Pair::new(capacity);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let writer = log.publisher.writer();
                scope.spawn(move || {
                    let mut random = seed ^ (thread << 32) | 1;
                    let mut sent = 0;
                    while sent < EACH {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let len = 16 + (random % 32) as usize;
                        let Ok(mut slot) = writer.reserve(len) else {
                            std::thread::yield_now();
                            continue;
                        };
                        slot.fill(thread as u8);
                        slot[..8].copy_from_slice(&thread.to_le_bytes());
                        slot[8..16].copy_from_slice(&sent.to_le_bytes());
                        if random & 0x700 == 0 {
                            drop(slot);
                        } else {
                            slot.commit();
                            sent += 1;
                        }
                    }
                });
            }
            let mut next = [0u64; THREADS as usize];
            while next.iter().any(|&n| n < EACH) {
                log.publish_all();
                while let Some((_, payload)) = log.take() {
                    let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
                    let thread = word(0) as usize;
                    assert_eq!(word(8), next[thread], "FIFO per sender");
                    assert!(payload[16..].iter().all(|&b| b as usize == thread));
                    next[thread] += 1;
                }
                log.reclaim();
                std::thread::yield_now();
            }
        });
    }
}

#[test]
fn a_quiet_commit_wakes_nobody() {
    use std::io::Read;
    let waker = Waker::new(Bell::new().unwrap());
    let mut publisher = Publisher::new(Ring::private(256).unwrap(), waker.clone());
    let mut bell = std::fs::File::from(waker.bell().fd().try_clone_to_owned().unwrap());
    waker.arm();
    publisher.writer().reserve(8).unwrap().commit_quietly();
    assert!(bell.read(&mut [0; 8]).is_err(), "rung");
    assert!(publisher.committed().is_some());
    publisher.writer().reserve(8).unwrap().commit();
    assert_eq!(bell.read(&mut [0; 8]).unwrap(), 8);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_position_is_inside_the_ring(log2 in 3u32..10, position: u64) {
        let capacity = 1u64 << log2;
        let ring = Ring::private(capacity as usize).unwrap();
        let at = |position: u64| ring.word(position).as_ptr().addr();
        let (word, slot) = (position & !7, position & (capacity - 1) & !7);
        prop_assert_eq!(at(word), at(0) + slot as usize);
        prop_assert_eq!(at(word.wrapping_add(capacity)), at(word));
        prop_assert_eq!(ring.room(word), capacity - slot);
        // SAFETY: nobody writes there.
        prop_assert_eq!(unsafe { ring.bytes(word, (capacity - slot) as usize) }.as_ptr().addr(), at(word));
    }

    #[test]
    fn a_log_may_begin_anywhere(from: u64, head: u64) {
        let mut reader = Reader::new(Ring::private(4096).unwrap(), from & !7);
        reader.expect();
        let _ = reader.advance(head);
        reader.expect();
        // Zeroes are no record.
        prop_assert!(reader.peek(from & !7).is_err() || reader.visible() == from & !7);
    }
}
