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
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long processes may take to tell what they did.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long one may take to end when it is told to, and when it is not wanted any more: long enough for its last words.
const END: Duration = Duration::from_secs(1);
const UNWANTED: Duration = Duration::from_millis(100);

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
        let mut output = self.output()?;
        let (say, hear) = mpsc::channel();
        std::thread::spawn(move || say.send((next_line(&mut output), output)));
        let silent = |_| io::Error::other("the other process says nothing");
        let (line, output) = hear.recv_timeout(PATIENCE).map_err(silent)?;
        self.output = Some(output);
        line
    }

    /// For an exchange that waits for this process and for nothing else: while the guard lives, this program ends with
    /// an error when the process has stood still for long, or has died.
    pub(crate) fn guard(&self) -> Guard {
        let guarded = Arc::new(());
        if let Process::Child(child) = &self.process {
            let (pid, guarded) = (child.id(), Arc::downgrade(&guarded));
            std::thread::spawn(move || watch(pid, &guarded));
        }
        Guard(guarded)
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

    /// Tells it to end, and waits. Who does not is killed, and that is an error.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.finish(END)
    }

    fn finish(&mut self, patience: Duration) -> io::Result<()> {
        match &mut self.process {
            Process::Child(child) => {
                drop(child.stdin.take());
                let deadline = clock::now() + patience;
                while child.try_wait()?.is_none() {
                    if clock::now() > deadline {
                        child.kill()?;
                        child.wait()?;
                        return Err(io::Error::other("the other process hung and was killed"));
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }
            Process::Remote(server) => server.shutdown(Shutdown::Both),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.finish(UNWANTED);
    }
}

/// See [`Peer::guard`].
pub(crate) struct Guard(#[expect(dead_code, reason = "its end is what is seen")] Arc<()>);

/// Looks after a process while somebody waits for it and for nothing else.
fn watch(pid: u32, guarded: &Weak<()>) {
    let mut since = clock::now();
    while guarded.strong_count() > 0 {
        std::thread::sleep(Duration::from_millis(100));
        let state = cpu::state_of(pid);
        if matches!(state, Some('T' | 't' | 'Z')) && guarded.strong_count() > 0 {
            if clock::now().since(since) > PATIENCE || state == Some('Z') {
                eprintln!("error: the other process of the comparison died or stands still");
                // SAFETY: no pointers. It is a child that nobody has waited for while the guard lives.
                unsafe { libc::kill(pid as i32, libc::SIGKILL) };
                std::process::exit(1);
            }
        } else {
            since = clock::now();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(script: &str) -> Peer {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let output: Box<dyn Read + Send> = Box::new(child.stdout.take().expect("piped"));
        Peer { process: Process::Child(child), output: Some(BufReader::new(output)) }
    }

    fn pid(peer: &Peer) -> u32 {
        match &peer.process {
            Process::Child(child) => child.id(),
            Process::Remote(_) => 0,
        }
    }

    #[test]
    fn nobody_waits_for_one_who_does_not_end() {
        let mut stopped = peer("echo one; echo two; cat");
        assert_eq!(
            (stopped.line().unwrap(), stopped.line().unwrap()),
            ("one".into(), "two".into())
        );
        let number = pid(&stopped);
        stopped.freeze().expect("it is ours");
        let error = stopped.end().expect_err("it cannot");
        assert!(error.to_string().contains("killed"), "{error}");
        assert_eq!(cpu::state_of(number), None, "it is gone");
        let mut unwanted = peer("exec sleep 1000");
        let number = pid(&unwanted);
        unwanted.freeze().expect("it is ours");
        drop(unwanted);
        assert_eq!(cpu::state_of(number), None, "it is gone");
        peer("cat").end().expect("it ends with its input");
    }
}
