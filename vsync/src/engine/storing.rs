//! Durable records off the poller: a thread that writes, syncs, and says so.
//!
//! The poller must not wait for a disk: heartbeats would stop, and a slow disk would look like a dead node. The protocol
//! core hands out records with tickets and goes on when a ticket comes back.

use std::collections::VecDeque;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use quintet_transport::{Incarnation, Waker};

use crate::error::{Error, StoreError};
use crate::store::Store;

/// Records waiting for the disk. The core has at most a few under way.
const QUEUE: usize = 64;

type Done = Result<u64, StoreError>;

/// The poller's handle on the store.
pub(crate) enum Storing {
    /// Nothing to wait for.
    Memory { done: VecDeque<u64> },
    /// A thread.
    Thread {
        work: Option<Sender<(u64, Vec<u8>)>>,
        done: Receiver<Done>,
        thread: Option<JoinHandle<()>>,
    },
}

impl Storing {
    pub(crate) fn start(
        mut store: Store,
        incarnation: Incarnation,
        waker: Waker,
    ) -> Result<Self, Error> {
        if let Store::Memory = store {
            return Ok(Storing::Memory { done: VecDeque::new() });
        }
        let (work, jobs) = bounded::<(u64, Vec<u8>)>(QUEUE);
        let (finished, done) = unbounded();
        let run = move || {
            for (ticket, record) in jobs {
                let result = store.save(incarnation, &record).map(|()| ticket);
                let failed = result.is_err();
                // The poller is gone: nobody waits for this record.
                if finished.send(result).is_err() {
                    return;
                }
                waker.wake();
                if failed {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("quintet-store".into())
            .spawn(run)
            .map_err(|source| Error::Thread { what: "store", source })?;
        Ok(Storing::Thread { work: Some(work), done, thread: Some(thread) })
    }

    /// Room for another record?
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Storing::Memory { .. } => true,
            Storing::Thread { work, .. } => work.as_ref().is_some_and(|w| !w.is_full()),
        }
    }

    /// Hands over a record.
    pub(crate) fn save(&mut self, ticket: u64, record: Vec<u8>) {
        match self {
            Storing::Memory { done } => done.push_back(ticket),
            Storing::Thread { work, .. } => {
                if let Some(work) = work {
                    // A thread that is gone has reported why; `done` gives that next.
                    let _ = work.try_send((ticket, record));
                }
            }
        }
    }

    /// The next record that is durable now, or why none will be any more.
    pub(crate) fn done(&mut self) -> Option<Done> {
        match self {
            Storing::Memory { done } => done.pop_front().map(Ok),
            Storing::Thread { done, .. } => done.try_recv().ok(),
        }
    }

    /// Is there something for [`Self::done`]?
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Storing::Memory { done } => !done.is_empty(),
            Storing::Thread { done, .. } => !done.is_empty(),
        }
    }
}

impl Drop for Storing {
    /// Waits for the write under way, so that the file is closed (and its lock free) when the node is gone.
    fn drop(&mut self) {
        if let Storing::Thread { work, thread, .. } = self {
            drop(work.take());
            if let Some(thread) = thread.take()
                && thread.join().is_err()
            {
                tracing::error!("the store thread panicked");
            }
        }
    }
}
