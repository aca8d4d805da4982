//! Which daemons a command talks to, and asking the next one when one does not answer.

use super::api::{self, Failure};
use super::{Error, Scope};
use crate::dev::layout::{Layout, default_dir};
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// The daemons of one cluster.
pub(super) struct Cluster {
    /// Admin sockets, in node order.
    pub(super) sockets: Vec<Socket>,
    /// Status socket of the development cluster's proxy.
    pub(super) proxy: Option<PathBuf>,
}

/// A daemon's door.
pub(super) struct Socket {
    /// The node, where it is known before asking.
    pub(super) node: Option<u16>,
    /// Path of the Unix socket.
    pub(super) path: PathBuf,
}

impl Cluster {
    /// Finds the daemons as the flags say.
    pub(super) fn find(scope: &Scope) -> Result<Cluster, Error> {
        if !scope.admin.is_empty() {
            let sockets =
                scope.admin.iter().map(|path| Socket { node: None, path: path.clone() }).collect();
            return Ok(Cluster { sockets, proxy: None });
        }
        let dir = scope.cluster_dir.clone().unwrap_or_else(default_dir);
        let layout = Layout::load(&dir).map_err(|why| {
            Error::new(format!("no cluster found: {why}")).hint(
                "start one with `quintet dev --nodes 3`, or name a daemon with --admin SOCKET",
            )
        })?;
        let sockets = layout
            .nodes
            .iter()
            .map(|node| Socket { node: Some(node.id), path: node.admin.clone() });
        Ok(Cluster { sockets: sockets.collect(), proxy: Some(layout.proxy.status) })
    }

    /// `GET path` of whichever daemon answers first.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let mut last = Failure::Unreachable("the cluster has no daemons".into());
        for socket in &self.sockets {
            match api::get(&socket.path, path).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => last = failure,
            }
        }
        Err(last.into())
    }

    /// `POST path` to a daemon that serves: those that refuse because they do not are passed over.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: bytes::Bytes,
    ) -> Result<T, Error> {
        let socket = self.serving().await?;
        Ok(api::post(socket, path, body).await?)
    }

    /// `DELETE path` at a daemon that serves.
    pub(super) async fn delete(&self, path: &str) -> Result<(), Error> {
        let socket = self.serving().await?;
        Ok(api::delete(socket, path).await?)
    }

    /// The socket of the first daemon that is a member of the primary view.
    pub(super) async fn serving(&self) -> Result<&PathBuf, Error> {
        use crate::admin::types::{NodeState, Status};
        let mut seen = Vec::new();
        for socket in &self.sockets {
            match api::get::<Status>(&socket.path, "/v1/status").await {
                Ok(status) if status.state == NodeState::Member => return Ok(&socket.path),
                Ok(status) => {
                    let reason =
                        status.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                    seen.push(
                        format!("node {} is {:?}{reason}", status.node, status.state)
                            .to_lowercase(),
                    );
                }
                Err(Failure::Unreachable(why)) => seen.push(why),
                Err(refused) => return Err(refused.into()),
            }
        }
        Err(seen.into_iter().fold(Error::new("no daemon of the cluster serves now"), Error::hint))
    }
}
