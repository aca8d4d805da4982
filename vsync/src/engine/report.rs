//! The read lease, and the status for people.

use quintet_transport::Time;

use super::quorum::reached_by_quorum;
use super::sweep::{End, Engine};
use crate::core::{MAX_MEMBERS, Standing};
use crate::status::{Counters, State, Status};

impl Engine {
    /// The read lease: a quorum has confirmed to have heard from this node at or after some instant, and whoever could
    /// remove it waits a lease from then.
    ///
    /// Only links of this view count, alive or dead: a link that came up again between the same two members may
    /// confirm what the other one, having fenced us, will not wait for.
    pub(crate) fn update_lease(&mut self) {
        let mask = self.core.lease_ranks();
        let Some(view) = self.core.view().filter(|_| mask != 0) else {
            if self.lease.ranks != 0 {
                self.lease.ranks = 0;
                self.shared.set_lease(0);
            }
            return;
        };
        let n = view.members.len();
        let mut confirmed = [0u64; MAX_MEMBERS];
        for (rank, member) in view.members.iter().enumerate() {
            if mask >> rank & 1 == 1 {
                confirmed[rank] = if *member == self.me {
                    // This node decides nothing against itself.
                    u64::MAX
                } else {
                    self.links.of_rank(rank).map_or(0, |l| self.poller.confirmed(l.id).as_nanos())
                };
            }
        }
        if mask == self.lease.ranks && confirmed[..n] == self.lease.confirmed[..n] {
            return;
        }
        let until = match reached_by_quorum(&confirmed[..n], |ranks| view.quorum(ranks)) {
            None | Some(0) => 0,
            Some(at) => at.saturating_add(self.lease_ns),
        };
        self.lease.ranks = mask;
        self.lease.confirmed = confirmed;
        self.shared.set_lease(until);
    }

    pub(crate) fn publish_status(&mut self, now: Time) {
        let state = match &self.end {
            Some(End::Evicted(_)) => State::Evicted,
            Some(End::Left) => State::Left,
            Some(End::Stopped) => State::Stopped,
            Some(End::Failed(why)) => State::Failed(why.clone()),
            None => match (self.core.blocked(), self.core.standing()) {
                (Some(reason), _) => State::Blocked(reason.clone()),
                (None, Standing::Member) if self.outbox.is_gated() => State::Learner,
                (None, Standing::Member) => State::Member,
                (None, Standing::Learner) => State::Learner,
                (None, Standing::Outside) => State::Outside,
                (None, Standing::Gone) => State::Evicted,
            },
        };
        self.shared.set_status(Status {
            at: now,
            me: self.me,
            state,
            view: self.core.view().cloned(),
            links: self.poller.links(),
            parking: self.poller.parking().into_owned(),
            udp: self.poller.udp().cloned(),
            counters: self.figures(),
            history: self.history.clone(),
        });
    }

    /// The counters as they are shown.
    pub(crate) fn figures(&self) -> Counters {
        let mut counters = self.counters;
        counters.queue_full = self.outbox.full_count;
        counters.control += self.control.sent;
        counters.nulls = self.row.next.saturating_sub(self.counters.sent);
        counters
    }
}
