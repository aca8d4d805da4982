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
//! | `GET /v1/events?since=SEQ` | list of [`types::Event`] |
//! | `GET /v1/events/stream?since=SEQ` | the same, then live, as server-sent events |
//! | `POST /v1/call` ([`types::CallRequest`]) | [`types::CallReply`] |
//!
//! Every refusal is a [`types::Problem`]: what happened, what it means, what to do.

pub mod types;
