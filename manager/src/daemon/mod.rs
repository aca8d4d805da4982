//! `quintetd`: one process, from its configuration to its exit code.
//!
//! It opens its doors first (so that an occupied port is an error at start, not a surprise later),
//! then runs one incarnation after the other until it is told to stop. SIGTERM and SIGINT are a
//! clean hand-over: no new calls, the ones in flight finish, the node leaves the group, exit code 0.

mod check;
mod lock;
mod stop;

pub use check::load;
pub use lock::Lock;

use crate::admin::types::EventKind;
use crate::admin::{self, Token};
use crate::client_server;
use crate::config::{self, Config};
use crate::packages::{Linked, Packages};
use crate::runtime::{self, End, Shared};
use crate::stats::{self, Published};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

/// Why the daemon did not start, or had to end. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration.
    #[error("{0}")]
    Config(#[from] config::Error),
    /// The data directory.
    #[error("data_dir {}: {why}", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// What `QUINTET_LOG` asks for is no filter.
    #[error(
        "QUINTET_LOG: {0}; write a level (error, warn, info, debug, trace), or `target=level`, separated by commas"
    )]
    Log(String),
    /// A door cannot be opened.
    #[error("cannot listen for {what} at {at}: {why}")]
    Listen {
        /// For whom.
        what: &'static str,
        /// Where.
        at: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The packages in the data directory.
    #[error("{0}")]
    Packages(#[from] crate::packages::Error),
    /// The system does not give what a process needs.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// The node could not go on.
    #[error("the node stopped: {0}")]
    Node(String),
}

/// Runs the daemon until it is told to stop; `linked` is what `linked:NAME` can deploy on it.
pub fn run(config: Config, linked: Linked) -> Result<(), Error> {
    let _lock = Lock::take(&config.data_dir)
        .map_err(|why| Error::DataDir { path: config.data_dir.clone(), why })?;
    let packages = Packages::open(config.data_dir.join("packages"), linked)?;
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    let shared = Shared::new(config, packages, tokio.handle().clone())?;
    let _published = Published::new(&shared.board, &shared.config.data_dir).map_err(|error| {
        Error::DataDir { path: shared.config.data_dir.join(stats::FILE), why: error.to_string() }
    })?;
    let doors = tokio.block_on(open_doors(&shared))?;
    tokio.spawn(stop::on_signal(shared.clone())?);
    let ended = incarnations(&shared);
    // Farewells of the last moment go out.
    tokio.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
    drop(doors);
    tokio.shutdown_timeout(Duration::from_millis(200));
    ended
}

/// One incarnation after the other.
fn incarnations(shared: &Arc<Shared>) -> Result<(), Error> {
    let mut pause = Duration::from_millis(20);
    loop {
        let began = quintet_transport::clock::now();
        let end = runtime::run(shared);
        shared.events.note(EventKind::Node, format!("this incarnation is over: {end}"));
        match end {
            End::Left | End::Stopped => return Ok(()),
            End::Failed(why) => return Err(Error::Node(why)),
            End::Evicted(_) | End::Learn(_) if shared.is_stopping() => return Ok(()),
            End::Evicted(view) => {
                let what = format!("removed in view {}; a new incarnation begins", view.0);
                shared.events.note(EventKind::Evicted, what);
            }
            End::Learn(_) => {}
        }
        // One that fails again and again must not keep the others busy with transfers.
        let lasted = quintet_transport::clock::now().since(began);
        pause = if lasted < Duration::from_secs(5) {
            (pause * 2).min(Duration::from_secs(2))
        } else {
            Duration::from_millis(20)
        };
        std::thread::sleep(pause);
    }
}

/// What is closed, or deleted, at the end.
struct Doors {
    socket: PathBuf,
}

impl Drop for Doors {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn open_doors(shared: &Arc<Shared>) -> Result<Doors, Error> {
    let config = &shared.config;
    let clients = listen("clients", config.client.listen).await?;
    let http = match config.admin.http {
        Some(at) => Some((at, listen("the admin API", at).await?)),
        None => None,
    };
    let socket = listen_unix(&config.admin.socket)?;
    let doors = Doors { socket: config.admin.socket.clone() };
    tokio::spawn(client_server::serve(clients, shared.clone()));
    tokio::spawn(admin::serve_unix(socket, shared.clone()));
    if let Some((at, http)) = http {
        let token = Token::create(&config.data_dir)
            .map_err(|(path, error)| Error::DataDir { path, why: error.to_string() })?;
        let file = config.data_dir.join(admin::TOKEN_FILE);
        tracing::info!(
            "the admin API is at http://{at} too; changes need the token in {}",
            file.display()
        );
        tokio::spawn(admin::serve_tcp(http, shared.clone(), token));
    }
    Ok(doors)
}

async fn listen(what: &'static str, at: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(at).await.map_err(|error| Error::Listen {
        what,
        at: at.to_string(),
        why: match error.kind() {
            std::io::ErrorKind::AddrInUse => "the port is occupied by another process: stop it \
                 (ss -tlnp shows which) or choose another port"
                .to_owned(),
            std::io::ErrorKind::AddrNotAvailable => {
                "this machine does not have that address: correct the configuration".to_owned()
            }
            _ => error.to_string(),
        },
    })
}

fn listen_unix(path: &Path) -> Result<UnixListener, Error> {
    let failed =
        |why: String| Error::Listen { what: "the admin API", at: path.display().to_string(), why };
    // A socket there is left over from a daemon that was killed, unless somebody answers.
    if std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(failed("another daemon answers there: choose another path".into()));
        }
        let _ = std::fs::remove_file(path);
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|e| failed(format!("{}: {e}", dir.display())))?;
    }
    let listener = UnixListener::bind(path).map_err(|e| failed(e.to_string()))?;
    // Who may open it may do everything: the owner alone.
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
    Ok(listener)
}
