//! What happened on this node, kept for people: a bounded ring that can be followed.

use crate::admin::types::{Event, EventKind, ViewChange};
use quintet_transport::clock;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// The ring.
#[derive(Debug)]
pub struct Events {
    node: u16,
    limit: usize,
    ring: Mutex<VecDeque<Event>>,
    latest: watch::Sender<u64>,
}

impl Events {
    /// A ring of the latest `limit` events of this node.
    pub fn new(node: u16, limit: usize) -> Events {
        Events { node, limit, ring: Mutex::default(), latest: watch::Sender::new(0) }
    }

    /// Keeps an event, and logs it.
    pub fn note(&self, kind: EventKind, text: impl Into<String>) {
        self.keep(kind, text.into(), None);
    }

    /// Keeps a view change, and logs it.
    pub fn view(&self, text: String, view: ViewChange) {
        self.keep(EventKind::View, text, Some(view));
    }

    fn keep(&self, kind: EventKind, text: String, view: Option<ViewChange>) {
        tracing::info!(target: "quintet::event", "{text}");
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut ring = self.lock();
        let seq = *self.latest.borrow() + 1;
        if ring.len() == self.limit {
            ring.pop_front();
        }
        ring.push_back(Event {
            seq,
            node: self.node,
            at_ns: clock::now().as_nanos(),
            unix_ms: unix.as_millis() as u64,
            kind,
            text,
            view,
        });
        self.latest.send_replace(seq);
    }

    /// Those kept after number `since`.
    pub fn since(&self, since: u64) -> Vec<Event> {
        self.lock().iter().filter(|event| event.seq > since).cloned().collect()
    }

    /// Changes whenever an event is kept.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_in_order_with_growing_numbers() {
        let events = Events::new(2, 3);
        for i in 0..5 {
            events.note(EventKind::Node, format!("event {i}"));
        }
        let kept = events.since(0);
        assert_eq!(kept.iter().map(|e| e.seq).collect::<Vec<_>>(), [3, 4, 5]);
        assert!(kept.windows(2).all(|w| w[0].at_ns <= w[1].at_ns));
        assert_eq!(events.since(4).len(), 1);
        assert_eq!(*events.follow().borrow(), 5);
    }
}
