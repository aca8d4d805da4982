//! The acceptor file: `acceptor` in the data directory.
//!
//! ```text
//! 0      header: magic, format, node, checksum           (written once, then only read)
//! 4096   slot 0: sequence, incarnation, length, checksum, record
//! 36864  slot 1: the same
//! 69632  end
//! ```
//! All numbers are little-endian. The file has its full size from its birth (made under another name, synced, renamed,
//! directory synced), so a save is one `pwrite` and one `fdatasync` without metadata. A file of another size has been
//! cut or overwritten by something else and is refused: a promise may have stood in what is missing.
//!
//! A slot that is neither all zero nor whole is a torn write, harmless while the other slot is whole. With none whole
//! in a file that had been written, nothing is known, and the node refuses to start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use quintet_transport::{Incarnation, NodeId};

use super::{Found, lock};
use crate::error::StoreError;

const MAGIC: [u8; 8] = *b"quintet\xA1";
const FORMAT: u32 = 1;
const HEADER: usize = 4096;
const SLOT: usize = 32768;
const SLOT_HEAD: usize = 24;
const FILE: usize = HEADER + 2 * SLOT;
pub(super) const PAYLOAD_MAX: usize = SLOT - SLOT_HEAD;
const NAME: &str = "acceptor";

/// The open file.
#[derive(Debug)]
pub(crate) struct AcceptorFile {
    file: File,
    path: PathBuf,
    /// Sequence number of the newest whole slot; slot = sequence % 2.
    sequence: u64,
    buffer: Vec<u8>,
}

struct Slot {
    sequence: u64,
    incarnation: u64,
    record: Vec<u8>,
}

enum SlotState {
    Empty,
    Torn,
    Whole(Slot),
}

impl AcceptorFile {
    pub(super) fn open(dir: &Path, node: NodeId) -> Result<(Self, Option<Found>), StoreError> {
        let io_error = |path: &Path, what| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, what, source }
        };
        fs::create_dir_all(dir).map_err(io_error(dir, "create the data directory"))?;
        let path = dir.join(NAME);
        let open = || OpenOptions::new().read(true).write(true).open(&path);
        let file = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                create(dir, &path, node).map_err(io_error(&path, "create the record file"))?;
                open()
            }
            other => other,
        }
        .map_err(io_error(&path, "open the record file"))?;
        if !lock::try_lock(&file).map_err(io_error(&path, "lock the record file"))? {
            return Err(StoreError::Busy { path });
        }
        let length = file.metadata().map_err(io_error(&path, "read the record file"))?.len();
        let damaged = |detail: String| StoreError::Damaged { path: path.clone(), detail };
        if length != FILE as u64 {
            return Err(damaged(format!(
                "the file has {length} bytes instead of {FILE}: it was cut or overwritten"
            )));
        }
        let mut all = vec![0; FILE];
        file.read_exact_at(&mut all, 0).map_err(io_error(&path, "read the record file"))?;
        check_header(&all[..HEADER], &path, node)?;

        let slots = [0, 1].map(|i| parse_slot(&all[HEADER + i * SLOT..][..SLOT], i as u64));
        let torn = slots.iter().any(|s| matches!(s, SlotState::Torn));
        let newest = slots
            .into_iter()
            .filter_map(|s| if let SlotState::Whole(s) = s { Some(s) } else { None })
            .max_by_key(|s| s.sequence);
        if newest.is_none() && torn {
            return Err(damaged("no record in it is whole".into()));
        }
        if torn {
            tracing::warn!(path = %path.display(), "the last write of the record was torn by a crash; using the one before");
        }
        let sequence = newest.as_ref().map_or(0, |s| s.sequence);
        let found =
            newest.map(|s| Found { incarnation: Incarnation(s.incarnation), record: s.record });
        Ok((Self { file, path, sequence, buffer: Vec::with_capacity(SLOT) }, found))
    }

    pub(super) fn save(
        &mut self,
        incarnation: Incarnation,
        record: &[u8],
    ) -> Result<(), StoreError> {
        assert!(
            record.len() <= PAYLOAD_MAX,
            "a record of {} bytes: the view codec has its own limit",
            record.len()
        );
        let sequence = self.sequence + 1;
        self.buffer.clear();
        self.buffer.extend_from_slice(&sequence.to_le_bytes());
        self.buffer.extend_from_slice(&incarnation.0.to_le_bytes());
        self.buffer.extend_from_slice(&(record.len() as u32).to_le_bytes());
        let sum = checksum(&self.buffer, record);
        self.buffer.extend_from_slice(&sum.to_le_bytes());
        self.buffer.extend_from_slice(record);
        let at = HEADER as u64 + (sequence % 2) * SLOT as u64;
        self.file
            .write_all_at(&self.buffer, at)
            .map_err(|source| self.error("write the record", source))?;
        // After a failed sync the page cache may claim what the disk does not have: the caller stops the node.
        self.file.sync_data().map_err(|source| self.error("sync the record", source))?;
        self.sequence = sequence;
        Ok(())
    }

    fn error(&self, what: &'static str, source: io::Error) -> StoreError {
        StoreError::Io { path: self.path.clone(), what, source }
    }
}

fn create(dir: &Path, path: &Path, node: NodeId) -> io::Result<()> {
    let mut all = vec![0; FILE];
    all[..8].copy_from_slice(&MAGIC);
    all[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    all[12..14].copy_from_slice(&node.0.to_le_bytes());
    let sum = crc32fast::hash(&all[..16]);
    all[16..20].copy_from_slice(&sum.to_le_bytes());
    let new = dir.join("acceptor.new");
    let mut file = File::create(&new)?;
    file.write_all(&all)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

fn check_header(header: &[u8], path: &Path, node: NodeId) -> Result<(), StoreError> {
    let path = path.to_owned();
    if header[..8] != MAGIC {
        return Err(StoreError::Damaged {
            path,
            detail: "it does not begin like an acceptor file".into(),
        });
    }
    let format = u32_at(header, 8);
    if format > FORMAT {
        return Err(StoreError::Version { path, found: format, known: FORMAT });
    }
    if crc32fast::hash(&header[..16]) != u32_at(header, 16) {
        return Err(StoreError::Damaged {
            path,
            detail: "the checksum of its header is wrong".into(),
        });
    }
    let found = u16::from_le_bytes([header[12], header[13]]);
    if found != node.0 {
        return Err(StoreError::WrongNode { path, found, expected: node.0 });
    }
    Ok(())
}

fn parse_slot(bytes: &[u8], parity: u64) -> SlotState {
    if bytes.iter().all(|b| *b == 0) {
        return SlotState::Empty;
    }
    let (sequence, incarnation) = (u64_at(bytes, 0), u64_at(bytes, 8));
    let length = u32_at(bytes, 16) as usize;
    if length > PAYLOAD_MAX || sequence % 2 != parity {
        return SlotState::Torn;
    }
    let record = &bytes[SLOT_HEAD..SLOT_HEAD + length];
    if checksum(&bytes[..20], record) != u32_at(bytes, 20) {
        return SlotState::Torn;
    }
    SlotState::Whole(Slot { sequence, incarnation, record: record.to_vec() })
}

fn checksum(head: &[u8], record: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(head);
    sum.update(record);
    sum.finalize()
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}
