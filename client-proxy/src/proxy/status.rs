//! The proxy's state as JSON over HTTP/1, for `quintet status` and for scripts.
//!
//! `GET /status` gives everything; `GET /ready` is 200 when calls have somewhere to go, else 503 with the reason.

use std::{
    collections::BTreeMap, convert::Infallible, sync::Arc, sync::atomic::Ordering, time::Instant,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;

use super::service::Door;
use crate::{session::SessionStatus, wire::Code};

/// A snapshot of a proxy.
#[derive(Clone, Debug, Serialize)]
pub struct ProxyStatus {
    /// Version of the program.
    pub version: &'static str,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Where gRPC clients connect.
    pub listen: Vec<String>,
    /// gRPC connections open.
    pub connections: u64,
    /// gRPC calls answered, by status code.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// The route, the managers, the view, the calls; absent while the proxy stops.
    pub session: Option<SessionStatus>,
}

#[derive(Debug)]
pub(super) struct StatusPage {
    pub(super) door: Arc<Door>,
    pub(super) listen: Vec<String>,
    pub(super) started: Instant,
}

impl StatusPage {
    pub(super) async fn snapshot(&self) -> ProxyStatus {
        let counts = Code::ALL.iter().zip(&self.door.outcomes);
        let counts = counts.map(|(code, count)| (code.name(), count.load(Ordering::Relaxed)));
        ProxyStatus {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            listen: self.listen.clone(),
            connections: self.door.connections.load(Ordering::Relaxed),
            outcomes: counts.filter(|(_, count)| *count > 0).collect(),
            session: self.door.client.status().await,
        }
    }

    pub(super) async fn serve(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        if request.method() != Method::GET {
            return Ok(answer(StatusCode::METHOD_NOT_ALLOWED, &"only GET"));
        }
        let status = self.snapshot().await;
        Ok(match request.uri().path() {
            "/" | "/status" => answer(StatusCode::OK, &status),
            "/ready" => match status.session {
                Some(session) if session.routed.is_some() => {
                    answer(StatusCode::OK, &session.routed)
                }
                Some(session) => answer(StatusCode::SERVICE_UNAVAILABLE, &session.hindrance),
                None => answer(StatusCode::SERVICE_UNAVAILABLE, &"stopping"),
            },
            _ => answer(StatusCode::NOT_FOUND, &"there are /status and /ready"),
        })
    }
}

fn answer(code: StatusCode, content: &impl Serialize) -> Response<Full<Bytes>> {
    let mut text = serde_json::to_string_pretty(content).expect("a snapshot is JSON");
    text.push('\n');
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
