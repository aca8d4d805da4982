//! What the application on a node does: sends, reads, syncs its journal, acknowledges, applies what it is given.

use quintet_vsync::core::{Position, Standing};

use crate::app::Entry;
use crate::env::{Env, Event, Input};
use crate::link::State;
use crate::plan::{Fault, MS, US};
use crate::process::{LEASE, LEASE_MARGIN, Process, Upcall};
use crate::transfer::Donation;

/// Messages an application has committed and not yet published, at most.
const MOST_COMMITTED: usize = 64;

impl Process {
    /// One look of the application at its queue, its clients and its disk.
    pub(crate) fn work(&mut self, env: &mut Env) {
        self.load(env);
        self.apply(env);
        self.send(env);
        self.sync(env);
        self.acknowledge(env);
    }

    /// Takes what the engine has for the application. A learner gets nothing before its donor has finished.
    fn apply(&mut self, env: &mut Env) {
        if self.loading.is_some() {
            return;
        }
        while let Some(upcall) = self.queue.pop_front() {
            match upcall {
                Upcall::View(view) => {
                    let verdict = env.checks.synchrony.start(self.me, &view, self.app.state());
                    env.checks.note(verdict);
                    if view.joined.contains(&self.me) {
                        let history: Vec<(u64, u64)> = self.app.messages().collect();
                        if env.plan.faults.has(Fault::Power) && view.founded {
                            let founded = env.checks.views.founded();
                            env.checks.durable.forgive(&history, &founded);
                        }
                        let verdict = env.checks.durable.holds(self.me, &history, view.id << 40);
                        env.checks.note(verdict);
                    }
                    for donation in &mut self.donations {
                        if view.joined.contains(&donation.learner) {
                            donation.finish = Some((view.id, self.app.history().len()));
                        }
                    }
                    self.app.push(Entry::mark(view.id), &env.checks.order);
                }
                Upcall::Message { position, message, sender, end } => {
                    let expected = self.app.push(Entry { position, message }, &env.checks.order);
                    let verdict = env.checks.order.fifo(self.me, message, expected);
                    env.checks.note(verdict);
                    self.consumed.insert(sender, end);
                    if sender == self.me {
                        let verdict =
                            env.checks.outcome.tell(self.boot, self.me, message, position);
                        env.checks.note(verdict);
                        self.own_done.push_back((end, position));
                        self.app.unacknowledged.insert((position, message));
                        self.app.incomplete.insert(position);
                    }
                }
                Upcall::Donate(learner) => {
                    self.donations.retain(|d| d.learner != learner);
                    self.donations.push(Donation::new(learner, self.app.history().len()));
                }
            }
        }
    }

    fn send(&mut self, env: &mut Env) {
        if env.quiet || env.now < self.send_at {
            return;
        }
        let every = env.plan.send_every;
        self.send_at = env.now + env.tapes.work.range(every / 4, every * 2);
        if self.core.standing() != Standing::Member || self.leaving {
            return;
        }
        let burst = if env.tapes.work.below(8) == 7 { env.tapes.work.range(2, 20) } else { 1 };
        for _ in 0..burst {
            if self.committed.len() >= MOST_COMMITTED {
                return;
            }
            let message = env.checks.order.send(self.me);
            let len = env.tapes.work.range(1, env.plan.payload) as u32;
            env.checks.outcome.send(self.boot, message);
            self.committed.push_back((message, len));
        }
    }

    /// Starts a sync of the journal if one is due.
    fn sync(&mut self, env: &mut Env) {
        // A learner's old journal may be the only place where something acknowledged is on disk: the snapshot replaces it
        // when this node is a member, not before (the donor may know less, on its own disk, than we did on ours).
        if self.loading.is_some() || !self.app.dirty() {
            return;
        }
        let upto = self.app.history().len();
        self.app.syncing = Some(upto);
        let delay = match if env.healed { 0 } else { env.plan.strength(Fault::Writes) } {
            0 => env.tapes.store.range(100 * US, MS),
            1 => env.tapes.store.tail(MS, 10 * MS),
            2 => env.tapes.store.tail(MS, 40 * MS),
            _ => env.tapes.store.tail(2 * MS, 150 * MS),
        };
        env.schedule(env.now + delay, Event::Input(self.boot, Box::new(Input::Synced(upto))));
    }

    /// A sync ended.
    pub(crate) fn synced(&mut self, upto: usize, env: &mut Env) {
        if self.app.syncing != Some(upto) {
            return;
        }
        self.app.sync(&mut env.seat(self.me.node.0).journal, upto);
        self.core.report_persisted(Position(self.app.persisted()));
    }

    /// Tells clients which of their writes are durable, and notes which are complete everywhere.
    fn acknowledge(&mut self, env: &mut Env) {
        if self.core.standing() != Standing::Member {
            return;
        }
        let durable = self.core.persisted_by_quorum().0;
        while let Some(&(position, message)) = self.app.unacknowledged.first() {
            if position >= durable {
                break;
            }
            self.app.unacknowledged.pop_first();
            env.checks.durable.acknowledge(position, message, self.view);
        }
        let mut everywhere = self.words[2];
        for member in self.members.iter().filter(|&&m| m != self.me) {
            let side = self.sides.get(&member.node.0).filter(|s| s.peer == *member);
            everywhere = everywhere.min(side.map_or(0, |s| s.words[2]));
        }
        while let Some(&position) = self.app.incomplete.first() {
            if position >= everywhere {
                break;
            }
            self.app.incomplete.pop_first();
            env.checks.lease.complete(position);
        }
    }

    /// Now and then a client reads. The lease is checked after the read: at once, or when the process gets to it.
    pub(crate) fn read(&mut self, env: &mut Env) {
        if self.core.standing() != Standing::Member
            || self.loading.is_some()
            || !self.queue.is_empty()
        {
            return;
        }
        if env.tapes.work.below(8) != 7 {
            return;
        }
        let (floor, applied) = (env.checks.lease.begin(), self.app.applied());
        if env.tapes.work.below(2) == 0 {
            self.answer(floor, applied, env);
        } else {
            let at = env.now + env.tapes.work.tail(10 * US, 5 * MS);
            env.schedule(
                at,
                Event::Input(self.boot, Box::new(Input::CheckRead { floor, applied })),
            );
        }
    }

    /// The lease check of a read that was done before.
    pub(crate) fn answer(&mut self, floor: u64, applied: u64, env: &mut Env) {
        let now = env.local(self.me.node.0).as_nanos();
        let fresh = |member| {
            member == self.me
                || self.sides.get(&quintet_node(member)).is_some_and(|s| {
                    s.peer == member
                        && s.state == State::Up
                        && s.confirmed + LEASE - LEASE_MARGIN > now
                })
        };
        if !self.leaving && self.over.is_none() && self.core.lease_valid(fresh) {
            let judged = !env.plan.faults.has(Fault::Step);
            env.trace.step(
                env.now,
                [50, self.boot as u64, floor, applied],
                format_args!("{} answers a read from {}", self.me, crate::check::show(applied)),
            );
            let verdict = env.checks.lease.answer(self.me, floor, applied, judged);
            env.checks.note(verdict);
        } else {
            env.checks.lease.refuse();
        }
    }
}

fn quintet_node(member: quintet_transport::Member) -> u16 {
    member.node.0
}
