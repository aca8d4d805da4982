//! What of a configuration the machine has a word in: addresses and directories.
//!
//! `quintetd config check` and the daemon at its start both ask here, so that the one never calls good what the other
//! refuses. Nothing is left behind. What a running daemon holds (its ports, its lock) is not looked at, so that a file
//! can be checked beside the daemon that uses it.

use crate::config::{Config, Error, PathChoice};
use quintet_transport::{check_shm_gid, discover_verbs};
use std::fs;
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

/// What the system said of a directory, and what to do.
pub(super) fn advice(what: &str, error: &io::Error) -> String {
    let todo = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ": it must be writable for the user quintetd runs as (chown it, or choose another)"
        }
        io::ErrorKind::StorageFull => ": the disk is full; make room",
        io::ErrorKind::ReadOnlyFilesystem => {
            ": the file system is mounted for reading only; choose another place"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            ": something that is no directory lies there; correct the path"
        }
        _ => "; correct the path",
    };
    format!("{what} ({error}){todo}")
}

/// Reads a file and checks everything that can be checked before a start.
pub fn load(file: &Path) -> Result<Config, Error> {
    let config = Config::load(file)?;
    on_this_machine(&config).map_err(|error| error.in_file(file))?;
    Ok(config)
}

fn on_this_machine(config: &Config) -> Result<(), Error> {
    if config.transport.path != PathChoice::Shm {
        reaches_out(config)?;
    }
    if let Some(gid) = config.transport.shm_gid {
        check_shm_gid(gid).map_err(|what| Error::value("transport.shm_gid", what, ""))?;
    }
    if config.transport.path == PathChoice::Verbs {
        let report = discover_verbs(config.transport.device.as_deref(), config.transport.partition);
        if !report.usable() {
            let what = format!("verbs cannot be used here:\n{report}");
            return Err(Error::value("transport.path", what, ""));
        }
    }
    config.identity().map_err(|why| Error::value("identity", why.to_string(), ""))?;
    let tcp = |ip| TcpListener::bind((ip, 0)).map(drop);
    has_address("client.listen", config.client.listen.ip(), tcp)?;
    if let Some(http) = config.admin.http {
        has_address("admin.http", http.ip(), tcp)?;
    }
    can_hold_files(&config.data_dir).map_err(|why| {
        Error::value("data_dir", format!("{} {why}", config.data_dir.display()), "")
    })?;
    let socket = &config.admin.socket;
    socket_fits(socket)
        .map_err(|why| Error::value("admin.socket", format!("{} {why}", socket.display()), ""))
}

/// The transport's addresses are this machine's, or those of the interfaces named in their place.
fn reaches_out(config: &Config) -> Result<(), Error> {
    let (addresses, choices) = (&config.own().transport, &config.transport.interface);
    if choices.is_empty() {
        let udp = |ip| UdpSocket::bind((ip, 0)).map(drop);
        return addresses.iter().try_for_each(|at| has_address("bind", at.ip(), udp));
    }
    let wrong = |what: String, fix: &str| Error::value("transport.interface", what, fix);
    let all = quintet_transport::interfaces()
        .map_err(|error| wrong(format!("interfaces cannot be listed ({error})"), ""))?;
    for (choice, at) in choices.iter().zip(addresses.iter()) {
        let interface = choice.among(&all).map_err(|what| wrong(what, ""))?;
        if !interface.addresses.contains(&at.ip()) {
            let has: Vec<_> = interface.addresses.iter().map(IpAddr::to_string).collect();
            return Err(wrong(
                format!(
                    "the others look for this node at {}, and {} has {}",
                    at.ip(),
                    interface.name,
                    if has.is_empty() { "no address".to_owned() } else { has.join(", ") }
                ),
                "correct nodes.transport on all nodes, or name another interface",
            ));
        }
    }
    Ok(())
}

/// Tries the address with a port that the kernel chooses.
fn has_address(
    key: &str,
    ip: IpAddr,
    bind: impl Fn(IpAddr) -> io::Result<()>,
) -> Result<(), Error> {
    match bind(ip) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Err(Error::value(
            key,
            format!("this machine does not have the address {ip}"),
            "write one that `ip address` shows, or check the file on the machine it is for",
        )),
        // Whatever else is wrong at the moment is no fault of the file.
        _ => Ok(()),
    }
}

fn socket_fits(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            Err("is there already, and is no socket; choose another path".into())
        }
        _ => path.parent().map_or(Ok(()), |dir| {
            can_hold_files(dir).map_err(|why| format!("cannot be made: its directory {why}"))
        }),
    }
}

/// Whether files can be made in `dir`, which itself is made first if need be. `Err` goes on after the path.
fn can_hold_files(dir: &Path) -> Result<(), String> {
    for there in dir.ancestors() {
        let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
        let probe = there.join(format!(".quintetd-check-{}", std::process::id()));
        let tried = match fs::metadata(there) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && there != Path::new(".") => {
                continue;
            }
            Err(error) => Err(error),
            Ok(found) if !found.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
            Ok(_) if there == dir => {
                let made = fs::write(&probe, "?");
                let _ = fs::remove_file(&probe);
                made
            }
            Ok(_) => fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)),
        };
        let what = if there == dir { "cannot be written" } else { "cannot be created" };
        return tried.map_err(|error| advice(what, &error));
    }
    Ok(())
}
