//! The other processes of a measurement: started with what they shall do, ended with their standard input, here or at a
//! server.

use crate::cpu;
use crate::serve::{self, Server};
use crate::task::Task;
use quintet_transport::clock;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// How long processes may take to tell what they did.
const PATIENCE: Duration = Duration::from_secs(10);

/// Another process of this measurement.
pub(crate) struct Peer {
    process: Process,
    output: Option<Output>,
}

enum Process {
    Child(Child),
    /// It ends with the connection.
    Remote(TcpStream),
}

/// What a process prints.
pub(crate) type Output = BufReader<Box<dyn Read + Send>>;

/// Where the other process of a measurement will be, and where both sides receive.
pub(crate) enum Place {
    Here([SocketAddr; 2]),
    There(Server, [SocketAddr; 2]),
}

impl Place {
    /// At that server, or here.
    pub(crate) fn find(host: Option<&str>) -> Result<Place, Box<dyn Error>> {
        match host {
            None => Ok(Place::Here(two_addresses()?)),
            Some(host) => serve::ask(host).map(|(server, both)| Place::There(server, both)),
        }
    }

    /// Where this side and the other receive.
    pub(crate) fn addresses(&self) -> [SocketAddr; 2] {
        match self {
            Place::Here(addresses) | Place::There(_, addresses) => *addresses,
        }
    }

    /// Starts the other process there.
    pub(crate) fn start(self, task: &Task, core: Option<usize>) -> Result<Peer, Box<dyn Error>> {
        match self {
            Place::Here(_) => Ok(Peer::start(task, core)?),
            Place::There(mut server, _) => {
                serve::order(&mut server, task, core)?;
                let connection = server.get_ref().try_clone()?;
                let output: Box<dyn Read + Send> = Box::new(server);
                let output = Some(BufReader::new(output));
                Ok(Peer { process: Process::Remote(connection), output })
            }
        }
    }
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
        let output: Box<dyn Read + Send> =
            Box::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        Ok(Peer { process: Process::Child(child), output: Some(BufReader::new(output)) })
    }

    /// All that it prints, for one who passes it on.
    pub(crate) fn output(&mut self) -> io::Result<Output> {
        self.output.take().ok_or_else(|| io::Error::other("somebody else reads"))
    }

    /// The next line that it prints, when it prints it; this thread has other things to do.
    pub(crate) fn line_later(&mut self) -> io::Result<Receiver<io::Result<String>>> {
        let mut output = self.output()?;
        let (say, hear) = mpsc::channel();
        std::thread::spawn(move || say.send(next_line(&mut output)));
        Ok(hear)
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        next_line(self.output.as_mut().ok_or_else(|| io::Error::other("somebody else reads"))?)
    }

    /// CPU time of its process so far, if it is on this machine.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        match &self.process {
            Process::Child(child) => cpu::cpu_time_of(child.id()),
            Process::Remote(_) => None,
        }
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        match &mut self.process {
            Process::Child(child) => child.kill(),
            Process::Remote(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Stops it where it is.
    pub(crate) fn freeze(&mut self) -> io::Result<()> {
        let Process::Child(child) = &self.process else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        // SAFETY: no pointers. The process is our child and nobody has waited for it: the number is its own.
        if unsafe { libc::kill(pid, libc::SIGSTOP) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Tells it to end, and waits.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.finish()
    }

    fn finish(&mut self) -> io::Result<()> {
        match &mut self.process {
            Process::Child(child) => {
                drop(child.stdin.take());
                child.wait().map(drop)
            }
            Process::Remote(server) => server.shutdown(Shutdown::Both),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

fn next_line(output: &mut Output) -> io::Result<String> {
    let mut line = String::new();
    if output.read_line(&mut line)? == 0 {
        return Err(io::Error::other("the other process ended early; its message is where it ran"));
    }
    Ok(line.trim_end().to_owned())
}

/// The next line of each, as data; `meanwhile` is done again and again until all have come.
pub(crate) fn hear<T: DeserializeOwned>(
    peers: &mut [Peer],
    mut meanwhile: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<Vec<T>, Box<dyn Error>> {
    let lines = peers.iter_mut().map(Peer::line_later).collect::<io::Result<Vec<_>>>()?;
    let deadline = clock::now() + PATIENCE;
    let mut told = Vec::new();
    for line in lines {
        let line = loop {
            match line.try_recv() {
                Ok(line) => break line?,
                Err(_) if clock::now() > deadline => return Err("a process did not end".into()),
                Err(_) => meanwhile()?,
            }
        };
        told.push(serde_json::from_str(&line)?);
    }
    Ok(told)
}

/// Ends this process when the one that started it is done or gone.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// Where two sides of a measurement receive.
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
