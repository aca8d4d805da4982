//! A gRPC client without generated code, on hyper: it can also say what no stock client would.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, Incoming},
    client::conn::http2::SendRequest,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quintet_client::proxy::Address;
use tokio::io::{AsyncRead, AsyncWrite};

pub struct Grpc(SendRequest<Pieces>);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub http: StatusCode,
    pub headers: HeaderMap,
    /// The message, with its prefix.
    pub framed: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// The status, from wherever it stands.
    pub fn status(&self) -> (u32, String) {
        let from = if self.headers.contains_key("grpc-status") {
            &self.headers
        } else {
            self.trailers.as_ref().unwrap()
        };
        let message = from.get("grpc-message").map_or("", |value| value.to_str().unwrap());
        (from["grpc-status"].to_str().unwrap().parse().unwrap(), message.into())
    }
}

impl Clone for Grpc {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Grpc {
    pub async fn connect(address: &Address) -> Self {
        match address {
            Address::Tcp(address) => {
                let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                Self::over(stream).await
            }
            Address::Unix(path) => {
                Self::over(tokio::net::UnixStream::connect(path).await.unwrap()).await
            }
        }
    }

    async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Self(sender)
    }

    /// A call with one message, prefixed as it should be.
    pub async fn unary(&self, path: &str, message: &[u8], headers: &[(&str, &str)]) -> Answer {
        let framed = quintet_client::wire::Body::from(message).into_framed();
        self.send(path, vec![framed], headers).await.unwrap()
    }

    /// A call with any DATA frames.
    pub async fn send(
        &self,
        path: &str,
        data: Vec<Bytes>,
        headers: &[(&str, &str)],
    ) -> hyper::Result<Answer> {
        let mut request = Request::post(format!("http://proxy{path}")).header("te", "trailers");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut sender = self.0.clone();
        sender.ready().await?;
        let response: Response<Incoming> =
            sender.send_request(request.body(Pieces(data.into())).unwrap()).await?;
        let (head, body) = response.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned();
        Ok(Answer {
            http: head.status,
            headers: head.headers,
            framed: collected.to_bytes(),
            trailers,
        })
    }
}

/// DATA frames, one by one.
pub struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}
