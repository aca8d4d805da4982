//! A link over one queue pair: our lanes written into the peer's inbox, the peer's lanes in ours.
//!
//! - A flush posts, per lane, the log's news straight from the ring; then the published ends; then the words, by value.
//!   A reliable connection applies them in this order, so whoever sees a word sees the log that it speaks of. The last
//!   write carries an immediate: the doorbell, and the only thing that costs the peer a completion. Where the log's news
//!   are all there is, the doorbell tells the end as well ([`super::immediate`]).
//! - The peer looks at its inbox after a doorbell: words first, ends after them. It believes none of it unchecked.
//! - Ring bytes are immutable until the peer has released them, *and* until our adapter is known to have read them
//!   ([`VerbsLink::floor`]): completions are asked for every so many writes, or when somebody waits for space.
//! - What does not fit into the send queue stays marked and goes with a later flush; nothing ever waits here.

mod detour;
mod life;
mod mend;
mod read;
mod receive;
mod send;

use std::cell::Cell;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(crate) use self::mend::Kept;
use self::send::Owed;
use super::completion::Completions;
use super::course::Course;
use super::discover;
use super::layout::{self, AT_PROOF, ENDS, Plan};
use super::offer::Offer;
use super::queue_pair::{QueuePair, RECEIVES, SENDS, Write};
use super::region::Held;
use crate::event::Evidence;
use crate::faults::Gate;
use crate::lane::LaneSpec;
use crate::limits::LANES_MAX;
use crate::log::Reader;
use crate::memory::{LanePlace, Memory};
use crate::time::Time;

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
    /// The published end that the peer was told of, and the one that was written into its inbox.
    told: Option<u64>,
    kept: Option<u64>,
    /// The peer's end, as its bells tell it.
    rung: u64,
    /// How far the peer says to have released our log.
    released: u64,
    /// How far we have released the peer's, and how far the peer was told so.
    freed: u64,
    said: u64,
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
    held: Option<Arc<Held>>,
    memory: Arc<Memory>,
    /// Bytes of the inbox that are in use, and where room for a packet is.
    size: u64,
    spare: u64,
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
    owed: Owed,
    /// Somebody waits for a completion, which the next batch asks for; and one shall be made for it.
    hurry: bool,
    asks: bool,
    /// What is marked is to wake the peer.
    wakes: bool,
    unfinished: bool,
    /// Doorbells whose receive requests are not posted anew yet.
    taken: u32,
    /// The inbox has news; bells have told ends.
    stale: bool,
    told: bool,
    /// Something happened that no turn has been told of.
    noticed: bool,
    /// What a sleeper was to be woken for: whatever completes; and that it came.
    armed_for_any: bool,
    called: bool,
    proven: (bool, bool),
    failure: Option<Evidence>,
    malformed: Cell<bool>,
    doorbells: u64,
    gate: Gate,
    /// The batch whose end is awaited, or without one the number of the latest; and since when that is so.
    mark: ((Option<u64>, u64), Time),
    /// By what the link is called in notes: the packet numbers that its first queue pairs began with, ours and theirs.
    name: (u32, u32),
    /// The packet number that our end of this queue pair began with.
    psn: u32,
    /// Which pair of addresses it goes between, as one who makes offers counts them, and ours in words.
    pub(super) course: Course,
    via: String,
    /// Since when there is no queue pair.
    suspended: Time,
    /// Queue pairs that failed lately, and when the last of them did.
    failures: u32,
    failing_since: Time,
    frozen: bool,
}

impl VerbsLink {
    /// Memory and queue pair for one peer; not connected.
    pub(super) fn new(
        place: &discover::Place,
        source: &Arc<Memory>,
        lanes: &[LaneSpec],
    ) -> std::io::Result<VerbsLink> {
        let memory = Arc::new(Memory::for_adapters(layout::plan(lanes).size)?);
        let held = Held::new(&place.device, &memory, source)?;
        VerbsLink::over(memory, held, place, lanes)
    }

    /// The same for an inbox that is there and registered.
    fn over(
        memory: Arc<Memory>,
        held: Arc<Held>,
        place: &discover::Place,
        lanes: &[LaneSpec],
    ) -> std::io::Result<VerbsLink> {
        let Plan { lanes: places, spare, size } = layout::plan(lanes);
        let completions = Completions::new(place.device.clone(), SENDS + RECEIVES)?;
        let pair = QueuePair::new(held.domain.clone(), &completions, place)?;
        let lane = |place| Lane {
            place,
            reader: None,
            words: Vec::new(),
            attached: None,
            sent: 0,
            done: 0,
            told: None,
            kept: None,
            rung: 0,
            released: 0,
            freed: 0,
            said: 0,
            dirty: None,
        };
        Ok(VerbsLink {
            pair: Some(pair),
            completions,
            held: Some(held),
            memory,
            size: size as u64,
            spare: spare as u64,
            remote: Offer::default(),
            packet: 0,
            writes: Vec::with_capacity(SENDS as usize),
            stage: vec![0; ENDS + lanes.iter().map(|lane| lane.words).sum::<usize>()].into(),
            lanes: places.into_iter().map(lane).collect(),
            batches: VecDeque::with_capacity(SENDS as usize),
            unsignaled: 0,
            posted: 0,
            next: 0,
            owed: Owed::default(),
            hurry: false,
            asks: false,
            wakes: false,
            unfinished: false,
            taken: 0,
            stale: false,
            told: false,
            noticed: false,
            armed_for_any: false,
            called: false,
            proven: (false, false),
            failure: None,
            malformed: Cell::new(false),
            doorbells: 0,
            gate: Gate::open(),
            mark: ((None, 0), Time::ZERO),
            name: (0, 0),
            psn: 0,
            course: Course::default(),
            via: place.to_string(),
            suspended: Time::ZERO,
            failures: 0,
            failing_since: Time::ZERO,
            frozen: false,
        })
    }

    /// What the peer must know of it; which of its sender's addresses it is, and what link, is the talk's to say.
    pub(super) fn offer(&self, place: &discover::Place, attempt: u8, psn: u32, from: u64) -> Offer {
        Offer {
            attempt,
            mtu: place.mtu(),
            lid: place.lid,
            partition: place.partition.1,
            service_level: place.marks.service_level,
            gid: place.gid,
            qpn: self.pair.as_ref().map_or(0, QueuePair::number),
            psn,
            rkey: self.held.as_ref().map_or(0, |held| held.inbox.remote_key()),
            inbox: self.held.as_ref().map_or(0, |held| held.inbox.address()),
            inbox_len: self.size,
            control_from: from,
            ..Offer::default()
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
        if let Some(why) = discover::parted(own.partition, peer.partition) {
            return Err(std::io::Error::other(why));
        }
        self.remote = *peer;
        (self.name, self.psn) = ((own.psn, peer.psn), own.psn);
        self.packet = 128 << own.mtu.min(peer.mtu).clamp(1, 5);
        self.pair.as_ref().map_or(Ok(()), |pair| pair.connect(place, own, peer))
    }

    /// What the peer offered when it was connected.
    pub(crate) fn remote(&self) -> &Offer {
        &self.remote
    }

    /// Our address that it goes by, in words.
    pub(crate) fn via(&self) -> &str {
        &self.via
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

    // ---- sleeping ----

    /// Asks to be woken; true if something has come meanwhile.
    pub(crate) fn arm(&mut self) -> bool {
        if self.pair.is_none() {
            return false;
        }
        // Completions of our own writes matter only to who waits for them.
        self.armed_for_any = self.unfinished || self.hurry;
        self.completions.arm(self.armed_for_any);
        let news = self.refresh() || self.gate.holds();
        self.called = false;
        news
    }

    /// After a sleep that the descriptor may have ended.
    pub(crate) fn silence(&mut self) {
        self.completions.silence();
    }

    // ---- the end ----

    /// Nothing is sent or received any more. The inbox stays as it is, readable, and is ours alone: the queue pair is
    /// destroyed before the memory is deregistered, so that no peer can write what we may be reading.
    pub(crate) fn freeze(&mut self) {
        self.frozen = true;
        self.pair = None;
        self.held = None;
    }

    /// Makes the network as bad as `policy` says, for what the peer writes here.
    #[cfg(feature = "faults")]
    pub(crate) fn set_faults(&mut self, policy: &crate::faults::FaultPolicy) {
        self.gate.set(policy);
    }
}
