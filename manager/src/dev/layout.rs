//! Where a development cluster keeps what: one directory, described by `cluster.json` in it.
//!
//! ```text
//! DIR/lock            held by the running `quintet dev`
//! DIR/cluster.json    this description, for the other commands
//! DIR/n1/             quintetd.toml, log, data/, identity/
//! DIR/proxy.log
//! SOCKETS/            admin and control sockets: DIR itself, or a short path when DIR is too long for a socket
//! ```

use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A Unix socket's path holds at most 108 bytes; the longest name used here has 14.
const LONGEST_DIR: usize = 80;

/// The description of a running development cluster.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Layout {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// Process id of `quintet dev`.
    pub(crate) pid: u32,
    /// Its control socket.
    pub(crate) control: PathBuf,
    /// The proxy.
    pub(crate) proxy: ProxyLayout,
    /// The nodes.
    pub(crate) nodes: Vec<NodeLayout>,
}

/// Where the proxy is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ProxyLayout {
    /// gRPC address.
    pub(crate) listen: SocketAddr,
    /// Status socket.
    pub(crate) status: PathBuf,
    /// Log file.
    pub(crate) log: PathBuf,
}

/// Where a node is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct NodeLayout {
    /// Node id.
    pub(crate) id: u16,
    /// UDP address of its transport.
    pub(crate) transport: SocketAddr,
    /// TCP address for clients.
    pub(crate) client: SocketAddr,
    /// Admin socket.
    pub(crate) admin: PathBuf,
    /// Configuration file.
    pub(crate) config: PathBuf,
    /// Data directory.
    pub(crate) data: PathBuf,
    /// What it proves itself with.
    pub(crate) identity: PathBuf,
    /// Log file.
    pub(crate) log: PathBuf,
}

/// Where `quintet dev` keeps a cluster when nobody says otherwise.
pub(crate) fn default_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(home);
    state.unwrap_or_else(std::env::temp_dir).join("quintet/dev")
}

impl Layout {
    /// Lays out a cluster in `dir`; `address` gives each node (and, as 0, the proxy) its IP and two free ports.
    pub(crate) fn new(
        dir: &Path,
        cluster: String,
        places: Vec<Place>,
        proxy: SocketAddr,
    ) -> Layout {
        let sockets = sockets(dir);
        let nodes = places.into_iter().map(|place| {
            let own = dir.join(format!("n{}", place.id));
            NodeLayout {
                id: place.id,
                transport: place.transport,
                client: place.client,
                admin: sockets.join(format!("n{}.sock", place.id)),
                config: own.join("quintetd.toml"),
                data: own.join("data"),
                identity: own.join("identity"),
                log: own.join("log"),
            }
        });
        Layout {
            cluster,
            pid: std::process::id(),
            control: sockets.join("control.sock"),
            proxy: ProxyLayout {
                listen: proxy,
                status: sockets.join("proxy.sock"),
                log: dir.join("proxy.log"),
            },
            nodes: nodes.collect(),
        }
    }

    /// Makes the directories.
    pub(crate) fn make_directories(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(sockets(dir))?;
        self.nodes.iter().try_for_each(|node| std::fs::create_dir_all(&node.data))
    }

    /// Writes the description, whole or not at all.
    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        std::fs::write(dir.join("cluster.json.new"), text)?;
        std::fs::rename(dir.join("cluster.json.new"), dir.join("cluster.json"))
    }

    /// Reads the description of the cluster in `dir`.
    pub(crate) fn load(dir: &Path) -> Result<Layout, String> {
        let path = dir.join("cluster.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// Where one node is to listen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Node id.
    pub(crate) id: u16,
    /// UDP address of its transport.
    pub(crate) transport: SocketAddr,
    /// TCP address for clients.
    pub(crate) client: SocketAddr,
}

fn sockets(dir: &Path) -> PathBuf {
    if dir.as_os_str().len() <= LONGEST_DIR {
        return dir.to_owned();
    }
    std::env::temp_dir().join(format!("quintet-dev-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dir: &Path) -> Layout {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let places =
            (1..=3).map(|id| Place { id, transport: address(100 + id), client: address(200 + id) });
        Layout::new(dir, "t".into(), places.collect(), address(300))
    }

    #[test]
    fn what_is_saved_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        layout.make_directories(dir.path()).unwrap();
        layout.save(dir.path()).unwrap();
        let again = Layout::load(dir.path()).unwrap();
        assert_eq!(again.nodes[2].client, layout.nodes[2].client);
        assert_eq!(again.nodes.len(), 3);
    }

    #[test]
    fn a_missing_or_broken_description_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Layout::load(dir.path()).unwrap_err().contains("cluster.json"));
        std::fs::write(dir.path().join("cluster.json"), "{").unwrap();
        assert!(Layout::load(dir.path()).unwrap_err().contains("cluster.json"));
    }

    #[test]
    fn a_long_directory_gets_short_sockets() {
        let dir = PathBuf::from(format!("/{}", "d".repeat(100)));
        assert!(layout(&dir).nodes[0].admin.as_os_str().len() < 100);
        assert!(layout(&dir).nodes[0].data.starts_with(&dir));
    }
}
