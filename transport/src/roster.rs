//! Peers and links: who may link to us, who does, and who did.

use std::cell::Cell;
use std::sync::Arc;

use crate::config::PeerConfig;
use crate::detect::Health;
use crate::event::Path;
use crate::id::{Incarnation, LinkId, Member, NodeId};
use crate::limits::LINKS_PER_PEER_MAX;
use crate::pressure::Reading;
use crate::shm::{ShmLink, Standing};
use crate::traffic::Begun;
use crate::udp::UdpLink;
use crate::verbs::VerbsLink;
use crate::wait::Token;

/// What carries a link.
pub(crate) enum Wire {
    Shm(Box<ShmLink>),
    Udp(UdpLink),
    /// The lanes go by remote writes; the UDP link beside carries signs of life.
    Verbs(UdpLink, Box<VerbsLink>),
}

/// A link, alive or dead, until it is forgotten.
pub(crate) struct Link {
    /// Number of the peer in the configuration.
    pub(crate) peer: usize,
    pub(crate) member: Member,
    pub(crate) alive: bool,
    /// Own lanes that the peer reads, as a bit set.
    pub(crate) attached: u64,
    /// Where what is counted of its lanes began.
    pub(crate) begun: Begun,
    /// Its log broke the format.
    pub(crate) malformed: Cell<bool>,
    pub(crate) reason: Arc<str>,
    pub(crate) health: Health,
    /// How pressed this host was when the peer was suspected last.
    pub(crate) pressed: Option<Reading>,
    pub(crate) wire: Wire,
    /// What goes by UDP because no queue pair comes up: its inbox is where the lanes lie, and its next queue pair is awaited.
    pub(crate) aside: Option<Box<VerbsLink>>,
    /// Its wake-up sources.
    pub(crate) tokens: Vec<Token>,
}

impl Link {
    /// Its end of a queue pair, whether or not that carries the lanes at the moment.
    pub(crate) fn verbs(&self) -> Option<&VerbsLink> {
        match &self.wire {
            Wire::Verbs(_, verbs) => Some(verbs),
            Wire::Shm(_) | Wire::Udp(_) => self.aside.as_deref(),
        }
    }

    pub(crate) fn path(&self) -> Path {
        match self.wire {
            Wire::Shm(_) => Path::Shm,
            Wire::Udp(_) => Path::Udp,
            Wire::Verbs(..) => Path::Verbs,
        }
    }
}

struct Slot {
    generation: u32,
    link: Option<Link>,
}

/// All links.
pub(crate) struct Roster {
    pub(crate) peers: Vec<PeerConfig>,
    /// What matters for meeting each peer.
    pub(crate) standings: Vec<Standing>,
    live: Vec<Option<LinkId>>,
    /// Live links through shared memory.
    near: usize,
    slots: Vec<Slot>,
}

impl Roster {
    pub(crate) fn new(peers: Vec<PeerConfig>) -> Roster {
        Roster {
            standings: vec![Standing::default(); peers.len()],
            live: vec![None; peers.len()],
            near: 0,
            peers,
            slots: Vec::new(),
        }
    }

    pub(crate) fn index(&self, node: NodeId) -> Option<usize> {
        self.peers.iter().position(|p| p.node == node)
    }

    /// The live link to that peer.
    pub(crate) fn live(&self, peer: usize) -> Option<LinkId> {
        self.live[peer]
    }

    #[inline]
    pub(crate) fn get(&self, id: LinkId) -> Option<&Link> {
        let slot = self.slots.get(id.slot as usize)?;
        if slot.generation == id.generation { slot.link.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation { slot.link.as_mut() } else { None }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.slots.iter().enumerate().filter_map(|(i, s)| Some((id(i, s), s.link.as_ref()?)))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (LinkId, &mut Link)> {
        self.slots.iter_mut().enumerate().filter_map(|(i, s)| {
            let id = id(i, s);
            Some((id, s.link.as_mut()?))
        })
    }

    /// The link that UDP knows under that handle.
    pub(crate) fn of_udp(&self, handle: UdpLink) -> Option<LinkId> {
        let is = |wire: &Wire| matches!(wire, Wire::Udp(h) | Wire::Verbs(h, _) if *h == handle);
        self.iter().find(|(_, l)| is(&l.wire)).map(|(id, _)| id)
    }

    /// A new live link; the peer has none.
    pub(crate) fn insert(&mut self, link: Link) -> LinkId {
        let peer = link.peer;
        assert!(self.live[peer].is_none(), "one live link per peer");
        let at = self.slots.iter().position(|s| s.link.is_none()).unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, link: None });
            self.slots.len() - 1
        });
        self.near += usize::from(link.path() == Path::Shm);
        let slot = &mut self.slots[at];
        slot.generation += 1;
        self.standings[peer].live = Some(link.member.incarnation);
        slot.link = Some(link);
        let id = id(at, &self.slots[at]);
        self.live[peer] = Some(id);
        self.recount(peer);
        id
    }

    /// That link lives no more.
    pub(crate) fn died(&mut self, id: LinkId) {
        let Some(link) = self.get_mut(id) else { return };
        let was_near = std::mem::take(&mut link.alive) && link.path() == Path::Shm;
        let peer = link.peer;
        self.near -= usize::from(was_near);
        if self.live[peer] == Some(id) {
            self.live[peer] = None;
            self.standings[peer].live = None;
        }
    }

    pub(crate) fn remove(&mut self, id: LinkId) -> Option<Link> {
        self.get(id)?;
        let link = self.slots[id.slot as usize].link.take()?;
        self.recount(link.peer);
        Some(link)
    }

    fn recount(&mut self, peer: usize) {
        let of_peer = |s: &&Slot| s.link.as_ref().is_some_and(|l| l.peer == peer);
        self.standings[peer].full = self.slots.iter().filter(of_peer).count() >= LINKS_PER_PEER_MAX;
    }

    /// Whether a live peer maps our memory.
    pub(crate) fn has_near(&self) -> bool {
        self.near > 0
    }

    /// Never link to this or an earlier run of that peer.
    pub(crate) fn refuse(&mut self, peer: usize, incarnation: Incarnation) {
        let refused = &mut self.standings[peer].refused;
        *refused = (*refused).max(incarnation);
    }
}

fn id(at: usize, slot: &Slot) -> LinkId {
    LinkId { slot: at as u16, generation: slot.generation }
}
