//! The queue from the poller to the application's delivery thread: one producer, one consumer, no lock, no allocation.
//!
//! An entry is a *descriptor*: four words that say where a message lies, not the message. Words are atomics, so the
//! whole queue is safe code; the Release store of `tail` publishes them, the Acquire load of it receives them, and
//! both sides keep a private copy of the other side's index so that the shared line is touched once per lap of work,
//! not once per message.
//!
//! Things that are rare and own something (a view, a donation, the memory of a new link) travel in a side queue; a
//! descriptor of kind [`Kind::Control`] says when to take the next one, which keeps one order over both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a descriptor describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message of the total order.
    Message,
    /// State transfer bytes.
    Chunk,
    /// Take the next entry of the side queue.
    Control,
}

/// Where something for the application lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) kind: Kind,
    /// Which source memory (see `Source`).
    pub(crate) slot: u16,
    /// Payload length.
    pub(crate) len: u32,
    /// Position in the total order.
    pub(crate) at: u64,
    /// Byte position of the record in its log.
    pub(crate) position: u64,
    /// Byte position after the record.
    pub(crate) end: u64,
}

impl Descriptor {
    /// The descriptor that stands for the next entry of the side queue.
    pub(crate) const CONTROL: Self =
        Self { kind: Kind::Control, slot: 0, len: 0, at: 0, position: 0, end: 0 };

    fn pack(self) -> [u64; 4] {
        let kind = match self.kind {
            Kind::Message => 0u64,
            Kind::Chunk => 1,
            Kind::Control => 2,
        };
        [
            kind << 48 | u64::from(self.slot) << 32 | u64::from(self.len),
            self.at,
            self.position,
            self.end,
        ]
    }

    fn unpack([head, at, position, end]: [u64; 4]) -> Self {
        let kind = match head >> 48 {
            0 => Kind::Message,
            1 => Kind::Chunk,
            _ => Kind::Control,
        };
        Self { kind, slot: (head >> 32) as u16, len: head as u32, at, position, end }
    }
}

/// Keeps the producer's and the consumer's words on lines of their own (two lines: adjacent ones are fetched in pairs).
#[repr(align(128))]
struct Line(AtomicUsize);

struct Ring {
    entries: Box<[[AtomicU64; 4]]>,
    tail: Line,
    head: Line,
}

/// The poller's end.
pub(crate) struct Producer {
    ring: Arc<Ring>,
    tail: usize,
    head_seen: usize,
}

/// The application's end.
pub(crate) struct Consumer {
    ring: Arc<Ring>,
    head: usize,
    tail_seen: usize,
}

/// A queue of `capacity` (a power of two) descriptors.
pub(crate) fn ring(capacity: usize) -> (Producer, Consumer) {
    assert!(capacity.is_power_of_two(), "ring capacity is a power of two");
    let entries = (0..capacity).map(|_| Default::default()).collect();
    let ring = Arc::new(Ring {
        entries,
        tail: Line(AtomicUsize::new(0)),
        head: Line(AtomicUsize::new(0)),
    });
    (
        Producer { ring: ring.clone(), tail: 0, head_seen: 0 },
        Consumer { ring, head: 0, tail_seen: 0 },
    )
}

impl Producer {
    /// Entries that fit now.
    pub(crate) fn room(&mut self) -> usize {
        let capacity = self.ring.entries.len();
        if self.tail - self.head_seen == capacity {
            self.head_seen = self.ring.head.0.load(Ordering::Acquire);
        }
        capacity - (self.tail - self.head_seen)
    }

    /// Adds an entry; false if there is no room. It becomes visible with [`Self::publish`].
    pub(crate) fn push(&mut self, d: Descriptor) -> bool {
        if self.room() == 0 {
            return false;
        }
        let entry = &self.ring.entries[self.tail & (self.ring.entries.len() - 1)];
        for (word, value) in entry.iter().zip(d.pack()) {
            word.store(value, Ordering::Relaxed);
        }
        self.tail += 1;
        true
    }

    /// Shows everything pushed; true if that was something new.
    pub(crate) fn publish(&mut self) -> bool {
        if self.ring.tail.0.load(Ordering::Relaxed) == self.tail {
            return false;
        }
        self.ring.tail.0.store(self.tail, Ordering::Release);
        true
    }
}

impl Consumer {
    /// Takes the next entry.
    pub(crate) fn pop(&mut self) -> Option<Descriptor> {
        if self.is_empty() {
            return None;
        }
        let entry = &self.ring.entries[self.head & (self.ring.entries.len() - 1)];
        let d = Descriptor::unpack([0, 1, 2, 3].map(|i| entry[i].load(Ordering::Relaxed)));
        self.head += 1;
        self.ring.head.0.store(self.head, Ordering::Release);
        Some(d)
    }

    /// Nothing to take?
    pub(crate) fn is_empty(&mut self) -> bool {
        if self.head == self.tail_seen {
            self.tail_seen = self.ring.tail.0.load(Ordering::Acquire);
        }
        self.head == self.tail_seen
    }

    /// Entries visible and not taken, as far as this side has looked.
    pub(crate) fn backlog(&self) -> usize {
        self.tail_seen - self.head
    }

    /// Entries the queue can hold.
    pub(crate) fn capacity(&self) -> usize {
        self.ring.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn message(n: u64) -> Descriptor {
        Descriptor {
            kind: Kind::Message,
            slot: n as u16,
            len: n as u32,
            at: n,
            position: !n,
            end: n,
        }
    }

    proptest! {
        /// Against a VecDeque: what is published comes out once, in order; a full queue refuses and loses nothing.
        #[test]
        fn behaves_like_a_bounded_queue(ops in proptest::collection::vec(0u8..3, 0..400)) {
            let (mut tx, mut rx) = ring(8);
            let (mut pushed, mut model, mut next) = (VecDeque::new(), VecDeque::new(), 0u64);
            for op in ops {
                match op {
                    0 => {
                        let fits = pushed.len() + model.len() < 8;
                        prop_assert_eq!(tx.push(message(next)), fits);
                        if fits { pushed.push_back(message(next)); next += 1; }
                    }
                    1 => { prop_assert_eq!(tx.publish(), !pushed.is_empty()); model.append(&mut pushed); }
                    _ => prop_assert_eq!(rx.pop(), model.pop_front()),
                }
            }
        }
    }

    #[test]
    fn two_threads_see_every_entry_once_and_whole() {
        let (mut tx, mut rx) = ring(64);
        let n = 200_000u64;
        let reader = std::thread::spawn(move || {
            for i in 0..n {
                let d = loop {
                    match rx.pop() {
                        Some(d) => break d,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(d, message(i));
            }
        });
        let mut i = 0;
        while i < n {
            if tx.push(message(i)) {
                i += 1;
            } else {
                tx.publish();
                std::thread::yield_now();
            }
        }
        tx.publish();
        reader.join().unwrap();
    }
}
