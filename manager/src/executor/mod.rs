//! Runs component code: one thread per instance for updates, a shared pool for reads.
//!
//! Updates of an instance happen one after the other, in the total order, on the thread that owns
//! its queue. Reads happen between them, concurrently with each other. Nothing of a component ever
//! runs on the poller or on the delivery thread, so a slow component delays its own callers only.
//!
//! A component that panics has failed: its instance says so, answers every later call with the
//! reason, and everything else goes on. Replicas are equal until then, so they fail at the same
//! update.

mod instance;
mod readers;
#[cfg(test)]
mod tests;

pub use instance::{Instance, ReadOutcome, Saved};
pub use readers::Readers;

use crate::runtime::Outbox;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Jobs done under one lock of the instance; then readers get their turn.
const TURN: usize = 64;

/// An update as it comes out of the total order.
#[derive(Clone, Debug)]
pub struct Update {
    /// Its position.
    pub at: u64,
    /// Ordered time.
    pub time_ns: u64,
    /// Whose call.
    pub client: u128,
    /// Its number.
    pub seq: u64,
    /// What the client still wants.
    pub first_incomplete: u64,
    /// Which method.
    pub method: u32,
    /// The request message.
    pub body: Bytes,
}

/// What an executor is told, in the order of the group.
pub enum Job {
    /// Apply an update.
    Update(Update),
    /// The sessions of these clients are over.
    Forget(Arc<[u128]>),
    /// Save the state as it is at this place of the order.
    Save(Sender<Result<Saved, String>>),
    /// Hash the state as it is at this place of the order: (instance, hash or why there is none).
    Hash(Sender<(u32, Result<[u8; 32], String>)>),
}

/// The queue and thread of one instance.
pub struct Executor {
    instance: Arc<Instance>,
    queue: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Executor {
    /// Starts the thread of an instance; `queue` jobs may wait.
    pub fn start(instance: Arc<Instance>, outbox: Arc<Outbox>, queue: usize) -> Executor {
        let (tx, rx) = bounded(queue);
        let name = format!("run-{}", instance.class().short_name());
        let shared = instance.clone();
        let thread = std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn(move || run(&shared, &rx, &outbox))
            .expect("the system gives a thread");
        Executor { instance, queue: Some(tx), thread: Some(thread) }
    }

    /// The instance it runs.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Puts an update into the queue; waits while the queue is full.
    pub fn update(&self, update: Update) {
        self.instance.route(update.at + 1);
        self.send(Job::Update(update));
    }

    /// Puts another job into the queue; waits while the queue is full.
    pub fn send(&self, job: Job) {
        let queue = self.queue.as_ref().expect("there until dropped");
        // The thread ends only after the queue is closed, and it catches panics of components.
        queue.send(job).expect("the executor's thread lives");
    }
}

impl Drop for Executor {
    /// Finishes what is queued.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(instance: &Instance, queue: &Receiver<Job>, outbox: &Outbox) {
    while let Ok(first) = queue.recv() {
        let mut turn = instance.write();
        let mut next = Some(first);
        for _ in 0..TURN {
            let Some(job) = next.take().or_else(|| queue.try_recv().ok()) else { break };
            match job {
                Job::Update(update) => {
                    let (client, seq) = (update.client, update.seq);
                    match turn.update(update) {
                        Ok(reply) => outbox.executed(client, seq, &reply),
                        Err(refusal) => outbox.refused(client, seq, refusal),
                    }
                }
                Job::Forget(clients) => turn.forget(&clients),
                Job::Save(to) => drop(to.send(turn.save())),
                Job::Hash(to) => drop(to.send((instance.id(), turn.hash()))),
            }
        }
    }
}
