//! What a proxy is told: a TOML file, flags over it, and checks whose errors say what to do.

use std::{net::SocketAddr, path::Path, str::FromStr};

use serde::Deserialize;

use crate::wire::limits::MESSAGE_BYTES_MAX;

/// A proxy's configuration. Every field has a default except `managers`.
///
/// ```toml
/// cluster  = "demo"
/// listen   = ["127.0.0.1:7400", "unix:/run/quintet/proxy.sock"]  # gRPC (HTTP/2 without TLS)
/// managers = ["127.0.0.1:7411", "127.0.0.1:7412"]                # some of them; the rest is learned
/// status   = "127.0.0.1:7490"                                    # HTTP/JSON; loopback or unix: only
///
/// [limits]
/// calls_max = 4096             # unanswered at a time; more are shed with RESOURCE_EXHAUSTED
/// message_bytes_max = 65536    # longest request: it is held for replay
/// replay_bytes_max = 67108864  # all requests held
/// connections_max = 1024       # gRPC connections
///
/// [timing]
/// deadline_ms = 30000          # for calls without grpc-timeout
/// drain_ms = 10000             # on SIGTERM, for what is in flight
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// Name of the cluster; managers of another one are not used.
    pub cluster: String,
    /// Where gRPC clients connect.
    pub listen: Vec<Address>,
    /// Client addresses of some managers.
    pub managers: Vec<String>,
    /// Where the status is served, if anywhere.
    pub status: Option<Address>,
    /// Threads. One is the best choice up to some 60,000 calls per second: no call changes threads.
    pub threads: usize,
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timing: Timing,
}

/// Bounds of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most calls unanswered at a time.
    pub calls_max: usize,
    /// Longest request message, in bytes.
    pub message_bytes_max: usize,
    /// Most bytes of requests held for replay.
    pub replay_bytes_max: usize,
    /// Most gRPC connections.
    pub connections_max: usize,
    /// Most request ids remembered.
    pub request_ids_max: usize,
}

/// Times of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// Deadline of calls that bring none, in milliseconds.
    pub deadline_ms: u64,
    /// Time for calls in flight at SIGTERM, in milliseconds.
    pub drain_ms: u64,
    /// Time between looks at the managers' signs of life, in milliseconds.
    pub ping_ms: u64,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            cluster: "quintet".into(),
            listen: vec![Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 7400)))],
            managers: Vec::new(),
            status: None,
            threads: 1,
            limits: Limits::default(),
            timing: Timing::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls_max: 4096,
            message_bytes_max: 64 << 10,
            replay_bytes_max: 64 << 20,
            connections_max: 1024,
            request_ids_max: crate::client::REQUEST_IDS_MAX,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self { deadline_ms: 30_000, drain_ms: 10_000, ping_ms: 1000 }
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Address {
    /// A TCP port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(std::path::PathBuf),
}

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("unix: needs a path behind it".into())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!("{text:?} is neither an address with a port (127.0.0.1:7400) nor a Unix socket (unix:/path)")
        })
    }
}

impl TryFrom<String> for Address {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {error}")]
    Read {
        /// Which.
        path: String,
        /// Why not.
        error: std::io::Error,
    },
    /// The file is not TOML, or has keys that mean nothing, or values of the wrong kind.
    #[error("configuration {path}: {error}")]
    Parse {
        /// Which.
        path: String,
        /// Where and what, with the line.
        error: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("configuration: {0}")]
    Value(String),
}

impl ProxyConfig {
    /// Reads a file. Unknown keys are errors.
    ///
    /// # Errors
    /// The file cannot be read or understood. (Values are checked by [`check`](Self::check), after flags.)
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: name.clone(), error })?;
        toml::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: name, error: Box::new(error) })
    }

    /// Checks the values.
    ///
    /// # Errors
    /// The first one that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |what: String| Err(ConfigError::Value(what));
        if self.managers.is_empty() {
            return wrong(
                "no manager is given: set `managers = [\"host:port\"]` or --manager host:port"
                    .into(),
            );
        }
        for manager in &self.managers {
            let port = manager
                .rsplit_once(':')
                .and_then(|(host, port)| (!host.is_empty()).then_some(port));
            if !manager.starts_with("unix:/")
                && port.is_none_or(|port| port.parse::<u16>().is_err())
            {
                return wrong(format!("manager {manager:?} is neither host:port nor unix:/path"));
            }
        }
        if self.listen.is_empty() {
            return wrong("`listen` is empty: no client could connect".into());
        }
        if let Some(Address::Tcp(status)) = self.status
            && !status.ip().is_loopback()
        {
            return wrong(format!(
                "status = \"{status}\": only loopback or a Unix socket, as nobody is asked who he is"
            ));
        }
        let (limits, timing) = (&self.limits, &self.timing);
        let ranges = [
            ("threads", self.threads as u64, 1, 64),
            ("limits.calls_max", limits.calls_max as u64, 1, 1 << 16),
            (
                "limits.message_bytes_max",
                limits.message_bytes_max as u64,
                1,
                MESSAGE_BYTES_MAX as u64,
            ),
            (
                "limits.replay_bytes_max",
                limits.replay_bytes_max as u64,
                limits.message_bytes_max as u64,
                1 << 34,
            ),
            ("limits.connections_max", limits.connections_max as u64, 1, 1 << 16),
            ("limits.request_ids_max", limits.request_ids_max as u64, 1, 1 << 20),
            ("timing.deadline_ms", timing.deadline_ms, 1, 86_400_000),
            ("timing.drain_ms", timing.drain_ms, 0, 3_600_000),
            ("timing.ping_ms", timing.ping_ms, 100, 60_000),
        ];
        for (name, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return wrong(format!("{name} = {value} is outside {low} to {high}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ProxyConfig, String> {
        let config: ProxyConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn the_documented_example_is_accepted() {
        let doc = include_str!("config.rs");
        let example: Vec<&str> = doc
            .lines()
            .skip_while(|line| *line != "/// ```toml")
            .skip(1)
            .take_while(|line| *line != "/// ```")
            .map(|line| line.trim_start_matches("///"))
            .collect();
        let config = parse(&example.join("\n")).unwrap();
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.managers.len(), 2);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = parse("managers = [\"a:1\"]\n[limits]\ncals_max = 3\n").unwrap_err();
        assert!(
            error.contains("cals_max") && error.contains("line 3") && error.contains("calls_max"),
            "{error}"
        );
    }

    #[test]
    fn values_that_make_no_sense_are_explained() {
        for (text, word) in [
            ("", "--manager"),
            ("managers = [\"host\"]", "host:port"),
            ("managers = [\"a:1\"]\nlisten = [\"7400\"]", "127.0.0.1:7400"),
            ("managers = [\"a:1\"]\nstatus = \"0.0.0.0:7490\"", "loopback"),
            ("managers = [\"a:1\"]\nthreads = 0", "outside 1 to 64"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
