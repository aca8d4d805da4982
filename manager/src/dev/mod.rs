//! `quintet dev`: a cluster on this machine as real processes, to play with and to injure.
//!
//! One supervisor in the foreground starts N daemons and a proxy, says where everything is, and takes orders from
//! other shells (`quintet dev kill 2`). It restarts nothing by itself: a person who kills a node wants to see it
//! dead. Its children die with it, however it ends.

mod control;
pub(crate) mod layout;
mod netns;
mod process;
mod supervisor;

use crate::cli::{Error, Scope};
use clap::{Args, Subcommand, ValueEnum};
use control::Order;
use layout::{Layout, default_dir};
use std::path::PathBuf;

/// `quintet dev` and its verbs.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    start: StartArguments,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// How to start a cluster.
#[derive(Args, Debug)]
struct StartArguments {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: u16,
    /// How the nodes talk to each other.
    #[arg(long, value_enum, default_value_t = Transport::Auto)]
    transport: Transport,
    /// Each node and the proxy in a network namespace of its own (root; implies --transport udp).
    #[arg(long)]
    netns: bool,
    /// Where to keep data, logs and sockets.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Port for gRPC clients; a free one by default.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Transport {
    Auto,
    Shm,
    Udp,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// kill -9 of one node or of several at once.
    Kill {
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<u16>,
    },
    /// Starts a node that is not running.
    Start { node: u16 },
    /// SIGSTOP: the node freezes.
    Pause { node: u16 },
    /// SIGCONT: it goes on.
    Resume { node: u16 },
    /// Cuts the network cable of a node (only with --netns).
    Cut { node: u16 },
    /// Mends it.
    Heal { node: u16 },
    /// SIGTERM of a node: it hands over and leaves.
    Terminate { node: u16 },
    /// Ends the cluster.
    Stop,
}

impl From<Verb> for Order {
    fn from(verb: Verb) -> Order {
        match verb {
            Verb::Kill { nodes } => Order::Kill(nodes),
            Verb::Start { node } => Order::Start(node),
            Verb::Pause { node } => Order::Pause(node),
            Verb::Resume { node } => Order::Resume(node),
            Verb::Cut { node } => Order::Cut(node),
            Verb::Heal { node } => Order::Heal(node),
            Verb::Terminate { node } => Order::Terminate(node),
            Verb::Stop => Order::Stop,
        }
    }
}

/// Runs `quintet dev …`.
pub(crate) async fn run(arguments: Arguments, scope: &Scope) -> Result<(), Error> {
    let Arguments { start, verb } = arguments;
    let dir = start.dir.clone().or_else(|| scope.cluster_dir.clone()).unwrap_or_else(default_dir);
    let Some(verb) = verb else {
        return supervisor::run(&start, &dir).await;
    };
    let layout = Layout::load(&dir).map_err(|why| {
        Error::new(format!("no development cluster found: {why}"))
            .hint("start one with `quintet dev --nodes 3`")
    })?;
    println!("{}", control::order(&layout.control, verb.into()).await?);
    Ok(())
}
