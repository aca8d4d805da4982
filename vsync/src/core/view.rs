//! The vocabulary of agreement: views, ranks, positions, ballots, and the values nodes agree on.
//!
//! The problem: numbers from different views meet. A word written in view 7 is read by a node that is
//! still in view 6, or already in 8; a restarted node replays a record of a view that is long gone. The
//! naive answer is to reset counters at every view and hope that nobody mixes them up; every system that
//! did it has had the bug where an old acknowledgement releases a new message.
//!
//! So a [`Position`] carries its view in its upper bits: positions grow over the whole life of the group,
//! a newer view's number is never mistaken for an older one's, and a plain integer comparison is right.
//! Membership is of *incarnations* ([`Member`]), votes are of *nodes* ([`NodeId`]): a restarted node may
//! vote from its durable record although its old incarnation is out of the view.

use std::fmt;
use std::str::FromStr;

use quintet_transport::{Member, NodeId};

/// Number of a view. Grows by one with every view; 0 is the view before the first: all configured nodes,
/// nobody alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId(pub u64);

impl ViewId {
    /// Views a group can have (24 bits of a [`Position`]).
    pub const MAX: ViewId = ViewId((1 << 24) - 1);

    /// The view after this one.
    pub const fn next(self) -> ViewId {
        ViewId(self.0 + 1)
    }
}

/// A place in the group's total order: 24 bits of view, 40 bits of place within that view.
///
/// Used both for "the message at" and for "everything before"; documentation of each use says which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// Bits that hold the place within a view.
    pub const BITS: u32 = 40;
    /// One more than the greatest place within a view.
    pub const LIMIT: u64 = 1 << Self::BITS;
    /// Before everything.
    pub const ZERO: Position = Position(0);

    /// Place `p` of view `view`.
    pub const fn new(view: ViewId, p: u64) -> Position {
        debug_assert!(p < Self::LIMIT && view.0 <= ViewId::MAX.0);
        Position(view.0 << Self::BITS | p)
    }

    /// The view it belongs to.
    pub const fn view(self) -> ViewId {
        ViewId(self.0 >> Self::BITS)
    }

    /// The place within the view.
    pub const fn p(self) -> u64 {
        self.0 & (Self::LIMIT - 1)
    }
}

/// A member's place in the list of a view's members; rank 0 breaks ties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u8);

impl Rank {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Most members a view may have.
pub const MAX_MEMBERS: usize = 64;

/// Why a member is gone, or is believed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// Its process exited: the kernel said so.
    Exited,
    /// A later incarnation of the same node showed up.
    Restarted,
    /// Its port answered "unreachable".
    Unreachable,
    /// Its heartbeats stopped coming.
    Silent,
    /// It closed the link.
    Closed,
    /// It lives, but it and another member cannot hear each other, or lost their link for a while. It said farewell
    /// to the view.
    Cut,
    /// It asked to leave, and said farewell to the view.
    Left,
}

impl Why {
    /// Certain: it can neither answer a read nor deliver a message any more, so nobody has to wait out
    /// its read lease.
    pub const fn certain(self) -> bool {
        matches!(self, Why::Exited | Why::Restarted)
    }
}

/// As a view's cause tells it. "Died" is said of whoever [certainly](Why::certain) did: others may live, and say so themselves.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Exited => "died: process exited",
            Why::Restarted => "died: restarted",
            Why::Unreachable => "removed: unreachable",
            Why::Silent => "removed: heartbeat missed",
            Why::Closed => "removed: closed its link",
            Why::Cut => "removed: cut off from another member",
            Why::Left => "left",
        })
    }
}

/// A member that is not in the view any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Departure {
    /// Who.
    pub member: Member,
    /// Why.
    pub why: Why,
}

/// What a restarted group owes, and the most that is here of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shortfall {
    /// Everything before this may have been acknowledged as durable.
    pub owed: Position,
    /// The longest state here ends before this.
    pub longest: Position,
    /// A node that has the longest.
    pub at: NodeId,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortfall { owed, longest, at } = self;
        write!(f, "owed {owed}, the longest state here is {longest} at {at}")
    }
}

/// How a view came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// View 0: nobody agreed on it, it is the configuration.
    Configured,
    /// The first view of a cluster that never ran.
    Founded,
    /// Nobody of the view before was alive: restarted from records.
    Recovered,
    /// Restarted from records by the word of an operator, although nobody here had all that was owed.
    RecoveredBelow(Shortfall),
    /// Survivors of the view before went on.
    Changed,
}

/// An agreed membership of the group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Its number.
    pub id: ViewId,
    /// The members in rank order: the survivors in their old order, then the joined.
    pub members: Vec<Member>,
    /// Per rank, the sender's index that has place 0 in this view: position = (index − base) × n + rank.
    pub base: Vec<u64>,
    /// Those of `members` that were not in the view before.
    pub joined: Vec<Member>,
    /// Members of the view before that are not in this one.
    pub departed: Vec<Departure>,
    /// How it came about.
    pub origin: Origin,
}

impl View {
    /// View 0 of a cluster of `nodes`: all of them, in order of their ids, as incarnation 0.
    pub fn configured(nodes: &[NodeId]) -> View {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes.dedup();
        assert!(!nodes.is_empty() && nodes.len() <= MAX_MEMBERS, "1 to {MAX_MEMBERS} nodes");
        let members: Vec<Member> = nodes.iter().map(|n| Member::new(n.0, 0)).collect();
        View {
            id: ViewId(0),
            base: vec![0; members.len()],
            members,
            joined: Vec::new(),
            departed: Vec::new(),
            origin: Origin::Configured,
        }
    }

    /// Rank of `member`.
    pub fn rank_of(&self, member: Member) -> Option<Rank> {
        self.members.iter().position(|m| *m == member).map(|r| Rank(r as u8))
    }

    /// Whether that very incarnation is a member.
    pub fn contains(&self, member: Member) -> bool {
        self.members.contains(&member)
    }

    /// The member that runs on `node`.
    pub fn on_node(&self, node: NodeId) -> Option<Member> {
        self.members.iter().copied().find(|m| m.node == node)
    }

    /// The view's nodes, in rank order: the acceptors of the view after this one.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().map(|m| m.node)
    }

    /// Where in the order the message or null `index` of `rank` is, which must not be below its base.
    pub fn place(&self, rank: Rank, index: u64) -> Position {
        let r = rank.index();
        let n = self.members.len() as u64;
        Position::new(self.id, (index - self.base[r]) * n + r as u64)
    }

    /// The first index of `rank` that is not delivered in this view if it ends at `trim`.
    pub fn base_after(&self, rank: usize, trim: Position) -> u64 {
        let (n, p, r) = (self.members.len() as u64, trim.p(), rank as u64);
        self.base[rank] + if p > r { (p - r).div_ceil(n) } else { 0 }
    }

    /// What made this view, for people: `n3 died: process exited; n4 joined`.
    pub fn cause(&self) -> Cause {
        let mut parts: Vec<String> = match self.origin {
            Origin::Configured => vec!["configured".into()],
            Origin::Founded => vec!["founded".into()],
            Origin::Recovered => vec!["recovered".into()],
            Origin::RecoveredBelow(short) => {
                let Shortfall { owed, longest, at } = short;
                let text = format!("recovered by operator below owed: {longest} at {at} < {owed}");
                vec![text]
            }
            Origin::Changed => Vec::new(),
        };
        if self.origin == Origin::Changed {
            parts.extend(self.departed.iter().map(|d| format!("{} {}", d.member.node, d.why)));
            parts.extend(self.joined.iter().map(|m| format!("{} joined", m.node)));
            if parts.is_empty() {
                parts.push("renewed".into());
            }
        }
        Cause(parts.join("; "))
    }
}

/// What made a view, in words: `n3 died: process exited; n4 joined`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cause(pub String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A ballot of the consensus on one view. Ordered by round; unique because it names the incarnation that
/// proposes, so a restarted proposer cannot reuse a number and no disk write has to precede a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Grows with every attempt.
    pub round: u64,
    /// The proposer.
    pub by: Member,
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.round, self.by)
    }
}

/// What the nodes of a view agree on: the view after it, and where their own ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// The next view.
    pub view: View,
    /// The first position of the view before that is *not* delivered in it: everything below is.
    /// [`Position::ZERO`] if nobody of the view before survives.
    pub trim: Position,
    /// What may have been acknowledged as durable before the next view: everything before this. A restart must not
    /// come back with less.
    pub owed: Position,
    /// The view that the group was founded or restarted with last. A state that ends in an earlier view, and is not
    /// owed, need not be part of its history.
    pub founded: ViewId,
}

/// A node's durable record: what it must still know after `kill -9`, because others relied on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The latest agreed view it knows of.
    pub decided: Value,
    /// The highest ballot it promised, of the consensus on the view after `decided`.
    pub promised: Option<Ballot>,
    /// The value it accepted last in that consensus.
    pub accepted: Option<(Ballot, Value)>,
}

impl Durable {
    /// The record of a node that never ran: view 0 of the configured nodes.
    pub fn configured(nodes: &[NodeId]) -> Durable {
        let view = View::configured(nodes);
        Durable {
            decided: Value { view, trim: Position::ZERO, owed: Position::ZERO, founded: ViewId(0) },
            promised: None,
            accepted: None,
        }
    }
}

impl fmt::Display for ViewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.view(), self.p())
    }
}

impl FromStr for Position {
    type Err = &'static str;

    /// Reads what is displayed: `VIEW:PLACE`.
    fn from_str(text: &str) -> Result<Position, &'static str> {
        const FORM: &str = "expected a position as it is shown, VIEW:PLACE, as in 9:21";
        let (view, p) = text.split_once(':').ok_or(FORM)?;
        let (view, p) = (view.parse().map_err(|_| FORM)?, p.parse().map_err(|_| FORM)?);
        if view > ViewId::MAX.0 || p >= Position::LIMIT {
            return Err("there is no such position");
        }
        Ok(Position::new(ViewId(view), p))
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "view {} [", self.id)?;
        for (r, m) in self.members.iter().enumerate() {
            write!(f, "{}{m}", if r == 0 { "" } else { " " })?;
        }
        write!(f, "] ({})", self.cause())
    }
}
