//! One gRPC call through the proxy: from an HTTP/2 request to a response with trailers.
//!
//! The proxy knows no schema. It routes on `:path`, hands the request's message on in the slice of memory in which it
//! arrived, and does the same with the reply.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::grpc::{self, Unary};
use crate::{
    Client,
    wire::{self, Code, Status, Text},
};

/// What all calls of a proxy share.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) client: Client,
    pub(super) message_bytes_max: usize,
    pub(super) deadline: Duration,
    pub(super) connections: AtomicU64,
    /// Calls answered, by status code.
    pub(super) outcomes: [AtomicU64; Code::ALL.len()],
}

impl Door {
    /// Serves one request; protocol errors below gRPC get an HTTP status, all others a gRPC one.
    pub(super) async fn serve(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<ReplyBody>, Infallible> {
        let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
        if !request.headers().get(CONTENT_TYPE).is_some_and(is_grpc) {
            return Ok(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        if request.method() != Method::POST {
            return Ok(plain(StatusCode::METHOD_NOT_ALLOWED));
        }
        let outcome = self.call(request).await;
        let code = outcome.as_ref().map_or_else(|status| status.code, |_| Code::Ok);
        self.outcomes[usize::from(code.number())].fetch_add(1, Ordering::Relaxed);
        Ok(match outcome {
            Ok(message) => replied(message),
            Err(status) => failed(&status),
        })
    }

    async fn call(&self, request: Request<Incoming>) -> Result<wire::Body, Status> {
        let begun = tokio::time::Instant::now();
        let (head, mut body) = request.into_parts();
        let deadline = match head.headers.get(grpc::GRPC_TIMEOUT) {
            None => self.deadline,
            Some(value) => grpc::timeout(value.as_bytes()).ok_or_else(|| {
                Status::new(
                    Code::InvalidArgument,
                    format!("not executed: grpc-timeout {value:?} is no time"),
                )
            })?,
        };
        let path = Text::from(head.uri.path());
        if !is_method(&path) {
            let message =
                format!("not executed: {path:?} is not of the form /package.Service/Method");
            return Err(Status::new(Code::Unimplemented, message));
        }
        let reading = read(&mut body, self.message_bytes_max);
        let message = tokio::time::timeout(deadline, reading).await.map_err(|_| {
            Status::new(
                Code::DeadlineExceeded,
                "not executed: the request did not arrive whole before the deadline",
            )
        })??;
        let left = deadline.saturating_sub(begun.elapsed());
        let reply = match head.headers.get(grpc::REQUEST_ID) {
            None => self.client.call(path, message, left).await?,
            Some(id) => {
                let id = id.to_str().map_err(|_| {
                    Status::new(
                        Code::InvalidArgument,
                        "not executed: quintet-request-id is not printable ASCII",
                    )
                })?;
                self.client.call_named(id, path, message, left).await?
            }
        };
        Ok(reply.body)
    }
}

async fn read(body: &mut Incoming, bytes_max: usize) -> Result<wire::Body, Status> {
    let mut unary = Unary::new(bytes_max);
    while !body.is_end_stream() {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    unary.push(data)?;
                }
            }
            Some(Err(error)) => {
                return Err(Status::new(
                    Code::Cancelled,
                    format!("not executed: the request broke off: {error}"),
                ));
            }
        }
    }
    unary.finish()
}

fn is_method(path: &str) -> bool {
    let mut parts = path.split('/');
    parts.next() == Some("")
        && parts.next().is_some_and(|service| !service.is_empty())
        && parts.next().is_some_and(|method| !method.is_empty())
        && parts.next().is_none()
}

fn replied(message: wire::Body) -> Response<ReplyBody> {
    let mut trailers = HeaderMap::with_capacity(1);
    grpc::put_status(&mut trailers, &Status::OK);
    let mut response =
        Response::new(ReplyBody { message: Some(message.into_framed()), trailers: Some(trailers) });
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A status without a message goes into the headers, which end the stream ("trailers-only").
fn failed(status: &Status) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody { message: None, trailers: None });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(grpc::GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    grpc::put_status(headers, status);
    response
}

fn plain(code: StatusCode) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody { message: None, trailers: None });
    *response.status_mut() = code;
    response
}

/// At most one message, then at most one set of trailers.
#[derive(Debug)]
pub(super) struct ReplyBody {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let message = self.message.take().map(Frame::data);
        Poll::Ready(message.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.message.as_ref().map_or(0, |message| message.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::is_method;

    #[test]
    fn paths_have_a_service_and_a_method() {
        assert!(is_method("/bank.Bank/Transfer"));
        for wrong in ["", "/", "/a", "/a/", "//b", "a/b", "/a/b/c", "/a/b/"] {
            assert!(!is_method(wrong), "{wrong}");
        }
    }
}
