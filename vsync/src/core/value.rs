//! What to propose: the value somebody may have decided already, else the one the promises imply.
//!
//! **Problem.** A quorum has promised. Perhaps an earlier proposer got its value accepted by a quorum, and some
//! member has installed it, before it died. Perhaps not. From a quorum of promises both must be told apart,
//! although the one node that knows may be dead.
//!
//! **Algorithm** (the heart of Paxos). Two quorums share a node; so if a value was decided, some promise reports it,
//! and none reports another one with a higher ballot. Propose the reported value with the highest ballot as it is,
//! even if it names a dead coordinator or a trim we would not have chosen: the next view can repair the first, and
//! nothing but the same trim can repair the second. If none is reported, nothing was decided, and we are free:
//!
//! * *Somebody's view ends with its words* (a farewell): those are who can survive. Among them, whoever must go by
//!   the matrix of lost links goes, and who asked to leave. The trim is the least prefix received by those who stay;
//!   it is not below anything delivered anywhere, because delivery waited for all. Learners that every one of them
//!   sees come in at the end of the ranks.
//! * *Nobody's does*: all of the view are dead, and its nodes are back without it. Then the state speaks: those whose
//!   application recovered the longest prefix are the new view (equal positions are equal states); the others join
//!   it as learners. A quorum is present, so what a quorum of this view had made durable is in the longest one.
//!   What a quorum of an *earlier* view had made durable need not be: its members may have left since, and
//!   those who stayed may have had it in memory only when they died. Each value therefore says what is *owed*; if
//!   the states that are here fall short of it, the restart waits for somebody who has it and says so, even when all
//!   nodes are here, for a disk may have lost it. Only an operator can give it up ([`Core::recover`]).
//!
//! **What is owed** must cover all that was acknowledged, or a restart loses it, and nothing that no state holds, or a
//! healthy group waits for ever. The furthest that anybody says to have made durable is too much: that may be the
//! state of a node the group was restarted without, and went on from less. So it is the furthest that a *quorum* can
//! have said, counting on those who were not heard; and words from before the group was founded last do not
//! count: the state it was founded with is owed, and what went beyond that is not in its history.

use quintet_transport::{Incarnation, Member};

use super::change::mask;
use super::codec::{Farewell, Promise};
use super::suspicion::{Matrix, ranks};
use super::view::{Departure, MAX_MEMBERS, Origin, Position, Shortfall, Value, View, ViewId, Why};
use super::{Bug, Core, Standing};

impl Core {
    /// The value to propose after these promises of a quorum. `None`: nobody could be in the next view.
    pub(super) fn choose(&self, promises: &[(Member, Promise)]) -> Option<Value> {
        let accepted = promises.iter().filter_map(|(_, p)| p.accepted.as_ref()).max_by_key(|a| a.0);
        if let Some((_, value)) = accepted
            && !self.bug(Bug::ForgetsAccepted)
        {
            return Some(value.clone());
        }
        let farewells: Vec<(Member, &Farewell)> =
            promises.iter().filter_map(|(m, p)| p.farewell.as_ref().map(|f| (*m, f))).collect();
        let owed = self.owed(promises);
        if farewells.is_empty() {
            self.restart(promises, owed)
        } else {
            self.succeed(&farewells, owed)
        }
    }

    /// What may have been acknowledged before the next view.
    fn owed(&self, promises: &[(Member, Promise)]) -> Position {
        let said = |node| promises.iter().find(|(m, _)| m.node == node).map(|(_, p)| p.persisted);
        // A quorum that said so is among those who say so now and those who were not heard.
        let possible = |at: &Position| {
            let ranks = mask(&self.current, |m| said(m.node).is_none_or(|p| p >= *at));
            self.current.quorum(ranks)
        };
        let said = promises.iter().map(|(_, p)| p.persisted);
        let here = said.filter(|at| at.view() >= self.decided.founded && possible(at)).max();
        here.unwrap_or_default().max(self.decided.owed)
    }

    /// The view after the current one, made of those who said farewell to it.
    fn succeed(&self, farewells: &[(Member, &Farewell)], owed: Position) -> Option<Value> {
        let view = &*self.current;
        let me = self.me();
        let mut reports = self.reports();
        for (by, farewell) in farewells {
            reports.extend(
                farewell.lost.iter().filter(|d| view.contains(d.member)).map(|d| (*by, *d)),
            );
        }
        let farewell = |m: &Member| farewells.iter().find(|(x, _)| x == m).map(|(_, f)| *f);
        // Who died since it promised would count against the living in the matrix.
        let here = |m: &Member| *m == me || self.peers.is_up(*m);
        let candidates = mask(view, |m| {
            farewell(m).is_some() && self.certainly(*m, &reports).is_none() && here(m)
        });
        let mut matrix = Matrix::new();
        for (by, d) in &reports {
            if let (Some(a), Some(b)) = (view.rank_of(*by), view.rank_of(d.member)) {
                matrix.cut(a.index(), b.index());
            }
        }
        let able = candidates & !matrix.removal(candidates);
        let willing = able & mask(view, |m| !self.leaves(*m));
        // Somebody must keep the state: of those who all wish to leave, the first stays last.
        let stay = if willing != 0 { willing } else { able & able.wrapping_neg() };
        let survivors: Vec<Member> = ranks(stay).map(|r| view.members[r]).collect();
        let kept: Vec<&Farewell> = survivors.iter().filter_map(farewell).collect();
        let trim = kept.iter().map(|f| f.words.received).min()?;

        let mut joined: Vec<Member> = kept[0].learners.clone();
        joined.retain(|l| {
            let seen = kept.iter().all(|f| f.learners.contains(l));
            let fed = self.donor_of(*l).is_some_and(|d| survivors.contains(&d));
            seen && fed && !view.contains(*l) && survivors.iter().all(|s| s.node != l.node)
        });
        joined.sort_unstable();
        joined.dedup_by_key(|m| m.node);
        joined.truncate(MAX_MEMBERS - survivors.len());

        let departed =
            view.members.iter().enumerate().filter(|(r, _)| stay >> r & 1 == 0).map(|(r, m)| {
                let reported =
                    reports.iter().filter(|(_, d)| d.member == *m).map(|(_, d)| d.why).min();
                let why = if let Some(why) = self.certainly(*m, &reports) {
                    why
                } else if able >> r & 1 == 1 {
                    Why::Left
                } else if farewell(m).is_some() {
                    Why::Cut
                } else {
                    reported.unwrap_or(Why::Silent)
                };
                Departure { member: *m, why }
            });
        let mut base: Vec<u64> = ranks(stay).map(|r| view.base_after(r, trim)).collect();
        base.extend(joined.iter().map(|_| 0));
        let members = survivors.iter().chain(&joined).copied().collect();
        let departed = departed.collect();
        let next =
            View { id: view.id.next(), members, base, joined, departed, origin: Origin::Changed };
        Some(Value { view: next, trim, owed, founded: self.decided.founded })
    }

    /// The view after one of which nobody is alive, made of those outside with the longest state.
    fn restart(&self, promises: &[(Member, Promise)], owed: Position) -> Option<Value> {
        let view = &*self.current;
        let states = self.states(promises);
        let longest = states.iter().map(|s| s.1).max()?;
        let short = self.shortfall(promises, owed).filter(|_| !self.bug(Bug::FoundsBelowOwed));
        if short.is_some() && self.given_up() < Some(owed) {
            return None;
        }
        let mut members: Vec<Member> =
            states.iter().filter(|s| s.1 == longest).map(|s| s.0).collect();
        members.sort_unstable();
        members.dedup_by_key(|m| m.node);
        members.truncate(MAX_MEMBERS);
        let ran = |m: &&Member| m.incarnation != Incarnation(0) && !members.contains(m);
        let departed = view
            .members
            .iter()
            .filter(ran)
            .map(|m| Departure { member: *m, why: self.peers.ended(*m) });
        let origin = match short {
            Some(short) => Origin::RecoveredBelow(short),
            None if view.id == ViewId(0) => Origin::Founded,
            None => Origin::Recovered,
        };
        let next = View {
            id: view.id.next(),
            base: vec![0; members.len()],
            joined: members.clone(),
            departed: departed.collect(),
            members,
            origin,
        };
        let founded = next.id;
        Some(Value { view: next, trim: Position::ZERO, owed: longest, founded })
    }

    /// The whole states of those who stand outside and can be reached: what they promised with, and what others said.
    fn states(&self, promises: &[(Member, Promise)]) -> Vec<(Member, Position)> {
        let mut states: Vec<(Member, Position)> =
            promises.iter().filter_map(|(m, p)| Some((*m, p.state?))).collect();
        if self.standing == Standing::Outside {
            states.push((self.me(), self.state));
        }
        for (m, peer) in self.peers.ups() {
            let outside = peer.announce.as_ref().filter(|a| a.standing == Standing::Outside);
            if let Some(announce) = outside.filter(|a| a.decided.view.id == self.current.id) {
                states.push((m, announce.state));
            }
        }
        states.retain(|(m, _)| *m == self.me() || self.peers.is_up(*m) && !self.peers.barred(*m));
        states
    }

    /// What operators gave up, here or at others that wait with us.
    fn given_up(&self) -> Option<Position> {
        let others = self.peers.ups().filter_map(|(_, p)| p.announce.as_ref());
        let with_us = others.filter(|a| a.decided.view.id == self.current.id);
        with_us.filter_map(|a| a.given_up).chain(self.given_up).max()
    }

    /// What the states here lack of what is owed, if they do.
    pub(super) fn shortfall(
        &self,
        promises: &[(Member, Promise)],
        owed: Position,
    ) -> Option<Shortfall> {
        let states = self.states(promises);
        let (at, longest) = states.iter().max_by_key(|s| (s.1, std::cmp::Reverse(s.0)))?;
        (*longest < owed).then_some(Shortfall { owed, longest: *longest, at: at.node })
    }
}
