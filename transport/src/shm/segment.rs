//! The owner's side of a segment: made, filled, sealed, written.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::layout::{self, *};
use super::robust::Sentinel;
use super::thread::own_thread;
use crate::config::Config;
use crate::lane::LaneId;
use crate::log::Ring;
use crate::memory::{FirstWords, HUGE, LanePlace, Memory};
use crate::own::Own;
use crate::time::Time;

/// This node's segment.
pub(crate) struct Segment {
    memory: Arc<Memory>,
    header: FirstWords<HEADER_WORDS>,
    file: OwnedFd,
    places: Vec<LanePlace>,
    turn: u64,
    /// Flushes that changed words.
    words: u64,
    /// Signals our death to peers. Dropped before the memory it points into.
    _sentinel: Sentinel,
}

impl Segment {
    /// Allocates and seals it. All pages are allocated now: later there is nothing that could fail.
    pub(crate) fn new(config: &Config) -> Result<Segment, (usize, io::Error)> {
        let (places, total) = layout::plan(&config.lanes);
        let at_size = |e| (total, e);
        let name = CString::new(format!("quintet-{}", config.me.node.0)).unwrap_or_default();
        let adapters = config.verbs.trusted_fabric && config.path.may_be_verbs();
        let huge = if adapters { huge(&name, total) } else { None };
        let (file, memory) = huge.map_or_else(|| sealed(&name, total), Ok).map_err(at_size)?;
        let total = memory.len();
        let memory = Arc::new(memory);
        let put = |at: usize, value: u64| memory.word(at).store(value, Ordering::Relaxed);
        put(AT_VERSION, VERSION);
        put(AT_INCARNATION, config.me.incarnation.0);
        put(AT_NODE, config.me.node.0 as u64);
        put(AT_LANES, places.len() as u64);
        put(AT_TOTAL, total as u64);
        for (i, p) in places.iter().enumerate() {
            for (j, value) in [p.words_at, p.words, p.log_at, p.log_bytes].into_iter().enumerate() {
                put(AT_TABLE + 32 * i + 8 * j, value as u64);
            }
        }
        memory.word(AT_MAGIC).store(MAGIC, Ordering::Release);
        let sentinel = Sentinel::start(memory.clone()).map_err(at_size)?;
        let header = memory.first();
        Ok(Segment { memory, header, file, places, turn: 0, words: 0, _sentinel: sentinel })
    }

    /// The rings of the lanes' logs.
    pub(crate) fn rings(&self) -> Vec<Ring> {
        self.places.iter().map(|p| Ring::new(self.memory.clone(), p.log_at, p.log_bytes)).collect()
    }

    /// All of it: adapters send logs from there.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    #[cfg(test)]
    pub(super) fn memory_for_test(&self) -> Arc<Memory> {
        self.memory.clone()
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(crate) fn armed(&self) -> &AtomicU64 {
        &self.header[AT_ARMED / 8]
    }

    /// Makes everything that is marked visible to all readers: per lane the log's end first, then the
    /// words, so that whoever sees a word sees the log it speaks of; that there are words; and the turn, if somebody
    /// is to be woken.
    pub(crate) fn publish(&mut self, own: &Own, loud: bool) {
        let mut words = false;
        for (id, lane) in own.marked() {
            if lane.flushed != lane.log.head() {
                lane.log.show_if_alone(lane.flushed);
                self.header[AT_HEADS / 8 + id.index()].store(lane.log.head(), Ordering::Release);
            }
            if lane.changed.is_empty() {
                continue;
            }
            words = true;
            let place = &self.places[id.index()];
            for &word in &lane.changed {
                let value = lane.words[word as usize].value;
                self.memory
                    .word(place.words_at + 8 * word as usize)
                    .store(value, Ordering::Release);
            }
        }
        if words {
            self.words += 1;
            self.header[AT_WORDS / 8].store(self.words, Ordering::Release);
        }
        if loud {
            self.turn += 1;
            self.header[AT_TURN / 8].store(self.turn, Ordering::Release);
        }
    }

    /// Announces that a log's bytes below `low` are about to be overwritten. A reader that we no longer
    /// wait for checks this after its reads (a sequence lock, of which this is the writer's first half).
    pub(crate) fn reclaiming(&self, lane: LaneId, low: u64) {
        self.header[AT_LOW / 8 + lane.index()].store(low, Ordering::Relaxed);
        fence(Ordering::Release);
    }

    pub(crate) fn beat(&self, now: Time) {
        self.memory.word(AT_THREAD).store(own_thread().into(), Ordering::Relaxed);
        self.memory.word(AT_HEARTBEAT).store(now.as_nanos(), Ordering::Release);
    }

    pub(crate) fn heartbeat(&self) -> u64 {
        self.memory.word(AT_HEARTBEAT).load(Ordering::Relaxed)
    }

    /// Lanes in which we wait for space, as a bit set.
    pub(crate) fn want(&self, lanes: u64) {
        let word = self.memory.word(AT_WANTED);
        if word.load(Ordering::Relaxed) != lanes {
            word.store(lanes, Ordering::Release);
        }
    }

    /// Prepares the row of peer number `peer` for a new session.
    pub(crate) fn open_row(&self, peer: usize, session: u64) {
        let at = layout::row(peer);
        self.memory.word(at + ROW_SESSION).store(0, Ordering::Release);
        for i in 0..crate::limits::LANES_MAX {
            self.memory.word(at + ROW_RELEASED + 8 * i).store(0, Ordering::Relaxed);
        }
        self.memory.word(at + ROW_ECHO).store(0, Ordering::Relaxed);
        self.memory.word(at + ROW_RUNG).store(0, Ordering::Relaxed);
        self.memory.word(at + ROW_SESSION).store(layout::open(session), Ordering::Release);
    }

    /// Closes the row if it is still that session's.
    pub(crate) fn close_row(&self, peer: usize, session: u64) {
        let word = self.memory.word(layout::row(peer) + ROW_SESSION);
        if word.load(Ordering::Relaxed) == layout::open(session) {
            word.store(0, Ordering::Release);
        }
    }

    /// The latest heartbeat of that peer that we have seen.
    pub(crate) fn echo(&self, peer: usize, heartbeat: u64) {
        self.memory.word(layout::row(peer) + ROW_ECHO).store(heartbeat, Ordering::Release);
    }

    /// The peer's sleep that we last rang for.
    pub(crate) fn rung(&self, peer: usize, generation: u64) {
        self.memory.word(layout::row(peer) + ROW_RUNG).store(generation, Ordering::Release);
    }

    /// We no longer need that peer's log below `upto`. Release: our reads of it come before.
    pub(crate) fn released(&self, peer: usize, lane: LaneId, upto: u64) {
        let at = layout::row(peer) + ROW_RELEASED + 8 * lane.index();
        self.memory.word(at).store(upto, Ordering::Release);
    }
}

/// Memory that others may map to read, and only we to write: all of it allocated, of a size that stays.
pub(crate) fn sealed(name: &CStr, bytes: usize) -> io::Result<(OwnedFd, Memory)> {
    sealed_of(name, bytes, 0)
}

/// The same of huge pages, for adapters that read it: where the host has set enough of them aside, and not much of one
/// would be wasted.
fn huge(name: &CStr, bytes: usize) -> Option<(OwnedFd, Memory)> {
    let whole = bytes.next_multiple_of(HUGE);
    let flags = libc::MFD_HUGETLB | libc::MFD_HUGE_2MB;
    let made = (bytes >= HUGE / 2).then(|| sealed_of(name, whole, flags).ok()).flatten()?;
    // Kernels before 5.13 take the seal against writers for huge pages, and do not heed it.
    let is_sealed = Memory::shared(made.0.as_fd(), whole, true).is_err();
    is_sealed.then_some(made)
}

fn sealed_of(name: &CStr, bytes: usize, pages: u32) -> io::Result<(OwnedFd, Memory)> {
    let file = memfd(name, pages)?;
    allocate(file.as_fd(), bytes)?;
    let memory = Memory::shared(file.as_fd(), bytes, true)?;
    seal(file.as_fd())?;
    Ok((file, memory))
}

fn memfd(name: &CStr, pages: u32) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | pages;
    // SAFETY: `name` is NUL-terminated and lives through the call.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Allocates every page: a store to a page that cannot be had later would be a SIGBUS.
fn allocate(file: BorrowedFd<'_>, total: usize) -> io::Result<()> {
    loop {
        // SAFETY: no pointers.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, total as libc::off_t) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // A signal, a child's end say, makes the kernel give up half-way, without any restart of its own.
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// From now on the file can't change its size (a reader would get SIGBUS), lose pages, or be mapped
/// writable: our mapping, made before, stays the only writable one.
fn seal(file: BorrowedFd<'_>) -> io::Result<()> {
    let seals =
        libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: no pointers.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
