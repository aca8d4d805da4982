//! Where a daemon's admin API is: a Unix socket, or a port on loopback with a token for changes.

use super::Error;
use http::request::Builder;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// One daemon's door.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Door {
    /// A Unix socket: who may open it may do everything.
    Unix(PathBuf),
    /// Loopback TCP.
    Http {
        /// Where.
        at: SocketAddr,
        /// What the daemon wants to see before it changes anything.
        token: Option<String>,
    },
}

/// A connection, of whichever kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Door {
    /// What `--admin` says: the path of a socket, or `http://127.0.0.1:PORT`.
    pub(super) fn parse(text: &str) -> Result<Door, Error> {
        let refuse = |why: &str| {
            Err(Error::new(format!("--admin {text}: {why}"))
                .hint("give the path of a daemon's admin socket, or http://127.0.0.1:PORT"))
        };
        if text.starts_with("https://") {
            return refuse("the admin API is not encrypted; it is served on loopback only");
        }
        let Some(address) = text.strip_prefix("http://") else {
            return Ok(Door::Unix(text.into()));
        };
        let address = address.strip_suffix('/').unwrap_or(address);
        let at = match address.strip_prefix("localhost:").map(str::parse) {
            Some(Ok(port)) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
            _ => address.parse(),
        };
        match at {
            Ok(at) if at.ip().is_loopback() => Ok(Door::Http { at, token: None }),
            Ok(_) => refuse(
                "not an address of this machine alone; reach another through a tunnel, as of ssh -L",
            ),
            Err(_) => refuse("not an IP address and a port"),
        }
    }

    /// Gives the doors on TCP their tokens: one file for all of them, or one for each, in their order.
    pub(super) fn give_tokens(doors: &mut [Door], files: &[PathBuf]) -> Result<(), Error> {
        let wanting = doors.iter_mut().filter_map(|door| match door {
            Door::Http { token, .. } => Some(token),
            Door::Unix(_) => None,
        });
        let wanting: Vec<_> = wanting.collect();
        if wanting.is_empty() {
            return Ok(());
        }
        let tokens: Vec<String> = files.iter().map(|file| read(file)).collect::<Result<_, _>>()?;
        if tokens.len() > 1 && tokens.len() != wanting.len() {
            return Err(Error::new(format!(
                "{} token files for {} addresses on TCP",
                tokens.len(),
                wanting.len()
            ))
            .hint(
                "give one --token-file for each http:// address, in the same order, or one for all",
            ));
        }
        for (door, token) in wanting.into_iter().zip(tokens.iter().cycle()) {
            *door = Some(token.clone());
        }
        Ok(())
    }

    /// Connects.
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Door::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Door::Http { at, .. } => Box::new(TcpStream::connect(at).await?),
        })
    }

    /// What a request at this door begins with.
    pub(super) fn head(&self, request: Builder) -> Builder {
        match self {
            Door::Unix(_) => request.header("host", "quintet"),
            Door::Http { at, token } => {
                let request = request.header("host", at.to_string());
                match token {
                    Some(token) => request.header("authorization", format!("Bearer {token}")),
                    None => request,
                }
            }
        }
    }
}

fn read(file: &Path) -> Result<String, Error> {
    let bad = |why: String| {
        Error::new(format!("--token-file {}: {why}", file.display())).hint(
            "it is admin.token in the data directory of a daemon that has admin.http configured",
        )
    };
    let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("there is no token in it".into()));
    }
    Ok(token.to_owned())
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Door::Unix(path) => path.display().fmt(f),
            Door::Http { at, .. } => write!(f, "http://{at}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(at: &str) -> Door {
        Door::Http { at: at.parse().unwrap(), token: None }
    }

    #[test]
    fn paths_and_addresses_of_this_machine_are_doors_and_others_are_refused_in_words() {
        assert_eq!(Door::parse("/run/q.sock").unwrap(), Door::Unix("/run/q.sock".into()));
        assert_eq!(Door::parse("http://127.0.0.1:7301").unwrap(), http("127.0.0.1:7301"));
        assert_eq!(Door::parse("http://localhost:7301/").unwrap(), http("127.0.0.1:7301"));
        assert_eq!(Door::parse("http://[::1]:7301").unwrap(), http("[::1]:7301"));
        for (wrong, why) in [
            ("http://10.0.0.1:80", "tunnel"),
            ("https://127.0.0.1:80", "not encrypted"),
            ("http://node1:80", "not an IP address"),
            ("http://127.0.0.1", "and a port"),
        ] {
            let said = Door::parse(wrong).unwrap_err().to_string();
            assert!(said.contains(why) && said.contains(wrong), "{said}");
        }
    }

    #[test]
    fn tokens_go_to_the_doors_on_tcp_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (one, two, none) = (file("1", "a\n"), file("2", "b\n"), file("3", " \n"));
        let doors = || vec![http("127.0.0.1:1"), Door::Unix("/s".into()), http("127.0.0.1:2")];
        let tokens = |files: &[PathBuf]| {
            let mut doors = doors();
            Door::give_tokens(&mut doors, files).map(|()| {
                let token = |door: Door| match door {
                    Door::Http { token, .. } => token,
                    Door::Unix(_) => None,
                };
                doors.into_iter().filter_map(token).collect::<String>()
            })
        };
        assert_eq!(tokens(&[]).unwrap(), "");
        assert_eq!(tokens(std::slice::from_ref(&one)).unwrap(), "aa");
        assert_eq!(tokens(&[one.clone(), two.clone()]).unwrap(), "ab");
        let said = tokens(&[one, two.clone(), two]).unwrap_err().to_string();
        assert!(said.contains("3 token files for 2 addresses"), "{said}");
        assert!(tokens(&[none]).unwrap_err().to_string().contains("no token in it"));
        let missing = tokens(&[dir.path().join("4")]).unwrap_err().to_string();
        assert!(missing.contains("admin.token"), "{missing}");
    }
}
