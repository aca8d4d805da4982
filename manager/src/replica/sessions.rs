//! Sessions: which clients the replicas remember replies for, and how far their calls have come.
//!
//! A session begins with a client's first call and ends when the client says that it is finished or
//! was not heard of for long. Then its replies are forgotten, and here is the danger: a copy of an
//! old call that comes afterwards (from a client that was cut off, or a manager that was paused)
//! finds no record and would run again. So an ended session leaves a *mark*: the number above the
//! greatest that was ever ordered for it. What is below the mark may have run; it is not run again,
//! and whoever asks is told that its outcome is not known any more. From the mark on, a call is new
//! for certain, and with it the session begins again.
//!
//! How long is "for long"? Clocks of nodes differ, and one that is stepped must not end every quiet
//! session at once. So idleness is counted in ordered *rounds*: the coordinator orders the end of a
//! round when a part of `limits.session_idle_s` has passed on its monotonic clock since it applied
//! the last one. A clock that was set, a node that slept, a night with all nodes off are worth one
//! round at most.

use crate::codec::{Malformed, Reader, Writer};
use crate::limits::{SESSIONS, SESSIONS_ENDED};
use std::collections::BTreeMap;

/// Whole rounds without a sign of the client after which its session ends.
pub const IDLE_ROUNDS: u64 = 4;

/// All clients.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sessions {
    /// Number of the round that runs.
    round: u64,
    open: BTreeMap<u128, Open>,
    /// Clients whose session has ended: when, in endings, and the mark.
    ended: BTreeMap<u128, (u64, u64)>,
    /// The same by when, so that the oldest gives way.
    endings: BTreeMap<u64, u128>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Open {
    /// The round in which the client was active last.
    active: u64,
    /// Above every number ordered so far.
    next: u64,
    /// The mark of the session that ended before this one.
    mark: u64,
}

/// What a call finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// A session: the records say whether the call is new.
    Open,
    /// The session it belongs to has ended: it may have run.
    Ended,
    /// No session, and no room for one.
    Full,
}

impl Sessions {
    /// A call was ordered.
    pub(super) fn call(&mut self, client: u128, seq: u64) -> Standing {
        if !self.open.contains_key(&client) {
            let mark = self.ended.get(&client).map_or(0, |(_, mark)| *mark);
            if seq < mark {
                return Standing::Ended;
            }
            if self.open.len() >= SESSIONS {
                return Standing::Full;
            }
            if let Some((when, _)) = self.ended.remove(&client) {
                self.endings.remove(&when);
            }
            self.open.insert(client, Open { active: self.round, next: mark, mark });
        }
        let session = self.open.get_mut(&client).expect("it was there or was inserted");
        session.active = self.round;
        if seq < session.mark {
            return Standing::Ended;
        }
        session.next = session.next.max(seq.saturating_add(1));
        Standing::Open
    }

    /// The client is there, though it may have nothing to call.
    pub(super) fn renew(&mut self, client: u128) {
        if let Some(session) = self.open.get_mut(&client) {
            session.active = self.round;
        }
    }

    /// The client's session ends; true if it had one.
    pub(super) fn end(&mut self, client: u128) -> bool {
        let Some(session) = self.open.remove(&client) else { return false };
        if self.ended.len() >= SESSIONS_ENDED
            && let Some((_, oldest)) = self.endings.pop_first()
        {
            self.ended.remove(&oldest);
        }
        let when = self.endings.last_key_value().map_or(0, |(last, _)| last + 1);
        self.endings.insert(when, client);
        self.ended.insert(client, (when, session.next));
        true
    }

    /// A round is over, unless another proposal ended it before; gives the clients whose session
    /// ends with it.
    pub(super) fn turn(&mut self, round: u64) -> Vec<u128> {
        if round != self.round {
            return Vec::new();
        }
        self.round += 1;
        let idle = |session: &Open| self.round - session.active > IDLE_ROUNDS;
        let gone: Vec<u128> = self
            .open
            .iter()
            .filter(|(_, session)| idle(session))
            .map(|(client, _)| *client)
            .collect();
        for client in &gone {
            self.end(*client);
        }
        gone
    }

    /// Number of the round that runs.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Sessions that are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True if no session is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u64(self.round).u32(self.open.len() as u32);
        for (client, session) in &self.open {
            w.u128(*client).u64(session.active).u64(session.next).u64(session.mark);
        }
        w.u32(self.endings.len() as u32);
        for (when, client) in &self.endings {
            w.u64(*when).u128(*client).u64(self.ended[client].1);
        }
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Sessions, Malformed> {
        let mut sessions = Sessions { round: r.u64()?, ..Sessions::default() };
        for _ in 0..r.count(40)? {
            let client = r.u128()?;
            let session = Open { active: r.u64()?, next: r.u64()?, mark: r.u64()? };
            if session.active > sessions.round {
                return Err(Malformed("a session from a round to come"));
            }
            sessions.open.insert(client, session);
        }
        for _ in 0..r.count(32)? {
            let (when, client, mark) = (r.u64()?, r.u128()?, r.u64()?);
            let twice = sessions.endings.insert(when, client).is_some()
                | sessions.ended.insert(client, (when, mark)).is_some();
            if twice || when == u64::MAX {
                return Err(Malformed("a session that ended twice"));
            }
        }
        Ok(sessions)
    }
}
