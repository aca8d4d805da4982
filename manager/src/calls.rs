//! Taking a call: into the total order if it changes state, to a reader if it does not.
//!
//! The client server and the admin API both come through here, so a call typed at a terminal is as
//! exactly-once as one through a proxy.

use crate::executor::ReadOutcome;
use crate::replica::{Call, Reply, call_len, write_call};
use crate::runtime::{Answer, Live, Route, SendFailed, Shared, Waiter};
use bytes::Bytes;
use quintet_client::wire::Reason;
use quintet_transport::{Time, clock};
use quintet_vsync::SendError;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a call waits here for what passes by itself (a full log, a replica that is behind, a
/// lease that is being renewed) before it is refused.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is said of a call that waited here until nobody waited for it any more.
const TOO_LATE: &str = "its deadline passed before it was begun here; it was not executed";
/// How often it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A call as it came in.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Who calls.
    pub client: u128,
    /// The number of the call, unique in the client.
    pub seq: u64,
    /// The lowest number whose answer the client still wants.
    pub first_incomplete: u64,
    /// The answer must reflect every position up to this one.
    pub min_position: u64,
    /// When its caller stops waiting. Decides only whether a copy of the call is begun here, never what a replica does.
    pub deadline: Option<Time>,
    /// gRPC path.
    pub path: Arc<str>,
    /// The request message.
    pub body: Bytes,
}

impl Incoming {
    /// Nobody waits for it any more.
    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= clock::now())
    }
}

/// Takes a call; its one answer goes to the waiter. `Some`: the method has a deadline that comes before the call's own,
/// which the caller does not know of, and has to be told when it passes.
pub fn submit(shared: &Arc<Shared>, mut call: Incoming, waiter: Waiter) -> Option<Time> {
    shared.counters.calls.fetch_add(1, Ordering::Relaxed);
    let refuse = |waiter: Waiter, reason, why: &str| {
        shared.counters.refused.fetch_add(1, Ordering::Relaxed);
        waiter.answer(Answer::Refuse(reason, why.to_owned()));
        None
    };
    if shared.is_stopping() {
        return refuse(waiter, Reason::Draining, "this manager is stopping");
    }
    let live = shared.live.load_full();
    let Some(live) = live.filter(|_| shared.standing.borrow().serves()) else {
        let standing = shared.standing.borrow().clone();
        let why = standing.reason.unwrap_or_else(|| format!("{:?}", standing.state).to_lowercase());
        return refuse(waiter, Reason::NotPrimary, &why);
    };
    let directory = shared.directory.load();
    let Some(route) = directory.routes.get(&*call.path) else {
        // Another member may run it already, and this one is about to: its part of the deployment is done.
        let class = call.path.split('/').nth(1).unwrap_or_default();
        if directory.catalogue.class(class).is_some() {
            return refuse(waiter, Reason::Overloaded, &format!("{class} is being deployed"));
        }
        let why = format!("no deployed class has the method {}", call.path);
        return refuse(waiter, Reason::UnknownMethod, &why);
    };
    let most = shared.config.limits.request_bytes;
    if call.body.len() > most {
        let message = format!("a request of {} bytes; at most {most} are allowed", call.body.len());
        let reply = Reply { code: 8, message, position: 0, body: Bytes::new() };
        waiter.answer(Answer::Reply(reply));
        return None;
    }
    let allowed = route.deadline.map(|allowed| clock::now() + allowed);
    let told = allowed.filter(|allowed| call.deadline.is_none_or(|own| *allowed < own));
    call.deadline = told.or(call.deadline);
    if !route.update {
        let until = clock::now() + PATIENCE;
        let (shared, route) = (shared.clone(), route.clone());
        Read { shared, live, route, call, waiter, until }.attempt();
        return told;
    }
    shared.counters.updates.fetch_add(1, Ordering::Relaxed);
    let (client, seq) = (call.client, call.seq);
    if !shared.outbox.wait(client, seq, waiter) {
        return told;
    }
    let (instance, method) = (route.instance.id(), route.method);
    match order(&live, &call, instance, method) {
        Ok(()) => {}
        Err(SendFailed::Full) => {
            let shared = shared.clone();
            shared.tokio.clone().spawn(order_later(shared, live, call, instance, method));
        }
        Err(why) => {
            if let Some(waiter) = shared.outbox.take(client, seq) {
                refuse(waiter, reason(&why), &why.to_string());
            }
        }
    }
    told
}

fn reason(why: &SendFailed) -> Reason {
    match why {
        SendFailed::NotRunning => Reason::NotPrimary,
        SendFailed::Full | SendFailed::TooLarge(_) => Reason::Overloaded,
    }
}

/// Writes the call into the log the network reads.
fn order(live: &Live, call: &Incoming, instance: u32, method: u32) -> Result<(), SendFailed> {
    let mut slot = live.group.reserve(call_len(call.body.len())).map_err(|e| match e {
        SendError::Full => SendFailed::Full,
        SendError::TooLarge { limit } => SendFailed::TooLarge(limit),
        SendError::Closed => SendFailed::NotRunning,
    })?;
    let time_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let Incoming { client, seq, first_incomplete, ref body, .. } = *call;
    write_call(&mut slot, time_ns, &Call { client, seq, first_incomplete, instance, method, body });
    slot.commit();
    Ok(())
}

/// The log is full, perhaps because a view change holds everything up: tries for a while.
async fn order_later(
    shared: Arc<Shared>,
    live: Arc<Live>,
    call: Incoming,
    instance: u32,
    method: u32,
) {
    let ordered = patiently(&call, || order(&live, &call, instance, method)).await;
    let Err((reason, why)) = ordered else { return };
    if let Some(waiter) = shared.outbox.take(call.client, call.seq) {
        shared.counters.refused.fetch_add(1, Ordering::Relaxed);
        waiter.answer(Answer::Refuse(reason, why));
    }
}

/// Tries until there is room, while the call has time and patience lasts; never after its deadline.
async fn patiently(
    call: &Incoming,
    mut order: impl FnMut() -> Result<(), SendFailed>,
) -> Result<(), (Reason, String)> {
    let until = clock::now() + PATIENCE;
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        if call.is_late() {
            return Err((Reason::Expired, TOO_LATE.to_owned()));
        }
        match order() {
            Ok(()) => return Ok(()),
            Err(SendFailed::Full) if clock::now() < until => {}
            Err(why) => return Err((reason(&why), why.to_string())),
        }
    }
}

/// A read on its way.
struct Read {
    shared: Arc<Shared>,
    live: Arc<Live>,
    route: Route,
    call: Incoming,
    waiter: Waiter,
    until: Time,
}

impl Read {
    /// Queues it, unless this replica has not seen yet what the client has.
    fn attempt(self) {
        let delivered = self.shared.delivered.load(Ordering::Acquire);
        if !self.route.instance.has_applied(self.call.min_position, delivered) {
            return self
                .again(Reason::Overloaded, "this replica is behind what the client has seen");
        }
        self.shared.counters.reads.fetch_add(1, Ordering::Relaxed);
        let shared = self.shared.clone();
        // The job is given back if the queue is full; it then answers for itself.
        let this = Arc::new(std::sync::Mutex::new(Some(self)));
        let job = this.clone();
        let take = |cell: &std::sync::Mutex<Option<Read>>| {
            cell.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
        };
        let queued = shared.readers.submit(move || {
            if let Some(read) = take(&job) {
                read.execute();
            }
        });
        if queued.is_err()
            && let Some(read) = take(&this)
        {
            read.refuse(Reason::Overloaded, "too many reads are waiting");
        }
    }

    /// On a reader's thread.
    fn execute(self) {
        if self.call.is_late() {
            return self.refuse(Reason::Expired, TOO_LATE);
        }
        let ReadOutcome { reply, upto } =
            self.route.instance.read(self.route.method, self.call.client, &self.call.body);
        // After the read: a node that slept between a check and the read would answer from the past.
        if !self.live.lease_valid() {
            return self.again(Reason::NotPrimary, "this node cannot tell whether it is current");
        }
        self.shared.outbox.hold(self.waiter, Answer::Reply(reply), upto);
    }

    /// Tries again soon, if there is hope and time.
    fn again(self, reason: Reason, why: &'static str) {
        if self.call.is_late() {
            return self.refuse(Reason::Expired, TOO_LATE);
        }
        let serves = self.shared.standing.borrow().serves();
        if !serves || clock::now() >= self.until {
            return self.refuse(if serves { reason } else { Reason::NotPrimary }, why);
        }
        self.shared.tokio.clone().spawn(async move {
            tokio::time::sleep(LOOK_AGAIN).await;
            self.attempt();
        });
    }

    fn refuse(self, reason: Reason, why: &str) {
        self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
        self.waiter.answer(Answer::Refuse(reason, why.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(deadline: Option<Time>) -> Incoming {
        let (path, body) = ("/a.A/B".into(), Bytes::new());
        Incoming { client: 1, seq: 1, first_incomplete: 1, min_position: 0, deadline, path, body }
    }

    #[tokio::test]
    async fn a_call_whose_deadline_passed_before_it_was_ordered_is_not_ordered() {
        let past = call(Some(clock::now()));
        let outcome = patiently(&past, || panic!("it must not be ordered")).await;
        assert_eq!(outcome, Err((Reason::Expired, TOO_LATE.to_owned())));
        // It passes while the log is full, too: long before patience ends.
        let soon = call(Some(clock::now() + Duration::from_millis(20)));
        let outcome = patiently(&soon, || Err(SendFailed::Full)).await;
        assert!(matches!(outcome, Err((Reason::Expired, _))));
    }

    #[tokio::test]
    async fn a_call_that_has_time_waits_for_room() {
        for deadline in [None, Some(clock::now() + Duration::from_secs(3600))] {
            let mut tries = 0;
            let room = || {
                tries += 1;
                if tries < 3 { Err(SendFailed::Full) } else { Ok(()) }
            };
            assert_eq!(patiently(&call(deadline), room).await, Ok(()));
            assert_eq!(tries, 3);
        }
    }
}
