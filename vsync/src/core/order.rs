//! The hot path: one total order from everybody's log, stable before it is delivered, without a message of its own.
//!
//! **Problem.** Every member sends when it likes; all must deliver the same messages in the same order, and
//! nothing that somebody delivered may be missing at a survivor, whoever crashes.
//!
//! **Naive answer.** A sequencer numbers the messages and everybody acknowledges to it. That is two hops and a
//! hot spot; when the sequencer dies, somebody must find out what it had numbered and who had seen it.
//!
//! **Algorithm** (Derecho's SST multicast: Jha et al., *Derecho: Fast State Machine Replication for Cloud
//! Services*, 2019; the round-robin order is older: Dolev and Malki's Total, 1993). The order is fixed before
//! anything is sent: place `p` belongs to rank `p % n`, for that rank's message number `p / n` of this view. A
//! member whose turn it is but who has nothing to say publishes a *null*: it raises its NEXT word past the index
//! without writing a record. A record is visible before the word that covers it, so an index below NEXT without a
//! record is a null, for ever and for everybody. Each member publishes how long a prefix of the order it holds
//! (RECEIVED); the minimum over all members is *stable*: whatever happens now, every survivor holds it. Deliver
//! the order below the stable point. All conclusions are drawn from words; no message is answered.
//!
//! **Indices are absolute.** A sender's index counts its messages and nulls and never restarts. A view sets, for
//! each rank, the index that has place 0 in it (`base`). What a survivor had published beyond the trim of the old
//! view stays in its log, unchanged, and is the beginning of its stream in the new one: re-sent without a copy,
//! same id, order kept. What a departed member had published beyond the trim is dropped by everybody alike.
//!
//! **Wedge.** When a view change begins, NEXT and RECEIVED freeze for the rest of the view. So the trim that the
//! change computes (the least RECEIVED of the survivors) is no less than what anybody delivered, because delivery
//! needed every member's RECEIVED, survivors included.
//!
//! **Nulls do not chase each other.** A member raises NEXT exactly as far as the greatest known place requires,
//! and a null it publishes on the way is never beyond that place; so after one message everybody falls silent.
//!
//! Nothing here allocates per message: queues are sized at install, and a sender stops (its window) before any
//! receiver's queue can be full.

use std::collections::VecDeque;

use quintet_transport::Member;

use super::view::{Position, Rank, View, ViewId};
use super::{Delivery, Malformed, Record, Row, quorum};

/// What one member has sent, seen from here.
#[derive(Debug)]
struct Sender {
    member: Member,
    /// Index at place 0 of this view.
    base: u64,
    /// Every index below is a record that was here, or a null.
    known: u64,
    /// Records not delivered yet, in order of index.
    queue: VecDeque<Record>,
    /// Greatest words read.
    row: Row,
    /// Prefix of this view it holds, as far as its words say.
    received: u64,
    /// Prefix of this view it delivered.
    delivered: u64,
}

impl Sender {
    fn new(member: Member, base: u64, capacity: usize) -> Sender {
        Sender {
            member,
            base,
            known: base,
            queue: VecDeque::with_capacity(capacity),
            row: Row::default(),
            received: 0,
            delivered: 0,
        }
    }
}

/// What a member publishes when it wedges: it holds for the rest of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Final {
    /// Next own index.
    pub(super) next: u64,
    /// Everything before it is received.
    pub(super) received: Position,
}

/// The total order of one view.
#[derive(Debug)]
pub(super) struct Order {
    capacity: usize,
    view: ViewId,
    me: usize,
    senders: Vec<Sender>,
    /// Next own index.
    next: u64,
    /// End of the own log's last record.
    own_end: u64,
    /// Own records that somebody has not delivered yet.
    unsettled: VecDeque<u64>,
    /// Prefix received here.
    received: u64,
    /// Prefix stable as of the last look.
    stable: u64,
    /// Something arrived since the last look.
    stale: bool,
    /// Prefix delivered here, and whose turn is next in which round.
    delivered: u64,
    turn: usize,
    round: u64,
    /// Wedged: NEXT, RECEIVED and delivery stand still.
    frozen: bool,
    /// Decided: deliver exactly to here.
    trim: Option<u64>,
    persisted: Position,
    /// PERSISTED stands still too while wedged: what a quorum had said to be durable is then in any quorum of
    /// farewells, and nothing more is acknowledged in this view.
    persisted_word: Position,
    /// Planted: deliver what is received, stable or not.
    pub(super) bug_unstable: bool,
    /// Planted: give a record an index that was published as a null.
    pub(super) bug_reuse: bool,
    /// Planted: what others published beyond the trim does not survive the view.
    pub(super) bug_loses: bool,
    /// Planted: count a record that is not published yet.
    pub(super) bug_ahead: bool,
}

impl Order {
    /// No view yet.
    pub(super) fn new(capacity: usize) -> Order {
        assert!(capacity > 0, "a sender must be able to send");
        Order {
            capacity,
            view: ViewId(0),
            me: 0,
            senders: Vec::new(),
            next: 0,
            own_end: 0,
            unsettled: VecDeque::with_capacity(capacity),
            received: 0,
            stable: 0,
            stale: false,
            delivered: 0,
            turn: 0,
            round: 0,
            frozen: false,
            trim: None,
            persisted: Position::ZERO,
            persisted_word: Position::ZERO,
            bug_unstable: false,
            bug_reuse: false,
            bug_loses: false,
            bug_ahead: false,
        }
    }

    fn n(&self) -> u64 {
        self.senders.len() as u64
    }

    /// Place of `index` of `rank`; the index must not be below the rank's base.
    fn place(&self, rank: usize, index: u64) -> u64 {
        (index - self.senders[rank].base) * self.n() + rank as u64
    }

    /// Greatest NEXT a rank can have in this view without leaving its 40 bits.
    fn ceiling(&self, rank: usize) -> u64 {
        self.senders[rank].base + (Position::LIMIT - self.n()) / self.n()
    }

    // --- what arrives ---

    pub(super) fn handle_row(&mut self, rank: Rank, row: Row) -> Result<(), Malformed> {
        let r = rank.index();
        if r >= self.senders.len() || r == self.me {
            return Err(Malformed("row of a rank that is nobody else's"));
        }
        if row.next > self.ceiling(r) {
            return Err(Malformed("NEXT beyond the view's places"));
        }
        let view = self.view;
        let sender = &mut self.senders[r];
        let seen = &mut sender.row;
        seen.next = seen.next.max(row.next);
        seen.received = seen.received.max(row.received);
        seen.delivered = seen.delivered.max(row.delivered);
        seen.persisted = seen.persisted.max(row.persisted);
        sender.known = sender.known.max(row.next);
        // A word of a newer view says nothing about this one; the last value known for this one stays.
        if row.received.view() == view {
            sender.received = sender.received.max(row.received.p());
        }
        if row.delivered.view() == view {
            sender.delivered = sender.delivered.max(row.delivered.p());
        }
        self.stale = true;
        Ok(())
    }

    pub(super) fn handle_record(&mut self, rank: Rank, record: Record) -> Result<bool, Malformed> {
        let r = rank.index();
        if r >= self.senders.len() {
            return Err(Malformed("record of a rank that is nobody's"));
        }
        if record.index >= self.ceiling(r) {
            return Err(Malformed("index beyond the view's places"));
        }
        if record.index < self.senders[r].known && !(self.bug_reuse && r == self.me) {
            return Err(Malformed("index of a record that was sent before, or was a null"));
        }
        if r == self.me {
            assert!(record.index < self.next, "publish only what was assigned");
            self.own_end = record.end;
        }
        let sender = &mut self.senders[r];
        if sender.queue.len() >= self.capacity {
            return Ok(false);
        }
        sender.queue.push_back(record);
        sender.known = sender.known.max(record.index + 1);
        self.stale = true;
        Ok(true)
    }

    // --- what we send ---

    pub(super) fn assign(&mut self) -> Option<u64> {
        if self.senders.is_empty() || self.frozen {
            return None;
        }
        if self.unsettled.len() >= self.capacity {
            self.settle();
            if self.unsettled.len() >= self.capacity {
                return None;
            }
        }
        if self.next >= self.ceiling(self.me) {
            return None;
        }
        let own = &self.senders[self.me];
        if self.bug_reuse
            && self.next > own.base
            && own.queue.back().is_none_or(|r| r.index + 1 < self.next)
        {
            return Some(self.next - 1);
        }
        let index = self.next;
        self.next += 1;
        self.unsettled.push_back(index);
        Some(index)
    }

    /// Forgets own records that everybody delivered: their places in everybody's queues are free again.
    fn settle(&mut self) {
        let everybody = self.senders.iter().enumerate().fold(u64::MAX, |least, (r, s)| {
            least.min(if r == self.me { self.delivered } else { s.delivered })
        });
        while let Some(&index) = self.unsettled.front() {
            if self.place(self.me, index) >= everybody {
                break;
            }
            self.unsettled.pop_front();
        }
    }

    /// Publishes nulls as far as the greatest known place needs them.
    fn fill(&mut self) {
        let mut rounds = 0;
        for (r, sender) in self.senders.iter().enumerate() {
            let sent = sender.known - sender.base;
            if r != self.me && sent > 0 {
                // Its last place is (sent − 1, r): lower ranks speak in that round before it, higher ones do not.
                rounds = rounds.max(if self.me < r { sent } else { sent - 1 });
            }
        }
        let own = &mut self.senders[self.me];
        debug_assert!(own.known == self.next, "publish what was assigned before the row");
        self.next = self.next.max(own.base + rounds);
        own.known = self.next;
    }

    /// Own words, after publishing the nulls that are due.
    pub(super) fn row(&mut self) -> Row {
        if !self.senders.is_empty() {
            if !self.frozen {
                self.fill();
                self.persisted_word = self.persisted;
            }
            self.look();
        }
        Row {
            next: self.next + u64::from(self.bug_ahead),
            received: Position::new(self.view, self.received),
            delivered: Position::new(self.view, self.delivered),
            persisted: self.persisted_word,
        }
    }

    // --- conclusions ---

    /// Draws the conclusions from what arrived: the prefix received here, and the prefix received everywhere.
    fn look(&mut self) {
        self.stale = false;
        if self.frozen {
            return;
        }
        let n = self.n();
        let mut received = u64::MAX;
        let mut others = u64::MAX;
        for (r, s) in self.senders.iter().enumerate() {
            received = received.min((s.known - s.base) * n + r as u64);
            if r != self.me {
                others = others.min(s.received);
            }
        }
        assert!(received >= self.received, "what was received stays received");
        self.received = received;
        self.stable = if self.bug_unstable { received } else { received.min(others) };
    }

    pub(super) fn poll_delivery(&mut self) -> Option<Delivery> {
        if self.stale {
            self.look();
        }
        let end = match self.trim {
            Some(trim) => trim,
            None if self.frozen => return None,
            None => self.stable,
        };
        while self.delivered < end {
            let (rank, at) = (self.turn, self.delivered);
            let sender = &mut self.senders[rank];
            let index = sender.base + self.round;
            assert!(index < sender.known, "deliver only what is known");
            self.delivered += 1;
            self.turn += 1;
            if self.turn == self.senders.len() {
                self.turn = 0;
                self.round += 1;
            }
            let sender = &mut self.senders[rank];
            if sender.queue.front().is_some_and(|r| r.index == index) {
                let record = sender.queue.pop_front()?;
                return Some(Delivery {
                    at: Position::new(self.view, at),
                    rank: Rank(rank as u8),
                    record,
                });
            }
        }
        None
    }

    /// Everything before this is delivered here.
    pub(super) fn delivered(&self) -> Position {
        Position::new(self.view, self.delivered)
    }

    /// Places are running out: the view should be renewed.
    pub(super) fn exhausted(&self) -> bool {
        (0..self.senders.len())
            .any(|r| self.senders[r].known - self.senders[r].base > self.soft_limit())
    }

    fn soft_limit(&self) -> u64 {
        Position::LIMIT / 2 / self.n()
    }

    pub(super) fn report_persisted(&mut self, position: Position) {
        self.persisted = self.persisted.max(position);
    }

    /// Everything before this is durable at a quorum.
    pub(super) fn persisted_by_quorum(&self) -> Position {
        let word = |r: usize| {
            if r == self.me { self.persisted_word } else { self.senders[r].row.persisted }
        };
        let n = self.senders.len();
        let reached = |p: Position| (0..n).fold(0, |ranks, r| ranks | u64::from(word(r) >= p) << r);
        (0..n).map(word).filter(|p| quorum(n, reached(*p))).max().unwrap_or_default()
    }

    // --- views ---

    /// Freezes the view: what this says holds until the next one.
    pub(super) fn wedge(&mut self) -> Final {
        if !self.frozen {
            self.look();
            self.frozen = true;
        }
        Final { next: self.next, received: Position::new(self.view, self.received) }
    }

    /// The view ends at `trim`, which this node has received.
    pub(super) fn deliver_to(&mut self, trim: Position) {
        assert!(
            self.frozen && trim.view() == self.view,
            "a view ends wedged, at a place of its own"
        );
        assert!(self.delivered <= trim.p(), "nothing is delivered beyond the trim");
        assert!(trim.p() <= self.received, "a survivor holds everything before the trim");
        self.trim = Some(trim.p());
    }

    /// Own records, in order, that were published and are not delivered here.
    pub(super) fn undelivered(&self) -> impl Iterator<Item = &Record> {
        self.senders.get(self.me).into_iter().flat_map(|own| &own.queue)
    }

    /// The view that ended here, delivered to its trim, if the next has not begun.
    pub(super) fn ended(&self) -> Option<ViewId> {
        (self.trim == Some(self.delivered)).then_some(self.view)
    }

    /// Whether everything before the trim is delivered.
    pub(super) fn done(&self) -> bool {
        self.trim.is_none_or(|trim| self.delivered == trim)
    }

    /// Begins `view`. Streams of survivors go on where the old view ended; others begin at their base.
    pub(super) fn install(&mut self, view: &View, me: Member) {
        assert!(self.done(), "the old view is delivered to its end");
        let mut old = std::mem::take(&mut self.senders);
        for (member, &base) in view.members.iter().zip(&view.base) {
            let mut sender = match old.iter().position(|s| s.member == *member) {
                Some(i) => old.swap_remove(i),
                None => Sender::new(*member, base, self.capacity),
            };
            assert!(
                sender.queue.front().is_none_or(|r| r.index >= base),
                "what is left begins at the base"
            );
            if self.bug_loses && *member != me {
                sender.queue.clear();
            }
            sender.base = base;
            sender.known = sender.known.max(base);
            let in_view = |p: Position| if p.view() == view.id { p.p() } else { 0 };
            sender.received = in_view(sender.row.received);
            sender.delivered = in_view(sender.row.delivered);
            self.senders.push(sender);
        }
        self.me = view.rank_of(me).map_or(0, Rank::index);
        let own = &mut self.senders[self.me];
        assert!(own.member == me && own.base <= self.next, "own stream goes on");
        own.known = self.next;
        let base = own.base;
        while self.unsettled.front().is_some_and(|index| *index < base) {
            self.unsettled.pop_front();
        }
        self.view = view.id;
        self.received = 0;
        self.stable = 0;
        self.delivered = 0;
        self.turn = 0;
        self.round = 0;
        self.frozen = false;
        self.trim = None;
        self.look();
    }

    /// Where a new reader of the own log has to begin: the first own record that is not delivered.
    pub(super) fn log_start(&self) -> u64 {
        self.senders[self.me].queue.front().map_or(self.own_end, |r| r.position)
    }
}
