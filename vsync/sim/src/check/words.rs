//! 15: words only grow, a copy is never ahead of its owner, stable deliveries, slots are not reused too early.
//! 16: nothing from a fenced incarnation becomes visible.

use std::collections::HashMap;

use quintet_transport::Member;

use super::{Verdict, ViewInfo, Violation, show, view_of};

/// Words of the group lane.
pub const WORDS: usize = 4;

const NAMES: [&str; WORDS] = ["next", "received", "delivered", "persisted"];
const RECEIVED: usize = 1;
/// The word that says how far its owner has delivered.
pub const DELIVERED: usize = 2;

/// The true rows: what each owner last published.
#[derive(Debug, Default)]
pub struct WordsCheck {
    rows: HashMap<Member, [u64; WORDS]>,
    fenced: HashMap<Member, Vec<Member>>,
}

impl WordsCheck {
    /// An owner publishes its row.
    pub fn publish(&mut self, owner: Member, row: [u64; WORDS]) -> Verdict {
        let old = self.rows.entry(owner).or_insert([0; WORDS]);
        for (word, name) in NAMES.iter().enumerate() {
            if row[word] < old[word] {
                let text = format!(
                    "{owner} lowered {name} from {} to {}",
                    show(old[word]),
                    show(row[word])
                );
                return Err(Violation::new(15, text));
            }
        }
        *old = row;
        if row[DELIVERED] > row[RECEIVED] && view_of(row[DELIVERED]) == view_of(row[RECEIVED]) {
            let text =
                format!("{owner} delivered {} of {}", show(row[DELIVERED]), show(row[RECEIVED]));
            return Err(Violation::new(15, text));
        }
        Ok(())
    }

    /// A reader hands a copy of `owner`'s row to its core.
    pub fn copy(&self, reader: Member, owner: Member, row: [u64; WORDS]) -> Verdict {
        if self.fenced.get(&reader).is_some_and(|f| f.contains(&owner)) {
            return Err(Violation::new(
                16,
                format!("{reader} reads the row of {owner}, which it has fenced"),
            ));
        }
        let truth = self.rows.get(&owner).copied().unwrap_or([0; WORDS]);
        for word in 0..WORDS {
            if row[word] > truth[word] {
                return Err(Violation::new(
                    15,
                    format!("{reader} sees {} of {owner} ahead of it", NAMES[word]),
                ));
            }
        }
        Ok(())
    }

    /// `reader` fenced `member`.
    pub fn fence(&mut self, reader: Member, member: Member) {
        self.fenced.entry(reader).or_default().push(member);
    }

    /// `reader` installed a view with these members. Who is in it was fenced for a proposal that came to nothing.
    pub fn install(&mut self, reader: Member, members: &[Member]) {
        if let Some(fenced) = self.fenced.get_mut(&reader) {
            fenced.retain(|f| !members.contains(f));
        }
    }

    /// A delivery in `view`: every member has received it, or a quorum has accepted the next view (whose trim
    /// covers it; that no two trims exist is invariant 9's and 14's business).
    pub fn deliver(
        &self,
        me: Member,
        position: u64,
        view: &ViewInfo,
        next_decided: bool,
    ) -> Verdict {
        if next_decided {
            return Ok(());
        }
        // (Its own RECEIVED a member may publish after it has delivered: it takes part in its own minimum as it is.)
        for &member in view.members.iter().filter(|&&m| m != me) {
            let received = self.rows.get(&member).map_or(0, |r| r[RECEIVED]);
            if received <= position {
                let text = format!(
                    "{me} delivered {} although {member} has received only up to {}, and no next view is decided",
                    show(position),
                    show(received)
                );
                return Err(Violation::new(17, text));
            }
        }
        Ok(())
    }

    /// An owner reuses the bytes of a record delivered at `position` of view `then`: every member of the present view
    /// that was in that one (and so reads those bytes) has delivered it.
    pub fn reuse(
        &self,
        owner: Member,
        position: u64,
        then: &ViewInfo,
        members: &[Member],
    ) -> Verdict {
        for &member in members.iter().filter(|&&m| m != owner && then.has(m)) {
            let delivered = self.rows.get(&member).map_or(0, |r| r[DELIVERED]);
            if delivered <= position {
                let text =
                    format!("{owner} reuses {} which {member} has not delivered", show(position));
                return Err(Violation::new(15, text));
            }
        }
        Ok(())
    }
}
