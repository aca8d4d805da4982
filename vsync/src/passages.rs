//! Where the time of a message goes: when own messages pass from one stage of their delivery to the next.
//!
//! For measurements, on demand ([`Config::passages`](crate::Config::passages)): a clock is read at each stage of the
//! message that is followed. One is followed at a time, from its publication to its delivery; the next is the first that
//! is published after that. So a lone message is always followed, and of a busy sender's some are.

use crossbeam_queue::ArrayQueue;
use quintet_transport::Time;

use crate::event::MessageId;

/// When one own message passed which stage, by the clock of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Which.
    pub id: MessageId,
    /// Peers could see it.
    pub published: Time,
    /// It was known that another member has it and everything before it.
    pub visible: Time,
    /// It was known that every member has: it may be delivered.
    pub stable: Time,
}

/// Passages that nobody has taken yet. Holds so many at most; later ones are lost.
#[derive(Debug)]
pub struct Passages(ArrayQueue<Passage>);

impl Passages {
    /// Room for that many.
    ///
    /// # Panics
    /// If there is no room for any.
    pub fn new(room: usize) -> Passages {
        Passages(ArrayQueue::new(room))
    }

    /// The oldest. That of a message is here when the message is delivered to its sender.
    pub fn take(&self) -> Option<Passage> {
        self.0.pop()
    }

    pub(crate) fn add(&self, passage: Passage) {
        // Nobody takes them: nobody misses it.
        let _ = self.0.push(passage);
    }
}
