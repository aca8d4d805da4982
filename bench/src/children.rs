//! The other processes of a measurement: started with what they shall do, ended with their standard input.

use crate::task::Task;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

/// Another process of this measurement.
pub(crate) struct Peer {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
}

impl Peer {
    /// Starts this very program for that task, on that core if one is given.
    pub(crate) fn start(task: &Task, core: Option<usize>) -> io::Result<Peer> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["peer", &serde_json::to_string(task)?])
            .args(core.map(|core| format!("--core={core}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = Some(BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?));
        Ok(Peer { child, output })
    }

    /// The next line that it prints, when it prints it; this thread has other things to do.
    pub(crate) fn line_later(&mut self) -> io::Result<Receiver<io::Result<String>>> {
        let output = self.output.take().ok_or_else(|| io::Error::other("somebody else reads"))?;
        let (say, hear) = mpsc::channel();
        std::thread::spawn(move || say.send(next_line(&mut { output })));
        Ok(hear)
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        next_line(self.output.as_mut().ok_or_else(|| io::Error::other("somebody else reads"))?)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }

    /// Stops it where it is.
    pub(crate) fn freeze(&mut self) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        // SAFETY: no pointers. The process is our child and nobody has waited for it, so that the number is its own.
        if unsafe { libc::kill(pid, libc::SIGSTOP) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Tells it to end, and waits.
    pub(crate) fn end(mut self) -> io::Result<()> {
        drop(self.child.stdin.take());
        self.child.wait().map(drop)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn next_line(output: &mut BufReader<ChildStdout>) -> io::Result<String> {
    let mut line = String::new();
    if output.read_line(&mut line)? == 0 {
        return Err(io::Error::other("a peer process ended early; its message is above"));
    }
    Ok(line.trim_end().to_owned())
}

/// Ends this process when the one that started it is done or gone.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// Two loopback addresses with free UDP ports.
pub(crate) fn two_addresses() -> io::Result<[SocketAddr; 2]> {
    let addresses = free_addresses(2)?;
    Ok([addresses[0], addresses[1]])
}

/// Loopback addresses with free UDP ports, all different.
pub(crate) fn free_addresses(count: usize) -> io::Result<Vec<SocketAddr>> {
    let sockets = (0..count)
        .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<io::Result<Vec<_>>>()?;
    sockets.iter().map(UdpSocket::local_addr).collect()
}
