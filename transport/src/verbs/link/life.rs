//! Whether the link can go on.
//!
//! An adapter says when it gives a write up. But not every one does (software RoCE tries for ever what its interface
//! refuses as too large), and what it says is a completion, which is not asked for with every write. A peer that is
//! heard of takes doorbells, so writes end soon: if they do not, the link is of no use, though it looks alive.

use std::time::Duration;

use super::VerbsLink;
use crate::event::Evidence;
use crate::time::Time;

/// How long writes to a peer that is heard of may take: many times what an adapter's attempts do.
const STUCK: Duration = Duration::from_secs(2);

impl VerbsLink {
    /// Why the link cannot go on; else when the peer was heard by UDP, as it is told.
    pub(crate) fn life(
        &mut self,
        now: Time,
        heard: Option<Time>,
    ) -> Result<Option<Time>, Evidence> {
        self.remember();
        let stuck = self.is_stuck(now, heard).then_some(Evidence::PathBroken);
        self.failure().or(stuck).map_or(Ok(heard), Err)
    }

    fn is_stuck(&mut self, now: Time, heard: Option<Time>) -> bool {
        let awaited = self.batches.front().map(|batch| batch.id);
        let mark = (awaited, awaited.map_or(self.next, |_| 0));
        if self.mark.0 != mark {
            self.mark = (mark, now);
        }
        let since = self.mark.1;
        match awaited {
            Some(_) => now.since(since) > STUCK && heard.is_some_and(|at| at > since + STUCK / 2),
            None => {
                // Idle since then: whether what was sent last has arrived is asked once.
                self.hurry |= self.unsignaled > 0 && now.since(since) > STUCK / 2;
                false
            }
        }
    }
}
