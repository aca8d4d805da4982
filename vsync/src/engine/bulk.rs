//! State transfer over the bulk lane.
//!
//! A donor serves one learner at a time: the bulk log has one reader, and its slots are reused as that reader consumes.
//! The donor's poller tells the learner in its control log where in the bulk log the transfer begins; records are
//! pieces of state, and a last one that says for which view they are complete.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use quintet_transport::Member;

/// Bytes of a bulk record before its body: its kind.
pub(crate) const HEADER: usize = 8;
/// A piece of state.
pub(crate) const DATA: u64 = 1;
/// Complete for the view in the body.
pub(crate) const FINISH: u64 = 2;
/// The donor gave up.
pub(crate) const ABORT: u64 = 3;
/// How long a writer sleeps at most before it looks again.
pub(crate) const WAIT: Duration = Duration::from_millis(20);

/// Between a [`BulkWriter`](crate::BulkWriter) and the poller.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    aborted: AtomicBool,
    writer_gone: AtomicBool,
    progress: Mutex<u64>,
    changed: Condvar,
}

impl Transfer {
    /// A number that grows with every reuse of log space.
    pub(crate) fn progress(&self) -> u64 {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until progress differs from `seen`; false after `timeout`.
    pub(crate) fn wait(&self, seen: u64, timeout: Duration) -> bool {
        let guard = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = self
            .changed
            .wait_timeout_while(guard, timeout, |p| *p == seen)
            .unwrap_or_else(PoisonError::into_inner);
        *guard != seen
    }

    pub(crate) fn progressed(&self) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    pub(crate) fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        self.progressed();
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    pub(crate) fn writer_gone(&self) {
        self.writer_gone.store(true, Ordering::Release);
    }

    pub(crate) fn is_writer_gone(&self) -> bool {
        self.writer_gone.load(Ordering::Acquire)
    }
}

/// Learners waiting for this donor.
#[derive(Debug, Default)]
pub(crate) struct Waiting(VecDeque<Member>);

impl Waiting {
    pub(crate) fn push(&mut self, learner: Member) {
        // A node that asks again is a new incarnation: the old request is void.
        self.0.retain(|m| m.node != learner.node);
        self.0.push_back(learner);
    }

    pub(crate) fn pop(&mut self) -> Option<Member> {
        self.0.pop_front()
    }

    pub(crate) fn remove(&mut self, learner: Member) {
        self.0.retain(|m| *m != learner);
    }
}
