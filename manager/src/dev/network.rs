//! A network namespace without a name.
//!
//! A name in `/run/netns` is a mount: it outlives whoever made it and was killed, and keeps the namespace and its veth
//! pairs for ever. One that is only held open lives as long as this process holds it or a process lives in it, and the
//! kernel takes it apart after that, however they ended.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

/// A network namespace, held open.
#[derive(Clone, Debug)]
pub(crate) struct Network(Arc<File>);

impl Network {
    /// Makes a new one; this process stays where it is. Needs root.
    pub(crate) fn new() -> io::Result<Network> {
        // A namespace belongs to a thread: one that is made for this enters a new one and shows where it is.
        let thread = std::thread::Builder::new().name("network".into()).spawn(|| {
            // SAFETY: unshare reads its integer argument only; with CLONE_NEWNET alone it concerns this thread alone.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            File::open("/proc/thread-self/ns/net")
        })?;
        let file =
            thread.join().map_err(|_| io::Error::other("the thread that made it panicked"))?;
        Ok(Network(Arc::new(file?)))
    }

    /// Takes the calling thread there. Makes one system call and allocates nothing.
    pub(crate) fn enter(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open as long as `self` is; setns touches no memory of ours.
        if unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// A path under which other processes find it while this one lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}
