//! The poller's end of the way to the application: the ring, and what has to wait before it.
//!
//! Messages wait in the core while the ring is full, so senders feel it. What must not wait there (a view change drains
//! the old view's messages whether the application keeps up or not) waits in `pending`, in order; it holds at most what
//! the logs of one view hold, and the latest news of each link.
//!
//! At a learner a *gate* holds everything back except transfer bytes, until the donor has said that they are complete:
//! the application sees the view that joins it, and messages, only on top of a whole state.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::deliver::{Item, OWN, Remains};
use super::ring::{Descriptor, Kind, Producer};
use super::shared::Shared;
use crate::event::MessageId;

fn own_message(item: Item) -> Option<MessageId> {
    match item {
        Item::Descriptor(d) if d.kind == Kind::Message && d.slot == OWN => {
            Some(MessageId(d.position))
        }
        _ => None,
    }
}

pub(crate) struct Outbox {
    ring: Producer,
    shared: Arc<Shared>,
    pending: VecDeque<Item>,
    gated: bool,
    pub(crate) full_count: u64,
}

impl Outbox {
    pub(crate) fn new(ring: Producer, shared: Arc<Shared>) -> Self {
        Self { ring, shared, pending: VecDeque::new(), gated: false, full_count: 0 }
    }

    /// May the core be asked for another message, with nobody harmed if it is not?
    pub(crate) fn is_open(&mut self) -> bool {
        if self.gated || !self.pending.is_empty() {
            return false;
        }
        self.has_room()
    }

    /// Room for one descriptor; otherwise the application will wake the poller when there is.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.ring.room() > 0 {
            return true;
        }
        if !self.shared.ring_full.swap(true, Ordering::AcqRel) {
            self.full_count += 1;
        }
        fence(Ordering::SeqCst);
        self.ring.room() > 0
    }

    pub(crate) fn message(&mut self, d: Descriptor) {
        if self.gated || !self.pending.is_empty() || !self.ring.push(d) {
            self.pending.push_back(Item::Descriptor(d));
        }
    }

    pub(crate) fn item(&mut self, item: Item) {
        if self.gated || !self.pending.is_empty() || self.ring.room() == 0 {
            self.pending.retain(|waiting| !waiting.is_outdated_by(&item));
            self.pending.push_back(item);
        } else {
            self.put(item);
        }
    }

    /// Transfer bytes and their memory, past the gate. The caller has asked [`Self::has_room`].
    pub(crate) fn past_gate(&mut self, item: Item) {
        self.put(item);
    }

    fn put(&mut self, item: Item) {
        let pushed = match item {
            Item::Descriptor(d) => self.ring.push(d),
            other => {
                self.shared.side.push(other);
                self.ring.push(Descriptor::CONTROL)
            }
        };
        assert!(pushed, "the caller looked for room");
    }

    pub(crate) fn close_gate(&mut self) {
        self.gated = true;
    }

    pub(crate) fn open_gate(&mut self) {
        self.gated = false;
    }

    pub(crate) fn is_gated(&self) -> bool {
        self.gated
    }

    /// Moves on what waited, and shows everything to the application. True if that was something.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.gated && !self.pending.is_empty() && self.has_room() {
            if let Some(item) = self.pending.pop_front() {
                self.put(item);
            }
        }
        let something = self.ring.publish();
        if something {
            self.shared.delivered.ring();
        }
        something
    }

    /// The node ends with `last`: shows all that is whole, then `remains`, then that.
    pub(crate) fn end(mut self, mut remains: Box<Remains>, last: Option<Item>) {
        if self.gated {
            // A state that was never completed: no view on top of it, and own messages delivered behind the gate go
            // the way of those that were only published.
            let mut unseen: Vec<MessageId> =
                self.pending.drain(..).filter_map(own_message).collect();
            unseen.append(&mut remains.unresolved.indeterminate);
            remains.unresolved.indeterminate = unseen;
            self.gated = false;
        }
        self.pending.push_back(Item::Unresolved(remains));
        self.pending.extend(last);
        self.flush();
        self.shared.end(std::mem::take(&mut self.pending));
    }
}
