//! What takes long and needs other nodes: fetching and loading packages, gathering hashes. Each on
//! a thread of its own; the result comes back as an ordered message.

use super::Shared;
use crate::package::Digest;
use crate::packages::{self, Loaded};
use crate::replica::Message;
use crossbeam_channel::Receiver;
use quintet_client::{client::fetch, wire};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Rounds through all nodes before a package is given up.
const ROUNDS: u32 = 3;

/// Why a package or what is in it cannot be had here.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The own disk does not take it: another attempt fares no better.
    #[error("{0}; make room or put right what the message names")]
    Disk(packages::Error),
    /// Something else, which may pass.
    #[error("{0}")]
    Otherwise(String),
}

impl From<packages::Error> for Unavailable {
    fn from(error: packages::Error) -> Unavailable {
        match error {
            packages::Error::Io { .. } => Unavailable::Disk(error),
            other => Unavailable::Otherwise(other.to_string()),
        }
    }
}

impl From<String> for Unavailable {
    fn from(why: String) -> Unavailable {
        Unavailable::Otherwise(why)
    }
}

/// Fetches and loads a package, tries it out, and orders a `Loaded` that says how it went.
pub(super) fn load(shared: &Arc<Shared>, digest: Digest, source: u16) {
    background(shared, "load", move |shared| {
        let loaded = obtain(&shared, &digest, &[source])
            .and_then(|()| Ok(shared.packages.load(&digest)?))
            .and_then(|classes| Ok(classes.iter().try_for_each(Loaded::try_out)?));
        let problem: String = match loaded {
            Ok(()) => String::new(),
            Err(why) => why.to_string().chars().take(2000).collect(),
        };
        let node = shared.config.node;
        let report = Message::Loaded { digest, node, problem: &problem };
        if let Err(why) = shared.send(&report) {
            tracing::warn!("cannot report package {digest}: {why}");
        }
    });
}

/// Gathers the hashes of all instances and orders an `Audited` with them.
pub(super) fn report_hashes(
    shared: &Arc<Shared>,
    token: u64,
    hashes: Receiver<(u32, Result<[u8; 32], String>)>,
) {
    background(shared, "audit", move |shared| {
        let mut all: Vec<_> = hashes.iter().collect();
        all.sort_by_key(|(id, _)| *id);
        let hashes =
            all.iter().map(|(id, hash)| (*id, hash.as_ref().copied().map_err(String::as_str)));
        let report = Message::Audited { token, node: shared.config.node, hashes: hashes.collect() };
        if let Err(why) = shared.send(&report) {
            tracing::warn!("cannot report the audit: {why}");
        }
    });
}

/// Makes sure that a package is on disk: asks `first`, then all other nodes, some times. Blocks;
/// not for the tokio threads.
pub(super) fn obtain(shared: &Shared, digest: &Digest, first: &[u16]) -> Result<(), Unavailable> {
    // One that is damaged on this disk may be sound on another.
    let sound = || !matches!(shared.packages.load(digest), Err(packages::Error::Digest { .. }));
    if shared.packages.holds(digest) && sound() {
        return Ok(());
    }
    let config = &shared.config;
    let others = config.nodes.iter().filter(|n| n.id != config.node);
    let (mut order, rest): (Vec<_>, Vec<_>) = others.partition(|n| first.contains(&n.id));
    order.extend(rest);
    let mut problems: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        problems.clear();
        for node in &order {
            match one(shared, digest, node.client) {
                Ok(()) => return Ok(()),
                Err(Unavailable::Otherwise(why)) => problems.push(format!("n{}: {why}", node.id)),
                Err(disk) => return Err(disk),
            }
            if shared.is_stopping() {
                return Err("the daemon is stopping".to_owned().into());
            }
        }
        if round + 1 < ROUNDS {
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    Err(format!("no node gives package {digest} ({})", problems.join("; ")).into())
}

fn one(shared: &Shared, digest: &Digest, from: SocketAddr) -> Result<(), Unavailable> {
    let limit = shared.config.limits.package_bytes as u64;
    let (from, wanted) = (from.to_string(), wire::Digest(digest.0));
    let mut bytes = Vec::new();
    let fetching = fetch(&from, &shared.config.cluster, wanted, limit, &mut bytes);
    shared.tokio.block_on(fetching).map_err(|e| e.to_string())?;
    Ok(shared.packages.store(digest, &bytes)?)
}

fn background(shared: &Arc<Shared>, name: &str, job: impl FnOnce(Arc<Shared>) + Send + 'static) {
    let shared = shared.clone();
    let spawned = std::thread::Builder::new().name(name.into()).spawn(move || job(shared));
    if let Err(why) = spawned {
        tracing::error!("the system gives no thread: {why}");
    }
}
