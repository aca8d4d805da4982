//! `quintet dev`: a cluster on this machine as real processes, to play with and to injure.
//!
//! One supervisor in the foreground starts N daemons and a proxy, says where everything is, and takes orders from
//! other shells (`quintet dev kill 2`). It restarts nothing by itself: a person who kills a node wants to see it
//! dead. Its children die with it, however it ends.

mod control;
pub(crate) mod layout;
mod netns;
mod network;
mod process;
mod supervisor;

use crate::cli::{error::Error, scope::Scope};
use crate::print::say;
use clap::{Args, Subcommand, ValueEnum};
use control::{Order, Target};
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
    /// Over the RDMA adapters of this machine, whose network is taken to be trusted.
    Verbs,
}

/// What a verb is for.
#[derive(Args, Clone, Debug)]
struct Targets {
    /// Node ids, as in `quintet status`, or `proxy`.
    #[arg(required = true, value_name = "NODE|proxy")]
    targets: Vec<Target>,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// kill -9 of one or of several at once.
    Kill(Targets),
    /// Starts those that are not running.
    Start(Targets),
    /// SIGSTOP: they freeze.
    Pause(Targets),
    /// SIGCONT: they go on.
    Resume(Targets),
    /// Cuts their network cables (only with --netns).
    Cut(Targets),
    /// Mends them.
    Heal(Targets),
    /// SIGTERM: they hand over and leave.
    Terminate(Targets),
    /// Ends the cluster.
    Stop,
}

impl From<Verb> for Order {
    fn from(verb: Verb) -> Order {
        match verb {
            Verb::Kill(t) => Order::Kill(t.targets),
            Verb::Start(t) => Order::Start(t.targets),
            Verb::Pause(t) => Order::Pause(t.targets),
            Verb::Resume(t) => Order::Resume(t.targets),
            Verb::Cut(t) => Order::Cut(t.targets),
            Verb::Heal(t) => Order::Heal(t.targets),
            Verb::Terminate(t) => Order::Terminate(t.targets),
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
    say!("{}", control::order(&layout.control, verb.into()).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn every_verb_takes_several_and_none_takes_nothing() {
        let order = |words: &[&str]| {
            let line = Line::try_parse_from(["dev"].iter().chain(words)).map_err(|e| e.to_string());
            line.map(|line| Order::from(line.arguments.verb.expect("a verb")))
        };
        let both = vec![Target::Node(1), Target::Proxy];
        for (verb, expected) in [
            ("kill", Order::Kill(both.clone())),
            ("start", Order::Start(both.clone())),
            ("pause", Order::Pause(both.clone())),
            ("resume", Order::Resume(both.clone())),
            ("cut", Order::Cut(both.clone())),
            ("heal", Order::Heal(both.clone())),
            ("terminate", Order::Terminate(both)),
        ] {
            assert_eq!(order(&[verb, "1", "proxy"]), Ok(expected));
            assert!(order(&[verb]).unwrap_err().contains("<NODE|proxy>"), "{verb}");
        }
        assert_eq!(order(&["stop"]), Ok(Order::Stop));
        assert!(order(&["kill", "prixy"]).unwrap_err().contains("nor `proxy`"));
    }
}
