//! The configuration, and what it names on this machine: judged as `quintetd config check` judges it.

use super::{Check, Judgement, Verdict, fine, problem, unknown, warning};
use crate::config::Config;
use crate::daemon::{self, Lock};
use std::io;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const AREA: &str = "files";

/// What was seen; nothing without a configuration.
pub(super) struct Facts {
    given: Option<Given>,
}

struct Given {
    /// What `quintetd config check` would say: addresses, directories, identity.
    configuration: Result<String, String>,
    /// Of the data directory, where it is there.
    mode: Option<u32>,
    /// Opening the transport's port: the system's word if it refused.
    port: Result<(), io::ErrorKind>,
    /// A daemon holds the data directory.
    running: bool,
}

impl Facts {
    pub(super) fn look(file: Option<&Path>, config: Option<&Config>) -> Facts {
        let given = file.map(|file| {
            let configuration = daemon::load(file)
                .map(|config| format!("node {} of cluster {}", config.node, config.cluster))
                .map_err(|error| error.to_string());
            let data = config.map(|config| &config.data_dir);
            Given {
                configuration,
                mode: data
                    .and_then(|dir| std::fs::metadata(dir).ok())
                    .map(|there| there.permissions().mode() & 0o7777),
                port: config.map_or(Err(io::ErrorKind::NotFound), |config| {
                    let own = &config.own().transport;
                    own.iter()
                        .try_for_each(|at| UdpSocket::bind(at).map(drop))
                        .map_err(|e| e.kind())
                }),
                running: data.is_some_and(|dir| Lock::is_held(dir)),
            }
        });
        Facts { given }
    }

    pub(super) fn judge(&self) -> Vec<Check> {
        let why_config = "the daemon refuses to start with a wrong one";
        let why_data =
            "journal, votes and keys lie there: who may write it may change the group's past";
        let why_port = "peers on other hosts send to it";
        let Some(given) = &self.given else {
            let not_given = unknown("no configuration was named: -c FILE");
            return vec![Check::new(AREA, "configuration", why_config, not_given)];
        };
        vec![
            Check::new(AREA, "configuration", why_config, configuration(&given.configuration)),
            Check::new(AREA, "data directory", why_data, data(given.mode)),
            Check::new(AREA, "transport port", why_port, port(given.port, given.running)),
        ]
    }
}

fn configuration(checked: &Result<String, String>) -> Judgement {
    match checked {
        Ok(who) => fine(who),
        Err(said) => problem(said, "do what it says; `quintetd config check FILE` says the same"),
    }
}

fn data(mode: Option<u32>) -> Judgement {
    match mode {
        None => (Verdict::Unknown, "not there yet, or it cannot be seen by this user".into(), None),
        Some(mode) if mode & 0o002 != 0 => problem(
            format!("everybody may write it (mode {mode:04o})"),
            "chmod 700 the data directory",
        ),
        Some(mode) if mode & 0o020 != 0 => warning(
            format!("its group may write it (mode {mode:04o})"),
            "chmod 700 the data directory",
        ),
        Some(mode) => fine(format!("mode {mode:04o}")),
    }
}

fn port(bound: Result<(), io::ErrorKind>, running: bool) -> Judgement {
    match bound {
        Ok(()) => fine("can be opened"),
        Err(io::ErrorKind::AddrInUse) if running => fine("open; the daemon of this directory runs"),
        Err(io::ErrorKind::AddrInUse) => problem(
            "another process receives there, and no daemon holds the data directory",
            "`ss -lunp` shows which: stop it, or give this node another port",
        ),
        Err(io::ErrorKind::AddrNotAvailable) => problem(
            "no interface of this machine has that address",
            "correct `bind`, or look on the machine that the file is for",
        ),
        Err(io::ErrorKind::PermissionDenied) => problem(
            "this user may not open it",
            "use a port above 1023, or give quintetd CAP_NET_BIND_SERVICE",
        ),
        Err(other) => unknown(format!("could not be tried ({other})")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::*;
    use super::*;

    #[test]
    fn a_directory_that_others_may_write_is_named() {
        assert_eq!((data(Some(0o700)).0, data(Some(0o755)).0, data(None).0), (Ok, Ok, Unknown));
        assert_eq!((data(Some(0o770)).0, data(Some(0o777)).0), (Warning, Problem));
    }

    #[test]
    fn a_port_in_use_is_right_if_the_daemon_uses_it() {
        let err = std::result::Result::Err;
        assert_eq!(port(err(io::ErrorKind::AddrInUse), true).0, Ok);
        assert_eq!(port(err(io::ErrorKind::AddrInUse), false).0, Problem);
        assert_eq!(port(err(io::ErrorKind::AddrNotAvailable), false).0, Problem);
        assert_eq!(port(err(io::ErrorKind::PermissionDenied), false).0, Problem);
        assert_eq!(
            (port(std::result::Result::Ok(()), false).0, port(err(io::ErrorKind::Other), true).0),
            (Ok, Unknown)
        );
    }

    #[test]
    fn what_config_check_says_is_said_here() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("n.toml");
        std::fs::write(&file, "node = 1\n").unwrap();
        let checks = Facts::look(Some(&file), None).judge();
        assert_eq!(checks[0].verdict, Problem);
        assert_eq!(checks[0].found, daemon::load(&file).unwrap_err().to_string());
        assert_eq!(Facts::look(None, None).judge()[0].verdict, Unknown);
    }
}
