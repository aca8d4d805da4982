//! Install: from "it is decided" to the new view, at members, newcomers, and those who are out.
//!
//! **Problem.** The decision arrives at each node at another time and by another way: by counting votes, from the
//! proposer, from a peer that says hello weeks later. A member must first deliver its old view to the trim, at the
//! speed of its application; a newcomer must not begin before it has state; one that is not in the view must stop.
//!
//! **Algorithm.** Everything ends in [`Core::learn`], which takes any agreed view from anywhere. A member that
//! survives delivers up to the trim and then switches, in the very call that hands [`Event::View`] to the driver,
//! so there is no instant at which core and driver disagree about ranks. Streams of new pairs begin there: each says
//! where its log starts for a new reader (`Start`), and opens the other's on hearing the same. A pair whose link broke
//! is lost at once in the new view, if it is to continue streams that were on that link, or has no link at all:
//! evidence for the next change.

use std::sync::Arc;

use quintet_transport::Member;

use super::change::Attempt;
use super::codec::Control;
use super::timers::Timer;
use super::view::{Origin, Value, ViewId, Why};
use super::{Core, Event, Malformed, Standing};

impl Core {
    /// `value` was decided, somebody says. Takes it if it is news.
    pub(super) fn learn(&mut self, value: Value) -> Result<(), Malformed> {
        let me = self.me();
        let (known, next) = (self.latest(), &value.view);
        if next.id <= known.view.id {
            if next.id == known.view.id && value != *known {
                return Err(Malformed("another view of the same number"));
            }
            return Ok(());
        }
        match self.standing {
            Standing::Gone => {}
            Standing::Member if self.installing.is_some() => {
                // Decided without us while we were still delivering, or it is nonsense.
                if next.contains(me) {
                    return Err(Malformed("a view we were not asked for"));
                }
                self.out(value);
            }
            Standing::Member if next.contains(me) => {
                self.check_succession(&value)?;
                self.begin_install(value);
            }
            Standing::Member => {
                let follows = next.id == self.current.id.next();
                let left = next.departed.iter().any(|d| d.member == me && d.why == Why::Left);
                if follows
                    && left
                    && self.wedged_at.is_some()
                    && value.trim <= self.order.wedge().received
                {
                    self.begin_install(value);
                } else {
                    self.out(value);
                }
            }
            Standing::Outside | Standing::Learner if self.installing.is_some() => {
                if next.contains(me) {
                    return Err(Malformed("a view we were not asked for"));
                }
                self.out(value);
            }
            Standing::Outside | Standing::Learner if next.contains(me) => {
                let loaded = self.standing == Standing::Learner && self.joining.ready;
                let restarted =
                    self.standing == Standing::Outside && next.origin != Origin::Changed;
                if (loaded && next.origin == Origin::Changed || restarted) && !self.donor_gone(next)
                {
                    if !next.joined.contains(&me) {
                        return Err(Malformed("survival of somebody who was not there"));
                    }
                    self.begin_install(value);
                } else {
                    // It is in by a state it no longer has.
                    self.out(value);
                }
            }
            Standing::Outside | Standing::Learner => {
                if next.departed.iter().any(|d| d.member == me) || self.donor_gone(next) {
                    self.out(value);
                } else {
                    self.adopt(value);
                }
            }
        }
        Ok(())
    }

    /// Outside: this is the view now, and its consensus is the one to vote in.
    fn adopt(&mut self, value: Value) {
        self.turn_to(value);
        self.announce();
    }

    /// The consensus on the view after `value` begins.
    fn turn_to(&mut self, value: Value) {
        self.current = Arc::new(value.view.clone());
        self.decided = value;
        self.installing = None;
        self.acceptor.reset();
        self.acceptor.changed();
        self.attempt = Attempt::Idle;
        self.failures = 0;
        self.given_up = None;
        self.lost.clear();
        self.peers.forget_others(&self.current);
        for timer in [Timer::Takeover, Timer::Attempt, Timer::Backoff, Timer::Lease, Timer::Settle]
        {
            self.timers.cancel(timer);
        }
        let view = self.current.clone();
        for departed in &view.departed {
            // A member's driver closes the links to those who did not merely leave.
            let close = view.contains(self.me()) && departed.why != Why::Left;
            self.peers.departed(departed.member, close);
        }
        view.members.iter().for_each(|m| self.peers.joined(*m));
    }

    /// `value` was agreed on, and this incarnation is not in it. Its node keeps that in mind: it may be the only one
    /// that knows, and its next incarnation the only one that can tell.
    fn out(&mut self, value: Value) {
        let id = value.view.id;
        self.turn_to(value);
        self.evict(id);
    }

    fn begin_install(&mut self, value: Value) {
        if self.standing == Standing::Member {
            self.order.deliver_to(value.trim);
        }
        self.attempt = Attempt::Idle;
        for timer in [
            Timer::Takeover,
            Timer::Attempt,
            Timer::Backoff,
            Timer::Lease,
            Timer::Settle,
            Timer::Batch,
        ] {
            self.timers.cancel(timer);
        }
        self.installing = Some(value);
    }

    /// Switches to the decided view, if the old one is delivered to its end. Called when the driver asks for events.
    pub(super) fn complete_install(&mut self) {
        if self.standing == Standing::Member && !self.order.done() {
            return;
        }
        let Some(value) = self.installing.take() else { return };
        let (now, me) = (self.clock, self.me());
        if !value.view.contains(me) {
            self.out(value);
            return;
        }
        let continued = self.standing == Standing::Member;
        let lost_before = std::mem::take(&mut self.lost);
        let (evidence_at, wedged_at) = (self.evidence_at.take(), self.wedged_at.take());
        self.turn_to(value);
        self.standing = Standing::Member;
        let view = self.current.clone();
        self.order.install(&view, me);
        self.joining_installed(now);
        self.events.push_back(Event::View {
            view: view.clone(),
            cause: view.cause(),
            evidence_at,
            wedged_at,
        });
        if self.blocked.take().is_some() {
            self.events.push_back(Event::Resumed);
        }
        for member in view.members.iter().copied().filter(|m| *m != me) {
            let new_pair = !continued || view.joined.contains(&member);
            let before = lost_before.iter().find(|d| d.member == member).filter(|_| !new_pair);
            if let Some(before) = before {
                self.lose(member, before.why);
            } else if !self.peers.is_up(member) {
                let why = self.peers.ended(member);
                self.lose(member, why);
            } else if new_pair {
                self.events.push_back(Event::Attach {
                    peer: member,
                    log_position: self.order.log_start(),
                });
                if let Some(peer) = self.peers.linked_mut(member) {
                    peer.unopened = Some(view.id);
                }
                self.open(member);
            }
        }
        if !self.lost.is_empty() {
            self.evidence_at = Some(now);
        }
        self.announce();
        if !view.joined.is_empty() {
            self.broadcast(&Control::Start { view: view.id, log_position: self.order.log_start() });
        }
        if let Some((from, of, ballot)) = self.acceptor.parked.take()
            && self.peers.is_up(from)
            && of == view.id
        {
            // It was checked when it came.
            let _ = self.on_prepare(now, from, of, ballot);
        }
        self.steer(now);
    }

    pub(super) fn on_start(&mut self, from: Member, view: ViewId, log_position: u64) {
        let Some(peer) = self.peers.linked_mut(from) else { return };
        if peer.start.is_some_and(|s| s.0 >= view) {
            return;
        }
        peer.start = Some((view, log_position));
        self.open(from);
    }

    /// Begins to read a new pair's log, if it has said where.
    ///
    /// What it says may come late: it installed the view that made us a pair and spoke, but others were faster to
    /// tell us of the view after. Nothing is lost by that: without its log we received nothing of it, so its
    /// stream begins in the later view where it would have begun in the earlier one.
    fn open(&mut self, peer: Member) {
        let current = self.current.id;
        let Some(known) = self.peers.linked_mut(peer) else { return };
        let (Some(since), Some((view, log_position))) = (known.unopened, known.start) else {
            return;
        };
        if self.standing == Standing::Member && since <= view && view <= current {
            known.unopened = None;
            self.events.push_back(Event::Open { peer, log_position });
        }
    }
}
