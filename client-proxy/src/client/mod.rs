//! A failover-aware client of a Quintet cluster.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use quintet_client::{Client, ClientConfig, wire::Body};
//!
//! let client = Client::connect(ClientConfig::new("demo", ["127.0.0.1:7411", "127.0.0.1:7412"])).await?;
//! let request = Body::from(&b"\x08\x01"[..]); // an encoded protobuf message
//! let reply = client.call("/bank.Bank/Balance", request, Duration::from_secs(2)).await?;
//! println!("{} bytes as of position {}", reply.body.len(), reply.position);
//! # Ok(()) }
//! ```
//!
//! Each call is executed exactly once, whichever managers die while it is under way; see [`session`].

mod driver;
mod fetch;
mod requests;
mod stream;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use driver::{Clock, Command, Driver};
pub use fetch::{FetchError, fetch};
pub use requests::{
    ENTRIES_MAX as REQUEST_IDS_MAX, ID_BYTES_MAX as REQUEST_ID_BYTES_MAX, RETENTION,
};

use crate::{
    session::{self, Session, SessionStatus},
    wire::{Body, ClientId, Code, Reply, Status, Text, limits},
};

/// A manager's reply, or a status of this side's own.
pub(crate) type Outcome = Result<Reply, Status>;

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Limits, times and endpoints.
    pub session: session::Config,
    /// Most request ids remembered for [`Client::call_named`].
    pub requests_max: usize,
    /// How long [`Client::connect`] waits for a manager in a primary view.
    pub connect: Duration,
}

impl ClientConfig {
    /// Defaults, a random client id, and these managers to begin with (`host:port` or `unix:/path`).
    ///
    /// # Panics
    /// The operating system gives no random bytes.
    #[must_use]
    pub fn new<A: Into<Text>>(
        cluster: impl Into<Text>,
        endpoints: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut id = [0; 16];
        getrandom::fill(&mut id).expect("the operating system gives random bytes");
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Self {
            session: session::Config::new(cluster, ClientId(u128::from_le_bytes(id)), endpoints),
            requests_max: requests::ENTRIES_MAX,
            connect: Duration::from_secs(10),
        }
    }
}

/// No manager in a primary view was reached in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no connection to cluster {cluster:?} within {waited:?}: {why}")]
pub struct ConnectError {
    /// The cluster's name.
    pub cluster: String,
    /// Time spent.
    pub waited: Duration,
    /// What stood in the way.
    pub why: String,
}

/// A client. Clones share one session; when the last is dropped, the session ends.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    clock: Clock,
}

impl Client {
    /// Begins to connect and returns at once; calls wait for a manager. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(config: ClientConfig) -> Self {
        let clock = Clock::new();
        let (commands, receiver) = mpsc::channel(config.session.calls_max.clamp(16, 1 << 16));
        let bytes_max = config.session.bytes_max;
        let session = Session::new(clock.now(), config.session);
        tokio::spawn(Driver::new(session, clock, receiver, config.requests_max, bytes_max).run());
        Self { commands, clock }
    }

    /// Connects, and returns when there is a manager to give calls to.
    ///
    /// # Errors
    /// None was reached within [`ClientConfig::connect`].
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let (waited, cluster) = (config.connect, config.session.cluster.to_string());
        let client = Self::start(config);
        let (ready, is_ready) = oneshot::channel();
        let _ = client.commands.send(Command::Ready(ready)).await;
        match tokio::time::timeout(waited, is_ready).await {
            Ok(Ok(())) => Ok(client),
            _ => {
                let why =
                    client.status().await.and_then(|status| status.hindrance).unwrap_or_default();
                Err(ConnectError { cluster, waited, why })
            }
        }
    }

    /// Calls a method (`/package.Service/Method`), exactly once.
    ///
    /// # Errors
    /// The method's own status, or one of this side: `UNAVAILABLE` or `RESOURCE_EXHAUSTED` (not executed),
    /// `DEADLINE_EXCEEDED` (not known whether it was executed), `INVALID_ARGUMENT` (path or message beyond a limit).
    pub async fn call(
        &self,
        path: impl Into<Text>,
        body: impl Into<Body>,
        deadline: Duration,
    ) -> Result<Reply, Status> {
        let (path, body) = checked(path.into(), body.into())?;
        let (reply, outcome) = oneshot::channel();
        let deadline = Some(self.clock.now() + deadline);
        self.command(Command::Call { path, body, deadline, reply })?;
        settle(outcome.await)
    }

    /// As [`call`](Self::call), for a call that the caller gave an id, so that calling again with the same id is not a
    /// new call. It goes on until it has an answer, also past the deadline; calling again fetches the answer.
    ///
    /// Holds for one client (not its successor after a restart), the latest [`REQUEST_IDS_MAX`] ids, and [`RETENTION`]
    /// after the answer.
    ///
    /// # Errors
    /// As for `call`; after `DEADLINE_EXCEEDED` call again with the same id. `INVALID_ARGUMENT` if the id named another
    /// call.
    pub async fn call_named(
        &self,
        id: impl Into<Text>,
        path: impl Into<Text>,
        body: impl Into<Body>,
        deadline: Duration,
    ) -> Result<Reply, Status> {
        let id = id.into();
        if id.is_empty() || id.len() > requests::ID_BYTES_MAX {
            let message =
                format!("a request id has 1 to {} bytes, not {}", requests::ID_BYTES_MAX, id.len());
            return Err(Status::new(Code::InvalidArgument, message));
        }
        let (path, body) = checked(path.into(), body.into())?;
        let (reply, outcome) = oneshot::channel();
        self.command(Command::Named { id, path, body, reply })?;
        match tokio::time::timeout(deadline, outcome).await {
            Ok(outcome) => settle(outcome),
            Err(_) => {
                let message = format!(
                    "no answer within {} ms; the call goes on: ask again with the same request id",
                    deadline.as_millis()
                );
                Err(Status::new(Code::DeadlineExceeded, message))
            }
        }
    }

    /// A snapshot of the session; `None` when it has ended.
    pub async fn status(&self) -> Option<SessionStatus> {
        let (reply, status) = oneshot::channel();
        self.commands.send(Command::Status(reply)).await.ok()?;
        status.await.ok()
    }

    /// Takes no more calls, waits up to `grace` for the answers under way, tells the managers that this client is over.
    pub async fn close(&self, grace: Duration) {
        let (done, closed) = oneshot::channel();
        if self
            .commands
            .send(Command::Close { until: self.clock.now() + grace, done })
            .await
            .is_ok()
        {
            let _ = closed.await;
        }
    }

    fn command(&self, command: Command) -> Result<(), Status> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Status::new(
                Code::ResourceExhausted,
                "not executed: more calls arrive than can be taken in",
            ),
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })
    }
}

fn stopped() -> Status {
    Status::new(Code::Unavailable, "this client has stopped")
}

fn settle(outcome: Result<Outcome, oneshot::error::RecvError>) -> Result<Reply, Status> {
    let reply = outcome.map_err(|_| stopped())??;
    if reply.status.is_ok() { Ok(reply) } else { Err(reply.status) }
}

fn checked(path: Text, body: Body) -> Result<(Text, Body), Status> {
    let too_long = |what: &str, length: usize, limit: usize| {
        Err(Status::new(
            Code::InvalidArgument,
            format!("{what} of {length} bytes exceeds the limit of {limit}"),
        ))
    };
    if path.len() > limits::PATH_BYTES_MAX {
        return too_long("a path", path.len(), limits::PATH_BYTES_MAX);
    }
    if body.len() > limits::MESSAGE_BYTES_MAX {
        return too_long("a message", body.len(), limits::MESSAGE_BYTES_MAX);
    }
    Ok((path, body))
}
