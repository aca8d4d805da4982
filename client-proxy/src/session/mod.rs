//! The failover state machine of a client. Sans-IO: no sockets, no clock, no randomness; time and entropy are handed
//! in, so the same code runs under a simulated cluster and in the real driver.
//!
//! # The problem
//! A client wants each call done once, although the manager it talks to may die, hang, or be cut off in the middle of
//! it. The naive client waits for a time-out and asks somebody else: it is slow (the time-out must exceed the slowest
//! healthy answer) and wrong (the first copy may have been executed).
//!
//! # The algorithm
//! *Wrong* is cured by names: a call keeps its `(client, seq)` however often it is sent, and managers remember answers
//! in replicated state. *Slow* is cured by asking those who know: the session holds a connection to every manager it
//! has heard of, and each pushes the membership view whenever it changes. The session believes the newest view that a
//! primary member reported. When its connection breaks, or that view lacks the manager it uses (which may be paused or
//! cut off, its connection looking perfectly healthy), it sends every unanswered call to another member, at once.
//! Pings exist only for the case that nobody else can see: a path that fails between this client and a live manager.
//!
//! # What holds
//! - A call gets exactly one answer: a reply, or a status of the session's own.
//! - All copies of a call are equal but for what bounds them (`first_incomplete`, deadline, position), and no two calls
//!   share a `seq`.
//! - `first_incomplete` is the lowest unanswered `seq` at the time of sending, hence never decreases.
//! - `UNAVAILABLE` and `RESOURCE_EXHAUSTED` from the session mean: certainly not executed. `DEADLINE_EXCEEDED` means:
//!   not known.
//! - Memory is bounded by the [`Config`]: calls, their bytes, the span of their numbers, managers.
//!
//! # Driving it
//! Call `handle_*`, then take [`poll_action`](Session::poll_action) until it is empty, then wait for
//! [`next_timeout`](Session::next_timeout) or the next event.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod calls;
mod frames;
mod managers;
mod routing;
mod status;
#[cfg(test)]
mod tests;
mod time;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use calls::{Calls, Pending};
use managers::{Manager, Phase};

pub use status::{Counters, Gap, ManagerStatus, Report, SessionStatus};
pub use time::Time;

use crate::wire::{
    Body, Call, ClientId, Code, Farewell, Frame, Goodbye, Hello, Member, Purpose, Reply, Status,
    Text, VERSION, View, limits::MEMBERS_MAX,
};

/// A connection, or an attempt at one. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Limits and times of a session.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name, checked by managers.
    pub cluster: Text,
    /// This run of the client; random.
    pub client: ClientId,
    /// Addresses of managers to begin with. More are learned from views.
    pub endpoints: Vec<Text>,
    /// Most calls unanswered at a time.
    pub calls_max: usize,
    /// Most bytes of messages held for replay.
    pub bytes_max: usize,
    /// Longest span from the first unanswered call to the newest: what managers have to remember.
    pub span_max: usize,
    /// Time between looks at whether managers have said anything; those that have not are pinged. At least a second in
    /// production, as it is what an idle client wakes up for.
    pub ping: Duration,
    /// Silent looks after which a connection is given up.
    pub silent_max: u32,
    /// Time for a connection to open, and again for the manager's Welcome.
    pub dial: Duration,
    /// First and longest pause between attempts to reach a manager; between them it doubles.
    pub retry: (Duration, Duration),
    /// First and longest pause after a refusal for overload.
    pub backoff: (Duration, Duration),
    /// Seeds the choice among managers and the jitter of pauses.
    pub entropy: u64,
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new(cluster: impl Into<Text>, client: ClientId, endpoints: Vec<Text>) -> Self {
        Self {
            cluster: cluster.into(),
            client,
            endpoints,
            calls_max: 4096,
            bytes_max: 64 << 20,
            span_max: crate::wire::limits::CALL_SPAN_MAX,
            ping: Duration::from_secs(1),
            silent_max: 2,
            dial: Duration::from_secs(1),
            retry: (Duration::from_millis(20), Duration::from_secs(1)),
            backoff: (Duration::from_millis(5), Duration::from_millis(250)),
            entropy: client.0 as u64 ^ (client.0 >> 64) as u64,
        }
    }
}

/// What the driver has to do. `T` is what it attached to a call.
#[derive(Debug)]
pub enum Action<T> {
    /// Open a connection; answer with `handle_connected` or `handle_lost`.
    Dial {
        /// Its name.
        link: LinkId,
        /// Where to.
        address: Text,
    },
    /// Queue a frame on a connection.
    Send {
        /// Which.
        link: LinkId,
        /// What.
        frame: Frame,
    },
    /// Close a connection, or stop opening it. Nothing of it is wanted any more.
    Close {
        /// Which.
        link: LinkId,
    },
    /// A call has its answer.
    Answer {
        /// What was attached to the call.
        waiter: T,
        /// A reply (whatever its status code) or the session's own status.
        outcome: Result<Reply, Status>,
    },
    /// A call without a deadline of its own takes longer than its method allows; whoever waits for it may be told. It
    /// goes on until it has its answer.
    Late {
        /// Which call; [`Session::waiter`] says what is attached to it.
        seq: u64,
        /// `DEADLINE_EXCEEDED`.
        status: Status,
    },
    /// Something worth a line in the log.
    Report(Report),
}

/// A manager broke the protocol; its connection was closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// See the module's text.
#[derive(Debug)]
pub struct Session<T> {
    config: Config,
    managers: Vec<Manager>,
    /// The newest view that a primary member of it reported.
    view: Option<View>,
    /// Greatest incarnation ever seen of each node.
    incarnations: BTreeMap<u16, u64>,
    route: Option<LinkId>,
    /// Who is at the other end of the route.
    routed: Option<Member>,
    calls: Calls<T>,
    /// Greatest position that an answer reflected: the session token.
    position: u64,
    links: u64,
    random: u64,
    /// Nothing is due before.
    wake: Time,
    tick: Option<Time>,
    actions: VecDeque<Action<T>>,
    counters: Counters,
    gap: Gap,
    /// Set when no new call is taken.
    closing: bool,
}

impl<T> Session<T> {
    /// A session that begins to dial its endpoints at the first `handle_timeout`.
    #[must_use]
    pub fn new(now: Time, config: Config) -> Self {
        let mut managers: Vec<Manager> = Vec::new();
        for address in &config.endpoints {
            if managers.len() < MEMBERS_MAX
                && managers.iter().all(|known| known.address != *address)
            {
                managers.push(Manager::new(address.clone(), true, now));
            }
        }
        let random = config.entropy | 1;
        Self {
            config,
            managers,
            view: None,
            incarnations: BTreeMap::new(),
            route: None,
            routed: None,
            calls: Calls::new(),
            position: 0,
            links: 0,
            random,
            wake: now,
            tick: None,
            actions: VecDeque::new(),
            counters: Counters::default(),
            gap: Gap::default(),
            closing: false,
        }
    }

    // ---- getters

    /// Calls without an answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.calls.live()
    }

    /// The lowest unanswered `seq`, or the next one to be given when there is none.
    #[must_use]
    pub fn first_incomplete(&self) -> u64 {
        self.calls.first_incomplete()
    }

    /// Whether there is a manager to give calls to.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        self.route.is_some()
    }

    /// When `handle_timeout` is due next; perhaps earlier than there is something to do, never later.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        (self.wake != Time::NEVER).then_some(self.wake)
    }

    /// What was attached to an unanswered call.
    #[must_use]
    pub fn waiter(&self, seq: u64) -> Option<&T> {
        self.calls.get(seq).map(|pending| &pending.waiter)
    }

    // ---- commands

    /// Takes a call; its answer comes as [`Action::Answer`].
    ///
    /// # Errors
    /// A limit is reached or the session is closing: the waiter comes back with `RESOURCE_EXHAUSTED` or `UNAVAILABLE`.
    pub fn call(
        &mut self,
        now: Time,
        path: Text,
        body: Body,
        deadline: Option<Time>,
        waiter: T,
    ) -> Result<u64, (T, Status)> {
        if let Err(status) = self.admit(body.len()) {
            self.counters.shed += 1;
            return Err((waiter, status));
        }
        if self.calls.live() == 0 {
            self.gap.begin(now);
        }
        self.counters.calls += 1;
        if let Some(deadline) = deadline {
            self.wake_at(deadline);
        }
        let seq = self.calls.insert(Pending {
            waiter,
            path,
            body,
            issued: now,
            deadline,
            on: None,
            copies: 0,
            overloads: 0,
            resend_at: None,
        });
        if let Some(route) = self.route {
            self.send(now, route, seq);
        }
        Ok(seq)
    }

    fn admit(&self, bytes: usize) -> Result<(), Status> {
        if self.closing {
            return Err(Status::new(Code::Unavailable, "this client is stopping"));
        }
        let full = |what: &str, limit: usize| {
            let message = format!("not executed: {what} (limit {limit}); {}", self.hindrance());
            Err(Status::new(Code::ResourceExhausted, message))
        };
        if self.calls.live() >= self.config.calls_max {
            return full("too many calls are unanswered", self.config.calls_max);
        }
        if self.calls.bytes() + bytes > self.config.bytes_max {
            return full("too many bytes are held for replay", self.config.bytes_max);
        }
        if self.calls.span() >= self.config.span_max {
            return full(
                "an old call is unanswered and managers can remember only so many after it",
                self.config.span_max,
            );
        }
        Ok(())
    }

    /// Takes no more calls. When none is unanswered, [`finish`](Self::finish) ends the session.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Tells every manager that this client is over and gives up what is unanswered.
    pub fn finish(&mut self, now: Time) {
        self.closing = true;
        let unanswered: Vec<u64> = self.calls.iter().map(|(seq, _)| seq).collect();
        for seq in unanswered {
            self.give_up(now, seq, "this client is stopping");
        }
        self.route = None;
        for at in 0..self.managers.len() {
            if let Some(up) = self.managers[at].up() {
                let goodbye = Goodbye { reason: Farewell::Finished, message: Text::default() };
                self.actions
                    .push_back(Action::Send { link: up.link, frame: Frame::Goodbye(goodbye) });
            }
            if let Some(link) = self.managers[at].link() {
                self.actions.push_back(Action::Close { link });
            }
            self.managers[at].phase = Phase::Idle { until: Time::NEVER };
        }
    }

    // ---- events

    /// A connection is open.
    pub fn handle_connected(&mut self, now: Time, link: LinkId) {
        let Some(manager) = self.managers.iter_mut().find(|manager| manager.link() == Some(link))
        else {
            return;
        };
        manager.phase = Phase::Greeting { link, since: now };
        let hello = Hello {
            version: VERSION,
            cluster: self.config.cluster.clone(),
            client: self.config.client,
            purpose: Purpose::Calls,
        };
        self.actions.push_back(Action::Send { link, frame: Frame::Hello(hello) });
        self.wake_at(now + self.config.dial);
    }

    /// A connection failed, could not be opened, or was closed by the manager.
    pub fn handle_lost(&mut self, now: Time, link: LinkId, why: &str) {
        if let Some(at) = self.find(link) {
            self.lose(now, at, why);
            self.reroute(now, why);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        if now < self.wake {
            return;
        }
        self.wake = Time::NEVER;
        self.tend_managers(now);
        let mut due = Vec::new();
        let mut wake = Time::NEVER;
        for (seq, pending) in self.calls.iter() {
            let deadline = pending.deadline.unwrap_or(Time::NEVER);
            let resend_at = pending.resend_at.unwrap_or(Time::NEVER);
            if deadline.min(resend_at) <= now {
                due.push((seq, deadline <= now));
                if deadline > now {
                    wake = wake.min(deadline);
                }
            } else {
                wake = wake.min(deadline).min(resend_at);
            }
        }
        self.wake_at(wake);
        for (seq, over) in due {
            if over {
                self.counters.expired += 1;
                self.give_up(now, seq, "");
            } else {
                let pending = self.calls.get_mut(seq).expect("was in the table above");
                pending.resend_at = None;
                if let Some(route) = self.route {
                    self.send(now, route, seq);
                }
            }
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action<T>> {
        self.actions.pop_front()
    }

    // ---- inside

    /// Sends a copy of a call on the route, unless it waits out a refusal.
    fn send(&mut self, now: Time, link: LinkId, seq: u64) {
        let first_incomplete = self.calls.first_incomplete();
        let Some(pending) = self.calls.get_mut(seq) else { return };
        if pending.resend_at.is_some() {
            return;
        }
        pending.on = Some(link);
        pending.copies += 1;
        let deadline_ms = pending.deadline.map_or(0, |deadline| {
            u32::try_from((deadline - now).as_millis()).unwrap_or(u32::MAX).max(1)
        });
        let call = Call {
            seq,
            first_incomplete,
            deadline_ms,
            min_position: self.position,
            path: pending.path.clone(),
            body: pending.body.clone(),
        };
        self.actions.push_back(Action::Send { link, frame: Frame::Call(call) });
    }

    /// Ends a call without a reply.
    fn give_up(&mut self, now: Time, seq: u64, detail: &str) {
        let Some(pending) = self.calls.remove(seq) else { return };
        let waited = (now - pending.issued).as_millis();
        let status = if pending.copies > 0 {
            let message = format!(
                "no answer within {waited} ms, the outcome is unknown; {}",
                self.hindrance()
            );
            Status::new(Code::DeadlineExceeded, message)
        } else if pending.overloads > 0 {
            let message = format!("not executed: refused for overload for {waited} ms; {detail}");
            Status::new(Code::ResourceExhausted, message)
        } else {
            let message = format!("not executed: waited {waited} ms; {}", self.hindrance());
            Status::new(Code::Unavailable, message)
        };
        self.gap.given_up(now, self.calls.live() > 0);
        self.actions.push_back(Action::Answer { waiter: pending.waiter, outcome: Err(status) });
    }

    fn find(&self, link: LinkId) -> Option<usize> {
        self.managers.iter().position(|manager| manager.link() == Some(link))
    }

    fn wake_at(&mut self, time: Time) {
        self.wake = self.wake.min(time);
    }

    /// A factor around 1, so that clients that failed together do not come back together.
    fn jitter(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        0.75 + (self.random >> 11) as f64 / (1u64 << 53) as f64 / 2.0
    }
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(20)).min(longest)
}
