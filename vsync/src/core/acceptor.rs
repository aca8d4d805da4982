//! The acceptor: wedge, promise, fence, accept. What a node says here it must still know after `kill -9`.
//!
//! **Problem.** The next view must be one, even if the coordinator dies between any two instructions, two nodes
//! believe they coordinate, and acceptors crash and come back. And once a member is voted out, it must not answer
//! from the old view, although it may be merely slow and has not heard of it.
//!
//! **Naive answer.** "The coordinator tells everybody the new view." Half of them hear it, it dies, and the next
//! coordinator, who did not, computes another one.
//!
//! **Algorithm.** Single-decree consensus per view (Lamport, *The Part-Time Parliament*, 1998). The acceptors are
//! the *nodes* of the current view, since a restarted node can keep its old promises where its old incarnation
//! cannot keep its membership. A promise for a ballot wedges the view and carries how it ends for this member;
//! an acceptance is a vote. Both are durable **before** they are sent ([`Core::poll_store`], [`Core::handle_stored`]).
//! Votes are broadcast, so that everybody counts them and nobody depends on the proposer to learn the outcome.
//!
//! **Leases.** A member answers reads while a quorum confirmed recently to hear it. Before an acceptor votes
//! somebody out, it *fences* it (closes its links: nothing is confirmed any more) and waits until what it confirmed
//! last is a lease old. Any quorum that keeps the removed member's lease alive shares a node with the quorum that
//! votes it out; so at the decision the lease is over, without a synchronized clock. Whoever certainly died is not
//! waited for, nor who said farewell to the view: a wedged member answers no read, so one that leaves, or must go
//! for a lost link, may still vote. A restarted acceptor does not know what its earlier incarnation confirmed,
//! but it was not after its own start.

use std::collections::VecDeque;

use quintet_transport::{Member, Time};

use super::change::Attempt;
use super::codec::{Control, Farewell, Promise};
use super::timers::Timer;
use super::view::{Ballot, Departure, Origin, Value, ViewId, Why};
use super::{Bug, Core, Event, Malformed, Standing};

/// What to say once it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Promise(Ballot),
    Accepted(Ballot),
}

/// An acceptance that waits for leases to run out.
#[derive(Debug)]
struct Pending {
    ballot: Ballot,
    value: Value,
    /// Whose lease, and until when; `None` until the fence is confirmed.
    leases: Vec<(Member, Option<Time>)>,
}

/// The acceptor's state in the consensus on the view after the current one.
#[derive(Debug, Default)]
pub(super) struct Acceptor {
    pub(super) promised: Option<Ballot>,
    pub(super) accepted: Option<(Ballot, Value)>,
    pending: Option<Pending>,
    /// Votes heard, per ballot, as ranks of the current view.
    votes: Vec<(Ballot, u64)>,
    /// The proposal with the highest ballot seen.
    pub(super) proposed: Option<(Ballot, Value)>,
    /// A proposer that is a view ahead: it gets its promise when we are there.
    pub(super) parked: Option<(Member, ViewId, Ballot)>,
    /// A round others are known to have reached.
    raised: u64,
    store: Store,
}

/// Tickets of the durable record.
#[derive(Debug, Default)]
struct Store {
    wanted: u64,
    handed: u64,
    stored: u64,
    due: VecDeque<(u64, Due)>,
}

impl Acceptor {
    pub(super) fn new(promised: Option<Ballot>, accepted: Option<(Ballot, Value)>) -> Acceptor {
        Acceptor { promised, accepted, ..Acceptor::default() }
    }

    /// Begins the consensus of the next view: nothing of the last one is of use.
    pub(super) fn reset(&mut self) {
        let store = std::mem::take(&mut self.store);
        let due = VecDeque::new();
        *self = Acceptor {
            store: Store { due, ..store },
            parked: self.parked.take(),
            ..Acceptor::default()
        };
    }

    /// The ticket of the record that has to be written, once.
    pub(super) fn store_due(&mut self) -> Option<u64> {
        let Store { wanted, handed, .. } = self.store;
        self.store.handed = wanted;
        (wanted > handed).then_some(wanted)
    }

    /// The record changed.
    pub(super) fn changed(&mut self) {
        self.store.wanted += 1;
    }

    fn say_when_durable(&mut self, due: Due) {
        self.changed();
        self.store.due.push_back((self.store.wanted, due));
    }

    /// Whether the latest record is not durable yet.
    pub(super) fn unstored(&self) -> bool {
        self.store.wanted > self.store.stored
    }

    fn is_due(&self, due: Due) -> bool {
        self.store.due.iter().any(|(_, d)| *d == due)
    }

    /// The greatest round of any ballot heard of.
    pub(super) fn round(&self) -> u64 {
        let votes = self.votes.iter().map(|v| v.0.round).max().unwrap_or(0);
        let proposed = self.proposed.as_ref().map_or(0, |p| p.0.round);
        self.promised.map_or(0, |b| b.round).max(votes).max(proposed).max(self.raised)
    }

    /// Others have reached this round.
    pub(super) fn raise(&mut self, round: u64) {
        self.raised = self.raised.max(round);
    }
}

impl Core {
    /// Whether this node may vote on the view after the current one.
    pub(super) fn votes(&self) -> bool {
        let remembers = self.config.durable
            || self.standing == Standing::Member
            || self.current.id == ViewId(0);
        remembers && self.standing != Standing::Gone && self.current.node_bit(self.me().node) != 0
    }

    pub(super) fn on_prepare(
        &mut self,
        now: Time,
        from: Member,
        view: ViewId,
        ballot: Ballot,
    ) -> Result<(), Malformed> {
        if !self.concerns(from, view, ballot)? {
            if view > self.current.id && self.installing.is_some() {
                self.acceptor.parked = Some((from, view, ballot));
            }
            return Ok(());
        }
        if !self.votes() || self.outbid(view, ballot) {
            return Ok(());
        }
        self.yield_to(now, ballot);
        self.wedge(now);
        if self.acceptor.promised == Some(ballot) {
            if !self.acceptor.is_due(Due::Promise(ballot)) {
                self.promise(ballot)?;
            }
            return Ok(());
        }
        self.acceptor.promised = Some(ballot);
        self.acceptor.say_when_durable(Due::Promise(ballot));
        Ok(())
    }

    /// Whether what `from` says in `ballot` is about how the current view ends. Who missed that is told.
    fn concerns(&mut self, from: Member, view: ViewId, ballot: Ballot) -> Result<bool, Malformed> {
        if ballot.by != from {
            return Err(Malformed("a ballot of somebody else"));
        }
        if view < self.latest().view.id {
            let value = self.latest().clone();
            self.broadcast(&Control::Decide { value });
            return Ok(false);
        }
        Ok(view <= self.current.id)
    }

    /// Whether a higher ballot was promised; then its proposer is told.
    fn outbid(&mut self, view: ViewId, ballot: Ballot) -> bool {
        let higher = self.acceptor.promised.filter(|p| *p > ballot);
        if let Some(promised) = higher {
            self.broadcast(&Control::Nack { view, ballot, promised });
        }
        higher.is_some()
    }

    /// Another proposer is at work: ours gives way, and gives it time.
    fn yield_to(&mut self, now: Time, ballot: Ballot) {
        if ballot.by != self.me() {
            self.attempt = Attempt::Idle;
            self.timers.cancel(Timer::Attempt);
            self.timers.cancel(Timer::Backoff);
            self.await_takeover(now, true);
        }
        if self.acceptor.pending.as_ref().is_some_and(|p| p.ballot < ballot) {
            self.acceptor.pending = None;
            self.timers.cancel(Timer::Lease);
        }
    }

    /// Ends the current view for this member: its words stand still until the next.
    fn wedge(&mut self, now: Time) {
        if self.standing == Standing::Member {
            self.wedged_at.get_or_insert(now);
            self.evidence_at.get_or_insert(now);
            self.order.wedge();
        }
    }

    /// Sends a promise, which is durable.
    fn promise(&mut self, ballot: Ballot) -> Result<(), Malformed> {
        let farewell = (self.standing == Standing::Member).then(|| Farewell {
            words: self.order.wedge(),
            lost: self.lost.clone(),
            learners: self.loaded_learners(),
        });
        let promise = Promise {
            view: self.current.id,
            ballot,
            accepted: self.acceptor.accepted.clone(),
            farewell,
            state: (self.standing == Standing::Outside).then_some(self.state),
            persisted: self.order.row().persisted.max(self.recovered),
        };
        self.broadcast(&Control::Promise(promise.clone()));
        if ballot.by == self.me() { self.on_promise(self.me(), promise) } else { Ok(()) }
    }

    pub(super) fn on_accept(
        &mut self,
        now: Time,
        from: Member,
        view: ViewId,
        ballot: Ballot,
        value: Value,
    ) -> Result<(), Malformed> {
        if !self.concerns(from, view, ballot)? {
            return Ok(());
        }
        self.check_succession(&value)?;
        if self.acceptor.proposed.as_ref().is_none_or(|p| p.0 < ballot) {
            let mut proposed = value.clone();
            if let Some((_, before)) = &self.acceptor.proposed
                && self.bug(Bug::TornProposal)
            {
                proposed.view = before.view.clone();
            }
            self.acceptor.proposed = Some((ballot, proposed));
            self.count();
        }
        // The votes heard before may have decided it: then there is nothing left to vote on.
        if self.installing.is_some() || self.current.id != view || !self.votes() {
            return Ok(());
        }
        if self.outbid(view, ballot) {
            return Ok(());
        }
        self.yield_to(now, ballot);
        self.wedge(now);
        self.acceptor.promised = Some(ballot);
        if self.acceptor.accepted.as_ref().is_some_and(|a| a.0 == ballot) {
            self.restate_vote();
        } else if self.acceptor.pending.is_none() {
            let leases = self.fence(&value);
            self.acceptor.pending = Some(Pending { ballot, value, leases });
            self.vote(now);
        }
        Ok(())
    }

    /// Cuts off everybody the value removes, and returns whose lease has to run out.
    fn fence(&mut self, value: &Value) -> Vec<(Member, Option<Time>)> {
        let mut leases = Vec::new();
        if self.bug(Bug::NoFence) {
            return leases;
        }
        for Departure { member, why } in value.view.departed.iter().copied() {
            let never_ran = member.incarnation == quintet_transport::Incarnation(0);
            if member == self.me() || matches!(why, Why::Left | Why::Cut) || never_ran {
                continue;
            }
            let certain = why.certain() || self.peers.certain(member).is_some();
            if self.peers.is_up(member) || !certain {
                self.events.push_back(Event::Fence(member));
            }
            if self.peers.is_up(member) {
                self.link_lost(self.clock, member, why, Time::ZERO);
            }
            if !certain {
                leases.push((member, None));
            }
        }
        leases
    }

    /// The links to `member` are closed, and it heard nothing from us after `at`.
    pub(super) fn fenced(&mut self, now: Time, member: Member, at: Time) {
        let last = at.max(self.peers.heard(member)).max(self.started);
        if let Some(pending) = &mut self.acceptor.pending {
            for (_, until) in
                pending.leases.iter_mut().filter(|(m, until)| *m == member && until.is_none())
            {
                *until = Some(last + self.config.lease);
            }
        }
        self.vote(now);
    }

    /// Casts the pending vote if no lease can be valid any more.
    pub(super) fn vote(&mut self, now: Time) {
        let Some(pending) = &self.acceptor.pending else { return };
        let certain = |m: Member| self.peers.certain(m).is_some();
        let waiting = || {
            pending.leases.iter().filter(|(m, until)| !certain(*m) && until.is_none_or(|t| t > now))
        };
        if waiting().count() > 0 {
            match waiting().filter_map(|(_, until)| *until).max() {
                Some(until) => self.timers.set(Timer::Lease, until),
                None => self.timers.cancel(Timer::Lease),
            }
            return;
        }
        self.timers.cancel(Timer::Lease);
        if let Some(Pending { ballot, value, .. }) = self.acceptor.pending.take() {
            self.acceptor.accepted = Some((ballot, value));
            self.acceptor.say_when_durable(Due::Accepted(ballot));
        }
    }

    /// Sends the vote again, if it is durable.
    pub(super) fn restate_vote(&mut self) {
        if let Some((ballot, _)) = self.acceptor.accepted
            && !self.acceptor.is_due(Due::Accepted(ballot))
        {
            self.broadcast(&Control::Accepted { view: self.current.id, ballot });
        }
    }

    pub(super) fn on_stored(&mut self, ticket: u64) {
        self.acceptor.store.stored = ticket.max(self.acceptor.store.stored);
        if self.standing == Standing::Gone {
            self.acceptor.store.due.clear();
        }
        while let Some(&(t, due)) = self.acceptor.store.due.front()
            && t <= ticket
        {
            self.acceptor.store.due.pop_front();
            match due {
                // A promise that was overtaken by a higher one is of no use to anybody.
                Due::Promise(ballot) if self.acceptor.promised == Some(ballot) => {
                    self.promise(ballot).expect("own promises are well-formed");
                }
                Due::Promise(_) => {}
                Due::Accepted(ballot) => {
                    self.broadcast(&Control::Accepted { view: self.current.id, ballot });
                    self.on_accepted(self.me(), self.current.id, ballot);
                }
            }
            if self.installing.is_some() {
                break;
            }
        }
    }

    pub(super) fn on_accepted(&mut self, from: Member, view: ViewId, ballot: Ballot) {
        if view != self.current.id || self.installing.is_some() {
            return;
        }
        let bit = self.current.node_bit(from.node);
        match self.acceptor.votes.iter_mut().find(|v| v.0 == ballot) {
            Some(v) => v.1 |= bit,
            None => {
                self.acceptor.votes.push((ballot, bit));
                self.acceptor.votes.sort_unstable_by_key(|v| std::cmp::Reverse(v.0));
                self.acceptor.votes.truncate(16);
            }
        }
        self.count();
    }

    /// Whether the votes heard decide.
    fn count(&mut self) {
        let Some((ballot, value)) = &self.acceptor.proposed else { return };
        let blend = self.bug(Bug::BlendsProposals);
        let votes = self.acceptor.votes.iter().filter(|v| v.0 == *ballot || blend);
        let votes = votes.fold(0, |ranks, v| ranks | v.1);
        // A member that is voted out does not go by its own count: its vote may be the one others still wait for.
        let voted_out = self.standing == Standing::Member && !value.view.contains(self.me());
        if self.installing.is_some() || !self.decides(votes) || voted_out {
            return;
        }
        let (ballot, value) = (*ballot, value.clone());
        if ballot.by == self.me() {
            self.broadcast(&Control::Decide { value: value.clone() });
        }
        // What was checked when it was proposed does not fail when it is learnt.
        let _ = self.learn(value);
    }

    /// Whether `ranks` of the current view may decide.
    pub(super) fn decides(&self, ranks: u64) -> bool {
        if self.bug(Bug::AnyHalf) {
            return 2 * (ranks.count_ones() as usize) >= self.current.members.len();
        }
        self.current.quorum(ranks)
    }

    /// Whether `value` can follow the current view, and this member's part in it.
    pub(super) fn check_succession(&mut self, value: &Value) -> Result<(), Malformed> {
        if self.standing == Standing::Member && value.view.contains(self.me()) {
            // Who survives has said how the view ends for it, and the trim was computed from that.
            if self.wedged_at.is_none() || value.trim > self.order.wedge().received {
                return Err(Malformed("survival that was not asked for"));
            }
        }
        let (now, next) = (&*self.current, &value.view);
        if next.id != now.id.next() {
            return Err(Malformed("a view that does not follow"));
        }
        let survived = |m: &Member| !next.joined.contains(m);
        if next.members.iter().any(|m| survived(m) != now.contains(*m)) {
            return Err(Malformed("members from nowhere"));
        }
        if (next.origin == Origin::Changed) != next.members.iter().any(survived) {
            return Err(Malformed("a change without survivors, or a restart with some"));
        }
        if next.origin == Origin::Changed && value.founded != self.decided.founded {
            return Err(Malformed("a change of a group with another beginning"));
        }
        if now.members.iter().any(|m| {
            let ran = m.incarnation != quintet_transport::Incarnation(0);
            ran && !next.contains(*m) && !next.departed.iter().any(|d| d.member == *m)
        }) {
            return Err(Malformed("a member gone without a trace"));
        }
        Ok(())
    }
}
