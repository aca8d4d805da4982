//! What the core tells: views, ends, links to open and to close, transfers to begin.
//!
//! Each event is acted on at once and by itself, as the engine does. What is meant for the application (a view, a
//! learner to serve) goes into its queue, behind the messages that were delivered before.

use std::sync::Arc;

use quintet_transport::{Member, Time};
use quintet_vsync::core::{self, View, Why};

use crate::check::{ViewInfo, Violation};
use crate::env::Env;
use crate::link::{Side, State};
use crate::process::{Over, Process, Upcall};
use crate::transfer::{Donation, Loading};

impl Process {
    pub(crate) fn event(&mut self, event: core::Event, env: &mut Env) {
        let now = env.local(self.me.node.0);
        match event {
            core::Event::View { view, .. } => self.install(&view, env),
            core::Event::Blocked(reason) => {
                self.note(env, 41, self.me, format_args!("blocked: {reason}"));
                self.blocked = true;
            }
            core::Event::Resumed => {
                self.note(env, 42, self.me, format_args!("resumed"));
                self.blocked = false;
            }
            core::Event::Evicted(id) => {
                self.note(env, 43, self.me, format_args!("evicted by view {id}"));
                self.end_with(Over::Evicted, env);
            }
            core::Event::Left => {
                self.note(env, 44, self.me, format_args!("left"));
                self.end_with(Over::Left, env);
            }
            core::Event::Donate { learner } => {
                self.note(env, 45, learner, format_args!("donates to {learner}"));
                self.queue.push_back(Upcall::Donate(learner));
            }
            core::Event::Load { donor } => {
                self.note(env, 46, donor, format_args!("loads from {donor}"));
                self.app.clear();
                self.loading = Some(Loading::from(donor));
            }
            core::Event::Fence(member) => {
                self.note(env, 47, member, format_args!("fences {member}"));
                let heard = self.close(member);
                env.checks.words.fence(self.me, member);
                self.core.handle_heard(now, member, heard);
            }
            core::Event::Open { peer, log_position } => {
                self.note(env, 48, peer, format_args!("opens {peer} at {log_position}"));
                self.consumed.insert(peer, log_position);
                self.held.remove(&peer);
                if let Some(side) = self.side_of(peer) {
                    side.open(log_position);
                }
            }
            core::Event::Attach { peer, log_position } => {
                self.note(env, 49, peer, format_args!("attaches {peer} at {log_position}"));
                if log_position < self.reclaimed {
                    let text = format!(
                        "{} attaches {peer} at byte {log_position}, but has reused up to {}",
                        self.me, self.reclaimed
                    );
                    env.checks.note(Err(Violation::new(15, text)));
                }
                if let Some(side) = self.side_of(peer) {
                    side.attach(log_position);
                }
            }
        }
    }

    fn install(&mut self, view: &Arc<View>, env: &mut Env) {
        let info = ViewInfo::of(view);
        self.note(env, 40, self.me, format_args!("installs {view}, base {:?}", view.base));
        self.members.clone_from(&info.members);
        self.view = info.id;
        env.checks.install(self.boot, self.me, &info, &self.undelivered());
        for departure in &view.departed {
            if departure.why != Why::Left {
                self.refused.insert(departure.member);
                self.close(departure.member);
            }
            self.held.remove(&departure.member);
        }
        self.queue.push_back(Upcall::View(info));
    }

    /// Closes the link to an incarnation, also one that is coming up; says when it was heard last.
    fn close(&mut self, member: Member) -> Time {
        self.hellos.retain(|_, hello| hello.0 != member.node.0);
        let mut heard = 0;
        if let Some(side) = self.sides.get_mut(&member.node.0)
            && side.peer == member
        {
            side.die();
            heard = side.heard;
        }
        self.lost_link(member);
        Time::from_nanos(heard)
    }

    fn side_of(&mut self, member: Member) -> Option<&mut Side> {
        self.sides.get_mut(&member.node.0).filter(|s| s.peer == member && s.state == State::Up)
    }

    pub(crate) fn end_with(&mut self, over: Over, env: &mut Env) {
        self.over.get_or_insert(over);
        env.checks.outcome.over(self.boot);
    }

    /// The transfer in either direction over a link that is gone is over.
    pub(crate) fn lost_link(&mut self, peer: Member) {
        self.donations.retain(|d: &Donation| d.learner != peer);
        if self.loading.as_ref().is_some_and(|l| l.donor == peer) {
            self.over.get_or_insert(Over::Stranded);
        }
    }
}
