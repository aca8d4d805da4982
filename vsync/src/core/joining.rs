//! Learners: how a node that stands outside gets state, and then a place in the view.
//!
//! **Problem.** A newcomer needs gigabytes of state; the group must not stop while it gets them, and many may come
//! at once (a whole rack restarts).
//!
//! **Naive answer.** Take it into the view, then send it the state: the group waits for its slowest member, and if
//! the donor dies half-way there is a member that knows nothing.
//!
//! **Algorithm.** A node outside asks everybody it hears (`Join`). The coordinator names a donor (`Donate`), the
//! highest rank that is not busy. The learner takes the first donor named and says so; only then the donor begins,
//! so two coordinators cannot make two donors send to one learner. The learner follows the donor's deliveries, says
//! that it is ready, and joins in an ordinary view change, all that are ready in one. Its last gap closes inside the
//! wedge: it is handed its first view after the donor has sent everything up to the trim. If the donor goes before
//! that, the learner has half a state and is of no use: it starts over as a new incarnation.

use std::collections::BTreeMap;

use quintet_transport::{Member, Time};

use super::codec::{Control, Join};
use super::timers::Timer;
use super::view::View;
use super::{Core, Event, Standing};

/// Both sides of joining.
#[derive(Debug, Default)]
pub(super) struct Joining {
    /// At a learner: who sends the state.
    pub(super) donor: Option<Member>,
    /// At a learner: it has loaded.
    pub(super) ready: bool,
    /// What we asked for last.
    asked: Option<Join>,
    /// At a coordinator: donors named, not yet confirmed by the learner.
    named: BTreeMap<Member, Member>,
    /// At a donor: learners that were handed to the application.
    donating: Vec<Member>,
    /// Learners waited long enough for each other.
    batch_over: bool,
    /// Learners that somebody could not see were left out: no new attempt before this.
    hold: Option<Time>,
}

impl Core {
    /// A member of a living group that we hear.
    pub(super) fn hears_group(&self) -> bool {
        self.peers.ups().any(|(_, p)| {
            let lives = |a: &super::codec::Announce| {
                a.standing == Standing::Member && a.decided.view.id >= self.current.id
            };
            p.announce.as_ref().is_some_and(lives)
        })
    }

    /// Outside: asks to join, whenever there is something new to say.
    pub(super) fn steer_join(&mut self) {
        let sees = self.peers.ups().map(|(m, _)| m).collect();
        let join = Join { donor: self.joining.donor, ready: self.joining.ready, sees };
        if self.joining.asked.as_ref() != Some(&join) {
            self.broadcast(&Control::Join(join.clone()));
            self.joining.asked = Some(join);
        }
    }

    pub(super) fn restate_join(&mut self) {
        if let Some(join) = self.joining.asked.clone() {
            self.broadcast(&Control::Join(join));
        }
    }

    pub(super) fn on_join(&mut self, from: Member, join: Join) {
        let mine =
            self.standing == Standing::Member && join.donor == Some(self.me()) && !join.ready;
        if mine && !self.joining.donating.contains(&from) {
            self.joining.donating.push(from);
            self.events.push_back(Event::Donate { learner: from });
        }
        if join.donor.is_some() {
            self.joining.named.remove(&from);
        }
        if let Some(peer) = self.peers.linked_mut(from) {
            peer.join = Some(join);
        }
    }

    pub(super) fn on_donate(&mut self, learner: Member, donor: Member) {
        let names_a_member = self.peers.linked(donor).and_then(|p| p.announce.as_ref());
        let lives = names_a_member.is_some_and(|a| a.standing == Standing::Member);
        if learner == self.me()
            && self.standing == Standing::Outside
            && lives
            && self.joining.donor.is_none()
        {
            self.standing = Standing::Learner;
            self.joining.donor = Some(donor);
            self.announce();
            self.events.push_back(Event::Load { donor });
        }
    }

    /// Coordinator: names a donor for everybody who asks for one.
    pub(super) fn steer_donors(&mut self, now: Time) {
        let waiting: Vec<(Member, Vec<Member>)> = self
            .peers
            .ups()
            .filter(|(m, _)| !self.current.contains(*m) && !self.peers.barred(*m))
            .filter_map(|(m, p)| {
                p.join.as_ref().filter(|j| j.donor.is_none()).map(|j| (m, j.sees.clone()))
            })
            .collect();
        for (learner, sees) in waiting {
            let usable = |m: &Member| *m == self.me() || self.peers.is_up(*m) && !self.has_lost(*m);
            if self.joining.named.get(&learner).is_some_and(usable)
                && self.timers.armed(Timer::Donate)
            {
                continue;
            }
            let load = |m: &Member| {
                let confirmed = self
                    .peers
                    .ups()
                    .filter(|(_, p)| p.join.as_ref().is_some_and(|j| j.donor == Some(*m)));
                confirmed.count()
                    + self.joining.named.iter().filter(|(l, d)| *d == m && **l != learner).count()
            };
            let candidates = self
                .current
                .members
                .iter()
                .filter(|m| sees.contains(m) && usable(m) && !self.leaves(**m));
            // The least busy; among those, the highest rank.
            let Some(donor) = candidates.rev().min_by_key(|m| load(m)).copied() else { continue };
            self.joining.named.insert(learner, donor);
            self.timers.arm(Timer::Donate, now + self.config.retry);
            self.broadcast(&Control::Donate { learner, donor });
        }
    }

    /// Loaded learners that we have a link with.
    pub(super) fn loaded_learners(&self) -> Vec<Member> {
        let loaded =
            |p: &super::peers::Peer| p.join.as_ref().is_some_and(|j| j.ready && j.donor.is_some());
        self.peers
            .ups()
            .filter(|(m, p)| loaded(p) && !self.current.contains(*m) && !self.peers.barred(*m))
            .map(|(m, _)| m)
            .collect()
    }

    /// The donor `learner` named.
    pub(super) fn donor_of(&self, learner: Member) -> Option<Member> {
        self.peers.linked(learner).and_then(|p| p.join.as_ref()).and_then(|j| j.donor)
    }

    /// Whether learners wait that can be taken into the next view.
    pub(super) fn learners_wait(&mut self, now: Time) -> bool {
        if self.joining.hold.is_some_and(|hold| hold > now) {
            return false;
        }
        let stays = |m: &Member| *m == self.me() || self.peers.is_up(*m) && !self.has_lost(*m);
        let fits = |(m, p): &(Member, &super::peers::Peer)| {
            p.join.as_ref().is_some_and(|j| {
                let seen =
                    self.current.members.iter().filter(|m| stays(m)).all(|m| j.sees.contains(m));
                let donor_stays = j
                    .donor
                    .is_some_and(|d| self.current.contains(d) && stays(&d) && !self.leaves(d));
                j.ready
                    && seen
                    && donor_stays
                    && !self.current.contains(*m)
                    && !self.peers.barred(*m)
            })
        };
        if !self.peers.ups().any(|p| fits(&p)) {
            self.timers.cancel(Timer::Batch);
            self.joining.batch_over = false;
            return false;
        }
        let loading = self.peers.ups().any(|(m, p)| {
            !self.current.contains(m)
                && p.join.as_ref().is_some_and(|j| j.donor.is_some() && !j.ready)
        });
        if loading && !self.joining.batch_over {
            self.timers.arm(Timer::Batch, now + self.config.batch);
            return false;
        }
        true
    }

    /// Learners waited long enough for each other.
    pub(super) fn on_batch(&mut self) {
        self.joining.batch_over = true;
    }

    /// A learner's view of a view it is not in: of no use any more without its donor.
    pub(super) fn donor_gone(&self, view: &View) -> bool {
        self.standing == Standing::Learner && self.joining.donor.is_some_and(|d| !view.contains(d))
    }

    /// A new view: what was arranged in the old one is arranged again where needed.
    pub(super) fn joining_installed(&mut self, now: Time) {
        let left_out = !self.loaded_learners().is_empty();
        self.joining = Joining {
            donating: std::mem::take(&mut self.joining.donating),
            hold: left_out.then(|| now + self.config.retry),
            ..Joining::default()
        };
        let view = self.current.clone();
        let peers = &self.peers;
        self.joining.donating.retain(|m| peers.is_up(*m) && !view.contains(*m));
        self.timers.cancel(Timer::Batch);
        self.timers.cancel(Timer::Donate);
        if left_out {
            self.timers.set(Timer::Donate, now + self.config.retry);
        }
    }
}
