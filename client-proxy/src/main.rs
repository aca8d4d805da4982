//! `quintet-proxy`: lets unmodified gRPC clients call a Quintet cluster, and keeps managers' deaths from them.

use std::io::{self, IsTerminal, Write as _};
use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use quintet_client::proxy::{Address, Proxy, ProxyConfig, ProxyError};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Failover proxy: gRPC clients in front, managers of a Quintet cluster behind.
#[derive(Parser)]
#[command(name = "quintet-proxy", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Work with the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check the configuration (file and flags) without starting.
    Check {
        /// The file, if not given with --config.
        file: Option<PathBuf>,
    },
}

/// Flags go over what the file says.
#[derive(Args)]
struct Options {
    /// Configuration file (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of the cluster.
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<String>,
    /// Where gRPC clients connect: HOST:PORT or unix:/PATH; may be repeated.
    #[arg(long, global = true, value_name = "ADDRESS", value_delimiter = ',')]
    listen: Vec<Address>,
    /// Client address of a manager: HOST:PORT or unix:/PATH; may be repeated. One is enough, the others are learned.
    #[arg(long = "manager", global = true, value_name = "ADDRESS", value_delimiter = ',', num_args = 1..)]
    managers: Vec<String>,
    /// Where the status is served (HTTP/JSON): loopback HOST:PORT or unix:/PATH.
    #[arg(long, global = true, value_name = "ADDRESS")]
    status: Option<Address>,
    /// Threads.
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
}

impl Options {
    fn apply(self, file: Option<PathBuf>) -> Result<ProxyConfig, ProxyError> {
        let mut config = match file.or(self.config) {
            Some(path) => ProxyConfig::read(&path)?,
            None => ProxyConfig::default(),
        };
        if let Some(cluster) = self.cluster {
            config.cluster = cluster;
        }
        if !self.listen.is_empty() {
            config.listen = self.listen;
        }
        if !self.managers.is_empty() {
            config.managers = self.managers;
        }
        config.status = self.status.or(config.status);
        config.threads = self.threads.unwrap_or(config.threads);
        config.check()?;
        Ok(config)
    }
}

fn main() -> ExitCode {
    let cli = arguments();
    let result = match cli.command {
        Some(Command::Config { command: ConfigCommand::Check { file } }) => {
            cli.options.apply(file).map(|_| {
                // Where that cannot be written, the exit status says it.
                let _ = writeln!(io::stdout(), "the configuration is good");
            })
        }
        None => cli.options.apply(None).and_then(run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "quintet-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// As [`Cli::parse`], which takes a help text that could not be written for success.
fn arguments() -> Cli {
    Cli::try_parse().unwrap_or_else(|told| {
        let printed = told.print().and_then(|()| io::stdout().flush());
        if let (Err(error), false) = (printed, told.use_stderr()) {
            let _ = writeln!(io::stderr(), "quintet-proxy: cannot print: {error}");
            std::process::exit(1);
        }
        std::process::exit(told.exit_code())
    })
}

fn run(config: ProxyConfig) -> Result<(), ProxyError> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let filter = filter
        .with_env_var("QUINTET_LOG")
        .from_env()
        .map_err(|e| ProxyError::Log(e.to_string()))?;
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        // A log that nobody reads any more (a closed pipe) is no reason to panic, and where should it be said?
        .log_internal_errors(false)
        .init();
    let mut runtime = match config.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    let runtime =
        runtime.enable_all().build().expect("the system gives threads and an epoll descriptor");
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
        let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be handled");
        let proxy = Proxy::bind(config).await?;
        proxy
            .run(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            })
            .await;
        Ok(())
    })
}
