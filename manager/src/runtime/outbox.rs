//! Who waits for which call, and when its answer may leave.
//!
//! An executor finishes an update long before a quorum has written it. Telling the client then
//! would be a promise that a crash of all nodes at once could break. So an answer is *held* until a
//! quorum has reported its position as kept; answers of reads likewise, for the position they saw.
//!
//! Waiters are named by (client, seq), not by connection: a client that lost its connection and
//! comes back asks for the same call again, and it must neither run twice nor be forgotten.

use crate::replica::{Refusal, Reply};
use quintet_client::wire::Reason;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// The answer to a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It was executed, now or before.
    Reply(Reply),
    /// This copy of it was not and will not be executed.
    Refuse(Reason, String),
}

/// Counts calls that wait, against a limit.
#[derive(Clone, Debug)]
pub struct Slots {
    taken: Arc<AtomicUsize>,
    limit: usize,
}

impl Slots {
    /// At most `limit` at once.
    pub fn new(limit: usize) -> Slots {
        Slots { taken: Arc::default(), limit }
    }

    /// Takes one, unless all are taken. It is given back when the slot is dropped.
    pub fn take(&self) -> Option<Slot> {
        let slot = Slot(self.taken.clone());
        // Counted before it is compared, so that two takers cannot both get the last one.
        (self.taken.fetch_add(1, Ordering::Relaxed) < self.limit).then_some(slot)
    }

    /// Taken now.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// One call's place; dropping it frees the place.
#[derive(Debug)]
pub struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Somebody who waits for an answer. The channel is unbounded because the slots bound it: every
/// waiter holds its slots until its answer is taken from the channel.
#[derive(Debug)]
pub struct Waiter {
    /// Where the answer goes.
    pub to: UnboundedSender<Delivered>,
    /// The number by which the receiver knows the call.
    pub seq: u64,
    /// The places this call takes.
    pub slots: [Slot; 2],
}

/// An answer on its way to a waiter.
#[derive(Debug)]
pub struct Delivered {
    /// The number by which the receiver knows the call.
    pub seq: u64,
    /// The answer.
    pub answer: Answer,
    slots: [Slot; 2],
}

impl Delivered {
    /// The answer was handed on: the places it took are free.
    pub fn free(self) {
        drop(self.slots);
    }
}

impl Waiter {
    /// Answers now.
    pub fn answer(self, answer: Answer) {
        // A receiver that is gone lost its connection; its client asks again elsewhere.
        let _ = self.to.send(Delivered { seq: self.seq, answer, slots: self.slots });
    }
}

const SHARDS: usize = 16;

/// The table of waiters and the answers that are held.
#[derive(Debug, Default)]
pub struct Outbox {
    waiters: [Mutex<HashMap<(u128, u64), Waiter>>; SHARDS],
    waiting: AtomicUsize,
    held: Mutex<BTreeMap<u64, Vec<(Waiter, Answer)>>>,
    /// Answers held. Raised before `kept` is looked at the last time, as `kept` is raised before
    /// this is looked at: one of the two sides sees the other.
    holding: AtomicUsize,
    /// First position that a quorum has not reported as kept.
    kept: AtomicU64,
}

impl Outbox {
    fn shard(&self, client: u128, seq: u64) -> MutexGuard<'_, HashMap<(u128, u64), Waiter>> {
        let shard = (client as u64 ^ seq) as usize % SHARDS;
        self.waiters[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a call that is about to be ordered. False if it is under way already: then it must
    /// not be ordered again, and the new waiter takes the place of the old one.
    #[must_use]
    pub fn wait(&self, client: u128, seq: u64, waiter: Waiter) -> bool {
        let new = self.shard(client, seq).insert((client, seq), waiter).is_none();
        if new {
            self.waiting.fetch_add(1, Ordering::Relaxed);
        }
        new
    }

    /// Takes the waiter of a call back: it could not be ordered, or it has an answer.
    pub fn take(&self, client: u128, seq: u64) -> Option<Waiter> {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let waiter = self.shard(client, seq).remove(&(client, seq))?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(waiter)
    }

    /// An update was executed: whoever waits for it here gets its reply, as soon as it may leave.
    pub fn executed(&self, client: u128, seq: u64, reply: &Reply) {
        if let Some(waiter) = self.take(client, seq) {
            self.hold(waiter, Answer::Reply(reply.clone()), reply.position + 1);
        }
    }

    /// A copy of an update was ordered and not executed: whoever waits for it here may ask again. No reply was made
    /// that a crash could take back, so nothing has to be kept first.
    pub fn refused(&self, client: u128, seq: u64, refusal: Refusal) {
        if let Some(waiter) = self.take(client, seq) {
            waiter.answer(Answer::Refuse(Reason::Overloaded, refusal.to_string()));
        }
    }

    /// Answers once a quorum keeps everything below `upto`.
    pub fn hold(&self, waiter: Waiter, answer: Answer, upto: u64) {
        if upto <= self.kept.load(Ordering::Acquire) {
            return waiter.answer(answer);
        }
        {
            let mut held = self.held();
            held.entry(upto).or_default().push((waiter, answer));
            self.holding.fetch_add(1, Ordering::SeqCst);
        }
        // It may have become kept between the look and the insertion, and nobody would look again.
        if upto <= self.kept.load(Ordering::SeqCst) {
            self.release();
        }
    }

    /// Whether a quorum keeps everything below `upto`.
    pub fn is_kept(&self, upto: u64) -> bool {
        upto <= self.kept.load(Ordering::Acquire)
    }

    /// A quorum keeps everything below `upto`; cheap, called by the poller. True if answers are
    /// held: then somebody has to call [`Outbox::release`].
    pub fn kept(&self, upto: u64) -> bool {
        self.kept.fetch_max(upto, Ordering::SeqCst);
        self.holding.load(Ordering::SeqCst) > 0
    }

    /// Lets go every answer that may leave.
    pub fn release(&self) {
        let kept = self.kept.load(Ordering::Acquire);
        let free = {
            let mut held = self.held();
            let rest = held.split_off(&(kept + 1));
            let free = std::mem::replace(&mut *held, rest);
            let count = free.values().map(Vec::len).sum();
            self.holding.fetch_sub(count, Ordering::SeqCst);
            free
        };
        for (waiter, answer) in free.into_values().flatten() {
            waiter.answer(answer);
        }
    }

    /// The incarnation is over: nobody here will learn the outcome of what is under way. The
    /// connections are closed too, so that clients ask another manager.
    pub fn clear(&self) {
        for shard in &self.waiters {
            shard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        self.waiting.store(0, Ordering::Relaxed);
        let mut held = self.held();
        held.clear();
        self.holding.store(0, Ordering::SeqCst);
        drop(held);
        self.kept.store(0, Ordering::Release);
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<(Waiter, Answer)>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn waiter(seq: u64, slots: &Slots) -> (Waiter, UnboundedReceiver<Delivered>) {
        let (to, from) = unbounded_channel();
        (Waiter { to, seq, slots: [slots.take().unwrap(), slots.take().unwrap()] }, from)
    }

    fn reply(position: u64) -> Reply {
        Reply { code: 0, message: String::new(), position, body: Default::default() }
    }

    #[test]
    fn a_reply_leaves_when_a_quorum_keeps_its_position_and_not_before() {
        let (outbox, slots) = (Outbox::default(), Slots::new(10));
        let (w, mut from) = waiter(1, &slots);
        assert!(outbox.wait(9, 1, w));
        outbox.executed(9, 1, &reply(41));
        outbox.kept(41);
        outbox.release();
        assert!(from.try_recv().is_err(), "position 41 itself is not kept yet");
        outbox.kept(42);
        outbox.release();
        let delivered = from.try_recv().unwrap();
        assert_eq!((delivered.seq, &delivered.answer), (1, &Answer::Reply(reply(41))));
        assert_eq!(slots.taken(), 2);
        delivered.free();
        assert_eq!(slots.taken(), 0);
    }

    #[test]
    fn what_is_kept_already_leaves_at_once_and_a_read_waits_for_what_it_saw() {
        let (outbox, slots) = (Outbox::default(), Slots::new(10));
        outbox.kept(100);
        let (w, mut from) = waiter(1, &slots);
        outbox.hold(w, Answer::Reply(reply(99)), 100);
        assert!(from.try_recv().is_ok());
        let (w, mut from) = waiter(2, &slots);
        outbox.hold(w, Answer::Reply(reply(100)), 101);
        assert!(from.try_recv().is_err());
    }

    #[test]
    fn the_same_call_again_is_not_begun_twice_and_answers_the_newer_connection() {
        let (outbox, slots) = (Outbox::default(), Slots::new(10));
        let (first, mut lost) = waiter(1, &slots);
        let (second, mut from) = waiter(1, &slots);
        assert!(outbox.wait(9, 1, first));
        assert!(!outbox.wait(9, 1, second));
        outbox.kept(10);
        outbox.executed(9, 1, &reply(5));
        assert!(from.try_recv().is_ok());
        assert!(lost.try_recv().is_err());
        outbox.executed(9, 1, &reply(5));
    }

    #[test]
    fn places_are_limited_and_come_back() {
        let slots = Slots::new(1);
        let slot = slots.take().unwrap();
        assert!(slots.take().is_none());
        drop(slot);
        assert!(slots.take().is_some());
    }

    #[test]
    fn no_answer_is_forgotten_whoever_comes_first() {
        let (outbox, slots) = (Arc::new(Outbox::default()), Slots::new(100_000));
        let (to, mut from) = unbounded_channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for at in 0..5000 {
                    let slots = [slots.take().unwrap(), slots.take().unwrap()];
                    assert!(outbox.wait(1, at, Waiter { to: to.clone(), seq: at, slots }));
                    outbox.executed(1, at, &reply(at));
                }
            });
            scope.spawn(|| {
                for upto in 0..=5000 {
                    outbox.kept(upto);
                    outbox.release();
                }
            });
        });
        for _ in 0..5000 {
            from.try_recv().expect("every answer arrives").free();
        }
        assert_eq!(slots.taken(), 0);
    }
}
