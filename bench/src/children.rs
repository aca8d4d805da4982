//! The other processes of a measurement: started with what they shall do, ended with their standard input, or with the
//! connection to the server that has started them.

use crate::agreement::{Injury, say};
use crate::cpu;
use quintet_transport::clock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// How long processes may take to tell what they did.
const PATIENCE: Duration = Duration::from_secs(10);

/// What another process does for a measurement. It is told as data, so that both sides mean the same.
pub(crate) trait Errand: Serialize + DeserializeOwned {
    /// What it is called.
    const NAME: &'static str;

    /// Does it, until it is done or the process that started this one is.
    fn run(&self) -> Result<(), Box<dyn Error>>;

    /// Where it receives and whom it sends to, if it may be done for another host.
    fn reach(&self) -> Option<Reach> {
        None
    }
}

/// Whom a process talks to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Reach {
    pub(crate) own: SocketAddr,
    pub(crate) others: Vec<SocketAddr>,
}

impl Reach {
    /// Of the second of two.
    pub(crate) fn second([first, second]: [SocketAddr; 2]) -> Option<Reach> {
        Some(Reach { own: second, others: vec![first] })
    }

    /// Of that one of nodes that are counted from one.
    pub(crate) fn among(addresses: &[SocketAddr], node: u16) -> Option<Reach> {
        let at = usize::from(node).checked_sub(1)?;
        let mut others = addresses.to_vec();
        let own = if at < others.len() { others.remove(at) } else { return None };
        Some(Reach { own, others })
    }
}

/// An errand as data.
pub(crate) fn tell<T: Errand>(errand: &T) -> Value {
    json!({ T::NAME: errand })
}

/// Says to the side that waits for it that this one is ready.
pub(crate) fn ready() {
    println!("ready");
}

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

impl Peer {
    /// Starts this very program for that errand, on that core if one is given.
    pub(crate) fn start(errand: &impl Errand, core: Option<usize>) -> io::Result<Peer> {
        Peer::start_told(&tell(errand), core)
    }

    /// The same, of an errand that somebody else has told.
    pub(crate) fn start_told(errand: &Value, core: Option<usize>) -> io::Result<Peer> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["peer", &errand.to_string()])
            .args(core.map(|core| format!("--core={core}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output: Box<dyn Read + Send> =
            Box::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        Ok(Peer { process: Process::Child(child), output: Some(BufReader::new(output)) })
    }

    /// A process at the other end of that connection, which tells what the process prints.
    pub(crate) fn remote(connection: TcpStream, output: impl Read + Send + 'static) -> Peer {
        let output: Box<dyn Read + Send> = Box::new(output);
        Peer { process: Process::Remote(connection), output: Some(BufReader::new(output)) }
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
            Process::Remote(server) => say(server, &Injury::Kill),
        }
    }

    /// Stops it where it is.
    pub(crate) fn freeze(&mut self) -> io::Result<()> {
        let child = match &self.process {
            Process::Child(child) => child,
            Process::Remote(server) => return say(server, &Injury::Freeze),
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
