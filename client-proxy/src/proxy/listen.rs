//! Listening sockets, TCP and Unix, with errors that say what to do.

use std::{
    io,
    os::unix::{fs::FileTypeExt, net::UnixStream as StdUnixStream},
    path::PathBuf,
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::config::Address;

/// A socket could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error(
        "cannot listen on {0}: it is in use, perhaps by another quintet-proxy; stop that one or choose another address"
    )]
    InUse(Address),
    /// The system refuses.
    #[error("cannot listen on {address}: {error}")]
    Io {
        /// Where.
        address: Address,
        /// Why not.
        error: io::Error,
    },
}

#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Removes the socket's file when the listener goes.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    pub(super) async fn bind(address: &Address) -> Result<Self, ListenError> {
        let bound = match address {
            Address::Tcp(tcp) => TcpListener::bind(tcp).await.map(Self::Tcp),
            Address::Unix(path) => {
                // A file left behind by a proxy that was killed is taken over, a living one is not, and what is not a
                // socket is not touched.
                let is_socket =
                    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
                if is_socket && StdUnixStream::connect(path).is_ok() {
                    return Err(ListenError::InUse(address.clone()));
                }
                if is_socket {
                    let _ = std::fs::remove_file(path);
                }
                UnixListener::bind(path)
                    .map(|listener| Self::Unix(listener, SocketFile(path.clone())))
            }
        };
        bound.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse(address.clone()),
            _ => ListenError::Io { address: address.clone(), error },
        })
    }

    pub(super) fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Tcp(listener) => Address::Tcp(listener.local_addr()?),
            Self::Unix(_, file) => Address::Unix(file.0.clone()),
        })
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}
