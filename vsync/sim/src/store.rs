//! A node's disk for protocol records: written in order, durable when synced, cut off by a crash.

use std::collections::VecDeque;

use quintet_vsync::core::Durable;

/// What is on disk, and what is on its way there.
#[derive(Debug, Default)]
pub struct Disk {
    /// The latest synced record.
    pub durable: Option<Durable>,
    pending: VecDeque<(u64, Durable)>,
    /// It works on earlier writes until then.
    pub busy_until: u64,
}

impl Disk {
    /// A record is handed over; it is durable only after [`synced`](Disk::synced). Returns until when the disk is busy
    /// with what came before.
    pub fn write(&mut self, ticket: u64, record: Durable) -> u64 {
        self.pending.push_back((ticket, record));
        self.busy_until
    }

    /// The latest record, synced or on its way.
    pub fn latest(&self) -> Option<&Durable> {
        self.pending.back().map(|(_, record)| record).or(self.durable.as_ref())
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

    /// A crash: of what was on its way, some first part may have arrived (`draw` decides how much; with `u64::MAX`
    /// all has), the rest is lost.
    pub fn crash(&mut self, draw: u64) {
        let writes = self.pending.len() as u64;
        let arrived = if draw == u64::MAX { writes } else { draw % (writes + 1) };
        for _ in 0..arrived {
            self.durable = self.pending.pop_front().map(|(_, record)| record);
        }
        self.pending.clear();
        self.busy_until = 0;
    }
}
