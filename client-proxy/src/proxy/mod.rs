//! The proxy: unmodified gRPC clients in front, managers behind.
//!
//! ```text
//! gRPC clients ──h2c──▶ [hyper: one task a connection] ──channel──▶ [driver task: session + manager sockets] ──▶ managers
//! ```
//!
//! What a client gets:
//! - every unary call is executed exactly once while the proxy lives, whichever managers die;
//! - its *own* retry is a new call, unless it sends the metadata `quintet-request-id` (1 to 128 printable characters,
//!   unique in the service): a second call with the same id, path and message joins the first or is given its answer.
//!   This holds within one run of one proxy, for its latest 16,384 ids and for ten minutes after the answer;
//! - `UNAVAILABLE` and `RESOURCE_EXHAUSTED` from the proxy begin with "not executed";
//! - `DEADLINE_EXCEEDED` with "the outcome is unknown" means that.
//!
//! Not at this stage: streaming calls (`UNIMPLEMENTED`), compression (`UNIMPLEMENTED`), TLS.

mod config;
mod grpc;
mod listen;
mod service;
mod status;

use std::{
    future::Future,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::{Duration, Instant},
};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::JoinSet,
};

pub use config::{Address, ConfigError, Limits, ProxyConfig, Timing};
pub use listen::ListenError;
pub use status::ProxyStatus;

use crate::{Client, ClientConfig};
use listen::{Listener, Stream};
use service::Door;
use status::StatusPage;

/// Streams a gRPC connection may have open; the client queues the rest.
const STREAMS_MAX: u32 = 1024;
/// A connection that is silent for so long is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Pause after the system refused a connection (no descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for the last answers to leave.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A socket is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// What `QUINTET_LOG` asks for is no filter.
    #[error(
        "QUINTET_LOG: {0}; write a level (error, warn, info, debug, trace), or `target=level`, separated by commas"
    )]
    Log(String),
}

/// A proxy that listens, but has not begun to accept.
#[derive(Debug)]
pub struct Proxy {
    config: ProxyConfig,
    listeners: Vec<Listener>,
    status: Option<Listener>,
}

impl Proxy {
    /// Checks the configuration and opens the sockets.
    ///
    /// # Errors
    /// The configuration is wrong, or an address is not to be had.
    pub async fn bind(config: ProxyConfig) -> Result<Self, ProxyError> {
        config.check()?;
        let mut listeners = Vec::new();
        for address in &config.listen {
            listeners.push(Listener::bind(address).await?);
        }
        let status = match &config.status {
            Some(address) => Some(Listener::bind(address).await?),
            None => None,
        };
        Ok(Self { config, listeners, status })
    }

    /// Where gRPC clients connect, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners.iter().filter_map(|listener| listener.address().ok()).collect()
    }

    /// Where the status is served.
    #[must_use]
    pub fn status_address(&self) -> Option<Address> {
        self.status.as_ref().and_then(|listener| listener.address().ok())
    }

    /// Serves until `stop` is done; then accepts nothing more, answers what is in flight (for up to `timing.drain_ms`),
    /// and tells the managers that this client is over.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { config, listeners, status } = self;
        let client = Client::start(client_config(&config));
        let door = Arc::new(Door {
            client: client.clone(),
            message_bytes_max: config.limits.message_bytes_max,
            deadline: Duration::from_millis(config.timing.deadline_ms),
            connections: AtomicU64::new(0),
            outcomes: Default::default(),
        });
        let listen = listeners
            .iter()
            .filter_map(|listener| listener.address().ok())
            .map(|at| at.to_string())
            .collect();
        let page = Arc::new(StatusPage { door: door.clone(), listen, started: Instant::now() });
        let (stopping, is_stopping) = watch::channel(false);
        let mut doors = JoinSet::new();
        for listener in listeners {
            if let Ok(address) = listener.address() {
                tracing::info!("gRPC clients connect to {address}");
            }
            doors.spawn(accept(listener, door.clone(), config.limits.clone(), is_stopping.clone()));
        }
        let mut pages = JoinSet::new();
        if let Some(listener) = status {
            if let Ok(address) = listener.address() {
                tracing::info!("status is at {address}");
            }
            pages.spawn(serve_status(listener, page));
        }
        stop.await;
        let drain = Duration::from_millis(config.timing.drain_ms);
        let end = tokio::time::Instant::now() + drain;
        tracing::info!("stopping: no new calls, up to {drain:?} for those in flight");
        let _ = stopping.send(true);
        let drained = async { while doors.join_next().await.is_some() {} };
        if tokio::time::timeout_at(end, drained).await.is_err() {
            tracing::warn!("calls are still in flight after {drain:?}: they are given up");
        }
        client.close(end.saturating_duration_since(tokio::time::Instant::now())).await;
        // What was given up just now is told to those who wait.
        let told = async { while doors.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_WORDS, told).await;
        doors.shutdown().await;
        pages.shutdown().await;
        tracing::info!("stopped");
    }
}

fn client_config(config: &ProxyConfig) -> ClientConfig {
    let mut client =
        ClientConfig::new(config.cluster.as_str(), config.managers.iter().map(String::as_str));
    client.requests_max = config.limits.request_ids_max;
    client.session.calls_max = config.limits.calls_max;
    client.session.bytes_max = config.limits.replay_bytes_max;
    client.session.ping = Duration::from_millis(config.timing.ping_ms);
    client
}

/// Accepts until told to stop, then waits for its connections to end.
async fn accept(
    listener: Listener,
    door: Arc<Door>,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = told(&mut stopping) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if door.connections.load(Ordering::Relaxed) >= limits.connections_max as u64 {
            tracing::warn!(
                "a connection was turned away: limits.connections_max = {}",
                limits.connections_max
            );
            continue;
        }
        door.connections.fetch_add(1, Ordering::Relaxed);
        let (door, stopping) = (door.clone(), stopping.clone());
        connections.spawn(async move {
            match stream {
                Stream::Tcp(stream) => serve(stream, &door, stopping).await,
                Stream::Unix(stream) => serve(stream, &door, stopping).await,
            }
            door.connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits until the proxy is told to stop.
async fn told(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Serves one gRPC connection.
async fn serve<S>(stream: S, door: &Arc<Door>, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let door = door.clone();
        async move { door.serve(request).await }
    });
    // A whole request fits one DATA frame and one window: it arrives in one piece.
    let window =
        u32::try_from(door.message_bytes_max + 1024).unwrap_or(u32::MAX).clamp(1 << 16, 1 << 24);
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_frame_size(window.min((1 << 24) - 1))
        .initial_stream_window_size(window)
        .initial_connection_window_size(window.max(1 << 20))
        .max_header_list_size(16 << 10)
        .keep_alive_interval(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = told(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a gRPC connection ended");
    }
}

async fn serve_status(listener: Listener, page: Arc<StatusPage>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if connections.len() >= 64 => {}
            Ok(Stream::Tcp(stream)) => drop(connections.spawn(serve_page(stream, page.clone()))),
            Ok(Stream::Unix(stream)) => drop(connections.spawn(serve_page(stream, page.clone()))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_page<S>(stream: S, page: Arc<StatusPage>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let page = page.clone();
        async move { page.serve(request).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30))
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a status connection ended");
    }
}
