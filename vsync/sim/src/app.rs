//! The application on a node: a replicated list, its journal, and a client or two.
//!
//! Its state is the list of all messages it was given, with a mark for every view, and a rolling hash over it. That
//! is the worst case of a state machine: everything it ever did shows. The journal is that list on disk; what
//! was not synced when the node crashed may be lost from some entry on.

use std::collections::{BTreeMap, BTreeSet};

use quintet_transport::Member;

use crate::check::VIEW_SHIFT;
use crate::check::order::Order;
use crate::entropy::mix;

/// One entry of the list: a message, or the mark of a view (message 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it was delivered; for a mark, where the view begins.
    pub position: u64,
    /// The message, 0 for a mark.
    pub message: u64,
}

impl Entry {
    /// The mark of view `id`.
    pub fn mark(id: u64) -> Entry {
        Entry { position: id << VIEW_SHIFT, message: 0 }
    }

    /// First position after it.
    pub fn after(self) -> u64 {
        if self.message == 0 { self.position } else { self.position + 1 }
    }
}

/// What a crash leaves behind.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// Synced entries.
    pub entries: Vec<Entry>,
}

/// The state machine and what its clients wait for.
#[derive(Debug, Default)]
pub struct App {
    history: Vec<Entry>,
    hash: u64,
    messages: u64,
    next: BTreeMap<Member, u64>,
    /// Entries synced, and entries a running sync covers.
    pub synced: usize,
    /// The running sync covers this many entries.
    pub syncing: Option<usize>,
    /// The journal on disk belongs to an older state (before a transfer) and is replaced by the next sync.
    pub stale: bool,
    /// Own messages delivered here and not yet durable at a quorum: position, message.
    pub unacknowledged: BTreeSet<(u64, u64)>,
    /// Own messages delivered here and not yet known to be delivered everywhere.
    pub incomplete: BTreeSet<u64>,
}

impl App {
    /// The application as its journal has it.
    pub fn recover(journal: &Journal, order: &Order) -> App {
        let mut app = App::default();
        for &entry in &journal.entries {
            app.push(entry, order);
        }
        app.synced = app.history.len();
        app
    }

    /// Forgets everything: a transfer begins.
    pub fn clear(&mut self) {
        *self = App { stale: true, ..App::default() };
    }

    /// Appends an entry; returns the number that was expected of its sender before.
    pub fn push(&mut self, entry: Entry, order: &Order) -> u64 {
        self.history.push(entry);
        let Some((sender, number)) = order.origin(entry.message) else {
            // Marks are local: whether a view's mark was cut off by a crash must not show in the hash.
            return 0;
        };
        self.messages += 1;
        self.hash = mix(self.hash ^ mix(entry.position) ^ entry.message);
        self.next.insert(sender, number + 1).unwrap_or(0)
    }

    /// The list.
    pub fn history(&self) -> &[Entry] {
        &self.history
    }

    /// Position and number of each message in the list.
    pub fn messages(&self) -> impl Iterator<Item = (u64, u64)> {
        self.history.iter().filter(|e| e.message != 0).map(|e| (e.position, e.message))
    }

    /// Messages and hash: what two replicas at one cut must share.
    pub fn state(&self) -> (u64, u64) {
        (self.messages, self.hash)
    }

    /// First position that is not in the state.
    pub fn applied(&self) -> u64 {
        self.history.last().map_or(0, |e| e.after())
    }

    /// First position that is not in the synced state.
    pub fn persisted(&self) -> u64 {
        self.synced.checked_sub(1).map_or(0, |last| self.history[last].after())
    }

    /// A sync is due.
    pub fn dirty(&self) -> bool {
        self.syncing.is_none() && (self.stale || self.synced < self.history.len())
    }

    /// A sync of the first `upto` entries ended: this is what the disk holds now.
    pub fn sync(&mut self, journal: &mut Journal, upto: usize) {
        if std::mem::take(&mut self.stale) {
            journal.entries.clear();
        }
        let from = journal.entries.len().min(upto);
        journal.entries.extend_from_slice(&self.history[from..upto]);
        self.synced = upto;
        self.syncing = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_synced_is_not_recovered() {
        let mut order = Order::default();
        let me = Member::new(1, 1);
        let (mut app, mut journal) = (App::default(), Journal::default());
        app.push(Entry::mark(1), &order);
        for p in 0..3 {
            let message = order.send(me);
            app.push(Entry { position: (1 << VIEW_SHIFT) + p, message }, &order);
        }
        app.sync(&mut journal, 3);
        let again = App::recover(&journal, &order);
        assert_eq!(again.applied(), (1 << VIEW_SHIFT) + 2);
        assert_eq!(again.state().0, 2);
    }

    #[test]
    fn a_transfer_replaces_the_journal() {
        let mut order = Order::default();
        let me = Member::new(1, 1);
        let (a, b) = (order.send(me), order.send(me));
        let (mut app, mut journal) = (App::default(), Journal::default());
        app.push(Entry { position: 7, message: b }, &order);
        app.sync(&mut journal, 1);
        app.clear();
        app.push(Entry { position: 3, message: a }, &order);
        app.sync(&mut journal, 1);
        assert_eq!(journal.entries, [Entry { position: 3, message: a }]);
    }
}
