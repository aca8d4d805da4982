//! `--compare sockperf|ucx|perftest`: programs that others measure with, on the same cores, in the same run.
//!
//! They come from the distribution and are started as anybody would start them, so that the ratio can be checked by
//! hand: the report tells the command of the asking side. None of them encrypts, and none notices a death.

mod perftest;
mod sockperf;
mod ucx;

use crate::floor::Medium;
use crate::report::Run;
use crate::setup::Compare;
use crate::{Provider, Waiting, cpu, host};
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
struct Trial {
    program: &'static str,
    /// Where Debian has it.
    package: &'static str,
    environment: Option<(&'static str, &'static str)>,
    transport: Protocol,
    /// Arguments of both sides; the port is added to them.
    common: Vec<String>,
    server: Vec<String>,
    client: Vec<String>,
    port_flag: &'static str,
    parse: fn(&str) -> Option<Measured>,
    names: Names,
}

/// What a program says that it has measured.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Measured {
    /// Round trips, microseconds.
    RoundTrip { p50_us: f64, p99_us: Option<f64> },
    /// Megabytes (10⁶) per second.
    Stream(f64),
}

/// What its figures and their ratios are called.
#[derive(Clone, Copy)]
struct Names {
    p50_us: &'static str,
    p99_us: &'static str,
    ratio_p50: &'static str,
    ratio_p99: &'static str,
    megabytes_per_s: &'static str,
    ratio: &'static str,
}

/// How a server is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Protocol {
    Tcp,
    Udp,
}

/// What the transport did, to be compared.
#[derive(Clone, Copy)]
pub(crate) enum Ours {
    /// Nanoseconds.
    RoundTrip {
        p50: f64,
        p99: f64,
    },
    MegabytesPerS(f64),
}

/// Before anything is measured, so that nobody waits in vain: whether that can be run here.
pub(crate) fn check(compare: Option<Compare>, question: &Question) -> Result<(), Box<dyn Error>> {
    let Some(compare) = compare else { return Ok(()) };
    let path = std::env::var_os("PATH").unwrap_or_default();
    for trial in trials(compare, question)? {
        if !std::env::split_paths(&path).any(|dir| dir.join(trial.program).is_file()) {
            return Err(trial.missing().into());
        }
    }
    Ok(())
}

fn trials(compare: Compare, question: &Question) -> Result<Vec<Trial>, Box<dyn Error>> {
    match compare {
        Compare::Raw => Ok(Medium::try_from(question.provider).map(|_| Vec::new())?),
        Compare::Sockperf => sockperf::trials(question),
        Compare::Ucx => ucx::trials(question),
        Compare::Perftest => perftest::trials(question),
    }
}

/// Runs what is compared with beside, and tells the ratios.
pub(crate) fn beside(
    compare: Compare,
    question: &Question,
    other_core: Option<usize>,
    ours: Ours,
    run: &mut Run,
) -> Result<(), Box<dyn Error>> {
    let mut commands = Vec::new();
    for trial in trials(compare, question)? {
        let (measured, command) = trial.run(other_core)?;
        commands.push(command);
        match (ours, measured) {
            (Ours::RoundTrip { p50, p99 }, Measured::RoundTrip { p50_us, p99_us }) => {
                run.figure(trial.names.p50_us, p50_us);
                run.figure(trial.names.ratio_p50, p50 / 1e3 / p50_us);
                if let Some(p99_us) = p99_us {
                    run.figure(trial.names.p99_us, p99_us);
                    run.figure(trial.names.ratio_p99, p99 / 1e3 / p99_us);
                }
            }
            (Ours::MegabytesPerS(ours), Measured::Stream(theirs)) => {
                run.figure(trial.names.megabytes_per_s, theirs);
                run.figure(trial.names.ratio, ours / theirs);
            }
            _ => return Err(format!("{} measured something else", trial.program).into()),
        }
    }
    run.fact("compared_with", commands);
    Ok(())
}

impl Trial {
    /// Both sides. Returns what was measured, and the command of the asking side.
    fn run(&self, other_core: Option<usize>) -> Result<(Measured, String), Box<dyn Error>> {
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

    fn missing(&self) -> String {
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
fn mebibytes(per_s: f64) -> Measured {
    Measured::Stream(per_s * 1_048_576.0 / 1e6)
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}
