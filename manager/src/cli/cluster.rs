//! Which daemons a command talks to, and asking the next one when one does not answer.

use super::api::{self, Failure};
use super::door::Door;
use super::{Error, Scope};
use crate::admin::types::{NodeState, Status};
use crate::dev::layout::{Layout, default_dir};
use crate::print::complain;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;

/// The daemons of one cluster.
pub(super) struct Cluster {
    /// In node order, where that is known.
    pub(super) daemons: Vec<Daemon>,
    /// The development cluster's proxy.
    pub(super) proxy: Option<Proxy>,
}

/// The proxy of a development cluster.
pub(super) struct Proxy {
    /// Where gRPC clients connect.
    pub(super) listen: SocketAddr,
    /// Its status page.
    pub(super) status: Door,
}

/// One daemon.
#[derive(Clone)]
pub(super) struct Daemon {
    /// The node, where it is known before asking.
    pub(super) node: Option<u16>,
    /// Where it listens for tools.
    pub(super) door: Door,
}

impl Cluster {
    /// Finds the daemons as the flags say.
    pub(super) fn find(scope: &Scope) -> Result<Cluster, Error> {
        if !scope.admin.is_empty() {
            let doors = scope.admin.iter().map(|text| Door::parse(text));
            let mut doors = doors.collect::<Result<Vec<_>, _>>()?;
            Door::give_tokens(&mut doors, &scope.token_file)?;
            let daemons = doors.into_iter().map(|door| Daemon { node: None, door });
            return Ok(Cluster { daemons: daemons.collect(), proxy: None });
        }
        let dir = scope.cluster_dir.clone().unwrap_or_else(default_dir);
        let layout = Layout::load(&dir).map_err(|why| {
            Error::new(format!("no cluster found: {why}")).hint(
                "start one with `quintet dev --nodes 3`, or name a daemon with --admin SOCKET|http://127.0.0.1:PORT",
            )
        })?;
        let daemons = layout
            .nodes
            .iter()
            .map(|node| Daemon { node: Some(node.id), door: Door::Unix(node.admin.clone()) });
        let proxy = Proxy { listen: layout.proxy.listen, status: Door::Unix(layout.proxy.status) };
        Ok(Cluster { daemons: daemons.collect(), proxy: Some(proxy) })
    }

    /// `GET path` of what the group knows: from a member of the primary view, for others may have missed something. If
    /// there is none, from whichever daemon answers first, and it is said on standard error how much that is worth.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let none = match self.serving().await {
            Ok(door) => return Ok(api::get(door, path).await?),
            Err(none) => none,
        };
        for daemon in &self.daemons {
            if let (Ok(answer), Ok(status)) = (
                api::get(&daemon.door, path).await,
                api::get::<Status>(&daemon.door, "/v1/status").await,
            ) {
                complain!(
                    "note: {none}\n  this is what node {} knew last; it may have changed since",
                    status.node
                );
                return Ok(answer);
            }
        }
        Err(none)
    }

    /// `POST path` to a daemon that serves: those that refuse because they do not are passed over.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: (&str, bytes::Bytes),
    ) -> Result<T, Error> {
        let door = self.serving().await?;
        Ok(api::post(door, path, body).await?)
    }

    /// `DELETE path` at a daemon that serves.
    pub(super) async fn delete(&self, path: &str) -> Result<(), Error> {
        let door = self.serving().await?;
        Ok(api::delete(door, path).await?)
    }

    /// The first daemon that is a member of the primary view.
    pub(super) async fn serving(&self) -> Result<&Door, Error> {
        let mut seen = Vec::new();
        for daemon in &self.daemons {
            match api::get::<Status>(&daemon.door, "/v1/status").await {
                Ok(status) if status.state == NodeState::Member => return Ok(&daemon.door),
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
