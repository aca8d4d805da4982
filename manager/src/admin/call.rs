//! Calling a method of an instance with JSON.

use super::types::{CallReply, CallRequest, NodeState};
use super::{Api, Refusal};
use crate::calls::{self, Incoming};
use crate::replica::Phase;
use crate::runtime::{Answer, Shared, Slots, Standing, Waiter};
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use bytes::Bytes;
use quintet_client::wire::{Code, Reason};
use quintet_component::{Kind, Method};
use quintet_transport::clock;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{sleep, timeout};

/// Deadline of a call that names none.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a call waits for a deployment that is under way.
const DEPLOYMENT: Duration = Duration::from_secs(2);
/// How long the group may be blocked before a call that waits for it is told so.
const BLOCKED: Duration = Duration::from_secs(1);
/// Calls through the admin API at once.
const CALLS: usize = 256;

/// The admin API as a client of the cluster: an id of its own, and numbered calls.
pub(super) struct Caller {
    client: u128,
    slots: Slots,
    open: Mutex<(u64, BTreeSet<u64>)>,
}

impl Caller {
    pub(super) fn new() -> Caller {
        let mut id = [0; 16];
        let entropy = getrandom::fill(&mut id);
        let client = match entropy {
            Ok(()) => u128::from_le_bytes(id),
            Err(_) => u128::from(clock::now().as_nanos()) << 32 | u128::from(std::process::id()),
        };
        let open = Mutex::new((0, BTreeSet::new()));
        Caller { client, slots: Slots::new(CALLS), open }
    }

    /// A number for a call, and the lowest that is open.
    fn begin(&self) -> (Number<'_>, u64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.0 += 1;
        let seq = open.0;
        open.1.insert(seq);
        (Number { seq, of: self }, *open.1.first().expect("one was inserted"))
    }
}

/// The number of an open call. It is given back however the call ends: also where nobody waits for it any more, and the
/// handler is dropped. While a number is open the replicas keep the replies to all later ones.
struct Number<'a> {
    seq: u64,
    of: &'a Caller,
}

impl Drop for Number<'_> {
    fn drop(&mut self) {
        self.of.open.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.seq);
    }
}

/// What can be said of a call without an answer.
#[derive(Default)]
struct Fate {
    /// The last copy was ordered, or may have been.
    open: AtomicBool,
    /// A copy was lost with the incarnation that had it.
    lost: AtomicBool,
}

impl Fate {
    fn may_happen(&self) -> bool {
        self.open.load(Ordering::Relaxed) || self.lost.load(Ordering::Relaxed)
    }
}

pub(super) async fn call(
    State(api): State<Api>,
    request: Result<Json<CallRequest>, JsonRejection>,
) -> Result<Json<CallReply>, Refusal> {
    let wrong = |what: String, fix: &str| {
        Refusal::new(StatusCode::BAD_REQUEST, what, "the call was not made", fix)
    };
    let Json(request) = request
        .map_err(|e| wrong(e.body_text(), "send {\"class\", \"method\", \"body\"} as JSON"))?;
    if request.deadline_ms == Some(0) {
        let what = "deadline_ms is 0: no call has an answer in no time".to_owned();
        return Err(wrong(what, "give at least 1, or leave it out for the usual 10,000"));
    }
    let began = clock::now();
    let method = find(&api.shared, &request).await?;
    let json = if request.body.is_null() { "{}".to_owned() } else { request.body.to_string() };
    let body = method
        .json_to_request(&json)
        .map_err(|e| wrong(e.to_string(), "correct the JSON of the request"))?;
    let deadline = request.deadline_ms.map_or(DEADLINE, |ms| Duration::from_millis(u64::from(ms)));
    let deadline = method.options().deadline.map_or(deadline, |allowed| allowed.min(deadline));
    let (number, first_incomplete) = api.caller.begin();
    let fate = Fate::default();
    let incoming = Incoming {
        client: api.caller.client,
        seq: number.seq,
        first_incomplete,
        min_position: 0,
        deadline: Some(began + deadline),
        path: Arc::from(method.path()),
        body: Bytes::from(body),
    };
    let answer = tokio::select! {
        answer = timeout(deadline, answered(&api, incoming, &fate)) => answer.ok(),
        () = stays_blocked(&api.shared) => None,
    };
    drop(number);
    let reply = match answer {
        Some(Ok(reply)) => reply,
        Some(Err(refusal)) => return Err(refusal),
        None => return Err(unanswered(&api.shared, &method, &fate, clock::now().since(began))),
    };
    let code = Code::from_number(reply.code).unwrap_or(Code::Unknown);
    let body = if code == Code::Ok {
        let json = method.reply_to_json(&reply.body).map_err(|e| {
            let fix = "the library and its .proto do not belong together: build it again";
            let means = "the call was made; its reply is not what the descriptor says";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string(), means, fix)
        })?;
        serde_json::from_str(&json).unwrap_or(serde_json::Value::String(json))
    } else {
        serde_json::Value::Null
    };
    Ok(Json(CallReply {
        status: code.name().to_owned(),
        message: reply.message,
        position: reply.position,
        body,
        took_us: clock::now().since(began).as_micros() as u64,
    }))
}

/// Comes back when the group has been blocked for a while: what was ordered before is not answered before it goes on.
async fn stays_blocked(shared: &Shared) {
    let mut standing = shared.standing.subscribe();
    let is_blocked = |standing: &Standing| standing.state == NodeState::Blocked;
    // The daemon ends where this fails, and the call with it.
    while standing.wait_for(is_blocked).await.is_ok() {
        if timeout(BLOCKED, standing.wait_for(|standing| !is_blocked(standing))).await.is_err() {
            return;
        }
    }
    std::future::pending().await
}

fn unanswered(shared: &Shared, method: &Method, fate: &Fate, waited: Duration) -> Refusal {
    let standing = shared.standing.borrow().clone();
    let mut what = format!("no answer within {} ms", waited.as_millis());
    if standing.state == NodeState::Blocked {
        let reason = standing.reason.map_or_else(String::new, |reason| format!(": {reason}"));
        what = format!("{what}: node {} is blocked{reason}", shared.config.node);
    }
    if method.kind() == Kind::Update && !fate.may_happen() {
        let means = "the call was not made: no replica took it";
        let fix = "try again; `quintet instance list` shows how many replies are kept";
        return Refusal::new(StatusCode::GATEWAY_TIMEOUT, what, means, fix);
    }
    if method.kind() == Kind::Update {
        return Refusal::too_late(what, "look at quintet status: is the view blocked?");
    }
    let fix = "read again; look at quintet status: is the view blocked?";
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, what, "nothing was changed: it only reads", fix)
}

/// The method that is meant. A deployment that other members have finished is waited for: it is about
/// to be finished here.
async fn find(shared: &Shared, request: &CallRequest) -> Result<Method, Refusal> {
    let began = clock::now();
    loop {
        let (found, under_way) = {
            let directory = shared.directory.load();
            let mut packages = directory.catalogue.packages.values();
            let under_way = packages.any(|entry| entry.phase == Phase::Offered);
            (directory.find(&request.class, &request.method), under_way)
        };
        match found {
            Ok((_, method)) => return Ok(method),
            Err(_) if under_way && clock::now().since(began) < DEPLOYMENT => {
                sleep(Duration::from_millis(2)).await;
            }
            // What it knows may be old: it has no say in what there is and what not.
            Err(_) if !shared.standing.borrow().serves() => {
                return Err(Refusal::not_serving(shared));
            }
            Err(what) => {
                let fix = "quintet component list shows what is deployed";
                return Err(Refusal::new(
                    StatusCode::NOT_FOUND,
                    what,
                    "the call was not made",
                    fix,
                ));
            }
        }
    }
}

/// Submits the call, again if this node was not able to take it, until it has an answer.
async fn answered(
    api: &Api,
    call: Incoming,
    fate: &Fate,
) -> Result<crate::replica::Reply, Refusal> {
    loop {
        let (Some(own), Some(all)) = (api.caller.slots.take(), api.shared.calls.take()) else {
            sleep(Duration::from_millis(5)).await;
            continue;
        };
        let (to, mut from) = unbounded_channel();
        let waiter = Waiter { to, seq: call.seq, slots: [own, all] };
        fate.open.store(true, Ordering::Relaxed);
        calls::submit(&api.shared, call.clone(), waiter);
        let Some(delivered) = from.recv().await else {
            fate.lost.store(true, Ordering::Relaxed);
            // The incarnation ended under it: the same number again, so that it happens once.
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        match &delivered.answer {
            Answer::Reply(reply) => {
                let reply = reply.clone();
                delivered.free();
                return Ok(reply);
            }
            // Its own deadline is about to say so too.
            Answer::Refuse(Reason::Overloaded | Reason::Expired, _) => {
                // A refusal promises that this copy will not be executed.
                fate.open.store(false, Ordering::Relaxed);
                sleep(Duration::from_millis(10)).await
            }
            Answer::Refuse(..) => return Err(refused(&api.shared, &delivered.answer)),
        }
    }
}

fn refused(shared: &Shared, answer: &Answer) -> Refusal {
    match answer {
        Answer::Refuse(Reason::UnknownMethod, why) => Refusal::new(
            StatusCode::NOT_FOUND,
            why.clone(),
            "the call was not made",
            "quintet component list shows what is deployed",
        ),
        _ => Refusal::not_serving(shared),
    }
}
