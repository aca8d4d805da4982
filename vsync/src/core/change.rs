//! Who changes the view, and when: from the table of facts to a proposal.
//!
//! **Problem.** Evidence trickles in: a death here, a report of a lost link there, a learner that is ready. Somebody
//! must act, at best one, and if that one dies in the act, the next, at any instant; nobody may wait for ever for
//! somebody who thinks the same of him.
//!
//! **Naive answer.** Elect a leader first. That is a second agreement, with time-outs of its own, in front of the
//! one that is needed anyway.
//!
//! **Algorithm.** The view's ranks are the election. From the matrix of lost links everybody computes who must go
//! ([`suspicion`](super::suspicion)); the lowest rank that stays coordinates, at once and without asking. All
//! others that want the change arm a take-over timer, staggered by rank, and restart it whenever they see somebody at
//! work. When it fires they propose with a higher ballot, whatever the matrix says: safety is the acceptors'
//! affair, so a proposer too many costs time and nothing else. After a collision the loser pauses for a time
//! drawn from entropy that was handed in, longer each time.
//!
//! The same proposer restarts a group of which nobody is alive: then those who propose stand outside, the
//! lowest node id leads, and it begins when all are there, or a quorum and the rest had their chance.
//!
//! [`Core::steer`] is called after every input and looks at everything again. There is no other place where
//! it is decided what to do next, and so no message whose loss could make that decision not happen.

use quintet_transport::{Member, NodeId, Time};

use super::codec::{Announce, Control, Promise};
use super::order::Final;
use super::suspicion::{Matrix, ranks};
use super::timers::Timer;
use super::view::{Ballot, Departure, Shortfall, Value, View, ViewId, Why};
use super::{BlockedReason, Bug, Core, Event, Malformed, Standing};

/// Our own proposal.
#[derive(Debug, Default)]
pub(super) enum Attempt {
    /// None.
    #[default]
    Idle,
    /// Collecting promises.
    Preparing {
        ballot: Ballot,
        promises: Vec<(Member, Promise)>,
        /// The patience for those who have not answered is over.
        late: bool,
    },
    /// Collecting votes.
    Accepting { ballot: Ballot, value: Value },
}

impl Core {
    /// Draws conclusions from everything known, until there is nothing left to do now.
    pub(super) fn steer(&mut self, now: Time) {
        if self.standing == Standing::Gone || self.installing.is_some() {
            return;
        }
        self.vote(now);
        match self.standing {
            Standing::Member => self.steer_member(now),
            Standing::Outside | Standing::Learner => self.steer_outside(now),
            Standing::Gone => {}
        }
        self.steer_attempt(now);
        self.steer_blocked(now);
    }

    pub(super) fn on_timeout(&mut self, now: Time) {
        if self.timers.fired(Timer::Takeover, now) && matches!(self.attempt, Attempt::Idle) {
            self.propose(now);
        }
        if self.timers.fired(Timer::Attempt, now) {
            match &mut self.attempt {
                Attempt::Preparing { late, .. } => *late = true,
                Attempt::Accepting { .. } => self.give_up(now),
                Attempt::Idle => {}
            }
        }
        if self.timers.fired(Timer::Batch, now) {
            self.on_batch();
        }
        // What these waited for is looked at by `steer`, which finds them disarmed.
        self.timers.fired(Timer::Backoff, now);
        self.timers.fired(Timer::Lease, now);
        self.timers.fired(Timer::Donate, now);
        self.timers.fired(Timer::Patience, now);
        self.timers.fired(Timer::Meeting, now);
        if self.timers.fired(Timer::Settle, now) && self.may_form() {
            self.form(now);
        }
    }

    // --- facts ---

    pub(super) fn on_announce(
        &mut self,
        from: Member,
        announce: Announce,
    ) -> Result<(), Malformed> {
        let value = announce.decided.clone();
        if let Some(peer) = self.peers.linked_mut(from) {
            peer.announce = Some(announce);
        }
        self.learn(value)
    }

    /// The link to `member` is gone, or its end is more certain than before.
    pub(super) fn link_lost(&mut self, now: Time, member: Member, why: Why, heard: Time) {
        self.peers.dead(member, why, heard);
        if self.standing == Standing::Learner && self.joining.donor == Some(member) {
            // Half a state is of no use to anybody.
            self.evict(self.current.id);
            return;
        }
        if self.standing == Standing::Member
            && self.current.contains(member)
            && self.lose(member, why)
        {
            self.evidence_at.get_or_insert(now);
            self.announce();
        }
    }

    /// Records that the pair of us and `member` is lost for the rest of the view. True: that is news.
    pub(super) fn lose(&mut self, member: Member, why: Why) -> bool {
        match self.lost.iter_mut().find(|d| d.member == member) {
            None => self.lost.push(Departure { member, why }),
            Some(known) if why.certain() && !known.why.certain() => known.why = why,
            Some(_) => return false,
        }
        true
    }

    /// Whether we lost our link to `member` in this view, or it is certainly dead.
    pub(super) fn has_lost(&self, member: Member) -> bool {
        self.lost.iter().any(|d| d.member == member) || self.peers.certain(member).is_some()
    }

    /// What linked peers, and we, say about lost links in the current view: (who says it, about whom).
    pub(super) fn reports(&self) -> Vec<(Member, Departure)> {
        let mut reports: Vec<_> = self.lost.iter().map(|d| (self.me(), *d)).collect();
        for (m, peer) in self.peers.ups() {
            let current = |a: &&Announce| {
                a.standing == Standing::Member && a.decided.view.id == self.current.id
            };
            if let Some(announce) = peer.announce.as_ref().filter(current) {
                reports.extend(announce.lost.iter().map(|d| (m, *d)));
            }
        }
        reports.retain(|(_, d)| self.current.contains(d.member));
        reports
    }

    /// Why `member` is certainly dead, if anybody knows.
    pub(super) fn certainly(&self, member: Member, reports: &[(Member, Departure)]) -> Option<Why> {
        let reported =
            reports.iter().find(|(_, d)| d.member == member && d.why.certain()).map(|(_, d)| d.why);
        self.peers.certain(member).or(reported)
    }

    /// Whether a member asked to leave.
    pub(super) fn leaves(&self, member: Member) -> bool {
        if member == self.me() {
            return self.leaving;
        }
        self.peers.linked(member).and_then(|p| p.announce.as_ref()).is_some_and(|a| a.leaving)
    }

    /// The nodes of the current view we can reach that may vote, as ranks; ourselves included.
    pub(super) fn present(&self) -> u64 {
        let own = if self.votes() { self.current.node_bit(self.me().node) } else { 0 };
        let votes = |p: &super::peers::Peer| p.announce.as_ref().is_some_and(|a| a.votes);
        self.peers
            .ups()
            .filter(|(_, p)| votes(p))
            .fold(own, |mask, (m, _)| mask | self.current.node_bit(m.node))
    }

    /// The lowest rank that stays, as far as is known here.
    fn coordinator(&self) -> Option<Member> {
        let view = &self.current;
        let reports = self.reports();
        let mut matrix = Matrix::new();
        for (by, d) in &reports {
            if let (Some(a), Some(b)) = (view.rank_of(*by), view.rank_of(d.member)) {
                matrix.cut(a.index(), b.index());
            }
        }
        let dead = |m: &Member| self.certainly(*m, &reports).is_some();
        let alive = mask(view, |m| !dead(m));
        let stay = alive & !matrix.removal(alive);
        let willing = stay & mask(view, |m| !self.leaves(*m));
        let first = if willing != 0 { willing } else { stay };
        ranks(first).next().map(|r| view.members[r])
    }

    // --- members ---

    /// Whether the current view has to end.
    fn change_wanted(&mut self, now: Time) -> bool {
        let dying = self.current.members.iter().any(|m| self.peers.certain(*m).is_some());
        let leaving =
            self.current.members.len() > 1 && self.current.members.iter().any(|m| self.leaves(*m));
        let wedged = self.wedged_at.is_some() || self.acceptor.promised.is_some();
        dying
            || leaving
            || wedged
            || !self.reports().is_empty()
            || self.order.exhausted()
            || self.learners_wait(now)
    }

    fn steer_member(&mut self, now: Time) {
        if self.leaving && self.current.members.len() == 1 {
            self.go(Event::Left);
            return;
        }
        let leads = self.coordinator() == Some(self.me());
        if leads && !self.leaving {
            self.steer_donors(now);
        }
        if !self.change_wanted(now) {
            self.timers.cancel(Timer::Takeover);
            return;
        }
        self.evidence_at.get_or_insert(now);
        if !matches!(self.attempt, Attempt::Idle) {
            return;
        }
        if !self.decides(self.present()) {
            self.timers.cancel(Timer::Takeover);
            return;
        }
        let other_at_work = self.other_at_work();
        if leads && !other_at_work && !self.timers.armed(Timer::Backoff) {
            self.propose(now);
        } else if !self.timers.armed(Timer::Backoff) {
            self.await_takeover(now, false);
        }
    }

    /// Whether the proposer we promised last is somebody we still hear.
    fn other_at_work(&self) -> bool {
        self.acceptor
            .promised
            .is_some_and(|b| b.by != self.me() && self.peers.is_up(b.by) && !self.has_lost(b.by))
    }

    /// Gives others their time. `restart`: somebody was seen at work just now.
    pub(super) fn await_takeover(&mut self, now: Time, restart: bool) {
        if !restart && self.timers.armed(Timer::Takeover) {
            return;
        }
        let own = self.current.node_bit(self.me().node);
        let before = (self.present() & own.wrapping_sub(1)).count_ones();
        let takeover = self.config.takeover;
        // Half a time for nothing but evidence to arrive; a whole one for somebody who is at work.
        let first = if restart { takeover } else { takeover / 2 };
        let at = now + first + takeover * before + self.jitter(takeover / 4);
        self.timers.set(Timer::Takeover, at);
    }

    // --- outside ---

    fn steer_outside(&mut self, now: Time) {
        if self.hears_group() {
            self.timers.cancel(Timer::Settle);
            if matches!(self.attempt, Attempt::Idle) {
                self.timers.cancel(Timer::Takeover);
            }
            self.steer_join();
            return;
        }
        // Says whom we see, too, which those who found a group want to know.
        self.steer_join();
        if !self.may_form() {
            self.timers.cancel(Timer::Settle);
            return;
        }
        let outside = |n: &NodeId| {
            *n == self.me().node || self.peers.up_on(*n).is_some_and(|m| self.is_outside(m))
        };
        let all = self.config.nodes.iter().all(outside);
        if all && self.outsiders_see_each_other() {
            self.form(now);
        } else if (all || self.config.durable)
            && matches!(self.attempt, Attempt::Idle)
            && !self.timers.armed(Timer::Takeover)
        {
            self.timers.arm(Timer::Settle, now + self.config.settle);
        }
    }

    /// Whether every pair of those outside has its link. We may be linked with both ends of a link that is just coming
    /// up: a view founded in that instant would lose one of them at once.
    fn outsiders_see_each_other(&self) -> bool {
        let outside: Vec<Member> =
            self.peers.ups().map(|(m, _)| m).filter(|m| self.is_outside(*m)).collect();
        outside.iter().all(|m| {
            self.peers.linked(*m).and_then(|p| p.join.as_ref()).is_some_and(|j| {
                j.sees.contains(&self.me()) && outside.iter().all(|o| o == m || j.sees.contains(o))
            })
        })
    }

    /// Whether a linked peer stands outside, and knows of no later view than we.
    fn is_outside(&self, member: Member) -> bool {
        self.peers.linked(member).and_then(|p| p.announce.as_ref()).is_some_and(|a| {
            a.standing == Standing::Outside && a.decided.view.id == self.current.id
        })
    }

    /// The nodes of the current view that stand outside together, ourselves included.
    fn outsiders(&self) -> u64 {
        let own = if self.votes() { self.current.node_bit(self.me().node) } else { 0 };
        let votes = |m: Member| {
            self.peers.linked(m).and_then(|p| p.announce.as_ref()).is_some_and(|a| a.votes)
        };
        let outside = self.peers.ups().filter(|(m, _)| self.is_outside(*m) && votes(*m));
        outside.fold(own, |mask, (m, _)| mask | self.current.node_bit(m.node))
    }

    /// Whether those outside are enough to restart the group.
    fn may_form(&self) -> bool {
        self.standing == Standing::Outside
            && !self.leaving
            && self.votes()
            && !self.hears_group()
            && self.decides(self.outsiders())
    }

    /// The group is to be restarted: by us if we lead, else somebody should be at it.
    fn form(&mut self, now: Time) {
        if !matches!(self.attempt, Attempt::Idle) || self.timers.armed(Timer::Backoff) {
            return;
        }
        let leader = ranks(self.outsiders()).map(|r| self.current.members[r].node).min();
        if leader == Some(self.me().node) && !self.other_at_work() {
            self.propose(now);
        } else {
            self.await_takeover(now, false);
        }
    }

    // --- the proposer ---

    fn propose(&mut self, now: Time) {
        let able = self.standing == Standing::Member || self.may_form();
        if !able || !self.votes() || !self.decides(self.present()) {
            return;
        }
        self.timers.cancel(Timer::Takeover);
        self.timers.cancel(Timer::Settle);
        self.timers.set(Timer::Attempt, now + self.config.takeover);
        let ballot = Ballot { round: self.acceptor.round() + 1, by: self.me() };
        self.attempt = Attempt::Preparing { ballot, promises: Vec::new(), late: false };
        let view = self.current.id;
        self.broadcast(&Control::Prepare { view, ballot });
        self.on_prepare(now, self.me(), view, ballot).expect("own proposals are well-formed");
    }

    /// Says the proposal again: to whoever got a new link in between.
    pub(super) fn restate_attempt(&mut self) {
        let view = self.current.id;
        match &self.attempt {
            Attempt::Idle => {}
            Attempt::Preparing { ballot, .. } => {
                self.broadcast(&Control::Prepare { view, ballot: *ballot })
            }
            Attempt::Accepting { ballot, value } => {
                let (ballot, value) = (*ballot, value.clone());
                self.broadcast(&Control::Accept { view, ballot, value });
            }
        }
    }

    pub(super) fn on_promise(&mut self, from: Member, promise: Promise) -> Result<(), Malformed> {
        let bit = self.current.node_bit(from.node);
        let Attempt::Preparing { ballot, promises, .. } = &mut self.attempt else { return Ok(()) };
        if promise.view != self.current.id || promise.ballot != *ballot || bit == 0 {
            return Ok(());
        }
        let in_it =
            |words: &Final| self.current.contains(from) && words.received.view() == self.current.id;
        if promise.farewell.as_ref().is_some_and(|f| !in_it(&f.words)) {
            return Err(Malformed("farewell to a view it is not in"));
        }
        if promise.accepted.as_ref().is_some_and(|a| a.1.view.id != self.current.id.next()) {
            return Err(Malformed("accepted a view that does not follow"));
        }
        promises.retain(|(m, _)| m.node != from.node);
        promises.push((from, promise));
        Ok(())
    }

    pub(super) fn on_nack(&mut self, now: Time, view: ViewId, rejected: Ballot, promised: Ballot) {
        if view != self.current.id || rejected.by != self.me() {
            return;
        }
        let ours = match &self.attempt {
            Attempt::Idle => None,
            Attempt::Preparing { ballot, .. } | Attempt::Accepting { ballot, .. } => Some(*ballot),
        };
        if ours == Some(rejected) && promised > rejected {
            self.acceptor.raise(promised.round);
            self.give_up(now);
        }
    }

    /// Our attempt came to nothing: another after a pause.
    fn give_up(&mut self, now: Time) {
        self.attempt = Attempt::Idle;
        self.failures += 1;
        let pause = self.config.retry * (1 << self.failures.min(4)) / 4;
        let at = now + pause / 2 + self.jitter(pause);
        self.timers.cancel(Timer::Attempt);
        self.timers.set(Timer::Backoff, at);
    }

    fn steer_attempt(&mut self, now: Time) {
        let Attempt::Preparing { ballot, promises, late } = &self.attempt else { return };
        let (ballot, late) = (*ballot, *late);
        let have = promises.iter().fold(0, |mask, (m, _)| mask | self.current.node_bit(m.node));
        let mut missing = self.present() & !have;
        if self.bug(Bug::WaitsForFrozen) {
            missing |= mask(&self.current, |m| self.peers.certain(*m).is_none()) & !have;
        }
        if !self.decides(have) {
            if late {
                self.give_up(now);
            }
            return;
        }
        if missing != 0 && (!late || self.bug(Bug::WaitsForFrozen)) {
            return;
        }
        let promises = promises.clone();
        let Some(value) = self.choose(&promises) else {
            self.give_up(now);
            return;
        };
        self.attempt = Attempt::Accepting { ballot, value: value.clone() };
        self.timers.set(Timer::Attempt, now + self.config.lease + self.config.takeover);
        let view = self.current.id;
        self.broadcast(&Control::Accept { view, ballot, value: value.clone() });
        if self.on_accept(now, self.me(), view, ballot, value).is_err() {
            // A value accepted by somebody who should not have: not ours to complete.
            self.give_up(now);
        }
    }

    // --- saying why nothing happens ---

    fn steer_blocked(&mut self, now: Time) {
        if self.standing == Standing::Gone || self.installing.is_some() {
            return;
        }
        let member = self.standing == Standing::Member;
        let patient = !member && self.timers.armed(Timer::Patience);
        let no_quorum = !self.decides(self.present());
        if member || no_quorum {
            self.met = false;
            self.timers.cancel(Timer::Meeting);
        } else if !self.met {
            self.met = true;
            self.timers.set(Timer::Meeting, now + self.config.settle * 2);
        }
        let owed = if member || no_quorum { None } else { self.shortfall(&[], self.decided.owed) };
        let stuck = (no_quorum || owed.is_some()) && (member || !self.hears_group());
        if stuck && owed.is_some() && self.timers.armed(Timer::Meeting) {
            // What is owed may be here, untold. Nobody is asked yet to give it up, nor told that all is well again.
            return;
        }
        let reason = (stuck && !patient).then(|| self.reason(member, owed));
        if reason == self.blocked {
            return;
        }
        self.events.push_back(match &reason {
            Some(reason) => Event::Blocked(reason.clone()),
            None => Event::Resumed,
        });
        self.blocked = reason;
    }

    fn reason(&self, member: bool, owed: Option<Shortfall>) -> BlockedReason {
        let present = self.present();
        let mut reason = BlockedReason {
            view: self.current.id,
            member,
            present: Vec::new(),
            missing: Vec::new(),
            forgetful: Vec::new(),
            owed,
        };
        for (r, node) in self.current.nodes().enumerate() {
            let linked = node == self.me().node
                || self
                    .peers
                    .up_on(node)
                    .is_some_and(|m| self.peers.linked(m).is_some_and(|p| p.announce.is_some()));
            if present >> r & 1 == 1 {
                reason.present.push(node);
            } else if linked {
                reason.forgetful.push(node);
            } else {
                reason.missing.push(node);
            }
        }
        if owed.is_some() {
            let elsewhere = self.config.nodes.iter().copied().filter(|n| {
                self.current.on_node(*n).is_none()
                    && *n != self.me().node
                    && self.peers.up_on(*n).is_none()
            });
            reason.missing.extend(elsewhere);
        }
        reason
    }
}

/// The ranks whose member satisfies `test`.
pub(super) fn mask(view: &View, test: impl Fn(&Member) -> bool) -> u64 {
    view.members.iter().enumerate().fold(0, |mask, (r, m)| mask | u64::from(test(m)) << r)
}
