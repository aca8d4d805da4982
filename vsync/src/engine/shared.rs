//! What the poller and the application's threads share: atomics, the bells, a command queue for what is rare.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam_channel::Sender;
use crossbeam_queue::SegQueue;
use quintet_transport::Waker;

use super::bell::Bell;
use super::deliver::Item;
use crate::core::Position;
use crate::status::Status;

/// What the application asks of the poller, outside the data path.
#[derive(Debug)]
pub(crate) enum Command {
    /// The learner's application has loaded the snapshot.
    Ready(Position),
    /// Hand over and go.
    Leave,
    /// Restart the group although up to there is owed.
    Recover(Position),
    /// Stop now.
    Stop,
    /// The bulk writer of a transfer has been dropped or has finished.
    TransferOver,
}

type PersistedWake = Box<dyn Fn(Position) + Send + Sync>;

/// Shared between [`Node`](crate::Node), [`Group`](crate::Group), [`Deliveries`](crate::Deliveries) and the poller.
pub(crate) struct Shared {
    pub(crate) max_message: usize,
    /// Rings when something was put into the delivery ring.
    pub(crate) delivered: Bell,
    /// Views and the like, announced by a descriptor in the delivery ring.
    pub(crate) side: SegQueue<Item>,
    /// What did not fit into the ring when the poller ended, in order.
    pub(crate) leftover: Mutex<VecDeque<Item>>,
    /// The poller has ended; `leftover` is final.
    pub(crate) ended: AtomicBool,
    /// The poller waits for room in the delivery ring.
    pub(crate) ring_full: AtomicBool,
    closed: AtomicBool,
    waker: Waker,
    commands: Sender<Command>,
    lease_until_ns: AtomicU64,
    persisted: AtomicU64,
    persisted_by_quorum: AtomicU64,
    on_persisted: ArcSwapOption<PersistedWake>,
    status: ArcSwap<Status>,
    status_wanted: AtomicBool,
    send_full: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        max_message: usize,
        waker: Waker,
        commands: Sender<Command>,
        status: Status,
    ) -> Self {
        Self {
            max_message,
            delivered: Bell::default(),
            side: SegQueue::new(),
            leftover: Mutex::default(),
            ended: AtomicBool::new(false),
            ring_full: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            waker,
            commands,
            lease_until_ns: AtomicU64::new(0),
            persisted: AtomicU64::new(0),
            persisted_by_quorum: AtomicU64::new(0),
            on_persisted: ArcSwapOption::empty(),
            status: ArcSwap::from_pointee(status),
            status_wanted: AtomicBool::new(false),
            send_full: AtomicU64::new(0),
        }
    }

    // ---- application's side ----

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    pub(crate) fn command(&self, c: Command) {
        // The poller has ended: there is nobody left to ask, and nothing to do.
        let _ = self.commands.send(c);
        self.wake();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn note_full(&self) {
        self.send_full.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn lease_until(&self) -> u64 {
        self.lease_until_ns.load(Ordering::Acquire)
    }

    pub(crate) fn report_persisted(&self, p: Position) {
        if self.persisted.fetch_max(p.0, Ordering::AcqRel) < p.0 {
            self.wake();
        }
    }

    pub(crate) fn persisted_by_quorum(&self) -> Position {
        Position(self.persisted_by_quorum.load(Ordering::Acquire))
    }

    pub(crate) fn on_persisted(&self, wake: PersistedWake) {
        self.on_persisted.store(Some(Arc::new(wake)));
    }

    pub(crate) fn status(&self) -> Arc<Status> {
        if !self.status_wanted.swap(true, Ordering::Relaxed) {
            self.wake();
        }
        self.status.load_full()
    }

    // ---- poller's side ----

    /// Nothing new may be sent.
    pub(crate) fn refuse_sends(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.set_lease(0);
    }

    pub(crate) fn set_lease(&self, until_ns: u64) {
        self.lease_until_ns.store(until_ns, Ordering::Release);
    }

    pub(crate) fn persisted(&self) -> Position {
        Position(self.persisted.load(Ordering::Acquire))
    }

    /// Raises the position persisted by a quorum, and tells who asked to be told.
    pub(crate) fn set_persisted_by_quorum(&self, p: Position) {
        if self.persisted_by_quorum.load(Ordering::Relaxed) < p.0 {
            self.persisted_by_quorum.store(p.0, Ordering::Release);
            if let Some(wake) = self.on_persisted.load().as_ref() {
                wake(p);
            }
        }
    }

    pub(crate) fn is_status_wanted(&self) -> bool {
        self.status_wanted.load(Ordering::Relaxed)
    }

    pub(crate) fn take_status_wanted(&self) -> bool {
        self.status_wanted.load(Ordering::Relaxed)
            && self.status_wanted.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn set_status(&self, status: Status) {
        self.status.store(Arc::new(status));
    }

    /// The poller is done: whatever did not fit into the ring follows it in `items`.
    pub(crate) fn end(&self, items: VecDeque<Item>) {
        self.close();
        *self.leftover.lock().unwrap_or_else(PoisonError::into_inner) = items;
        self.ended.store(true, Ordering::Release);
        self.delivered.ring();
    }
}
