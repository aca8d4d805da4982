//! A peer's segment, mapped read-only. The writer may be hostile: what is read here is checked once, and
//! the checked copy is what is used.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::{self, *};
use crate::id::{Incarnation, Member, NodeId};
use crate::lane::LaneId;
use crate::limits::{LANES_MAX, LOG_BYTES_MAX, NODES_MAX};
use crate::log::{LogBytes, Ring};
use crate::memory::{FirstWords, LanePlace, Memory};

/// The peer's memory.
pub(crate) struct Replica {
    memory: Arc<Memory>,
    header: FirstWords<HEADER_WORDS>,
    places: Vec<LanePlace>,
    member: Member,
    /// The row that the peer keeps for us.
    row: usize,
    row_index: usize,
}

const TOTAL_MAX: u64 = (LANES_MAX * (LOG_BYTES_MAX + (1 << 20))) as u64;

impl Replica {
    /// Maps the segment behind `file` and checks everything about it that could hurt us later.
    pub(crate) fn map(file: &OwnedFd, lanes: usize, row: usize) -> Result<Replica, String> {
        let total = checked_size(file)?;
        if row >= NODES_MAX {
            return Err(format!("row {row} does not exist"));
        }
        let memory =
            Memory::shared(file.as_fd(), total, false).map_err(|e| format!("mmap: {e}"))?;
        let get = |at: usize| memory.word(at).load(Ordering::Acquire);
        if get(AT_MAGIC) != MAGIC {
            return Err("not a segment".into());
        }
        if get(AT_VERSION) != VERSION {
            return Err(format!("segment version {}, not {VERSION}", get(AT_VERSION)));
        }
        if get(AT_TOTAL) != total as u64 {
            return Err("segment size is not what its header says".into());
        }
        if get(AT_LANES) != lanes as u64 {
            return Err(format!("{} lanes, not {lanes}", get(AT_LANES)));
        }
        let mut places = Vec::with_capacity(lanes);
        for i in 0..lanes {
            let raw = [0, 1, 2, 3].map(|j| get(AT_TABLE + 32 * i + 8 * j));
            places.push(
                layout::checked_place(raw, total)
                    .ok_or_else(|| format!("lane {i} is misplaced"))?,
            );
        }
        let node = u16::try_from(get(AT_NODE)).map_err(|_| "no such node id".to_owned())?;
        let member = Member { node: NodeId(node), incarnation: Incarnation(get(AT_INCARNATION)) };
        let memory = Arc::new(memory);
        let header = memory.first();
        Ok(Replica { memory, header, places, member, row: layout::row(row), row_index: row })
    }

    /// Whose memory it says it is.
    pub(crate) fn member(&self) -> Member {
        self.member
    }

    #[inline]
    fn load(&self, at: usize) -> u64 {
        self.memory.word(at).load(Ordering::Acquire)
    }

    /// A word of the header, which is looked at all the time.
    #[inline]
    fn look(&self, at: usize) -> u64 {
        self.header[at / 8].load(Ordering::Acquire)
    }

    /// Counts the peer's flushes: those meant to wake, and those that changed words. In this order: who sees the turn
    /// of a flush sees that it changed words.
    #[inline]
    pub(crate) fn turns(&self) -> (u64, u64) {
        (self.look(AT_TURN), self.look(AT_WORDS))
    }

    #[inline]
    pub(crate) fn turn(&self) -> u64 {
        self.look(AT_TURN)
    }

    #[inline]
    pub(crate) fn head(&self, lane: LaneId) -> u64 {
        self.look(AT_HEADS + 8 * lane.index())
    }

    /// Where the owner's reclaiming is, read after everything that was read from the log before.
    #[inline]
    pub(crate) fn low_after_reads(&self, lane: LaneId) -> u64 {
        std::sync::atomic::fence(Ordering::Acquire);
        self.header[AT_LOW / 8 + lane.index()].load(Ordering::Relaxed)
    }

    pub(crate) fn words(&self, lane: LaneId) -> &[AtomicU64] {
        let place = &self.places[lane.index()];
        self.memory.words(place.words_at, place.words)
    }

    pub(crate) fn ring(&self, lane: LaneId) -> Ring {
        let place = &self.places[lane.index()];
        Ring::new(self.memory.clone(), place.log_at, place.log_bytes)
    }

    pub(crate) fn bytes(&self, lane: LaneId) -> LogBytes {
        LogBytes::with_low(self.ring(lane), self.memory.clone(), AT_LOW + 8 * lane.index())
    }

    pub(crate) fn armed(&self) -> &AtomicU64 {
        &self.header[AT_ARMED / 8]
    }

    pub(crate) fn heartbeat(&self) -> u64 {
        self.load(AT_HEARTBEAT)
    }

    /// The thread that writes the heartbeat, as its own process numbers it.
    pub(crate) fn thread(&self) -> u32 {
        self.load(AT_THREAD) as u32
    }

    /// Lanes in which the peer waits for its readers.
    pub(crate) fn wanted(&self) -> u64 {
        self.look(AT_WANTED)
    }

    /// Whether the peer still has our link open under `session`.
    pub(crate) fn is_open(&self, session: u64) -> bool {
        self.load(self.row + ROW_SESSION) == layout::open(session)
    }

    /// The latest heartbeat of ours that the peer says to have seen.
    pub(crate) fn echo(&self) -> u64 {
        self.load(self.row + ROW_ECHO)
    }

    /// The latest sleep of ours that the peer says to have rung for.
    pub(crate) fn rung(&self) -> u64 {
        self.load(self.row + ROW_RUNG)
    }

    /// How far the peer says to have released our log.
    pub(crate) fn released(&self, lane: LaneId) -> u64 {
        self.load(self.row + ROW_RELEASED + 8 * lane.index())
    }

    /// The futex by which the kernel tells us of the peer's death: memory, offset, and value while alive.
    pub(crate) fn robust(&self) -> (Arc<Memory>, usize, u32) {
        let at = layout::robust(self.row_index);
        (self.memory.clone(), at, self.load(at) as u32)
    }

    /// Whether the kernel has marked the owner as dead.
    pub(crate) fn owner_died(&self) -> bool {
        self.load(layout::robust(self.row_index)) as u32 & libc::FUTEX_OWNER_DIED != 0
    }
}

/// The file's size, if it can be mapped without fear: of memory, sealed against shrinking, and with every
/// page present (a missing page may fail to appear: SIGBUS).
fn checked_size(file: &OwnedFd) -> Result<usize, String> {
    // SAFETY: no pointers.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    let needed = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE;
    if seals < 0 || seals & needed != needed {
        return Err("segment is not sealed".into());
    }
    // SAFETY: an all-zero stat is a valid value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is live and writable; the descriptor is open.
    if unsafe { libc::fstat(file.as_raw_fd(), &mut stat) } < 0 {
        return Err(format!("fstat: {}", io::Error::last_os_error()));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size < layout::plan(&[]).1 as u64 || size > TOTAL_MAX || !size.is_multiple_of(8) {
        return Err(format!("segment of {size} bytes"));
    }
    if (stat.st_blocks as u64).saturating_mul(512) < size {
        return Err("segment has holes".into());
    }
    Ok(size as usize)
}
