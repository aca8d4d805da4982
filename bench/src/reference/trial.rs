//! One run of a program that others measure with: both its sides, and what the asking one says.

use crate::policy::{Provider, Waiting};
use crate::{cpu, host};
use quintet_transport::clock;
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);

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
        let output = self.explain(client.output())?;
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
            && clock::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
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
