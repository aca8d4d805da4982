//! A node's disk for protocol records: written in order, durable when synced, cut off by a crash.

use std::collections::VecDeque;

use quintet_vsync::core::Durable;

use crate::entropy::Tape;

/// What is on disk, and what is on its way there.
#[derive(Debug, Default)]
pub struct Disk {
    /// The latest synced record.
    pub durable: Option<Durable>,
    pending: VecDeque<(u64, Durable)>,
}

impl Disk {
    /// A record is handed over; it is durable only after [`synced`](Disk::synced).
    pub fn write(&mut self, ticket: u64, record: Durable) {
        self.pending.push_back((ticket, record));
    }

    /// Everything up to the record with this ticket is durable; returns the record.
    pub fn synced(&mut self, ticket: u64) -> Option<&Durable> {
        while let Some((t, _)) = self.pending.front() {
            if *t > ticket {
                break;
            }
            self.durable = self.pending.pop_front().map(|(_, record)| record);
        }
        self.durable.as_ref()
    }

    /// A crash: of what was on its way, some first part may have arrived, the rest is lost.
    pub fn crash(&mut self, tape: &mut Tape) {
        let arrived = tape.below(self.pending.len() as u64 + 1);
        for _ in 0..arrived {
            self.durable = self.pending.pop_front().map(|(_, record)| record);
        }
        self.pending.clear();
    }
}
