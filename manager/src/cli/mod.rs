//! `quintet`, the command line: a noun, a verb, and a table (or `-o json`).
//!
//! Everything it shows comes from the admin API of the daemons and the status page of the proxy; it holds no
//! state of its own. Which daemons: `--admin SOCKET|URL`, or the development cluster that `quintet dev` keeps in
//! `--cluster-dir`. A command that any node can answer asks the next node when one does not answer.

mod admit;
mod api;
mod call;
mod cluster;
mod component;
mod door;
pub(crate) mod error;
mod events;
mod instance;
mod links;
mod recover;
pub(crate) mod scope;
mod stat;
mod status;
mod table;

pub use crate::print::arguments;
use crate::print::{complain, say};
use error::Error;
use scope::Scope;

use crate::{dev, doctor};
use clap::{Parser, Subcommand, ValueEnum};
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
    /// Identities: makes an authority, admits nodes.
    #[command(subcommand)]
    Cluster(admit::ClusterCommand),
    /// Checks this host: what stands in the way of a daemon, and what to do. Exit status 2 if there is a problem.
    Doctor(doctor::Arguments),
    /// What the cluster is doing: view, nodes, links, proxy.
    Status {
        /// The bounds in force on each node instead.
        #[arg(long)]
        limits: bool,
    },
    /// Counters of daemons on this machine, read from their memory: also of one that is stopped or stuck.
    Stat(stat::Arguments),
    /// The nodes of the cluster.
    #[command(subcommand)]
    Node(NodeCommand),
    /// The links between nodes: path and why, state, round trip, last sign of life and how silence is judged, traffic.
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
    /// Takes a package and its instances away, and their state with them.
    Remove {
        /// The component's name.
        name: String,
        /// Also if there is state that is lost with it.
        #[arg(long)]
        yes: bool,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments: Arguments = arguments();
    if let Command::Doctor(what) = &arguments.command {
        return doctor::main(what, arguments.output == Output::Json);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Error::new(format!("cannot start: {error}"))),
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Error) -> ExitCode {
    complain!("error: {error}");
    ExitCode::FAILURE
}

async fn run(arguments: Arguments) -> Result<(), Error> {
    let Arguments { scope, output, command } = arguments;
    let json = output == Output::Json;
    let command = match command {
        Command::Dev(arguments) => return dev::run(arguments, &scope).await,
        Command::Cluster(command) => return admit::run(command),
        Command::Stat(arguments) => return stat::stat(&arguments, &scope, json).await,
        other => other,
    };
    let cluster = cluster::Cluster::find(&scope)?;
    match command {
        Command::Dev(_) | Command::Cluster(_) | Command::Doctor(_) | Command::Stat(_) => {
            unreachable!("taken above")
        }
        Command::Status { limits: true } => status::limits(&cluster, json).await,
        Command::Status { limits: false } => status::status(&cluster, json).await,
        Command::Node(NodeCommand::List) => status::nodes(&cluster, json).await,
        Command::Links => links::links(&cluster, json).await,
        Command::Instance(InstanceCommand::List { audit }) => {
            instance::list(&cluster, audit, json).await
        }
        Command::Component(ComponentCommand::Deploy { package }) => {
            component::deploy(&cluster, &package, json).await
        }
        Command::Component(ComponentCommand::List) => component::list(&cluster, json).await,
        Command::Component(ComponentCommand::Remove { name, yes }) => {
            component::remove(&cluster, &name, yes).await
        }
        Command::Recover { owed } => recover::recover(&cluster, owed).await,
        Command::Events { follow } => events::events(&cluster, follow, json).await,
        Command::Call { class, method, request, deadline_ms } => {
            call::call(&cluster, class, method, &request, deadline_ms, json).await
        }
    }
}

/// Prints a value as JSON, for programs.
fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::new(format!("cannot print: {error}")))?;
    say!("{text}");
    Ok(())
}
