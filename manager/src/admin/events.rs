//! Events: those kept, and live as server-sent events.

use super::Api;
use super::types::Event;
use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use serde::Deserialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, channel};

#[derive(Deserialize)]
pub(super) struct Since {
    #[serde(default)]
    since: u64,
}

pub(super) async fn list(
    State(api): State<Api>,
    Query(Since { since }): Query<Since>,
) -> Json<Vec<Event>> {
    Json(api.shared.events.since(since))
}

pub(super) async fn stream(
    State(api): State<Api>,
    Query(Since { mut since }): Query<Since>,
) -> Response {
    let (tx, rx) = channel::<Bytes>(16);
    tokio::spawn(async move {
        let mut latest = api.shared.events.follow();
        loop {
            latest.borrow_and_update();
            for event in api.shared.events.since(since) {
                since = event.seq;
                let Ok(json) = serde_json::to_string(&event) else { continue };
                let text = format!("id: {}\ndata: {json}\n\n", event.seq);
                if tx.send(Bytes::from(text)).await.is_err() {
                    return;
                }
            }
            // A comment now and then finds out whether somebody still listens.
            match tokio::time::timeout(Duration::from_secs(15), latest.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    if tx.send(Bytes::from_static(b": still here\n\n")).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::new(Stream(rx))).into_response()
}

/// A response body that is fed by a channel.
struct Stream(Receiver<Bytes>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
