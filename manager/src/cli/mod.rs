//! `quintet`, the command line: a noun, a verb, and a table (or `-o json`).
//!
//! Everything it shows comes from the admin API of the daemons and the status page of the proxy; it holds no
//! state of its own. Which daemons: `--admin SOCKET|URL`, or the development cluster that `quintet dev` keeps in
//! `--cluster-dir`. A command that any node can answer asks the next node when one does not answer.

mod api;
mod call;
mod cluster;
mod component;
mod door;
mod events;
mod instance;
mod recover;
mod status;
mod table;

use crate::dev;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "quintet",
    version,
    about = "Operates a Quintet cluster",
    arg_required_else_help = true
)]
struct Arguments {
    #[command(flatten)]
    scope: Scope,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

/// Which cluster a command means.
#[derive(Args, Clone, Debug)]
pub(crate) struct Scope {
    /// Directory of a development cluster (where `quintet dev --dir` put it).
    #[arg(long, global = true, env = "QUINTET_CLUSTER_DIR", value_name = "DIR")]
    pub(crate) cluster_dir: Option<PathBuf>,
    /// A daemon's admin socket, or http://127.0.0.1:PORT; may be given several times. Wins over --cluster-dir.
    #[arg(
        long,
        global = true,
        env = "QUINTET_ADMIN",
        value_delimiter = ',',
        value_name = "SOCKET|URL"
    )]
    pub(crate) admin: Vec<String>,
    /// File with the token for changes over http:// (admin.token in the daemon's data directory); one for all
    /// addresses, or one for each.
    #[arg(
        long,
        global = true,
        env = "QUINTET_TOKEN_FILE",
        value_delimiter = ',',
        value_name = "FILE"
    )]
    pub(crate) token_file: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a cluster on this machine, or injures one that runs.
    Dev(dev::Arguments),
    /// What the cluster is doing: view, nodes, links, proxy.
    Status,
    /// The nodes of the cluster.
    #[command(subcommand)]
    Node(NodeCommand),
    /// The links between nodes: path, why that path, round trip.
    Links,
    /// The instances of components.
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// The packages that are deployed.
    #[command(subcommand)]
    Component(ComponentCommand),
    /// What happened: views with cause and duration, failures, transfers.
    Events {
        /// Go on printing what happens.
        #[arg(short, long)]
        follow: bool,
    },
    /// Starts a blocked group WITHOUT state that was acknowledged. The last resort, when no node will come back with it.
    Recover {
        /// What to give up: the position that `quintet status` shows as owed.
        #[arg(long, value_name = "VIEW:PLACE")]
        owed: String,
    },
    /// Calls a method of a component; the request is JSON.
    Call {
        /// The class: `bank`, `Bank` or `bank.Bank`.
        class: String,
        /// The method: `Transfer`.
        method: String,
        /// The request message as JSON.
        #[arg(default_value = "{}")]
        request: String,
        /// How long to wait at most, in milliseconds.
        #[arg(long, value_name = "MS")]
        deadline_ms: Option<u32>,
    },
}

#[derive(Subcommand)]
enum NodeCommand {
    /// Lists them: state, process, view, incarnation.
    #[command(visible_alias = "get")]
    List,
}

#[derive(Subcommand)]
enum InstanceCommand {
    /// Lists every replica.
    #[command(visible_alias = "get")]
    List {
        /// Have all replicas hash their state at one position of the order, and compare.
        #[arg(long)]
        audit: bool,
    },
}

#[derive(Subcommand)]
enum ComponentCommand {
    /// Puts a package on all nodes and starts it.
    Deploy {
        /// A directory with component.toml and library, or linked:NAME for a component that the
        /// daemons were built with, such as linked:counter.
        #[arg(value_name = "DIRECTORY|linked:NAME")]
        package: PathBuf,
    },
    /// Lists what is deployed.
    #[command(visible_alias = "get")]
    List,
    /// Takes a package and its instances away.
    Remove {
        /// The component's name.
        name: String,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    end_with_reader();
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Error::new(format!("cannot start: {error}"))),
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// `quintet events | head` is to end with `head`, quietly, as other tools do.
fn end_with_reader() {
    // SAFETY: called before any other thread exists; SIG_DFL is a valid disposition for SIGPIPE.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

fn fail(error: &Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(arguments: Arguments) -> Result<(), Error> {
    let Arguments { scope, output, command } = arguments;
    let json = output == Output::Json;
    let command = match command {
        Command::Dev(arguments) => return dev::run(arguments, &scope).await,
        other => other,
    };
    let cluster = cluster::Cluster::find(&scope)?;
    match command {
        Command::Dev(_) => unreachable!("taken above"),
        Command::Status => status::status(&cluster, json).await,
        Command::Node(NodeCommand::List) => status::nodes(&cluster, json).await,
        Command::Links => status::links(&cluster, json).await,
        Command::Instance(InstanceCommand::List { audit }) => {
            instance::list(&cluster, audit, json).await
        }
        Command::Component(ComponentCommand::Deploy { package }) => {
            component::deploy(&cluster, &package, json).await
        }
        Command::Component(ComponentCommand::List) => component::list(&cluster, json).await,
        Command::Component(ComponentCommand::Remove { name }) => {
            component::remove(&cluster, &name).await
        }
        Command::Recover { owed } => recover::recover(&cluster, owed).await,
        Command::Events { follow } => events::events(&cluster, follow, json).await,
        Command::Call { class, method, request, deadline_ms } => {
            call::call(&cluster, class, method, &request, deadline_ms, json).await
        }
    }
}

/// What a person reads when a command fails.
#[derive(Debug)]
pub(crate) struct Error {
    what: String,
    more: Vec<String>,
}

impl Error {
    pub(crate) fn new(what: impl Into<String>) -> Error {
        Error { what: what.into(), more: Vec::new() }
    }

    /// Adds a line: what it means, or what to do.
    pub(crate) fn hint(mut self, line: impl Into<String>) -> Error {
        self.more.push(line.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.more
            .iter()
            .filter(|line| !line.is_empty())
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Prints a value as JSON, for programs.
fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::new(format!("cannot print: {error}")))?;
    println!("{text}");
    Ok(())
}
