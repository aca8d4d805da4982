//! One run of a program that others measure with: both its sides, and what the asking one says.

use crate::policy::{Provider, Waiting};
use crate::{cpu, host};
use quintet_transport::clock;
use std::error::Error;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a server may take to listen, and a client may go on without one.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long either side may be stopped.
const STANDSTILL: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is to be measured.
pub(crate) struct Question {
    pub(crate) provider: Provider,
    /// Adapters of this side and of the other, if some were chosen.
    pub(crate) devices: Vec<String>,
    pub(crate) wait: Waiting,
    pub(crate) size: usize,
    pub(crate) kind: Kind,
}

/// What kind of measurement it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// That many round trips.
    RoundTrips(u64),
    /// As much as goes.
    Stream,
}

/// One run of a program.
pub(super) struct Trial {
    pub(super) program: &'static str,
    /// Where Debian has it.
    pub(super) package: &'static str,
    pub(super) environment: Option<(&'static str, &'static str)>,
    pub(super) transport: Protocol,
    /// Arguments of both sides; the port is added to them.
    pub(super) common: Vec<String>,
    pub(super) server: Vec<String>,
    pub(super) client: Vec<String>,
    pub(super) port_flag: &'static str,
    pub(super) parse: fn(&str) -> Option<Measured>,
    pub(super) names: Names,
}

/// What a program says that it has measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Measured {
    /// Round trips, microseconds.
    RoundTrip { p50_us: f64, p99_us: Option<f64> },
    /// Megabytes (10⁶) per second.
    Stream(f64),
}

/// What its figures and their ratios are called.
#[derive(Clone, Copy)]
pub(super) struct Names {
    pub(super) p50_us: &'static str,
    pub(super) p99_us: &'static str,
    pub(super) ratio_p50: &'static str,
    pub(super) ratio_p99: &'static str,
    pub(super) megabytes_per_s: &'static str,
    pub(super) ratio: &'static str,
}

/// How a server is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl Trial {
    /// Both sides. Returns what was measured, and the command of the asking side.
    pub(super) fn run(
        &self,
        other_core: Option<usize>,
    ) -> Result<(Measured, String), Box<dyn Error>> {
        let port = free_port(self.transport)?;
        let command = |own: &[String]| {
            let mut command = Command::new(self.program);
            command.args(&self.common).args(own).args([self.port_flag, &port.to_string()]);
            command.envs(self.environment).stdin(Stdio::null());
            command
        };
        let mut server = command(&self.server);
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Server(self.explain(start_on(other_core, server))?);
        server.wait_until_it_listens(self.transport, port)?;
        let mut client = command(&self.client);
        let shown = format!("{client:?}").replace('"', "");
        client.stdout(Stdio::piped()).stderr(Stdio::piped());
        let client = self.explain(client.spawn())?;
        let output = server.outlast(client).map_err(|why| format!("`{shown}` {why}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let measured = (self.parse)(&text).ok_or_else(|| {
            let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
            format!("`{shown}` measured nothing; it says:\n{}", said.trim())
        })?;
        Ok((measured, shown))
    }

    pub(super) fn missing(&self) -> String {
        format!("there is no {}: apt-get install {}", self.program, self.package)
    }

    fn explain<T>(&self, started: io::Result<T>) -> Result<T, String> {
        started.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.missing(),
            _ => format!("{}: {error}", self.program),
        })
    }
}

/// The answering side; it ends with this.
struct Server(Child);

impl Server {
    fn wait_until_it_listens(&mut self, transport: Protocol, port: u16) -> io::Result<()> {
        let deadline = clock::now() + PATIENCE;
        while !host::listens(transport == Protocol::Tcp, port)
            && self.0.try_wait()?.is_none()
            && !is_stopped(&self.0)
            && clock::now() < deadline
        {
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Waits for the client; not for ever if one of the two does not go on.
    fn outlast(&mut self, mut client: Child) -> Result<Output, String> {
        let (over, ended) = mpsc::channel();
        let words = |error: io::Error| error.to_string();
        let (mut stopped, mut alone) = (clock::now(), clock::now());
        let (mut out, mut err) = (client.stdout.take(), client.stderr.take());
        std::thread::spawn(move || {
            let mut said = [Vec::new(), Vec::new()];
            let [first, second] = &mut said;
            std::thread::scope(|scope| {
                scope.spawn(|| err.as_mut().map(|err| err.read_to_end(second)));
                out.as_mut().map(|out| out.read_to_end(first));
            });
            over.send(said)
        });
        let why = loop {
            if let Ok([stdout, stderr]) = ended.recv_timeout(LOOK_EVERY) {
                let status = client.wait().map_err(words)?;
                return Ok(Output { status, stdout, stderr });
            }
            let now = clock::now();
            if !is_stopped(&client) && !is_stopped(&self.0) {
                stopped = now;
            }
            if self.0.try_wait().map_err(words)?.is_none() {
                alone = now;
            }
            if now.since(stopped) > STANDSTILL {
                break "stands still, or the program that answers it does";
            }
            if now.since(alone) > PATIENCE {
                break "goes on, but the program that answers it has ended";
            }
        };
        // Stopped or not.
        let _ = client.kill();
        let _ = client.wait();
        Err(why.to_owned())
    }
}

fn is_stopped(child: &Child) -> bool {
    matches!(cpu::state_of(child.id()), Some('T' | 't'))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process begins where the thread runs that starts it.
fn start_on(core: Option<usize>, mut command: Command) -> io::Result<Child> {
    let thread = std::thread::spawn(move || {
        core.map_or(Ok(()), cpu::pin)?;
        command.spawn()
    });
    thread.join().map_err(|_| io::Error::other("the starting thread failed"))?
}

fn free_port(transport: Protocol) -> io::Result<u16> {
    let any = (Ipv4Addr::LOCALHOST, 0);
    Ok(match transport {
        Protocol::Tcp => TcpListener::bind(any)?.local_addr()?,
        Protocol::Udp => UdpSocket::bind(any)?.local_addr()?,
    }
    .port())
}

/// What all of them call megabytes a second has 2^20 bytes.
pub(super) fn mebibytes(per_s: f64) -> Measured {
    Measured::Stream(per_s * 1_048_576.0 / 1e6)
}

pub(super) fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names {
        p50_us: "",
        p99_us: "",
        ratio_p50: "",
        ratio_p99: "",
        megabytes_per_s: "",
        ratio: "",
    };

    /// A shell on each side.
    fn run(server: &str, client: &str) -> Result<Measured, String> {
        let script = |script: &str| vec!["-c".to_owned(), script.to_owned()];
        let trial = Trial {
            program: "sh",
            package: "dash",
            environment: None,
            transport: Protocol::Tcp,
            common: Vec::new(),
            server: script(server),
            client: script(client),
            port_flag: "-p",
            parse: |text| text.trim().parse().ok().map(Measured::Stream),
            names: NAMES,
        };
        trial.run(None).map(|(measured, _)| measured).map_err(|error| error.to_string())
    }

    #[test]
    fn nobody_waits_for_a_program_that_stands_still() {
        assert_eq!(run("exit 0", "echo 5"), Ok(Measured::Stream(5.0)));
        let much =
            "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); echo many words >&2; done; echo 6";
        assert_eq!(run("exit 0", much), Ok(Measured::Stream(6.0)), "more than a pipe holds");
        let error = run("exit 0", "kill -STOP $$").expect_err("it says nothing");
        assert!(error.contains("kill -STOP") && error.contains("stands still"), "{error}");
        let error = run("kill -STOP $$", "exec sleep 1000").expect_err("nobody answers");
        assert!(error.contains("the program that answers it does"), "{error}");
        let error = run("exit 0", "exec sleep 1000").expect_err("nobody is there");
        assert!(error.contains("has ended"), "{error}");
        let error = run("exit 0", "echo no server; exit 1").expect_err("it says why");
        assert!(error.contains("measured nothing; it says:\nno server"), "{error}");
    }
}
