//! A consistent snapshot while everything goes on: a marker through every executor.
//!
//! The replica is encoded at once; each instance saves when its executor reaches the marker, which
//! stands at the same place of the order in every queue. Chandy and Lamport (1985), with the total
//! order as the only channel.

use crate::executor::{Executor, Job, Saved};
use crate::replica::Replica;
use crate::transfer::stream;
use crossbeam_channel::{Receiver, unbounded};
use std::io::{self, Write};

/// A snapshot being gathered.
#[derive(Debug)]
pub struct Cut {
    upto: u64,
    replica: Vec<u8>,
    instances: usize,
    saved: Receiver<Result<Saved, String>>,
}

impl Cut {
    /// Puts the markers into the queues. Only the thread that fills the queues may do this.
    pub(super) fn mark<'a>(
        replica: &Replica,
        executors: impl Iterator<Item = &'a Executor>,
    ) -> Cut {
        let (tx, saved) = unbounded();
        let mut instances = 0;
        for executor in executors {
            executor.send(Job::Save(tx.clone()));
            instances += 1;
        }
        Cut { upto: replica.upto(), replica: replica.encode(), instances, saved }
    }

    /// First position that is not in the snapshot.
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// Waits for the instances and writes everything. Fails if a component cannot save its state.
    pub fn write(self, out: &mut dyn Write) -> io::Result<()> {
        stream::write_replica(out, &self.replica)?;
        for _ in 0..self.instances {
            let saved = self.saved.recv();
            let saved = saved.map_err(|_| io::Error::other("an instance went away meanwhile"))?;
            let saved = saved.map_err(io::Error::other)?;
            stream::write_instance(out, &saved)?;
        }
        stream::write_end(out)
    }
}
