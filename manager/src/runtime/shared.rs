//! What all parts of the daemon share, across incarnations.

use super::{Audits, Directory, Outbox, Slots};
use crate::admin::types::{Member, NodeState, View};
use crate::config::Config;
use crate::events::Events;
use crate::executor::Readers;
use crate::packages::Packages;
use crate::replica::Message;
use crate::stats;
use arc_swap::{ArcSwap, ArcSwapOption};
use quintet_transport::clock;
use quintet_transport::stats::{Board, Cell};
use quintet_vsync::{Group, Node, SendError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// The daemon, as seen by its servers.
pub struct Shared {
    /// What the file said.
    pub config: Config,
    /// When the process started, monotonic nanoseconds.
    pub started_ns: u64,
    /// Packages and libraries.
    pub packages: Packages,
    /// Who waits for which call.
    pub outbox: Arc<Outbox>,
    /// What happened.
    pub events: Arc<Events>,
    /// Serves reads.
    pub readers: Readers,
    /// What is deployed, for lookups without a lock.
    pub directory: ArcSwap<Directory>,
    /// The incarnation that runs.
    pub live: ArcSwapOption<Live>,
    /// Where the node stands; every change wakes the connections.
    pub standing: watch::Sender<Standing>,
    /// Calls that wait.
    pub calls: Slots,
    /// Client connections.
    pub connections: Slots,
    /// State hashes of all replicas.
    pub audits: Audits,
    /// First position not delivered here.
    pub delivered: Cell,
    /// Bytes of journal since the last snapshot.
    pub journal_bytes: Cell,
    /// The daemon was told to stop.
    pub stopping: AtomicBool,
    /// What was counted.
    pub counters: Counters,
    /// Where all of these lie, and what the engine counts.
    pub board: Arc<Board>,
    /// For what must wait for the network.
    pub tokio: tokio::runtime::Handle,
}

/// Monotonic counters.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it; they are shown as they are")]
pub struct Counters {
    pub calls: Cell,
    pub updates: Cell,
    pub reads: Cell,
    pub refused: Cell,
    pub malformed_frames: Cell,
    pub messages: Cell,
    pub snapshots: Cell,
    pub transfers_received: Cell,
}

impl Counters {
    fn on(board: &Arc<Board>) -> Counters {
        let cell = |name: &str| stats::cell(board, &format!("manager.{name}"));
        Counters {
            calls: cell("calls"),
            updates: cell("updates"),
            reads: cell("reads"),
            refused: cell("refused"),
            malformed_frames: cell("malformed_frames"),
            messages: cell("messages"),
            snapshots: cell("snapshots"),
            transfers_received: cell("transfers_received"),
        }
    }
}

/// The incarnation that runs.
#[derive(Debug)]
pub struct Live {
    /// Its node; dropping the last handle stops it.
    pub node: Node,
    /// Its group.
    pub group: Group,
}

impl Live {
    /// May a read that was just made be answered? Asked after the read.
    pub fn lease_valid(&self) -> bool {
        self.group.lease_valid(clock::now())
    }
}

/// Where the node stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// In one word.
    pub state: NodeState,
    /// Why.
    pub reason: Option<String>,
    /// The incarnation that runs; 0 between two.
    pub incarnation: u64,
    /// How many were begun.
    pub incarnations: u64,
    /// The view installed last.
    pub view: Option<View>,
}

impl Standing {
    /// May calls be taken?
    pub fn serves(&self) -> bool {
        self.state == NodeState::Member
    }
}

/// A message could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendFailed {
    /// No incarnation runs, or it is over.
    #[error("this node is not in the group now")]
    NotRunning,
    /// The log stayed full.
    #[error("the group does not take messages fast enough")]
    Full,
    /// The message is too long.
    #[error("a message may have at most {0} bytes")]
    TooLarge(usize),
}

/// Wall-clock time for the stamp of a message.
pub(crate) fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

impl Shared {
    /// All that the parts share, before the first incarnation.
    pub fn new(
        config: Config,
        packages: Packages,
        tokio: tokio::runtime::Handle,
    ) -> std::io::Result<Arc<Shared>> {
        let limits = &config.limits;
        let started_ns = clock::now().as_nanos();
        let board = stats::board(&config, started_ns)?;
        let standing = Standing {
            state: NodeState::Starting,
            reason: None,
            incarnation: 0,
            incarnations: 0,
            view: None,
        };
        Ok(Arc::new(Shared {
            started_ns,
            packages,
            outbox: Arc::default(),
            events: Arc::new(Events::new(config.node, limits.events)),
            readers: Readers::start(limits.reader_threads, limits.reads_queued),
            directory: ArcSwap::default(),
            live: ArcSwapOption::empty(),
            standing: watch::Sender::new(standing),
            calls: Slots::new(limits.calls),
            connections: Slots::new(limits.connections),
            audits: Audits::default(),
            delivered: stats::cell(&board, "manager.position"),
            journal_bytes: stats::cell(&board, "manager.journal_bytes"),
            stopping: AtomicBool::new(false),
            counters: Counters::on(&board),
            board,
            tokio,
            config,
        }))
    }

    /// Changes where the node stands.
    pub fn stand(&self, state: NodeState, reason: Option<String>) {
        self.standing.send_modify(|standing| {
            standing.state = state;
            standing.reason = reason;
        });
    }

    /// Orders a message once; `Full` at once if the log has no room.
    pub fn try_send(&self, message: &Message<'_>) -> Result<(), SendFailed> {
        let live = self.live.load();
        let live = live.as_ref().ok_or(SendFailed::NotRunning)?;
        live.group.send(&message.encode(wall_ns())).map(|_| ()).map_err(|e| match e {
            SendError::Full => SendFailed::Full,
            SendError::TooLarge { limit } => SendFailed::TooLarge(limit),
            SendError::Closed => SendFailed::NotRunning,
        })
    }

    /// Orders a message, waiting some seconds for room. Not for the tokio threads.
    pub fn send(&self, message: &Message<'_>) -> Result<(), SendFailed> {
        for _ in 0..500 {
            match self.try_send(message) {
                Err(SendFailed::Full) => std::thread::sleep(Duration::from_millis(10)),
                done => return done,
            }
        }
        Err(SendFailed::Full)
    }

    /// Is the daemon stopping?
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The members of the current view, as node ids in rank order.
    pub fn members(&self) -> Vec<u16> {
        let standing = self.standing.borrow();
        standing.view.iter().flat_map(|v| &v.members).map(|m: &Member| m.node).collect()
    }
}
