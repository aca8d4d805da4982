//! Reads: one that is answered under a lease is never older than a write that was complete before it began.
//!
//! A write is *complete* here when its sender saw it delivered by all members of its view (DELIVERED of every row):
//! that is what a local read elsewhere in the view can rely on. A node that slept through its removal, or was
//! cut off, is the case of interest: the writes of the next view complete without it.

use quintet_transport::Member;

use super::{Verdict, Violation, show};

/// How far writes are complete, and how many reads were answered and refused.
#[derive(Debug, Default)]
pub struct Lease {
    complete: u64,
    answered: u64,
    refused: u64,
}

impl Lease {
    /// A write at `position` is complete.
    pub fn complete(&mut self, position: u64) {
        self.complete = self.complete.max(position);
    }

    /// What a read that begins now must see.
    pub fn begin(&self) -> u64 {
        self.complete
    }

    /// A read that began at `floor` saw the state after `applied` (first position not applied) and passed the
    /// lease check.
    pub fn answer(&mut self, me: Member, floor: u64, applied: u64, judged: bool) -> Verdict {
        self.answered += 1;
        if judged && floor >= applied {
            let text = format!(
                "{me} answered from {}, though {} was complete",
                show(applied),
                show(floor)
            );
            return Err(Violation::new(super::READ_LEASE, text));
        }
        Ok(())
    }

    /// A read that found no lease.
    pub fn refuse(&mut self) {
        self.refused += 1;
    }

    /// Reads answered and refused.
    pub fn totals(&self) -> (u64, u64) {
        (self.answered, self.refused)
    }
}
