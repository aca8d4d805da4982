//! One HTTP request to a daemon's admin API, over its Unix socket or loopback TCP; its answer or its refusal.

use super::Error;
use super::door::Door;
use crate::admin::types::Problem;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Connecting to a daemon that is stopped takes for ever otherwise.
const CONNECT: Duration = Duration::from_millis(500);
/// An answer that needs the group may wait for a view change, or for members to fetch a package: as long as a daemon
/// has patience with them, and a little more.
const ANSWER: Duration = Duration::from_secs(60);
/// What only needs the daemon itself is there at once, or the daemon hangs.
const OWN_ANSWER: Duration = Duration::from_secs(1);

/// Why there was no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The daemon could not be reached, or broke off in the middle of a look: another may answer.
    Unreachable(String),
    /// It was asked to do something and broke off: nobody can say whether it was done.
    Lost(String),
    /// It answered that it will not.
    Refused(Problem),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Unreachable(why) => Error::new(why),
            Failure::Lost(why) => Error::new(why)
                .hint("the outcome is unknown: it may have been done, or may still be; look before you repeat it"),
            Failure::Refused(problem) => {
                Error::new(problem.what).hint(problem.means).hint(problem.fix)
            }
        }
    }
}

/// `GET path`, parsed; for what the daemon knows by itself.
pub(super) async fn get<T: DeserializeOwned>(door: &Door, path: &str) -> Result<T, Failure> {
    let answer = exchange(door, Method::GET, path, nothing(), OWN_ANSWER).await?;
    parse(door, answer).await.map_err(Failure::Unreachable)
}

/// `POST path` with a body of that content-type, parsed; for what the group must agree on.
pub(super) async fn post<T: DeserializeOwned>(
    door: &Door,
    path: &str,
    body: (&str, Bytes),
) -> Result<T, Failure> {
    let answer = exchange(door, Method::POST, path, body, ANSWER).await?;
    parse(door, answer).await.map_err(Failure::Lost)
}

/// `DELETE path`.
pub(super) async fn delete(door: &Door, path: &str) -> Result<(), Failure> {
    exchange(door, Method::DELETE, path, nothing(), ANSWER).await.map(drop)
}

/// `GET path`, the body as it comes; for event streams.
pub(super) async fn stream(door: &Door, path: &str) -> Result<Incoming, Failure> {
    Ok(exchange(door, Method::GET, path, nothing(), OWN_ANSWER).await?.into_body())
}

fn nothing() -> (&'static str, Bytes) {
    ("application/json", Bytes::new())
}

/// What a good answer holds, or why that cannot be read.
async fn parse<T: DeserializeOwned>(door: &Door, answer: Response<Incoming>) -> Result<T, String> {
    let body = answer.into_body().collect().await.map_err(|error| broke_off(door, &error))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| broke_off(door, &error))
}

async fn exchange(
    door: &Door,
    method: Method,
    path: &str,
    (kind, body): (&str, Bytes),
    patience: Duration,
) -> Result<Response<Incoming>, Failure> {
    let stream = match tokio::time::timeout(CONNECT, door.connect()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Err(Failure::Unreachable(format!("no daemon answers at {door}: {error}")));
        }
        Err(_) => return Err(Failure::Unreachable(format!("the daemon at {door} hangs"))),
    };
    let looks = method == Method::GET;
    let request = door.head(Request::builder().method(method).uri(path));
    let request = request
        .header("content-type", kind)
        .body(Full::new(body))
        .map_err(|error| Failure::Unreachable(broke_off(door, &error)))?;
    let gone = |why| if looks { Failure::Unreachable(why) } else { Failure::Lost(why) };
    let answer = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    let answer = match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer.map_err(|error| gone(broke_off(door, &error)))?,
        Err(_) => {
            let why =
                format!("the daemon at {door} gave no answer within {} s", patience.as_secs());
            return Err(gone(why));
        }
    };
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let body = answer.into_body().collect().await;
    let body = body.map_err(|error| gone(broke_off(door, &error)))?.to_bytes();
    Err(Failure::Refused(serde_json::from_slice(&body).unwrap_or_else(|_| Problem {
        what: format!("{status}: {}", String::from_utf8_lossy(&body)),
        means: String::new(),
        fix: String::new(),
    })))
}

fn broke_off(door: &Door, error: &dyn std::error::Error) -> String {
    format!("the daemon at {door} broke off: {error}")
}
