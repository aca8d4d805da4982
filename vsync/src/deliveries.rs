//! The receiving side of a node: one thread takes events, in order, without a copy and without an allocation per message.
//!
//! **Borrowed messages and nodes that slept.** Over shared memory a message is read where its sender wrote it. The sender
//! reuses that place when every member *of its view* is done with it. A node that was stopped for long enough is not a
//! member any more, and finds other bytes there when it wakes up. The sender says how far it has reused its log
//! *before* it does; the queue looks at that before it hands out a message and drops what is not whole (the eviction is
//! on its way then), and [`Message::intact`] looks again after use.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use crate::core::Position;
use crate::engine::bulk::HEADER;
use crate::engine::bytes::payload;
use crate::engine::deliver::{Item, OWN, Remains, Source};
use crate::engine::ring::{Consumer, Descriptor, Kind};
use crate::engine::shared::Shared;
use crate::event::{Event, Message, MessageId, Unresolved};

/// The events of a node, for one thread at a time.
pub struct Deliveries {
    shared: Arc<Shared>,
    ring: Consumer,
    sources: Vec<Option<Source>>,
    /// Handed out by the last call, not yet reported consumed: slot and the byte position after it.
    out: Option<(u16, u64)>,
    /// Bytes reported consumed since the poller was last woken for it, per slot.
    unwoken: Vec<u64>,
    /// A message was dropped: this node is out of its view, and every later message is dropped too.
    dropping: bool,
    /// Own messages dropped.
    dropped: Vec<MessageId>,
    /// Own messages that did not come before the end.
    remains: Option<Box<Remains>>,
    /// The last event was given.
    finished: bool,
}

/// What a turn of the queue gave: decided first, borrowed afterwards.
enum Step {
    Bytes(Descriptor),
    Item(Item),
    Nothing,
}

impl Deliveries {
    pub(crate) fn new(shared: Arc<Shared>, ring: Consumer) -> Self {
        Self {
            shared,
            ring,
            sources: Vec::new(),
            out: None,
            unwoken: Vec::new(),
            dropping: false,
            dropped: Vec::new(),
            remains: None,
            finished: false,
        }
    }

    /// The next event, waiting for it at most `timeout`. `None`: nothing came, or [`Self::is_finished`].
    pub fn next(&mut self, timeout: Duration) -> Option<Event<'_>> {
        let step = self.wait(timeout);
        self.give(step)
    }

    /// The next event if there is one.
    pub fn try_next(&mut self) -> Option<Event<'_>> {
        let step = self.step();
        self.give(step)
    }

    /// The last event of this node has been given ([`Event::Evicted`], [`Event::Left`], [`Event::Failed`], or the node was
    /// stopped): no further will come.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// After the last event: what is known of own messages that were committed and did not come as an
    /// [`Event::Message`]. `None` before the end ([`Self::is_finished`]).
    ///
    /// A [`Reservation`](crate::Reservation) still open hides itself and what was reserved after it: ask (again) when
    /// none is. None of those will be delivered.
    pub fn unresolved(&self) -> Option<Unresolved> {
        let remains = self.remains.as_ref().filter(|_| self.finished)?;
        let mut unresolved = remains.unresolved.clone();
        unresolved.indeterminate.splice(0..0, self.dropped.iter().copied());
        let unpublished = remains.log.unpublished(remains.head);
        unresolved.not_delivered.extend(unpublished.into_iter().map(MessageId));
        Some(unresolved)
    }

    fn wait(&mut self, timeout: Duration) -> Step {
        let step = self.step();
        if !matches!(step, Step::Nothing) || self.finished || timeout.is_zero() {
            return step;
        }
        // A little patience first: the next message of a busy group is here before a sleep would be.
        for _ in 0..4 {
            std::thread::yield_now();
            let step = self.step();
            if !matches!(step, Step::Nothing) || self.finished {
                return step;
            }
        }
        let start = Instant::now();
        let shared = self.shared.clone();
        shared.delivered.register();
        loop {
            let step = self.step();
            if !matches!(step, Step::Nothing) || self.finished {
                return step;
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Step::Nothing;
            }
            let ring = &mut self.ring;
            shared
                .delivered
                .sleep(left, || !ring.is_empty() || shared.ended.load(Ordering::Acquire));
        }
    }

    /// One turn: what was handed out before is consumed now; then the next entry.
    fn step(&mut self) -> Step {
        self.settle();
        loop {
            let Some(d) = self.pop() else {
                let Some(item) = self.leftover() else { return Step::Nothing };
                match self.take(item) {
                    Step::Nothing => continue,
                    step => return step,
                }
            };
            let item = match d.kind {
                Kind::Message | Kind::Chunk => Item::Descriptor(d),
                Kind::Control => match self.shared.side.pop() {
                    Some(item) => item,
                    // The producer fills the side queue first: an entry without its item cannot be.
                    None => unreachable!("a control entry without its item"),
                },
            };
            match self.take(item) {
                Step::Nothing => {}
                step => return step,
            }
        }
    }

    fn pop(&mut self) -> Option<Descriptor> {
        let d = self.ring.pop();
        // The poller stopped filling a full queue: wake it once there is room worth waking for. The fence makes sure that
        // either this side sees the flag after it emptied the queue, or the poller, which looks again after it raised
        // the flag, sees the room.
        if d.is_none() {
            fence(Ordering::SeqCst);
        }
        if (d.is_none() || self.ring.backlog() <= self.ring.capacity() / 2)
            && self.shared.ring_full.load(Ordering::Relaxed)
            && self.shared.ring_full.swap(false, Ordering::AcqRel)
        {
            self.shared.wake();
        }
        d
    }

    /// What the poller could not put into the ring before it ended.
    fn leftover(&mut self) -> Option<Item> {
        if !self.shared.ended.load(Ordering::Acquire) || self.finished || !self.ring.is_empty() {
            return None;
        }
        let item = self.shared.leftover.lock().unwrap_or_else(|e| e.into_inner()).pop_front();
        self.finished |= item.is_none();
        item
    }

    fn take(&mut self, item: Item) -> Step {
        match item {
            Item::Source { slot, source } => {
                let slot = usize::from(slot);
                if self.sources.len() <= slot {
                    self.sources.resize_with(slot + 1, || None);
                    self.unwoken.resize(slot + 1, 0);
                }
                self.sources[slot] = source.map(|s| *s);
                self.unwoken[slot] = 0;
                Step::Nothing
            }
            Item::Descriptor(d) if self.dropping || !self.whole(d) => {
                self.dropping = true;
                if d.kind == Kind::Message && d.slot == OWN {
                    self.dropped.push(MessageId(d.position));
                }
                self.out = Some((d.slot, d.end));
                self.settle();
                Step::Nothing
            }
            Item::Descriptor(d) => Step::Bytes(d),
            Item::Unresolved(remains) => {
                self.remains = Some(remains);
                Step::Nothing
            }
            other => Step::Item(other),
        }
    }

    /// Are the bytes of `d` still what was delivered?
    fn whole(&self, d: Descriptor) -> bool {
        self.sources[usize::from(d.slot)].as_ref().is_some_and(|s| s.bytes.intact(d.position))
    }

    fn give(&mut self, step: Step) -> Option<Event<'_>> {
        match step {
            Step::Nothing => None,
            Step::Bytes(d) => {
                self.out = Some((d.slot, d.end));
                let source = self.sources[usize::from(d.slot)].as_ref()?;
                let bytes = payload(&source.bytes, d);
                if d.kind == Kind::Message {
                    probe::probe!(quintet, deliver, d.at, d.position);
                }
                Some(match d.kind {
                    Kind::Chunk => Event::Chunk(bytes.get(HEADER..)?),
                    _ => Event::Message(Message {
                        at: Position(d.at),
                        sender: source.member,
                        id: MessageId(d.position),
                        own: source.own,
                        bytes,
                        log: &source.bytes,
                    }),
                })
            }
            Step::Item(item) => Some(match item {
                Item::View(v) => Event::View(v),
                Item::Donate(d) => Event::Donate(*d),
                Item::Blocked(reason) => Event::Blocked(reason),
                Item::Resumed => Event::Resumed,
                Item::Rail(peer, rail) => Event::Rail { peer, rail },
                Item::Path(peer, path, reason) => Event::Path { peer, path, reason },
                Item::Evicted(v) => {
                    self.finished = true;
                    Event::Evicted(v)
                }
                Item::Left => {
                    self.finished = true;
                    Event::Left
                }
                Item::Failed(why) => {
                    self.finished = true;
                    Event::Failed(why)
                }
                Item::Descriptor(_) | Item::Source { .. } | Item::Unresolved(_) => return None,
            }),
        }
    }

    /// Reports the entry handed out last as consumed, so that its sender may reuse its place.
    fn settle(&mut self) {
        let Some((slot, end)) = self.out.take() else { return };
        let Some(source) = self.sources.get(usize::from(slot)).and_then(Option::as_ref) else {
            return;
        };
        let before = source.consumed.swap(end, Ordering::Release);
        let unwoken = &mut self.unwoken[usize::from(slot)];
        *unwoken += end.saturating_sub(before);
        if *unwoken >= source.wake_every {
            *unwoken = 0;
            self.shared.wake();
        }
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").field("finished", &self.finished).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
