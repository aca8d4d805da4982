//! A child process that does not outlive its parent and may live in another network namespace.

use super::network::Network;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use tokio::process::{Child, Command};

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The binary.
    pub(crate) binary: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// File its output is appended to.
    pub(crate) log: PathBuf,
    /// The network namespace to live in, if not this one.
    pub(crate) network: Option<Network>,
}

impl Program {
    /// Starts it. It is killed by the kernel when the calling thread ends, so call this from the main thread.
    pub(crate) fn start(&self) -> io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let network = self.network.clone();
        let parent = std::process::id();
        let mut command = Command::new(&self.binary);
        command
            .args(&self.arguments)
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // Ctrl-C reaches the whole foreground group; the supervisor alone decides in which order things end.
        command.process_group(0).kill_on_drop(true);
        // SAFETY: the closure runs in the child between fork and exec. It makes only async-signal-safe system
        // calls (prctl, getppid, setns), allocates nothing, and `network` is an open descriptor that it owns.
        unsafe {
            command.pre_exec(move || enter(parent, network.as_ref()));
        }
        command.spawn()
    }
}

fn enter(parent: u32, network: Option<&Network>) -> io::Result<()> {
    // SAFETY: prctl with PR_SET_PDEATHSIG reads its integer arguments only.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: getppid has no preconditions.
    if unsafe { libc::getppid() } as u32 != parent {
        // The parent died before the wish above was in place.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    network.map_or(Ok(()), Network::enter)
}

/// Sends a signal to a child that has not been reaped yet.
pub(crate) fn signal(child: &Child, signal: i32) -> io::Result<()> {
    let Some(pid) = child.id() else {
        return Err(io::Error::other("it has ended already"));
    };
    // SAFETY: kill touches no memory; the pid is that of an unreaped child, so it cannot have been given to another.
    if unsafe { libc::kill(pid as i32, signal) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The program `name` beside this very program.
pub(crate) fn beside(name: &str) -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.parent().unwrap_or(Path::new(".")).join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!(
            "{} is missing: build it with `cargo build --release -p quintet-manager -p quintet-client`",
            path.display()
        ),
    ))
}
