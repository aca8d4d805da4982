//! The threads that serve reads of all instances.

use crossbeam_channel::{Sender, TrySendError, bounded};

type Job = Box<dyn FnOnce() + Send>;

/// A fixed pool with a bounded queue.
#[derive(Debug)]
pub struct Readers {
    queue: Sender<Job>,
}

impl Readers {
    /// Starts the threads. They end when the pool is dropped and its queue is empty.
    pub fn start(threads: usize, queue: usize) -> Readers {
        let (tx, rx) = bounded::<Job>(queue);
        for i in 0..threads {
            let rx = rx.clone();
            std::thread::Builder::new()
                .name(format!("read-{i}"))
                .spawn(move || rx.iter().for_each(|job| job()))
                .expect("the system gives a thread");
        }
        Readers { queue: tx }
    }

    /// Queues a read; gives it back if the queue is full.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Job> {
        self.queue.try_send(Box::new(job)).map_err(|e| match e {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }
}
