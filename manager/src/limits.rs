//! Every bound of the manager in one place.
//!
//! Reaching one is back-pressure or a typed refusal, never growth. All can be set in the
//! `[limits]` table of the configuration and are shown by `quintet status --limits`, except the constants
//! here: they decide what the replicated state becomes, so every node must have the same ones.

use serde::{Deserialize, Serialize};

/// Open client sessions in the replicated state.
pub const SESSIONS: usize = 65_536;
/// Ended sessions of which is remembered how far their calls had come; beyond it the oldest give way.
pub const SESSIONS_ENDED: usize = 2 * SESSIONS;
/// Replies kept per client and instance until the client has acknowledged them.
pub const REPLIES_PER_CLIENT: usize = quintet_client::wire::limits::CALL_SPAN_MAX;
/// Bytes of one reply body; a longer one becomes an error status.
pub const REPLY_BYTES: usize = 1 << 20;
/// Component packages known at once, in whatever state.
pub const PACKAGES: usize = 256;

/// The bounds of every queue and table.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections at once; one more is answered with Goodbye.
    pub connections: usize,
    /// A client that takes nothing of what waits for it for this long is disconnected; one that says nothing is asked
    /// after this long, and disconnected after three times as long, in seconds.
    pub client_patience_s: u64,
    /// Calls of one connection that wait for their reply; one more is refused as overload.
    pub calls_per_connection: usize,
    /// Calls of all connections that wait for their reply.
    pub calls: usize,
    /// Bytes of one request body (the group's inline message limit bounds it too).
    pub request_bytes: usize,
    /// A session whose client was not heard of for this long ends, in seconds. Counted in quarters that the coordinator
    /// measures, see `replica::sessions`.
    pub session_idle_s: u64,
    /// Updates waiting for one instance before delivery is held back.
    pub instance_queue: usize,
    /// Threads that serve reads, shared by all instances.
    pub reader_threads: usize,
    /// Reads waiting for a reader thread; one more is refused as overload.
    pub reads_queued: usize,
    /// Bytes of one component package.
    pub package_bytes: usize,
    /// Bytes of messages held for a learner while its snapshot is on the way.
    pub transfer_tail_bytes: usize,
    /// Events kept for `quintet events`.
    pub events: usize,
    /// How long a stopping daemon waits for calls in flight, in seconds.
    pub drain_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 1024,
            client_patience_s: 10,
            calls_per_connection: 8192,
            calls: 32_768,
            request_bytes: 64 << 10,
            session_idle_s: 3600,
            instance_queue: 65_536,
            reader_threads: 2,
            reads_queued: 16_384,
            package_bytes: 48 << 20,
            transfer_tail_bytes: 256 << 20,
            events: 4096,
            drain_s: 10,
        }
    }
}

impl Limits {
    /// A bound of zero would stop everything; `Err` is (key, its default).
    pub(crate) fn check(&self) -> Result<(), (&'static str, usize)> {
        let bounds = |limits: &Limits| {
            [
                ("connections", limits.connections),
                ("client_patience_s", limits.client_patience_s as usize),
                ("calls_per_connection", limits.calls_per_connection),
                ("calls", limits.calls),
                ("request_bytes", limits.request_bytes),
                ("session_idle_s", limits.session_idle_s as usize),
                ("instance_queue", limits.instance_queue),
                ("reader_threads", limits.reader_threads),
                ("reads_queued", limits.reads_queued),
                ("package_bytes", limits.package_bytes),
                ("transfer_tail_bytes", limits.transfer_tail_bytes),
                ("events", limits.events),
            ]
        };
        let mut own = bounds(self).into_iter().zip(bounds(&Limits::default()));
        match own.find(|((_, value), _)| *value == 0) {
            Some(((key, _), (_, usual))) => Err((key, usual)),
            None => Ok(()),
        }
    }
}
