//! The hashes that replicas report about themselves, by audit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Audits remembered.
const KEPT: usize = 16;

/// Hash of an instance, or why there is none.
pub(super) type Hash = Result<[u8; 32], String>;

/// What is known of one audit.
#[derive(Clone, Debug, Default)]
pub struct AuditRecord {
    /// Where in the order the states were hashed.
    pub position: u64,
    /// View in which it happened.
    pub view: u64,
    /// Who should report.
    pub members: Vec<u16>,
    /// What each reported: (instance, hash).
    pub reports: BTreeMap<u16, Vec<(u32, Hash)>>,
}

impl AuditRecord {
    /// Has every member reported?
    pub fn is_complete(&self) -> bool {
        self.members.iter().all(|node| self.reports.contains_key(node))
    }
}

/// The latest audits.
#[derive(Debug, Default)]
pub struct Audits {
    kept: Mutex<VecDeque<(u64, AuditRecord)>>,
    changed: watch::Sender<u64>,
}

impl Audits {
    /// An audit takes place.
    pub(super) fn begin(&self, token: u64, position: u64, view: u64, members: &[u16]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        let members = members.to_vec();
        kept.push_back((token, AuditRecord { position, view, members, reports: BTreeMap::new() }));
    }

    /// A node's hashes arrived.
    pub(super) fn report(&self, token: u64, node: u16, hashes: Vec<(u32, Hash)>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, record)) = kept.iter_mut().find(|(t, _)| *t == token) {
            record.reports.insert(node, hashes);
        }
        drop(kept);
        self.changed.send_modify(|count| *count += 1);
    }

    /// What is known of an audit.
    pub fn get(&self, token: u64) -> Option<AuditRecord> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(t, _)| *t == token).map(|(_, record)| record.clone())
    }

    /// Changes with every report.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
