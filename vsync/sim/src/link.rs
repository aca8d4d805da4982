//! One side of a link, with exactly the promises of the transport and not one more.
//!
//! * log bytes become visible as a growing prefix, whatever order the packets take;
//! * a word's visible value only grows; a word set after log bytes of its lane were published is visible no
//!   earlier than they are;
//! * words are not ordered among themselves, lanes are not ordered among themselves.
//!
//! A link has two sides, and they come up and die at different moments. A packet carries the session it belongs
//! to; a side that does not know the session drops it. A closed (fenced) side shows nothing new, but what was
//! visible stays readable until it is forgotten.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use quintet_transport::Member;

use crate::app::Entry;
use crate::check::Boot;
use crate::check::words::WORDS;
use crate::wire::Wire;

/// A record of a group log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Index stamped at publish.
    pub index: u64,
    /// First byte in the log.
    pub position: u64,
    /// First byte after it.
    pub end: u64,
    /// Bytes of payload.
    pub len: u32,
    /// The message it carries (stands for the bytes).
    pub message: u64,
}

/// A piece of a state transfer.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// A transfer begins.
    Begin,
    /// Entries of the donor's list.
    Entries(Vec<Entry>),
    /// That was the snapshot; what follows is the tail.
    Loaded,
    /// The learner has everything up to this view.
    Finish(u64),
}

/// What one flush sends to one peer, or a part of it.
#[derive(Clone, Debug, Default)]
pub struct Data {
    /// The sender's clock at the flush.
    pub sent_at: u64,
    /// Latest `sent_at` the sender has seen from the peer: what it confirms.
    pub echo: u64,
    /// First position of `control`, and the records.
    pub control: Option<(u64, Vec<Rc<[u8]>>)>,
    /// First byte, end, and the records of a piece of the group log.
    pub group: Option<(u64, u64, Vec<Record>)>,
    /// Group words that changed, each with the log position published before it was set.
    pub words: [Option<(u64, u64)>; WORDS],
    /// Number of the first, and pieces of a state transfer.
    pub bulk: Option<(u64, Vec<Chunk>)>,
    /// How far the sender has released the receiver's group log.
    pub released: u64,
}

impl Data {
    /// It brings nothing but a sign of life.
    pub fn is_bare(&self) -> bool {
        self.control.is_none()
            && self.group.is_none()
            && self.bulk.is_none()
            && self.words.iter().all(Option::is_none)
    }
}

/// What travels.
#[derive(Clone, Debug)]
pub enum Body {
    /// Asks for a link.
    Hello {
        /// Who asks.
        member: Member,
        /// From where its control log is to be read.
        control_from: u64,
    },
    /// Grants it.
    Welcome {
        /// Who grants.
        member: Member,
        /// From where its control log is to be read.
        control_from: u64,
    },
    /// That incarnation is fenced here.
    Refused,
    /// The session is not known here.
    Reset,
    /// A flush.
    Data(Box<Data>),
    /// A datagram of the reliable UDP core, where links carry packets.
    Datagram(Vec<u8>),
}

impl Body {
    /// Gone for good when it meets a cut: nothing but a sign of life, or what is tried again anyway (a handshake, a
    /// datagram).
    pub fn is_bare(&self) -> bool {
        match self {
            Body::Data(data) => data.is_bare(),
            _ => true,
        }
    }
}

/// A reader's copy of a log: pieces arrive in any order, a prefix is visible.
#[derive(Debug)]
pub struct Replica<T> {
    visible: u64,
    ahead: BTreeMap<u64, (u64, Vec<T>)>,
    /// Visible and not yet consumed.
    pub ready: VecDeque<T>,
}

impl<T> Replica<T> {
    /// A replica whose first byte is `from`.
    pub fn new(from: u64) -> Self {
        Replica { visible: from, ahead: BTreeMap::new(), ready: VecDeque::new() }
    }

    /// A piece arrived: `from..end` holding `items`.
    pub fn arrive(&mut self, from: u64, end: u64, items: Vec<T>) {
        if end > self.visible {
            self.ahead.insert(from, (end, items));
        }
        while let Some(piece) = self.ahead.first_entry() {
            if *piece.key() > self.visible {
                break;
            }
            let (end, items) = piece.remove();
            if end > self.visible {
                self.visible = end;
                self.ready.extend(items);
            }
        }
    }

    /// End of the visible prefix.
    pub fn visible(&self) -> u64 {
        self.visible
    }
}

/// State of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Sends and receives.
    Up,
    /// Over; what is visible stays.
    Dead,
}

/// One side of a link: own sends to the peer, own replicas of it.
#[derive(Debug)]
pub struct Side {
    /// The handshake's number; both sides have the same.
    pub session: u64,
    /// Who is at the other end.
    pub peer: Member,
    /// The peer's process.
    pub peer_boot: Boot,
    /// Up or dead.
    pub state: State,
    /// Own control records sent up to here.
    pub control_sent: u64,
    /// Own group log sent up to here, once attached.
    pub group_sent: Option<u64>,
    /// Own words last sent.
    pub words_sent: [u64; WORDS],
    /// The peer's control log.
    pub control: Replica<Rc<[u8]>>,
    /// The peer's group log, once opened.
    pub group: Option<Replica<Record>>,
    /// Pieces and words of a group log that is not open yet.
    early: Vec<(u64, u64, Vec<Record>)>,
    pending: Vec<(usize, u64, u64)>,
    /// The peer's words, as visible.
    pub words: [u64; WORDS],
    /// Own clock when the last packet was looked at.
    pub heard: u64,
    /// The peer's clock in the latest packet: echoed to it.
    pub peer_clock: u64,
    /// Latest own instant of which the peer confirmed to have heard from us.
    pub confirmed: u64,
    /// How far the peer released our group log.
    pub released: u64,
    /// Pieces of a state transfer to send, and how many were.
    pub bulk_out: Vec<Chunk>,
    /// Pieces sent.
    pub bulk_sent: u64,
    /// Pieces received.
    pub bulk: Replica<Chunk>,
    /// The failure detector has a doubt.
    pub suspected: bool,
    /// The real connection beneath, where links carry packets.
    pub wire: Option<Box<Wire>>,
}

impl Side {
    /// A side that has just come up.
    pub fn new(
        session: u64,
        peer: Member,
        peer_boot: Boot,
        own_head: u64,
        peer_from: u64,
        now: u64,
    ) -> Self {
        Side {
            session,
            peer,
            peer_boot,
            state: State::Up,
            control_sent: own_head,
            group_sent: None,
            words_sent: [0; WORDS],
            control: Replica::new(peer_from),
            group: None,
            early: Vec::new(),
            pending: Vec::new(),
            words: [0; WORDS],
            heard: now,
            peer_clock: 0,
            confirmed: 0,
            released: 0,
            bulk_out: Vec::new(),
            bulk_sent: 0,
            bulk: Replica::new(0),
            suspected: false,
            wire: None,
        }
    }

    /// Takes in a packet's data. Nothing becomes visible on a dead side.
    pub fn arrive(&mut self, data: Data, now: u64) {
        if self.state == State::Dead {
            return;
        }
        self.heard = self.heard.max(now);
        self.peer_clock = self.peer_clock.max(data.sent_at);
        self.confirmed = self.confirmed.max(data.echo);
        self.released = self.released.max(data.released);
        if let Some((from, records)) = data.control {
            let end = from + records.len() as u64;
            self.control.arrive(from, end, records);
        }
        if let Some((from, chunks)) = data.bulk {
            self.bulk.arrive(from, from + chunks.len() as u64, chunks);
        }
        if let Some((from, end, records)) = data.group {
            match &mut self.group {
                Some(replica) => replica.arrive(from, end, records),
                None => self.early.push((from, end, records)),
            }
        }
        for (word, value) in data.words.into_iter().enumerate() {
            if let Some((value, after)) = value {
                self.pending.push((word, value, after));
            }
        }
        self.settle();
    }

    /// Attaches the peer to the own group log at byte `from`.
    pub fn attach(&mut self, from: u64) {
        self.group_sent = Some(from);
        self.words_sent = [0; WORDS];
        self.released = from;
        if let Some(wire) = &mut self.wire {
            wire.attach(from);
        }
    }

    /// An owner that has reused what this reader did not release no longer counts it among its readers. (The model
    /// needs no such rule: a piece with a hole in it arrives nowhere.)
    pub fn detach_below(&mut self, reclaimed: u64) {
        if let Some(wire) = &mut self.wire
            && wire.lags_behind(reclaimed)
        {
            wire.detach();
            self.group_sent = None;
        }
    }

    /// The link is over on this side. Nothing becomes visible any more; what has is still there to be read.
    pub fn die(&mut self) {
        self.state = State::Dead;
        self.control.ready.clear();
        if let Some(wire) = &mut self.wire {
            wire.close();
        }
    }

    /// Opens the peer's group log at byte `from`.
    pub fn open(&mut self, from: u64) {
        let mut replica = Replica::new(from);
        for (start, end, records) in self.early.drain(..) {
            // A piece may reach over the opening position: only what lies beyond it is ours.
            if end > from {
                let records = records.into_iter().filter(|r| r.position >= from).collect();
                replica.arrive(start.max(from), end, records);
            }
        }
        self.group = Some(replica);
        if let Some(wire) = &mut self.wire {
            wire.open(from);
        }
        self.settle();
    }

    /// Words whose bytes are visible become visible.
    fn settle(&mut self) {
        let Some(group) = &self.group else { return };
        let visible = group.visible();
        let words = &mut self.words;
        self.pending.retain(|&(word, value, after)| {
            let hidden = after > visible;
            if !hidden {
                words[word] = words[word].max(value);
            }
            hidden
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quintet_transport::{Incarnation, NodeId};

    fn record(index: u64) -> Record {
        Record { index, position: index * 32, end: index * 32 + 32, len: 16, message: index }
    }

    fn side() -> Side {
        let peer = Member { node: NodeId(2), incarnation: Incarnation(1) };
        Side::new(1, peer, 1, 0, 0, 0)
    }

    #[test]
    fn a_late_first_piece_shows_all_in_order() {
        let mut replica = Replica::new(0);
        replica.arrive(32, 64, vec![record(1)]);
        assert!(replica.ready.is_empty());
        replica.arrive(0, 32, vec![record(0)]);
        assert_eq!(replica.ready.iter().map(|r| r.index).collect::<Vec<_>>(), [0, 1]);
        replica.arrive(0, 32, vec![record(0)]);
        assert_eq!(replica.ready.len(), 2, "a late duplicate shows nothing");
    }

    #[test]
    fn a_word_waits_for_the_bytes_before_it() {
        let mut side = side();
        side.open(0);
        let word = Data { words: [Some((7, 32)), None, None, None], ..Data::default() };
        side.arrive(word, 1);
        assert_eq!(side.words[0], 0);
        let bytes = Data { group: Some((0, 32, vec![record(0)])), ..Data::default() };
        side.arrive(bytes, 2);
        assert_eq!(side.words[0], 7);
    }

    #[test]
    fn what_came_before_the_opening_is_cut_at_it() {
        let mut side = side();
        let bytes =
            Data { group: Some((0, 96, vec![record(0), record(1), record(2)])), ..Data::default() };
        side.arrive(bytes, 1);
        side.open(64);
        let group = side.group.as_ref().expect("open");
        assert_eq!(group.ready.iter().map(|r| r.index).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_dead_side_shows_nothing_new() {
        let mut side = side();
        side.open(0);
        side.state = State::Dead;
        let bytes = Data { group: Some((0, 32, vec![record(0)])), ..Data::default() };
        side.arrive(bytes, 1);
        assert!(side.group.as_ref().expect("open").ready.is_empty());
    }
}
