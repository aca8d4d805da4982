//! The admin API: HTTP/JSON on a Unix socket and, if configured, on loopback TCP.
//!
//! `quintet` and the console use this and nothing else.
//!
//! | route | answers |
//! |---|---|
//! | `GET /v1/status` | [`types::Status`] |
//! | `GET /v1/nodes` | list of [`types::Node`] |
//! | `GET /v1/links` | list of [`types::Link`] |
//! | `GET /v1/components` | list of [`types::Component`] |
//! | `POST /v1/components` (a package) | [`types::Deployed`] |
//! | `DELETE /v1/components/{name}` | nothing |
//! | `GET /v1/instances` | list of [`types::Instance`] |
//! | `POST /v1/audit` | [`types::Audit`] |
//! | `POST /v1/recover` ([`types::Recover`]) | the same |
//! | `GET /v1/events?since=SEQ` | list of [`types::Event`] |
//! | `GET /v1/events/stream?since=SEQ` | the same, then live, as server-sent events |
//! | `POST /v1/call` ([`types::CallRequest`]) | [`types::CallReply`] |
//!
//! What is sent says what it is: `application/x-tar` for a package, `application/json` for the rest. Over TCP a request
//! must be for a loopback address and come from no web page, and what is not `GET` brings the daemon's token ([`Token`]).
//!
//! Every refusal is a [`types::Problem`]: what happened, what it means, what to do.

mod audit;
mod call;
mod component;
mod door;
mod events;
mod problem;
mod recover;
mod show;
pub mod types;

pub use door::{TOKEN_FILE, Token};

use crate::runtime::Shared;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{delete, get, post};
use problem::Refusal;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};

/// What every handler gets.
#[derive(Clone)]
struct Api {
    shared: Arc<Shared>,
    caller: Arc<call::Caller>,
}

/// Serves the API on a Unix socket.
pub async fn serve_unix(listener: UnixListener, shared: Arc<Shared>) {
    let _ = axum::serve(listener, routes(shared)).await;
}

/// Serves the API on loopback TCP; what changes something needs the token.
pub async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>, token: Token) {
    let watched = routes(shared).layer(middleware::from_fn_with_state(token, door::watch));
    let _ = axum::serve(listener, watched).await;
}

fn routes(shared: Arc<Shared>) -> Router {
    let package_bytes = shared.config.limits.package_bytes;
    let deploy = post(component::deploy).layer(DefaultBodyLimit::max(package_bytes));
    Router::new()
        .route("/v1/status", get(show::status))
        .route("/v1/nodes", get(show::nodes))
        .route("/v1/links", get(show::links))
        .route("/v1/components", get(show::components).merge(deploy))
        .route("/v1/components/{name}", delete(component::undeploy))
        .route("/v1/instances", get(show::instances))
        .route("/v1/audit", post(audit::audit))
        .route("/v1/recover", post(recover::recover))
        .route("/v1/events", get(events::list))
        .route("/v1/events/stream", get(events::stream))
        .route("/v1/call", post(call::call))
        .fallback(|| async { Refusal::no_route() })
        .layer(middleware::from_fn(door::typed))
        .with_state(Api { caller: Arc::new(call::Caller::new()), shared })
}
