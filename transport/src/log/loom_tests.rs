//! Every interleaving, within bounds, of the log's and the doorbell's protocols.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p quintet-transport --lib --release --target-dir target/loom loom`

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::*;
use crate::wait::{Bell, Waker, arm, before_looking, disarm, must_ring};

fn log(capacity: usize) -> (Publisher, Ring) {
    let ring = Ring::private(capacity).unwrap();
    let waker = Waker::new(Bell::new().unwrap());
    (Publisher::new(ring.clone(), waker), ring)
}

/// Stands for the payload: a word of the record that the writer stores before it commits.
fn write(ring: &Ring, slot: Reservation<'_>, value: u64) -> u64 {
    ring.word(slot.position() + 16).store(value, Ordering::Relaxed);
    slot.commit()
}

#[test]
fn loom_two_writers_and_the_publisher() {
    loom::model(|| {
        let (mut publisher, ring) = log(64);
        let threads: Vec<_> = (1..=2u64)
            .map(|i| {
                let (writer, ring) = (publisher.writer(), ring.clone());
                thread::spawn(move || write(&ring, writer.reserve(8).unwrap(), i))
            })
            .collect();
        let mut seen = Vec::new();
        for _ in 0..2 {
            while publisher.committed().is_some() {
                let position = publisher.publish(seen.len() as u64).position;
                seen.push(ring.word(position + 16).load(Ordering::Relaxed));
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
        while publisher.committed().is_some() {
            let position = publisher.publish(seen.len() as u64).position;
            seen.push(ring.word(position + 16).load(Ordering::Relaxed));
        }
        seen.sort_unstable();
        assert_eq!(seen, [1, 2], "whole records, each once");
    });
}

#[test]
fn loom_space_is_zero_when_it_is_reused() {
    loom::model(|| {
        let (mut publisher, ring) = log(32);
        let writer = publisher.writer();
        write(&ring, writer.reserve(0).unwrap(), 0xdead);
        write(&ring, writer.reserve(0).unwrap(), 0xbeef);
        while publisher.committed().is_some() {
            publisher.publish(9);
        }
        let other = {
            let (writer, ring) = (publisher.writer(), ring.clone());
            thread::spawn(move || {
                // Full until the first record is reclaimed.
                let Ok(slot) = writer.reserve(0) else { return false };
                let at = slot.position();
                assert_eq!(ring.word(at).load(Ordering::Relaxed), 0, "commit word of free space");
                assert_eq!(ring.word(at + 8).load(Ordering::Relaxed), 0);
                slot.commit();
                true
            })
        };
        publisher.reclaim(16);
        let committed = other.join().unwrap();
        assert_eq!(publisher.committed().is_some(), committed);
    });
}

#[test]
fn loom_an_abort_races_with_a_reservation() {
    loom::model(|| {
        let (mut publisher, ring) = log(64);
        let aborting = {
            let writer = publisher.writer();
            thread::spawn(move || drop(writer.reserve(0).unwrap()))
        };
        let writer = publisher.writer();
        write(&ring, writer.reserve(8).unwrap(), 5);
        while publisher.committed().is_none() {
            thread::yield_now();
        }
        let position = publisher.publish(0).position;
        assert_eq!(ring.word(position + 16).load(Ordering::Relaxed), 5);
        aborting.join().unwrap();
        assert!(publisher.committed().is_none());
    });
}

/// One who publishes a record alone and lets it show itself that way, and one who waits for it.
fn publisher_and_reader(show: impl Fn(&Publisher, &Ring) + Clone + Sync + Send + 'static) {
    loom::model(move || {
        let (mut publisher, ring) = log(256);
        publisher.flushed(true);
        let reader = {
            let mut reader = Reader::new(ring.clone(), 0);
            thread::spawn(move || {
                let Some(word) = reader.shown() else { return };
                reader.show(word).unwrap();
                assert_eq!(reader.visible(), 128);
                let seen = [8, 16].map(|at| reader.ring().word(at).load(Ordering::Relaxed));
                assert_eq!(seen, [7, 5], "half a record");
            })
        };
        write(&ring, publisher.writer().reserve(8).unwrap(), 5);
        assert!(publisher.committed().is_some());
        publisher.publish(7);
        show(&publisher, &ring);
        reader.join().unwrap();
    });
}

#[test]
fn loom_a_record_that_shows_itself_is_whole() {
    publisher_and_reader(|publisher, _| publisher.show_if_alone(0));
}

#[test]
#[should_panic(expected = "half a record")]
fn loom_a_mark_without_release_is_caught() {
    publisher_and_reader(|_, ring| {
        let word = ring.word(0);
        let mark = super::entry::shown(0) << super::entry::SHOWN_SHIFT;
        word.store(word.load(Ordering::Relaxed) | mark, Ordering::Relaxed);
    });
}

/// A ringer's half.
fn look_and_ring(armed: &AtomicU64, rung: &mut u64) -> bool {
    before_looking();
    must_ring(armed, rung)
}

/// One who sleeps and one who has news twice, with these two halves of the doorbell's protocol.
fn sleeper_and_ringer(
    arm: impl Fn(&AtomicU64, u64) + Sync + Send + 'static,
    must_ring: impl Fn(&AtomicU64, &mut u64) -> bool + Clone + Sync + Send + 'static,
) {
    loom::model(move || {
        let armed = Arc::new(AtomicU64::new(0));
        let news = Arc::new(AtomicU64::new(0));
        let bell = Arc::new(AtomicU64::new(0));
        let ringer = {
            let (armed, news, bell) = (armed.clone(), news.clone(), bell.clone());
            let must_ring = must_ring.clone();
            thread::spawn(move || {
                let mut rung = 0;
                for turn in 1..=2 {
                    news.store(turn, Ordering::Release);
                    if must_ring(&armed, &mut rung) {
                        bell.store(rung, Ordering::Release);
                    }
                }
            })
        };
        arm(&armed, 1);
        let seen = news.load(Ordering::Acquire);
        // Sleeping is safe if the news is known, or the bell rings in the end.
        ringer.join().unwrap();
        assert!(seen == 2 || bell.load(Ordering::Acquire) == 1, "a lost wake-up");
        disarm(&armed);
    });
}

#[test]
fn loom_whoever_sleeps_is_woken() {
    sleeper_and_ringer(arm, look_and_ring);
}

// That the model finds what it is there for: each half without its fence loses a wake-up.

#[test]
#[should_panic(expected = "a lost wake-up")]
fn loom_a_sleeper_without_a_fence_is_caught() {
    let arm = |armed: &AtomicU64, generation| armed.store(generation, Ordering::Relaxed);
    sleeper_and_ringer(arm, look_and_ring);
}

#[test]
#[should_panic(expected = "a lost wake-up")]
fn loom_a_ringer_without_a_fence_is_caught() {
    sleeper_and_ringer(arm, must_ring);
}
