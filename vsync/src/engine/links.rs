//! Which link leads to which member, what is read over it, and whose memory it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quintet_transport::{LinkId, Member};

use crate::core::{MAX_MEMBERS, Rank, View};

/// A lane of a peer that the application consumes: where the poller is, and where the application is.
pub(crate) struct Reader {
    /// Number of the source the application knows this memory by.
    pub(crate) source: u16,
    /// Where the next record may begin.
    pub(crate) at: u64,
    /// What was handed back to the sender.
    pub(crate) released: u64,
    /// Raised by the application.
    pub(crate) consumed: Arc<AtomicU64>,
}

impl Reader {
    /// What can be handed back now.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Acquire)
    }
}

/// A link that the poller has not forgotten.
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) member: Member,
    /// False once it died or was closed: nothing new comes, what it holds stays readable.
    pub(crate) alive: bool,
    /// Next byte of the peer's control log.
    pub(crate) control_at: u64,
    /// The peer's GROUP log, once opened.
    pub(crate) group: Option<Reader>,
    /// The own GROUP log is sent over it.
    pub(crate) attached: bool,
    /// The peer's BULK log, while it is our donor.
    pub(crate) bulk: Option<Reader>,
}

impl Link {
    pub(crate) fn new(id: LinkId, member: Member, control_from: u64) -> Self {
        Self {
            id,
            member,
            alive: true,
            control_at: control_from,
            group: None,
            attached: false,
            bulk: None,
        }
    }
}

/// All links, by the transport's slot; and the link of each rank of the view.
pub(crate) struct Links {
    slots: Vec<Option<Link>>,
    ranks: [Option<u16>; MAX_MEMBERS],
    free_sources: Vec<u16>,
    next_source: u16,
}

impl Links {
    pub(crate) fn new() -> Self {
        // Source 0 is the own log.
        Self {
            slots: Vec::new(),
            ranks: [None; MAX_MEMBERS],
            free_sources: Vec::new(),
            next_source: 1,
        }
    }

    pub(crate) fn insert(&mut self, link: Link) {
        let slot = link.id.slot();
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(link);
    }

    pub(crate) fn by_id(&mut self, id: LinkId) -> Option<&mut Link> {
        self.slots.get_mut(id.slot())?.as_mut().filter(|l| l.id == id)
    }

    pub(crate) fn remove(&mut self, id: LinkId) -> Option<Link> {
        let slot = self.slots.get_mut(id.slot())?;
        let link = slot.take_if(|l| l.id == id)?;
        for rank in &mut self.ranks {
            rank.take_if(|s| usize::from(*s) == id.slot());
        }
        Some(link)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn slot(&mut self, slot: usize) -> Option<&mut Link> {
        self.slots[slot].as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.slots.iter().flatten()
    }

    /// The living link to that incarnation.
    pub(crate) fn live(&mut self, member: Member) -> Option<&mut Link> {
        self.slots.iter_mut().flatten().find(|l| l.alive && l.member == member)
    }

    /// The link over which the member of `rank` is read in this view, dead or alive.
    pub(crate) fn of_rank(&self, rank: usize) -> Option<&Link> {
        self.slots[usize::from(self.ranks[rank]?)].as_ref()
    }

    pub(crate) fn of_rank_mut(&mut self, rank: usize) -> Option<&mut Link> {
        self.slots[usize::from(self.ranks[rank]?)].as_mut()
    }

    /// From now on `rank` is read over `id`.
    pub(crate) fn set_rank(&mut self, rank: Rank, id: LinkId) {
        self.ranks[rank.index()] = Some(id.slot() as u16);
    }

    /// Finds the ranks of a new view among the links whose GROUP log is open.
    pub(crate) fn set_view(&mut self, view: &View) {
        self.ranks = [None; MAX_MEMBERS];
        for (slot, link) in self.slots.iter().enumerate() {
            let Some(link) = link.as_ref().filter(|l| l.group.is_some()) else { continue };
            if let Some(rank) = view.rank_of(link.member) {
                self.ranks[rank.index()] = Some(slot as u16);
            }
        }
    }

    pub(crate) fn new_source(&mut self) -> u16 {
        self.free_sources.pop().unwrap_or_else(|| {
            let n = self.next_source;
            self.next_source += 1;
            n
        })
    }

    pub(crate) fn free_source(&mut self, source: u16) {
        self.free_sources.push(source);
    }
}
