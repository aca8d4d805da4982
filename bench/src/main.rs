//! `quintet-perf`: measurements that can be reproduced.
//!
//! Each measurement starts its own processes on this machine and prints percentiles as a table or as JSON with
//! everything needed to judge it: host, kernel, provider and why, parameters, CPU time.

mod agreement;
mod children;
mod counter;
mod cpu;
mod detect;
mod exchange;
mod floor;
mod host;
mod idle;
mod incast;
mod mesh;
mod multicast;
mod open_loop;
mod output;
mod pingpong;
mod place;
mod policy;
mod reference;
mod report;
mod schedule;
mod serve;
mod setup;
mod side;
mod sizes;
mod stages;
mod statistics;
mod stream;
mod task;

use clap::{Parser, Subcommand};
use exchange::Answer;
use std::io::{self, Write as _};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "quintet-perf", version, about = "Measures Quintet's transport and multicast")]
struct Arguments {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// Round trip of one message between two processes.
    Pingpong(pingpong::Arguments),
    /// One message at a time to another process, until this one knows that it has arrived: the other answers with a word
    /// of its row, as members of a group do, not with a message.
    Put(pingpong::Arguments),
    /// Small messages per second from one process to another.
    Rate(stream::Arguments),
    /// Bytes per second from one process to another, in large messages.
    Bw(stream::Arguments),
    /// Many processes send to one: how much arrives, whose, how late, and what is lost on the way.
    Incast(incast::Arguments),
    /// How soon a dead process is noticed, and by what.
    Detect(detect::Arguments),
    /// Stable, totally ordered multicast among processes: latency of a lone message, or messages per second.
    Multicast(multicast::Arguments),
    /// Answer measurements of other hosts.
    Serve(serve::Arguments),
    /// The other side of a measurement; started by it.
    #[command(hide = true)]
    Peer {
        /// What it does, as JSON.
        task: String,
        /// Where it runs.
        #[arg(long)]
        core: Option<usize>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().measurement {
        Measurement::Pingpong(arguments) => pingpong::measure(Answer::Message, &arguments),
        Measurement::Put(arguments) => pingpong::measure(Answer::Word, &arguments),
        Measurement::Rate(arguments) => stream::measure("rate", 64, &arguments),
        Measurement::Bw(arguments) => stream::measure("bw", 65_536, &arguments),
        Measurement::Incast(arguments) => incast::measure(&arguments),
        Measurement::Detect(arguments) => detect::measure(&arguments),
        Measurement::Multicast(arguments) => multicast::measure(&arguments),
        Measurement::Serve(arguments) => serve::serve(&arguments),
        Measurement::Peer { task, core } => task::perform(&task, core),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever does not read that either has the exit code.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
