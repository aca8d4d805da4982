//! The most that can go through memory: one side copies messages into a ring, the other looks at them in place.

use super::memory::Memory;
use super::touch;
use crate::counter::{Counted, Counter};
use quintet_transport::{Time, clock};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::atomic::Ordering;

/// Where the writer says how many messages there are, and the reader how many it is done with; each on lines of its own.
const WRITTEN: usize = 0;
const READ: usize = 128;
/// Where the reader says that it has counted.
const COUNTED: usize = 256;
const MESSAGES: usize = 384;
/// Bytes of the ring: within a second-level cache, which is where a stream is fastest.
const RING: usize = 512 << 10;
/// Bytes shown at a time, or one message.
const BATCH: usize = 4 << 10;

/// What the reading process is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Reader {
    memory: String,
    size: usize,
}

/// The writing side.
pub(crate) struct Writer {
    memory: Memory,
    message: Vec<u8>,
    written: u64,
    read: u64,
}

fn slots(size: usize) -> u64 {
    (RING / stride(size)).max(2) as u64
}

fn stride(size: usize) -> usize {
    size.next_multiple_of(64)
}

fn place(size: usize, number: u64) -> usize {
    MESSAGES + (number % slots(size)) as usize * stride(size)
}

impl Writer {
    /// The writing side, and what the other must be told.
    pub(crate) fn new(size: usize) -> io::Result<(Writer, Reader)> {
        let memory = Memory::create(MESSAGES + slots(size) as usize * stride(size))?;
        let reader = Reader { memory: memory.name(), size };
        Ok((Writer { memory, message: vec![7; size], written: 0, read: 0 }, reader))
    }

    /// Writes one message if there is room.
    fn write(&mut self) -> bool {
        let size = self.message.len();
        if self.written - self.read == slots(size) {
            self.read = self.memory.word(READ).load(Ordering::Acquire);
            if self.written - self.read == slots(size) {
                return false;
            }
        }
        self.memory.write(place(size, self.written), &self.message);
        self.written += 1;
        true
    }

    fn publish(&self) {
        self.memory.word(WRITTEN).store(self.written, Ordering::Release);
    }

    /// Writes until the reader has counted, or until then.
    pub(crate) fn run(&mut self, end: Time) {
        // Small messages are shown many at a time, for each time costs the reader a line of its cache.
        let batch = (BATCH / stride(self.message.len())).max(1);
        while self.memory.word(COUNTED).load(Ordering::Relaxed) == 0 && clock::now() < end {
            if (0..batch).take_while(|_| self.write()).count() == 0 {
                std::hint::spin_loop();
            }
            self.publish();
        }
    }
}

/// Looks at messages until it has counted.
pub(crate) fn read(reader: &Reader, mut counter: Counter) -> io::Result<Counted> {
    let memory = Memory::open(&reader.memory)?;
    let mut read = 0;
    loop {
        let written = memory.word(WRITTEN).load(Ordering::Acquire);
        // At most a quarter of the ring at a time, so that the writer has room meanwhile.
        let upto = written.min(read + (slots(reader.size) / 4).max(1));
        for number in read..upto {
            touch(memory.read(place(reader.size, number), reader.size));
        }
        memory.word(READ).store(upto, Ordering::Release);
        let bytes = (upto - read) * reader.size as u64;
        if let Some(counted) = counter.arrived(upto - read, bytes, clock::now()) {
            memory.word(COUNTED).store(1, Ordering::Relaxed);
            return Ok(counted);
        }
        if upto == read {
            std::hint::spin_loop();
        }
        read = upto;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_message_is_there_as_it_was_written_and_room_is_given_back() {
        for size in [8, 64, 100, 1 << 20] {
            let (mut writer, reader) = Writer::new(size).expect("memory");
            assert_eq!(
                (0..slots(size) + 5).filter(|_| writer.write()).count(),
                slots(size) as usize
            );
            let theirs = Memory::open(&reader.memory).expect("the same memory");
            let last = place(size, slots(size) - 1);
            assert!(theirs.read(last, size).iter().all(|byte| *byte == 7));
            theirs.word(READ).store(2, Ordering::Release);
            assert_eq!((0..9).filter(|_| writer.write()).count(), 2, "{size} B");
        }
    }

    #[test]
    fn a_stream_ends_when_it_has_been_counted() {
        let (mut writer, reader) = Writer::new(64).expect("memory");
        let counter = Counter::new(Duration::ZERO, Duration::from_millis(5));
        let other = std::thread::spawn(move || read(&reader, counter));
        writer.run(Time::MAX);
        let counted = other.join().expect("the reader").expect("its memory");
        assert!(counted.messages > 0 && counted.messages <= writer.written, "{counted:?}");
        assert_eq!(counted.bytes, counted.messages * 64);
    }
}
