//! A link over one queue pair: our lanes written into the peer's inbox, the peer's lanes in ours.
//!
//! - A flush posts, per lane, the log's news straight from the ring; then the published ends; then the words, by value.
//!   A reliable connection applies them in this order, so whoever sees a word sees the log that it speaks of. The last
//!   write carries an immediate: the doorbell, and the only thing that costs the peer a completion.
//! - The peer looks at its inbox after a doorbell: words first, ends after them. It believes none of it unchecked.
//! - Ring bytes are immutable until the peer has released them, *and* until our adapter is known to have read them
//!   ([`VerbsLink::floor`]): completions are asked for every so many writes, or when somebody waits for space.
//! - What does not fit into the send queue stays marked and goes with a later flush; nothing ever waits here.

mod life;
mod read;

use std::cell::Cell;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::completion::{Completion, Completions, TAKEN};
use super::discover;
use super::layout::{self, AT_HEADS, AT_PROOF, AT_RELEASED, ENDS};
use super::offer::Offer;
use super::queue_pair::{Ending, QueuePair, RECEIVE, RECEIVES, SENDS, Write};
use super::region::{Access, Domain, Region};
use crate::event::Evidence;
use crate::faults::Gate;
use crate::lane::{LaneId, LaneSpec};
use crate::limits::LANES_MAX;
use crate::log::{Malformed, Reader};
use crate::memory::{LanePlace, Memory};
use crate::own::Own;
use crate::time::Time;

/// Bytes of one write: adapters have a largest message, 8 MiB for some.
const PIECE: u64 = 1 << 20;
/// Unsignaled writes at most.
const SIGNAL_EVERY: u32 = SENDS / 8;
/// Free places in the send queue below which a flush waits for completions.
const ROOM_MIN: usize = 8;
/// Doorbells taken in one turn: a flood cannot keep the poller from its other work.
const TAKES_PER_TURN: usize = 8;
/// The doorbell of the first write of a connection.
const PROOF: u32 = 1;

/// One lane of ours as the peer reads it, and of the peer's as we do.
struct Lane {
    place: LanePlace,
    reader: Option<Reader>,
    /// The peer's words as of the last refresh.
    words: Vec<u64>,
    /// Where the peer began to count among the readers of our lane.
    attached: Option<u64>,
    /// Our log is posted up to here, and up to here it is known to be read by the adapter.
    sent: u64,
    done: u64,
    /// The published end that the peer was told of.
    told: Option<u64>,
    /// How far the peer says to have released our log.
    released: u64,
    /// How far we say to have released the peer's.
    freed: u64,
    /// Words to be sent: a range that holds all that changed.
    dirty: Option<(usize, usize)>,
}

/// Writes posted whose end is told by one completion.
struct Batch {
    id: u64,
    writes: u32,
    /// Per lane: our log was posted up to here.
    sent: [u64; LANES_MAX],
}

/// A link. Fields are dropped in this order: queue pair, completion queue, memory.
pub(crate) struct VerbsLink {
    pair: Option<QueuePair>,
    completions: Completions,
    inbox: Option<Region>,
    source: Option<Region>,
    memory: Arc<Memory>,
    /// Bytes of the inbox that are in use.
    size: u64,
    remote: Offer,
    /// Bytes of the largest packet.
    packet: u32,
    writes: Vec<Write>,
    /// Values on their way into inline writes: ends, then words.
    stage: Box<[u64]>,
    lanes: Vec<Lane>,
    batches: VecDeque<Batch>,
    unsignaled: u32,
    posted: u32,
    next: u64,
    /// Releases that the peer does not know of.
    releases: bool,
    /// Somebody waits for a completion.
    hurry: bool,
    /// What is marked is to wake the peer.
    wakes: bool,
    unfinished: bool,
    stale: bool,
    proven: (bool, bool),
    failure: Option<Evidence>,
    malformed: Cell<bool>,
    doorbells: u64,
    gate: Gate,
    /// The batch whose end is awaited, or without one the number of the latest; and since when that is so.
    mark: ((Option<u64>, u64), Time),
}

impl VerbsLink {
    /// Memory and queue pair for one peer; not connected.
    pub(super) fn new(
        place: &discover::Place,
        source: &Arc<Memory>,
        lanes: &[LaneSpec],
    ) -> std::io::Result<VerbsLink> {
        let (places, size) = layout::plan(lanes);
        let domain = Domain::new(place.device.clone())?;
        let memory = Arc::new(Memory::for_adapters(size)?);
        let inbox = Region::new(domain.clone(), memory.clone(), Access::Inbox)?;
        let source = Region::new(domain.clone(), source.clone(), Access::Source)?;
        let completions = Completions::new(place.device.clone(), SENDS + RECEIVES)?;
        let pair = QueuePair::new(domain, &completions, place)?;
        let lane = |place| Lane {
            place,
            reader: None,
            words: Vec::new(),
            attached: None,
            sent: 0,
            done: 0,
            told: None,
            released: 0,
            freed: 0,
            dirty: None,
        };
        Ok(VerbsLink {
            pair: Some(pair),
            completions,
            inbox: Some(inbox),
            source: Some(source),
            memory,
            size: size as u64,
            remote: Offer::default(),
            packet: 0,
            writes: Vec::with_capacity(SENDS as usize),
            stage: vec![0; ENDS + lanes.iter().map(|lane| lane.words).sum::<usize>()].into(),
            lanes: places.into_iter().map(lane).collect(),
            batches: VecDeque::with_capacity(SENDS as usize),
            unsignaled: 0,
            posted: 0,
            next: 0,
            releases: false,
            hurry: false,
            wakes: false,
            unfinished: false,
            stale: false,
            proven: (false, false),
            failure: None,
            malformed: Cell::new(false),
            doorbells: 0,
            gate: Gate::open(),
            mark: ((None, 0), Time::ZERO),
        })
    }

    /// What the peer must know of it.
    pub(super) fn offer(&self, place: &discover::Place, attempt: u8, psn: u32, from: u64) -> Offer {
        Offer {
            attempt,
            mtu: place.mtu(),
            lid: place.lid,
            gid: place.gid,
            qpn: self.pair.as_ref().map_or(0, QueuePair::number),
            psn,
            rkey: self.inbox.as_ref().map_or(0, Region::remote_key),
            inbox: self.inbox.as_ref().map_or(0, Region::address),
            inbox_len: self.size,
            control_from: from,
        }
    }

    /// Connects it with the queue pair of `peer`, which was told `own`.
    pub(super) fn connect(
        &mut self,
        place: &discover::Place,
        own: &Offer,
        peer: &Offer,
    ) -> std::io::Result<()> {
        if peer.inbox_len != self.size {
            return Err(std::io::Error::other("its lanes are not ours"));
        }
        self.remote = *peer;
        self.packet = 128 << own.mtu.min(peer.mtu).clamp(1, 5);
        self.pair.as_ref().map_or(Ok(()), |pair| pair.connect(place, own, peer))
    }

    /// What the peer offered when it was connected.
    pub(crate) fn remote(&self) -> &Offer {
        &self.remote
    }

    /// Writes into the peer's inbox what only we can know: its own packet number, seen in its offer. Before it goes one
    /// packet as large as they get, to where its reader has not begun to read: a path that only carries small ones is
    /// found out here, and not by a link that dies of its first large write, again and again.
    pub(super) fn prove(&mut self) {
        let proof = [u64::from(self.remote.psn)];
        let Some((inbox, lane)) = self.inbox.as_ref().zip(self.lanes.first()) else { return };
        let at = lane.place.log_at as u64;
        let large = Write {
            local: inbox.address() + at,
            local_key: inbox.local_key(),
            len: self.packet.min(lane.place.log_bytes as u32),
            remote: self.remote.inbox + at,
            inline: false,
        };
        self.post(&[large, self.inline(&proof, AT_PROOF)], PROOF);
    }

    /// Whether the peer's data reached us, and ours the peer. `psn`: what we told in our offer.
    pub(super) fn proven(&self, psn: u32) -> (bool, bool) {
        let told = self.memory.word(AT_PROOF).load(Ordering::Acquire);
        (self.proven.0 && told == u64::from(psn), self.proven.1)
    }

    /// What wakes a sleeper.
    pub(crate) fn fd(&self) -> RawFd {
        self.completions.fd()
    }

    /// Why the link cannot go on.
    pub(crate) fn failure(&self) -> Option<Evidence> {
        self.failure.or(self.malformed.get().then_some(Evidence::Malformed))
    }

    /// Batches that ended with a doorbell.
    pub(crate) fn doorbells(&self) -> u64 {
        self.doorbells
    }

    // ---- receiving ----

    /// Takes doorbells and completions, and looks at the inbox. True if anything happened.
    pub(crate) fn refresh(&mut self) -> bool {
        let mut happened = false;
        for _ in 0..TAKES_PER_TURN {
            let (mut rung, mut failed, mut finished) = (0, None, None);
            let taken = self.completions.take(|Completion { id, failure }| match failure {
                Some(status) => failed = failed.or(Some(status)),
                None if id == RECEIVE => rung += 1,
                None => finished = Some(id),
            });
            let Ok(taken) = taken else {
                self.failure = self.failure.or(Some(Evidence::PathBroken));
                return true;
            };
            if let Some(status) = failed
                && self.pair.is_some()
                && self.failure.is_none()
            {
                tracing::debug!(status, "the queue pair failed");
                self.failure = Some(Evidence::PathBroken);
            }
            if let Some(id) = finished {
                self.finished(id);
            }
            if rung > 0 {
                self.proven.0 = true;
                self.stale = true;
                if let Some(pair) = &self.pair
                    && pair.receive(rung).is_err()
                {
                    self.failure = self.failure.or(Some(Evidence::PathBroken));
                }
            }
            happened |= taken > 0;
            if taken < TAKEN {
                break;
            }
        }
        if self.stale && self.failure.is_none() && self.gate.passes() {
            self.stale = false;
            happened = true;
            if self.look().is_err() {
                self.malformed.set(true);
            }
        }
        happened
    }

    fn finished(&mut self, id: u64) {
        self.proven.1 = true;
        while self.batches.front().is_some_and(|batch| batch.id <= id) {
            let Some(batch) = self.batches.pop_front() else { break };
            self.posted -= batch.writes;
            for (lane, sent) in self.lanes.iter_mut().zip(batch.sent) {
                lane.done = lane.done.max(sent);
            }
        }
        self.hurry &= self.lanes.iter().any(|lane| lane.done < lane.sent);
    }

    /// Words before ends: the other way round a word might come whose log is not seen yet.
    fn look(&mut self) -> Result<(), Malformed> {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let said = self.memory.word(AT_RELEASED + 8 * index).load(Ordering::Acquire);
            lane.released = lane.released.max(said);
            let Some(reader) = &mut lane.reader else { continue };
            for (number, word) in lane.words.iter_mut().enumerate() {
                let at = lane.place.words_at + 8 * number;
                *word = (*word).max(self.memory.word(at).load(Ordering::Acquire));
            }
            let head = self.memory.word(AT_HEADS + 8 * index).load(Ordering::Acquire);
            reader.advance(head)?;
            // Trailing padding and aborts are nobody's to release.
            if reader.skip() {
                lane.freed = reader.released();
                self.releases = true;
            }
        }
        Ok(())
    }

    // ---- sending ----

    /// The peer reads our lane from `from` on.
    pub(crate) fn attach(&mut self, lane: LaneId, from: u64) {
        let Some(l) = self.lanes.get_mut(lane.index()) else { return };
        l.attached = Some(from);
        l.sent = from;
        l.done = l.done.min(from);
        l.told = None;
        l.dirty = (l.place.words > 0).then(|| (0, l.place.words - 1));
        for batch in &mut self.batches {
            batch.sent[lane.index()] = batch.sent[lane.index()].min(from);
        }
        self.unfinished = true;
    }

    pub(crate) fn detach(&mut self, lane: LaneId) {
        if let Some(l) = self.lanes.get_mut(lane.index()) {
            l.attached = None;
            l.dirty = None;
        }
    }

    /// How far the peer has released our log, of which `head` is published; `None` if it does not read it.
    pub(crate) fn released(&self, lane: LaneId, head: u64) -> Option<u64> {
        let l = self.lanes.get(lane.index())?;
        // What was not sent cannot have been released, whatever the peer says.
        Some(l.attached?.max(l.released.min(l.sent).min(head)))
    }

    /// Our log at and above this may still be read by the adapter. Asking for more makes the next flush ask for a
    /// completion.
    pub(crate) fn floor(&mut self, lane: LaneId, upto: u64) -> u64 {
        match self.lanes.get(lane.index()) {
            Some(l) if self.pair.is_some() && l.done < l.sent && l.done < upto => {
                self.hurry = true;
                l.done
            }
            _ => upto,
        }
    }

    /// Whether a flush has something to do, beyond what is marked in `own`.
    pub(crate) fn has_work(&self) -> bool {
        self.unfinished || self.releases
    }

    /// Posts all that was published and marked since the last flush.
    pub(crate) fn flush(&mut self, own: &Own, wakes: bool) {
        if self.pair.is_none() || self.failure.is_some() {
            return;
        }
        self.wakes |= wakes;
        let mut marked = self.has_work();
        for (mine, lane) in own.lanes.iter().zip(&mut self.lanes) {
            if lane.attached.is_none() {
                continue;
            }
            marked |= lane.sent != mine.log.head();
            for word in mine.changed.iter().map(|&word| usize::from(word)) {
                let (low, high) = lane.dirty.unwrap_or((word, word));
                lane.dirty = Some((low.min(word), high.max(word)));
                marked = true;
            }
        }
        if !(marked || self.hurry && self.unsignaled > 0) {
            return;
        }
        let room = (SENDS - self.posted) as usize;
        if room < ROOM_MIN {
            self.unfinished = true;
            return;
        }
        self.fill(own, room);
    }

    /// One batch, of at most `room` writes.
    fn fill(&mut self, own: &Own, room: usize) {
        let mut writes = std::mem::take(&mut self.writes);
        let mut stage = std::mem::take(&mut self.stage);
        writes.clear();
        self.unfinished = false;
        let ends = self.fill_logs(own, room - 1, &mut writes);
        if ends || self.releases || (self.hurry && self.unsignaled > 0) {
            self.releases = false;
            for (index, lane) in self.lanes.iter().enumerate() {
                stage[index] = lane.told.unwrap_or(0);
                stage[LANES_MAX + index] = lane.freed;
            }
            writes.push(self.inline(&stage[..ENDS], AT_HEADS));
        }
        self.fill_words(own, room, &mut stage[ENDS..], &mut writes);
        if !writes.is_empty() {
            self.post(&writes, 0);
        }
        self.writes = writes;
        self.stage = stage;
    }

    /// The logs' news; whether the peer must be told new ends. It is told only of whole records.
    fn fill_logs(&mut self, own: &Own, room: usize, writes: &mut Vec<Write>) -> bool {
        let mut ends = false;
        let key = self.source.as_ref().map_or(0, Region::local_key);
        for (mine, lane) in own.lanes.iter().zip(&mut self.lanes) {
            if lane.attached.is_none() {
                continue;
            }
            if lane.sent < mine.log.low() {
                // Its owner reclaimed what this reader has not released: it no longer counts among the readers.
                lane.attached = None;
                continue;
            }
            let (head, capacity) = (mine.log.head(), lane.place.log_bytes as u64);
            while lane.sent < head && writes.len() < room {
                let slot = lane.sent & (capacity - 1);
                let len = (head - lane.sent).min(capacity - slot).min(PIECE);
                writes.push(Write {
                    local: mine.log.ring().address(lane.sent),
                    local_key: key,
                    len: len as u32,
                    remote: self.remote.inbox + lane.place.log_at as u64 + slot,
                    inline: false,
                });
                lane.sent += len;
            }
            self.unfinished |= lane.sent != head;
            if lane.sent == head && lane.told != Some(head) {
                lane.told = Some(head);
                ends = true;
            }
        }
        ends
    }

    /// Words of the lanes whose log is posted as far as it is published, by the value they have been set to.
    fn fill_words(&mut self, own: &Own, room: usize, stage: &mut [u64], writes: &mut Vec<Write>) {
        let chunk = self.pair.as_ref().map_or(1, |pair| pair.inline_max / 8);
        let mut used = 0;
        for (index, mine) in own.lanes.iter().enumerate() {
            let lane = &mut self.lanes[index];
            if lane.attached.is_none() || lane.sent != mine.log.head() {
                continue;
            }
            let (place, dirty) = (lane.place, lane.dirty.take());
            let Some((mut low, high)) = dirty else { continue };
            while low <= high {
                if writes.len() >= room {
                    self.lanes[index].dirty = Some((low, high));
                    self.unfinished = true;
                    break;
                }
                let len = chunk.min(high + 1 - low);
                let values = &mut stage[used..used + len];
                for (value, word) in values.iter_mut().zip(&mine.words[low..]) {
                    *value = word.value;
                }
                writes.push(self.inline(values, place.words_at + 8 * low));
                used += len;
                low += len;
            }
        }
    }

    /// A write of `values`, which must stay where they are until it is posted, to `at` in the peer's inbox.
    fn inline(&self, values: &[u64], at: usize) -> Write {
        Write {
            local: values.as_ptr() as u64,
            local_key: 0,
            len: 8 * values.len() as u32,
            remote: self.remote.inbox + at as u64,
            inline: true,
        }
    }

    fn post(&mut self, writes: &[Write], doorbell: u32) {
        let Some(pair) = &mut self.pair else { return };
        let count = writes.len() as u32;
        let late = |lane: &Lane| lane.sent - lane.done >= lane.place.log_bytes as u64 / 4;
        let signaled = self.hurry
            || doorbell == PROOF
            || self.unsignaled + count >= SIGNAL_EVERY
            || self.lanes.iter().any(late);
        self.next += 1;
        let wakes = std::mem::take(&mut self.wakes) || doorbell == PROOF;
        let ending = Ending { id: self.next, doorbell: Some(doorbell), wakes, signaled };
        // SAFETY: log ranges are published bytes of our rings, which lie in the source region that the key names.
        // Nobody writes them until they are reclaimed, and `Poller::reclaim` stops at `floor`, which this batch's
        // completion moves; or the queue pair is destroyed first (`freeze`, `drop`). A proof is of the inbox, which is
        // registered as well, and what it says is of no concern. Inline values are in `stage`,
        // which is not touched before the call returns.
        if unsafe { pair.post(writes, self.remote.rkey, ending) }.is_err() {
            self.failure = self.failure.or(Some(Evidence::PathBroken));
            return;
        }
        self.doorbells += 1;
        self.posted += count;
        self.unsignaled += count;
        if signaled {
            let mut sent = [0; LANES_MAX];
            for (sent, lane) in sent.iter_mut().zip(&self.lanes) {
                *sent = lane.sent;
            }
            self.batches.push_back(Batch { id: self.next, writes: self.unsignaled, sent });
            self.unsignaled = 0;
        }
    }

    // ---- sleeping ----

    /// Asks to be woken; true if something has come meanwhile.
    pub(crate) fn arm(&mut self) -> bool {
        if self.pair.is_none() {
            return false;
        }
        // Completions of our own writes matter only to who waits for them.
        self.completions.arm(self.unfinished || self.hurry);
        self.refresh() || self.gate.holds()
    }

    /// After a sleep that the descriptor may have ended.
    pub(crate) fn silence(&mut self) {
        self.completions.silence();
    }

    // ---- the end ----

    /// Nothing is sent or received any more. The inbox stays as it is, readable, and is ours alone: the queue pair is
    /// destroyed before the memory is deregistered, so that no peer can write what we may be reading.
    pub(crate) fn freeze(&mut self) {
        self.pair = None;
        self.source = None;
        self.inbox = None;
    }

    /// Makes the network as bad as `policy` says, for what the peer writes here.
    #[cfg(feature = "faults")]
    pub(crate) fn set_faults(&mut self, policy: &crate::faults::FaultPolicy) {
        self.gate.set(policy);
    }
}
