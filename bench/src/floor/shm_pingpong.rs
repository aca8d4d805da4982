//! The least that a round trip through memory can cost: a number that each side waits for, and a message beside it.

use super::memory::{Memory, sleep, wake};
use super::{Wait, touch};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::atomic::Ordering;

/// A message begins here in its direction's part; the number before it has the line to itself.
const MESSAGE: usize = 64;

/// What the answering process is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Pong {
    memory: String,
    size: usize,
    rounds: u64,
    wait: Wait,
}

/// One side.
pub(crate) struct Side {
    memory: Memory,
    message: Vec<u8>,
    wait: Wait,
    own: usize,
    other: usize,
    round: u64,
}

impl Side {
    /// The asking side, and what the other must be told.
    pub(crate) fn first(size: usize, rounds: u64, wait: Wait) -> io::Result<(Side, Pong)> {
        let memory = Memory::create(2 * part(size))?;
        let pong = Pong { memory: memory.name(), size, rounds, wait };
        Ok((Side::new(memory, size, wait, 0, part(size)), pong))
    }

    fn new(memory: Memory, size: usize, wait: Wait, own: usize, other: usize) -> Side {
        Side { memory, message: vec![7; size], wait, own, other, round: 0 }
    }

    /// One round trip.
    pub(crate) fn exchange(&mut self) {
        self.send();
        self.receive();
    }

    fn send(&mut self) {
        self.round += 1;
        self.memory.write(self.own + MESSAGE, &self.message);
        self.memory.word(self.own).store(self.round, Ordering::Release);
        if self.wait == Wait::Sleep {
            wake(self.memory.half(self.own));
        }
    }

    /// Waits for the other's message of the round that the caller is in or about to begin.
    fn receive(&mut self) {
        let expected = if self.own == 0 { self.round } else { self.round + 1 };
        loop {
            let seen = self.memory.word(self.other).load(Ordering::Acquire);
            if seen == expected {
                break;
            }
            match self.wait {
                Wait::Look => std::hint::spin_loop(),
                Wait::Sleep => sleep(self.memory.half(self.other), seen as u32),
            }
        }
        touch(self.memory.read(self.other + MESSAGE, self.message.len()));
    }
}

/// Answers all rounds.
pub(crate) fn answer(pong: &Pong) -> io::Result<()> {
    let memory = Memory::open(&pong.memory)?;
    let mut side = Side::new(memory, pong.size, pong.wait, part(pong.size), 0);
    for _ in 0..pong.rounds {
        side.receive();
        side.send();
    }
    Ok(())
}

/// Bytes of one direction: whole pairs of cache lines, for processors fetch them by two.
fn part(size: usize) -> usize {
    (MESSAGE + size).next_multiple_of(128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_is_answered_however_the_sides_wait() {
        for wait in [Wait::Look, Wait::Sleep] {
            let rounds = 200;
            let (mut side, pong) = Side::first(100, rounds, wait).expect("memory");
            let other = std::thread::spawn(move || answer(&pong));
            for _ in 0..rounds {
                side.exchange();
            }
            other.join().expect("the answering side").expect("its memory");
            assert_eq!(side.memory.word(side.other).load(Ordering::Acquire), rounds, "{wait:?}");
        }
    }
}
