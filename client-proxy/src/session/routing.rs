//! Which manager gets the calls: connections, views, the choice of a route and the replay when it changes.

use super::{
    Action, LinkId, Report, Session, Time, Violation, doubled,
    managers::{Manager, Phase, Up, contains},
};
use crate::wire::{
    Farewell, Frame, Goodbye, Member, Reason, Text, View, Welcome, limits::MEMBERS_MAX,
};

impl<T> Session<T> {
    pub(super) fn welcome(
        &mut self,
        now: Time,
        at: usize,
        link: LinkId,
        welcome: Welcome,
    ) -> Result<(), Violation> {
        let member = welcome.member;
        let twin =
            self.managers.iter().position(|other| other.up().is_some_and(|up| up.member == member));
        if let Some(twin) = twin {
            // Two addresses of one manager: one connection is enough.
            let goodbye =
                Goodbye { reason: Farewell::Leaving, message: "connected already".into() };
            self.actions.push_back(Action::Send { link, frame: Frame::Goodbye(goodbye) });
            self.actions.push_back(Action::Close { link });
            self.managers[at].phase = Phase::Alias { of: member };
            self.managers[at].failures = 0;
            self.managers[at].trouble =
                Some(format!("same manager as {}", self.managers[twin].address).into());
            return Ok(());
        }
        let manager = &mut self.managers[at];
        manager.failures = 0;
        manager.trouble = None;
        manager.phase = Phase::Up(Up {
            link,
            member,
            view: 0,
            primary: false,
            draining: false,
            shunned: None,
            refusals: 0,
            heard: true,
            silent: 0,
        });
        if self.tick.is_none() {
            self.tick = Some(now + self.config.ping);
            self.wake_at(now + self.config.ping);
        }
        self.report(Report::Connected { member, address: self.managers[at].address.clone() });
        self.hear_view(now, at, welcome.view)
    }

    /// A manager said which view it is in.
    pub(super) fn hear_view(&mut self, now: Time, at: usize, view: View) -> Result<(), Violation> {
        let up = self.managers[at].up_mut().expect("asked of greeted managers only");
        let member = up.member;
        if view.primary && !contains(&view, member) {
            return Err(Violation(format!(
                "{member} says it is primary in view {}, which it is not in",
                view.id
            )));
        }
        up.view = view.id;
        up.primary = view.primary;
        if view.primary {
            up.shunned = None;
            up.refusals = 0;
        }
        let known = self.view.as_ref().map_or(0, |known| known.id);
        if view.primary && (self.view.is_none() || view.id > known || self.is_afresh(&view)) {
            self.adopt(now, view);
        } else if self.view.is_none() || view.id >= known {
            self.learn(now, &view);
        }
        let why = match &self.view {
            Some(view) => format!("view {}", view.id),
            None => "no primary view".into(),
        };
        self.reroute(now, &why);
        Ok(())
    }

    /// A primary view with a smaller number than the one known is old news, unless everybody in it began to run after
    /// everybody ever seen, and nobody of the view known is there: then the cluster lost its records and was begun
    /// afresh.
    fn is_afresh(&self, view: &View) -> bool {
        let Some(known) = &self.view else { return true };
        view.id < known.id
            && view.members.iter().all(|entry| {
                self.incarnations
                    .get(&entry.member.node)
                    .is_none_or(|seen| entry.member.incarnation > *seen)
            })
            && !self.managers.iter().filter_map(Manager::up).any(|up| contains(known, up.member))
    }

    fn adopt(&mut self, now: Time, view: View) {
        let before = self.view.take();
        if before.as_ref().is_some_and(|before| before.id > view.id) {
            self.position = 0; // Positions of the cluster that was mean nothing in the one that is.
        }
        for entry in &view.members {
            let seen = self.incarnations.entry(entry.member.node).or_default();
            *seen = entry.member.incarnation.max(*seen);
        }
        // Whoever was removed may be paused or cut off without knowing. Nothing it says counts any more.
        let removed = |member: Member| {
            !contains(&view, member)
                && before.as_ref().is_some_and(|before| contains(before, member))
        };
        let reason = format!("removed in view {}", view.id);
        for at in 0..self.managers.len() {
            if let Some(link) =
                self.managers[at].up().filter(|up| removed(up.member)).map(|up| up.link)
            {
                self.actions.push_back(Action::Close { link });
                self.lose(now, at, &reason);
            }
        }
        self.learn(now, &view);
        self.counters.views += 1;
        self.report(Report::View {
            id: view.id,
            members: view.members.iter().map(|entry| entry.member).collect(),
        });
        self.view = Some(view);
        self.forget_departed();
    }

    /// Adds the addresses of a view to those known, and tries at once those that are waited with: who is in a view is
    /// alive.
    fn learn(&mut self, now: Time, view: &View) {
        for entry in &view.members {
            let room = self.managers.len() < 2 * MEMBERS_MAX && !entry.address.is_empty();
            match self.managers.iter_mut().find(|manager| manager.address == entry.address) {
                Some(Manager { phase: Phase::Idle { until }, failures, .. }) => {
                    *until = now;
                    *failures = 0;
                }
                None if room => self.managers.push(Manager::new(entry.address.clone(), false, now)),
                _ => {}
            }
        }
        self.wake_at(now);
    }

    /// Forgets addresses that came with a view, are not in the present one, and lead nowhere.
    fn forget_departed(&mut self) {
        let Some(view) = &self.view else { return };
        self.managers.retain(|manager| {
            manager.seed
                || manager.link().is_some()
                || view.members.iter().any(|entry| entry.address == manager.address)
        });
    }

    pub(super) fn farewell(&mut self, now: Time, at: usize, link: LinkId, goodbye: &Goodbye) {
        let why = format!("manager said goodbye ({:?}): {}", goodbye.reason, goodbye.message);
        match (goodbye.reason, self.managers[at].up_mut()) {
            // It still answers what it has; new calls and copies go elsewhere.
            (Farewell::Draining, Some(up)) => up.draining = true,
            _ => {
                self.actions.push_back(Action::Close { link });
                self.lose(now, at, &why);
            }
        }
        self.reroute(now, &why);
    }

    /// A manager that does not take calls is passed over until it says that it is primary, or for a while.
    pub(super) fn shun(&mut self, now: Time, at: usize, reason: Reason) {
        let jitter = self.jitter();
        let (first, longest) = self.config.retry;
        if let Some(up) = self.managers[at].up_mut() {
            if reason == Reason::Draining {
                up.draining = true;
            } else if up.shunned.is_none() {
                let until = now + doubled(first, up.refusals, longest).mul_f64(jitter);
                up.shunned = Some(until);
                up.refusals += 1;
                self.wake_at(until);
            }
        }
        let why = match reason {
            Reason::Draining => "manager refused: it is stopping",
            Reason::Starting => "manager refused: it is starting",
            _ => "manager refused: not primary",
        };
        self.reroute(now, why);
    }

    /// The connection to a manager is gone.
    pub(super) fn lose(&mut self, now: Time, at: usize, why: &str) {
        let jitter = self.jitter();
        let (first, longest) = self.config.retry;
        let manager = &mut self.managers[at];
        let lost = manager.up().map(|up| up.member);
        let until = now + doubled(first, manager.failures, longest).mul_f64(jitter);
        manager.failures += 1;
        manager.phase = Phase::Idle { until };
        let news = manager.trouble.as_deref() != Some(why);
        manager.trouble = Some(why.into());
        let address = manager.address.clone();
        self.wake_at(until);
        if let Some(member) = lost {
            for other in &mut self.managers {
                if other.phase == (Phase::Alias { of: member }) {
                    other.phase = Phase::Idle { until: now };
                }
            }
            self.wake_at(now);
            self.report(Report::Disconnected { member, address, why: why.into() });
        } else if news {
            self.report(Report::Unreachable { address, why: why.into() });
        }
    }

    /// Keeps the route while it is good, else takes the best there is and gives it everything unanswered.
    pub(super) fn reroute(&mut self, now: Time, why: &str) {
        let view = self.view.as_ref();
        let kept = self.route.filter(|route| {
            self.managers
                .iter()
                .any(|manager| manager.link() == Some(*route) && manager.eligible(view))
        });
        let route = kept.or_else(|| {
            let eligible = self.managers.iter().filter(|manager| manager.eligible(view));
            let best = eligible.max_by_key(|manager| self.preference(manager));
            best.and_then(Manager::link)
        });
        if route == self.route {
            return;
        }
        let from = self.routed.take();
        self.route = route;
        let to = route.and_then(|route| self.member_at(route));
        self.routed = to;
        let mut replayed = 0;
        if let Some(route) = route {
            let unanswered: Vec<(u64, bool)> = self
                .calls
                .iter()
                .filter(|(_, pending)| pending.on != Some(route))
                .map(|(seq, pending)| (seq, pending.copies > 0))
                .collect();
            for (seq, again) in unanswered {
                self.send(now, route, seq);
                replayed += u64::from(again);
            }
        }
        self.counters.replays += replayed;
        if from.is_some() {
            self.counters.reroutes += 1;
        }
        self.report(Report::Rerouted { from, to, why: why.into(), replayed });
    }

    /// Same machine first; then by a hash, so that clients spread over the managers and stay where they are.
    fn preference(&self, manager: &Manager) -> (bool, u64) {
        let node = manager.up().map_or(0, |up| u64::from(up.member.node));
        let mixed = (self.config.entropy ^ node.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .wrapping_mul(0xff51_afd7_ed55_8ccd);
        (manager.address.starts_with("unix:"), mixed ^ (mixed >> 32))
    }

    pub(super) fn member_at(&self, link: LinkId) -> Option<Member> {
        self.managers.iter().filter_map(Manager::up).find(|up| up.link == link).map(|up| up.member)
    }

    /// Dials, pings, and gives up what takes too long.
    pub(super) fn tend_managers(&mut self, now: Time) {
        let mut choose_again = None;
        for at in 0..self.managers.len() {
            match &mut self.managers[at].phase {
                Phase::Idle { until } if *until <= now => {
                    self.links += 1;
                    let link = LinkId(self.links);
                    let manager = &mut self.managers[at];
                    manager.phase = Phase::Dialing { link, since: now };
                    self.actions.push_back(Action::Dial { link, address: manager.address.clone() });
                    self.wake_at(now + self.config.dial);
                }
                Phase::Idle { until } => {
                    let until = *until;
                    self.wake_at(until);
                }
                Phase::Alias { .. } => {}
                Phase::Dialing { link, since } | Phase::Greeting { link, since } => {
                    let (link, over) = (*link, *since + self.config.dial);
                    if over <= now {
                        self.actions.push_back(Action::Close { link });
                        self.lose(now, at, "no answer to the attempt to connect");
                    } else {
                        self.wake_at(over);
                    }
                }
                Phase::Up(up) => {
                    if let Some(until) = up.shunned {
                        if until <= now {
                            up.shunned = None;
                            choose_again = Some("tried again after a refusal");
                        } else {
                            self.wake_at(until);
                        }
                    }
                }
            }
        }
        if self.tick.is_some_and(|tick| tick <= now) && self.ping(now) {
            choose_again = Some("manager does not answer pings");
        }
        if let Some(tick) = self.tick {
            self.wake_at(tick);
        }
        self.forget_departed();
        if let Some(why) = choose_again {
            self.reroute(now, why);
        }
    }

    /// Asks the silent for a sign of life, gives up those that were asked often enough; true if one was given up.
    fn ping(&mut self, now: Time) -> bool {
        let mut lost = false;
        let mut connected = false;
        for at in 0..self.managers.len() {
            let silent_max = self.config.silent_max;
            let Some(up) = self.managers[at].up_mut() else { continue };
            let link = up.link;
            up.silent = if up.heard { 0 } else { up.silent + 1 };
            let heard = std::mem::take(&mut up.heard);
            if up.silent > silent_max {
                self.actions.push_back(Action::Close { link });
                self.lose(now, at, "manager does not answer pings");
                lost = true;
                continue;
            }
            connected = true;
            if !heard {
                self.actions.push_back(Action::Send { link, frame: Frame::Ping(now.as_nanos()) });
            }
        }
        self.tick = connected.then(|| now + self.config.ping);
        lost
    }

    /// Why calls do not get through, for people.
    pub(super) fn hindrance(&self) -> String {
        if let Some(member) = self.route.and_then(|route| self.member_at(route)) {
            return format!("manager {member} is in charge");
        }
        let up: Vec<String> =
            self.managers.iter().filter_map(Manager::up).map(|up| up.member.to_string()).collect();
        if up.is_empty() {
            let tried: Vec<&str> = self.managers.iter().map(|manager| &*manager.address).collect();
            let why = self
                .managers
                .iter()
                .find_map(|manager| manager.trouble.as_deref())
                .unwrap_or("not tried yet");
            return format!("no manager can be reached (tried {}: {why})", tried.join(", "));
        }
        format!("no manager is in a primary view (connected to {})", up.join(", "))
    }

    pub(super) fn report(&mut self, report: Report) {
        self.actions.push_back(Action::Report(report));
    }
}

impl Report {
    /// `n1`, or `nobody`.
    pub(super) fn name(member: Option<Member>) -> Text {
        member.map_or(Text::from_static("nobody"), |member| member.to_string().into())
    }
}
