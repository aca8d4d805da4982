//! The daemon.

use clap::{Parser, Subcommand};
use quintet_manager::packages::Linked;
use quintet_manager::{cli, daemon};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The component manager of one node.
#[derive(Parser)]
#[command(
    name = "quintetd",
    version,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Look at a configuration without starting anything.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Say whether the file is right, and what is wrong with it if not.
    Check {
        /// The configuration file.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments: Arguments = cli::arguments();
    let done = match (arguments.command, arguments.config) {
        (Some(Command::Config { what: ConfigCommand::Check { file } }), _) => check(&file),
        (None, Some(file)) => run(&file),
        (None, None) => Err("give a configuration: quintetd --config FILE".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "quintetd: {why}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let config = daemon::load(file)?;
    writeln!(
        std::io::stdout(),
        "{}: good. Node {} of {} in cluster {}, data in {}",
        file.display(),
        config.node,
        config.nodes.len(),
        config.cluster,
        config.data_dir.display()
    )?;
    Ok(())
}

fn run(file: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let config = daemon::load(file)?;
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let filter = filter
        .with_env_var("QUINTET_LOG")
        .from_env()
        .map_err(|e| daemon::Error::Log(e.to_string()))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        // A log that nobody reads any more (a closed pipe) is no reason to panic, and where should it be said?
        .log_internal_errors(false)
        .init();
    tracing::info!(node = config.node, cluster = %config.cluster, "quintetd {}", env!("CARGO_PKG_VERSION"));
    daemon::run(config, Linked::shipped())?;
    Ok(())
}
