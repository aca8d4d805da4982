//! Calls that the caller named itself, so that its own retry is not a new call.
//!
//! A caller that gives up and tries again cannot know whether its first attempt was executed. If it gives both the same
//! request id, the second one joins the first: it waits for the same answer, or is given it from this table.
//!
//! What that is worth: within one run of the client (or proxy), for the latest [`ENTRIES_MAX`] ids and for
//! [`RETENTION`] after the answer, a request id is executed exactly once. Another proxy, or this one started again,
//! does not know the id. The outcome of an id that nobody answers yet is never forgotten, as the call goes on until it
//! has an answer, also when every caller has gone.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use super::Outcome;
use crate::{
    session::Time,
    wire::{Body, Code, Status, Text},
};

/// Most request ids remembered.
pub const ENTRIES_MAX: usize = 16_384;
/// How long an answer is remembered.
pub const RETENTION: Duration = Duration::from_secs(600);
/// Longest request id, in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// Most bytes of answers remembered.
const BYTES_MAX: usize = 16 << 20;

/// What to do with a named call.
pub(super) enum Admission<W> {
    /// It is new: make the call; `finish` distributes the answer.
    New,
    /// It is under way; the waiter was noted.
    Joined,
    /// Here is the answer.
    Answered(W, Outcome),
}

#[derive(Debug)]
struct Entry<W> {
    fingerprint: u64,
    state: State<W>,
}

#[derive(Debug)]
enum State<W> {
    Waiting(Vec<W>),
    Done(Outcome),
}

/// The table.
#[derive(Debug)]
pub(super) struct Requests<W> {
    entries: HashMap<Text, Entry<W>>,
    /// Answered ids, oldest first.
    done: VecDeque<(Time, Text)>,
    bytes: usize,
    hasher: RandomState,
    entries_max: usize,
}

impl<W> Requests<W> {
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            done: VecDeque::new(),
            bytes: 0,
            hasher: RandomState::new(),
            entries_max,
        }
    }

    pub(super) fn admit(
        &mut self,
        now: Time,
        id: &Text,
        path: &str,
        body: &Body,
        waiter: W,
    ) -> Admission<W> {
        self.expire(now);
        let fingerprint = self.hasher.hash_one((path, &body[..]));
        if let Some(entry) = self.entries.get_mut(id) {
            if entry.fingerprint != fingerprint {
                let message =
                    format!("quintet-request-id {:?} names another call already", id.as_str());
                return Admission::Answered(
                    waiter,
                    Err(Status::new(Code::InvalidArgument, message)),
                );
            }
            return match &mut entry.state {
                State::Waiting(waiters) => {
                    waiters.push(waiter);
                    Admission::Joined
                }
                State::Done(outcome) => Admission::Answered(waiter, outcome.clone()),
            };
        }
        if self.entries.len() >= self.entries_max && !self.evict_oldest() {
            let message =
                format!("not executed: {} request ids are without an answer", self.entries_max);
            return Admission::Answered(waiter, Err(Status::new(Code::ResourceExhausted, message)));
        }
        self.entries.insert(id.clone(), Entry { fingerprint, state: State::Waiting(vec![waiter]) });
        Admission::New
    }

    /// Drops waiters of an unanswered id that nobody listens to any more: a caller that retries for ever must not pile
    /// them up.
    pub(super) fn prune(&mut self, id: &Text, gone: impl Fn(&W) -> bool) {
        if let Some(Entry { state: State::Waiting(waiters), .. }) = self.entries.get_mut(id) {
            waiters.retain(|waiter| !gone(waiter));
        }
    }

    /// Takes those who wait for an unanswered id, which goes on without them.
    pub(super) fn waiting(&mut self, id: &Text) -> Vec<W> {
        match self.entries.get_mut(id) {
            Some(Entry { state: State::Waiting(waiters), .. }) => std::mem::take(waiters),
            _ => Vec::new(),
        }
    }

    /// The answer to a named call is there; returns who waits for it. A reply is remembered; a status of the session's
    /// own means that nothing was executed or that the session is over, and is not.
    pub(super) fn finish(&mut self, now: Time, id: &Text, outcome: &Outcome) -> Vec<W> {
        let Some(entry) = self.entries.get_mut(id) else { return Vec::new() };
        let State::Waiting(waiters) =
            std::mem::replace(&mut entry.state, State::Done(outcome.clone()))
        else {
            return Vec::new();
        };
        match outcome {
            Ok(reply) => {
                self.bytes += reply.body.len();
                self.done.push_back((now, id.clone()));
                while self.bytes > BYTES_MAX && self.evict_oldest() {}
            }
            Err(_) => {
                self.entries.remove(id);
            }
        }
        waiters
    }

    fn expire(&mut self, now: Time) {
        while self.done.front().is_some_and(|(at, _)| now - *at > RETENTION) {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) -> bool {
        let Some((_, id)) = self.done.pop_front() else { return false };
        if let Some(Entry { state: State::Done(Ok(reply)), .. }) = self.entries.remove(&id) {
            self.bytes -= reply.body.len();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Reply;

    fn outcome(position: u64) -> Outcome {
        Ok(Reply { seq: 1, status: Status::OK, position, body: Body::from(&b"answer"[..]) })
    }

    fn admit(requests: &mut Requests<u32>, id: &str, body: &str, waiter: u32) -> &'static str {
        match requests.admit(Time::ZERO, &id.into(), "/a.B/C", &Body::from(body.as_bytes()), waiter)
        {
            Admission::New => "new",
            Admission::Joined => "joined",
            Admission::Answered(_, Ok(_)) => "answered",
            Admission::Answered(_, Err(status)) => status.code.name(),
        }
    }

    #[test]
    fn a_retry_joins_or_is_answered_from_memory() {
        let mut requests = Requests::new(10);
        assert_eq!(admit(&mut requests, "a", "x", 1), "new");
        assert_eq!(admit(&mut requests, "a", "x", 2), "joined");
        assert_eq!(requests.finish(Time::ZERO, &"a".into(), &outcome(5)), [1, 2]);
        assert_eq!(admit(&mut requests, "a", "x", 3), "answered");
        assert_eq!(requests.finish(Time::ZERO, &"a".into(), &outcome(5)), [] as [u32; 0]);
    }

    #[test]
    fn another_call_under_the_same_id_is_an_error() {
        let mut requests = Requests::new(10);
        assert_eq!(admit(&mut requests, "a", "x", 1), "new");
        assert_eq!(admit(&mut requests, "a", "y", 2), "INVALID_ARGUMENT");
    }

    #[test]
    fn what_was_not_executed_may_be_tried_again() {
        let mut requests = Requests::new(10);
        assert_eq!(admit(&mut requests, "a", "x", 1), "new");
        let shed = Err(Status::new(Code::ResourceExhausted, ""));
        assert_eq!(requests.finish(Time::ZERO, &"a".into(), &shed), [1]);
        assert_eq!(admit(&mut requests, "a", "x", 2), "new");
    }

    #[test]
    fn unanswered_ids_are_never_evicted_answered_ones_oldest_first() {
        let mut requests = Requests::new(2);
        assert_eq!(admit(&mut requests, "a", "x", 1), "new");
        assert_eq!(admit(&mut requests, "b", "x", 2), "new");
        assert_eq!(admit(&mut requests, "c", "x", 3), "RESOURCE_EXHAUSTED");
        requests.finish(Time::ZERO, &"b".into(), &outcome(1));
        assert_eq!(admit(&mut requests, "c", "x", 3), "new");
        assert_eq!(admit(&mut requests, "a", "x", 4), "joined");
        requests.finish(Time::ZERO, &"a".into(), &outcome(1));
        let late = Time::ZERO + RETENTION + Duration::from_secs(1);
        requests.expire(late);
        assert_eq!(requests.entries.len(), 1);
        assert_eq!(requests.bytes, 0);
    }
}
