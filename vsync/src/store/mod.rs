//! The durable record of a node: what it promised, accepted and installed in view changes.
//!
//! Ballots belong to the node, not to its incarnation: a node that restarts with its record may vote in the change that
//! its own death began. The record is small (a few KiB at 64 nodes), replaced as a whole, and written a few times per view
//! change, so the simplest thing that survives a crash at any instant is right: two slots written in turn, each with
//! its sequence number and checksum. A crash tears at most the slot being written, whose content nobody was told of;
//! the other slot is the record. See [`file`].

mod file;
mod lock;
#[cfg(test)]
mod tests;

use std::path::Path;

use quintet_transport::{Incarnation, NodeId};

use crate::error::StoreError;

/// Longest record, bytes: ten times what a view of 64 members needs.
#[cfg(test)]
const RECORD_MAX: usize = file::PAYLOAD_MAX;

/// What a store held when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The incarnation that wrote it.
    pub(crate) incarnation: Incarnation,
    /// Its record.
    pub(crate) record: Vec<u8>,
}

/// Where records go.
#[derive(Debug)]
pub(crate) enum Store {
    /// Nowhere: a restarted node has no memory.
    Memory,
    /// A file in the node's data directory.
    File(file::AcceptorFile),
}

impl Store {
    /// Opens the store of `node` in `dir` (`None`: in memory), and reads what it holds.
    pub(crate) fn open(
        dir: Option<&Path>,
        node: NodeId,
    ) -> Result<(Store, Option<Found>), StoreError> {
        let Some(dir) = dir else { return Ok((Store::Memory, None)) };
        let (file, found) = file::AcceptorFile::open(dir, node)?;
        Ok((Store::File(file), found))
    }

    /// Replaces the record. When this returns, it survives a crash of the machine.
    pub(crate) fn save(
        &mut self,
        incarnation: Incarnation,
        record: &[u8],
    ) -> Result<(), StoreError> {
        match self {
            Store::Memory => Ok(()),
            Store::File(file) => file.save(incarnation, record),
        }
    }
}
