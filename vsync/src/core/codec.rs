//! Bytes of control records and of the durable record.
//!
//! **Problem.** What arrives on a link is whatever the other side put there: an older version, a broken disk's
//! idea of a record, an attacker's. A decoder that indexes, allocates what a length field says, or accepts two
//! encodings of one value is a hole or a divergence.
//!
//! **Rules.** One version byte, one kind byte, little-endian fields of fixed size, lists with a one- or two-byte
//! length that is checked before anything is allocated; every enum byte is checked; nothing may follow the
//! last field; views are checked to be views (members of distinct nodes, a base each, joined among the members).
//! Decoding returns [`Malformed`] and never panics; what decodes, encodes to the same bytes.

use quintet_transport::{Incarnation, Member, NodeId};

use super::order::Final;
use super::view::{
    Ballot, Departure, Durable, MAX_MEMBERS, Origin, Position, Shortfall, Value, View, ViewId, Why,
};
use super::{Malformed, Standing};

/// First byte of every record.
const VERSION: u8 = 1;
/// Most incarnations in a list that is not limited by the size of a view.
const MAX_LIST: usize = 256;

/// What a node says about itself, on every new link and on every change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announce {
    /// Where it stands.
    pub(super) standing: Standing,
    /// It wishes to leave.
    pub(super) leaving: bool,
    /// It may vote: it remembers what it promised.
    pub(super) votes: bool,
    /// The latest agreed view it knows of.
    pub(super) decided: Value,
    /// Members of that view it has lost its link to.
    pub(super) lost: Vec<Departure>,
    /// What its application recovered; while outside.
    pub(super) state: Position,
    /// What an operator told it to give up of what is owed.
    pub(super) given_up: Option<Position>,
}

/// What a learner asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Join {
    /// Who sends it the state.
    pub(super) donor: Option<Member>,
    /// It has loaded.
    pub(super) ready: bool,
    /// Whom it is linked with.
    pub(super) sees: Vec<Member>,
}

/// What a member adds to its promise: how its view ends for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Farewell {
    /// Its words, final for the view.
    pub(super) words: Final,
    /// Members of the view it has lost its link to.
    pub(super) lost: Vec<Departure>,
    /// Loaded learners it is linked with.
    pub(super) learners: Vec<Member>,
}

/// An acceptor's promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) view: ViewId,
    pub(super) ballot: Ballot,
    pub(super) accepted: Option<(Ballot, Value)>,
    /// If it is a member of the view, in this incarnation.
    pub(super) farewell: Option<Farewell>,
    /// If it stands outside with whole state.
    pub(super) state: Option<Position>,
    /// What it said is durable, or found so when it started.
    pub(super) persisted: Position,
}

/// A control record. `view` is always the latest agreed view: the consensus is on the one after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Announce(Announce),
    Join(Join),
    Donate { learner: Member, donor: Member },
    Prepare { view: ViewId, ballot: Ballot },
    Promise(Promise),
    Accept { view: ViewId, ballot: Ballot, value: Value },
    Accepted { view: ViewId, ballot: Ballot },
    Nack { view: ViewId, ballot: Ballot, promised: Ballot },
    Decide { value: Value },
    Start { view: ViewId, log_position: u64 },
}

impl Control {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Control::Announce(a) => {
                w.u8(1);
                w.u8(match a.standing {
                    Standing::Outside => 0,
                    Standing::Learner => 1,
                    Standing::Member => 2,
                    Standing::Gone => 3,
                });
                w.bool(a.leaving);
                w.bool(a.votes);
                w.value(&a.decided);
                w.list(&a.lost, Writer::departure);
                w.u64(a.state.0);
                w.option(&a.given_up, |w, p| w.u64(p.0));
            }
            Control::Join(j) => {
                w.u8(2);
                w.option(&j.donor, |w, m| w.member(m));
                w.bool(j.ready);
                w.list(&j.sees, Writer::member);
            }
            Control::Donate { learner, donor } => {
                w.u8(3);
                w.member(learner);
                w.member(donor);
            }
            Control::Prepare { view, ballot } => {
                w.u8(4);
                w.u64(view.0);
                w.ballot(ballot);
            }
            Control::Promise(p) => {
                w.u8(5);
                w.u64(p.view.0);
                w.ballot(&p.ballot);
                w.option(&p.accepted, Writer::vote);
                w.option(&p.farewell, |w, f| {
                    w.u64(f.words.next);
                    w.u64(f.words.received.0);
                    w.list(&f.lost, Writer::departure);
                    w.list(&f.learners, Writer::member);
                });
                w.option(&p.state, |w, s| w.u64(s.0));
                w.u64(p.persisted.0);
            }
            Control::Accept { view, ballot, value } => {
                w.u8(6);
                w.u64(view.0);
                w.ballot(ballot);
                w.value(value);
            }
            Control::Accepted { view, ballot } => {
                w.u8(7);
                w.u64(view.0);
                w.ballot(ballot);
            }
            Control::Nack { view, ballot, promised } => {
                w.u8(8);
                w.u64(view.0);
                w.ballot(ballot);
                w.ballot(promised);
            }
            Control::Decide { value } => {
                w.u8(9);
                w.value(value);
            }
            Control::Start { view, log_position } => {
                w.u8(10);
                w.u64(view.0);
                w.u64(*log_position);
            }
        }
        w.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Control, Malformed> {
        let mut r = Reader::new(bytes)?;
        let control = match r.u8()? {
            1 => Control::Announce(Announce {
                standing: match r.u8()? {
                    0 => Standing::Outside,
                    1 => Standing::Learner,
                    2 => Standing::Member,
                    3 => Standing::Gone,
                    _ => return Err(Malformed("unknown standing")),
                },
                leaving: r.bool()?,
                votes: r.bool()?,
                decided: r.value()?,
                lost: r.list(MAX_MEMBERS, Reader::departure)?,
                state: r.position()?,
                given_up: r.option(Reader::position)?,
            }),
            2 => Control::Join(Join {
                donor: r.option(Reader::member)?,
                ready: r.bool()?,
                sees: r.list(MAX_LIST, Reader::member)?,
            }),
            3 => Control::Donate { learner: r.member()?, donor: r.member()? },
            4 => Control::Prepare { view: r.view_id()?, ballot: r.ballot()? },
            5 => Control::Promise(Promise {
                view: r.view_id()?,
                ballot: r.ballot()?,
                accepted: r.option(Reader::vote)?,
                farewell: r.option(|r| {
                    Ok(Farewell {
                        words: Final { next: r.u64()?, received: r.position()? },
                        lost: r.list(MAX_MEMBERS, Reader::departure)?,
                        learners: r.list(MAX_LIST, Reader::member)?,
                    })
                })?,
                state: r.option(Reader::position)?,
                persisted: r.position()?,
            }),
            6 => Control::Accept { view: r.view_id()?, ballot: r.ballot()?, value: r.value()? },
            7 => Control::Accepted { view: r.view_id()?, ballot: r.ballot()? },
            8 => Control::Nack { view: r.view_id()?, ballot: r.ballot()?, promised: r.ballot()? },
            9 => Control::Decide { value: r.value()? },
            10 => Control::Start { view: r.view_id()?, log_position: r.u64()? },
            _ => return Err(Malformed("unknown kind of control record")),
        };
        r.end()?;
        Ok(control)
    }
}

/// Takes the bytes of a control record. What is understood is understood again as it is written.
#[cfg(feature = "fuzz")]
pub fn check_control(bytes: &[u8]) {
    if let Ok(control) = Control::decode(bytes) {
        assert_eq!(Control::decode(&control.encode()), Ok(control));
    }
}

impl Durable {
    /// Bytes for the store.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.value(&self.decided);
        w.option(&self.promised, Writer::ballot);
        w.option(&self.accepted, Writer::vote);
        w.0
    }

    /// The record written by [`encode`](Durable::encode).
    pub fn decode(bytes: &[u8]) -> Result<Durable, Malformed> {
        let mut r = Reader::new(bytes)?;
        let durable = Durable {
            decided: r.value()?,
            promised: r.option(Reader::ballot)?,
            accepted: r.option(Reader::vote)?,
        };
        r.end()?;
        Ok(durable)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Writer {
        Writer(vec![VERSION])
    }
    fn u8(&mut self, v: u8) {
        self.0.push(v);
    }
    fn bool(&mut self, v: bool) {
        self.u8(v.into());
    }
    fn u16(&mut self, v: u16) {
        self.0.extend(v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.0.extend(v.to_le_bytes());
    }
    fn member(&mut self, m: &Member) {
        self.u16(m.node.0);
        self.u64(m.incarnation.0);
    }
    fn ballot(&mut self, b: &Ballot) {
        self.u64(b.round);
        self.member(&b.by);
    }
    fn departure(&mut self, d: &Departure) {
        self.member(&d.member);
        self.u8(match d.why {
            Why::Exited => 0,
            Why::Restarted => 1,
            Why::Unreachable => 2,
            Why::Silent => 3,
            Why::Closed => 4,
            Why::Cut => 5,
            Why::Left => 6,
        });
    }
    fn vote(&mut self, (ballot, value): &(Ballot, Value)) {
        self.ballot(ballot);
        self.value(value);
    }
    fn value(&mut self, v: &Value) {
        self.u64(v.view.id.0);
        self.list(&v.view.members, Writer::member);
        v.view.base.iter().for_each(|b| self.u64(*b));
        self.list(&v.view.joined, Writer::member);
        self.list(&v.view.departed, Writer::departure);
        match v.view.origin {
            Origin::Configured => self.u8(0),
            Origin::Founded => self.u8(1),
            Origin::Recovered => self.u8(2),
            Origin::Changed => self.u8(3),
            Origin::RecoveredBelow(short) => {
                self.u8(4);
                self.u64(short.owed.0);
                self.u64(short.longest.0);
                self.u16(short.at.0);
            }
        }
        self.u64(v.trim.0);
        self.u64(v.owed.0);
        self.u64(v.founded.0);
    }
    fn option<T>(&mut self, v: &Option<T>, put: impl FnOnce(&mut Writer, &T)) {
        self.bool(v.is_some());
        if let Some(v) = v {
            put(self, v);
        }
    }
    fn list<T>(&mut self, v: &[T], put: impl Fn(&mut Writer, &T)) {
        self.u16(v.len() as u16);
        v.iter().for_each(|x| put(self, x));
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Reader<'a>, Malformed> {
        let mut r = Reader(bytes);
        if r.u8()? != VERSION {
            return Err(Malformed("unknown version"));
        }
        Ok(r)
    }
    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("trailing bytes")) }
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(*head)
    }
    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }
    fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("neither true nor false")),
        }
    }
    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }
    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }
    fn view_id(&mut self) -> Result<ViewId, Malformed> {
        let id = ViewId(self.u64()?);
        // The last number is never used, so that the view after any view has one.
        if id < ViewId::MAX { Ok(id) } else { Err(Malformed("view number out of range")) }
    }
    fn position(&mut self) -> Result<Position, Malformed> {
        self.u64().map(Position)
    }
    fn member(&mut self) -> Result<Member, Malformed> {
        Ok(Member { node: NodeId(self.u16()?), incarnation: Incarnation(self.u64()?) })
    }
    fn ballot(&mut self) -> Result<Ballot, Malformed> {
        let round = self.u64()?;
        if round > u64::MAX / 2 {
            return Err(Malformed("ballot out of range"));
        }
        Ok(Ballot { round, by: self.member()? })
    }
    fn departure(&mut self) -> Result<Departure, Malformed> {
        let member = self.member()?;
        let why = match self.u8()? {
            0 => Why::Exited,
            1 => Why::Restarted,
            2 => Why::Unreachable,
            3 => Why::Silent,
            4 => Why::Closed,
            5 => Why::Cut,
            6 => Why::Left,
            _ => return Err(Malformed("unknown reason")),
        };
        Ok(Departure { member, why })
    }
    fn vote(&mut self) -> Result<(Ballot, Value), Malformed> {
        Ok((self.ballot()?, self.value()?))
    }
    fn value(&mut self) -> Result<Value, Malformed> {
        let id = self.view_id()?;
        let members = self.list(MAX_MEMBERS, Reader::member)?;
        let base = members.iter().map(|_| self.u64()).collect::<Result<Vec<_>, _>>()?;
        let joined = self.list(MAX_MEMBERS, Reader::member)?;
        let departed = self.list(MAX_MEMBERS, Reader::departure)?;
        let origin = match self.u8()? {
            0 => Origin::Configured,
            1 => Origin::Founded,
            2 => Origin::Recovered,
            3 => Origin::Changed,
            4 => Origin::RecoveredBelow(Shortfall {
                owed: self.position()?,
                longest: self.position()?,
                at: NodeId(self.u16()?),
            }),
            _ => return Err(Malformed("unknown origin")),
        };
        let (trim, owed, founded) = (self.position()?, self.position()?, self.view_id()?);
        let view = View { id, members, base, joined, departed, origin };
        let value = Value { view, trim, owed, founded };
        value.check()?;
        Ok(value)
    }
    fn option<T>(
        &mut self,
        get: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.bool()? { get(self).map(Some) } else { Ok(None) }
    }
    fn list<T>(
        &mut self,
        most: usize,
        get: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let len = usize::from(self.u16()?);
        if len > most {
            return Err(Malformed("list too long"));
        }
        (0..len).map(|_| get(self)).collect()
    }
}

impl Value {
    /// Whether this can be a view at all, and the trim one of the view before it.
    fn check(&self) -> Result<(), Malformed> {
        let view = &self.view;
        let distinct = |i: usize, m: &Member| !view.members[..i].iter().any(|x| x.node == m.node);
        if view.members.is_empty() || !view.members.iter().enumerate().all(|(i, m)| distinct(i, m))
        {
            return Err(Malformed("not a set of members"));
        }
        if view.base.iter().any(|b| *b > u64::MAX / 4) {
            return Err(Malformed("base out of range"));
        }
        if !view.joined.iter().all(|m| view.contains(*m))
            || view.departed.iter().any(|d| view.contains(d.member))
        {
            return Err(Malformed("joined who is no member, or departed who is"));
        }
        if (view.id == ViewId(0)) != (view.origin == Origin::Configured) {
            return Err(Malformed("only view 0 is configured"));
        }
        let changed = view.origin == Origin::Changed;
        let founded_fits = if changed { self.founded < view.id } else { self.founded == view.id };
        if !founded_fits {
            return Err(Malformed("founded by another view than it says"));
        }
        let trim_fits =
            if changed { self.trim.view().next() == view.id } else { self.trim == Position::ZERO };
        if trim_fits { Ok(()) } else { Err(Malformed("trim of another view")) }
    }
}
