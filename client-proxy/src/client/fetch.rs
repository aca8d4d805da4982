//! Getting a package of components from a manager, by the digest of its bytes.

use std::{io, time::Duration};

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::stream;
use crate::wire::{
    ClientId, Digest, Farewell, Frame, FrameReader, FrameWriter, Goodbye, Hello, Purpose,
    ReadError, Text, VERSION, limits::FRAME_BYTES_MAX,
};

/// A manager that says nothing for so long has no package to give.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a package was not got.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The connection failed, or what was received could not be written.
    #[error("fetching a package: {0}")]
    Io(#[from] io::Error),
    /// The manager's frames could not be read.
    #[error("fetching a package: {0}")]
    Read(#[from] ReadError),
    /// The manager does not have it.
    #[error("the manager does not have package {0}")]
    Missing(Digest),
    /// It is longer than the caller allows.
    #[error("package {digest} is {total} bytes long, more than the {limit} allowed")]
    TooLong {
        /// Which.
        digest: Digest,
        /// Its length.
        total: u64,
        /// The limit.
        limit: u64,
    },
    /// The manager ended the conversation.
    #[error("the manager refused: {0}")]
    Refused(Text),
    /// The manager said something else than a package.
    #[error("the manager broke the protocol: {0}")]
    Protocol(&'static str),
    /// The manager said nothing for too long.
    #[error("the manager has not answered for {} s", PATIENCE.as_secs())]
    Silent,
}

/// Writes the package with this digest to `out` and returns its length. The caller compares the digest: this crate
/// brings no hash function.
///
/// # Errors
/// See [`FetchError`]; `out` may have got a part of the package.
pub async fn fetch(
    address: &str,
    cluster: &str,
    digest: Digest,
    bytes_max: u64,
    out: &mut (impl AsyncWrite + Unpin),
) -> Result<u64, FetchError> {
    let patiently = |dial| tokio::time::timeout(PATIENCE, dial);
    let (reader, writer) =
        patiently(stream::dial(address)).await.map_err(|_| FetchError::Silent)??;
    let mut reader = FrameReader::new(reader, FRAME_BYTES_MAX);
    let mut writer = FrameWriter::new(writer, 1 << 16);
    let hello = Hello {
        version: VERSION,
        cluster: cluster.into(),
        client: ClientId(0),
        purpose: Purpose::Packages,
    };
    writer.write_frame(&Frame::Hello(hello)).await?;
    writer.write_frame(&Frame::Fetch(digest)).await?;
    let mut received = 0;
    loop {
        let frame = tokio::time::timeout(PATIENCE, reader.read_frame())
            .await
            .map_err(|_| FetchError::Silent)??;
        match frame.ok_or(ReadError::Truncated)? {
            Frame::Welcome(_) | Frame::View(_) | Frame::Pong(_) => {}
            Frame::Ping(token) => writer.write_frame(&Frame::Pong(token)).await?,
            Frame::NoPackage(missing) => return Err(FetchError::Missing(missing)),
            Frame::Goodbye(goodbye) => return Err(FetchError::Refused(goodbye.message)),
            Frame::Package(piece) => {
                if piece.digest != digest || piece.offset != received {
                    return Err(FetchError::Protocol("a piece that does not follow the last one"));
                }
                if piece.total > bytes_max {
                    return Err(FetchError::TooLong {
                        digest,
                        total: piece.total,
                        limit: bytes_max,
                    });
                }
                received += piece.bytes.len() as u64;
                if received > piece.total || (piece.bytes.is_empty() && received < piece.total) {
                    return Err(FetchError::Protocol(
                        "a piece beyond the end of the package, or an empty one",
                    ));
                }
                out.write_all(&piece.bytes).await?;
                if received == piece.total {
                    out.flush().await?;
                    let goodbye = Goodbye { reason: Farewell::Leaving, message: Text::default() };
                    let _ = writer.write_frame(&Frame::Goodbye(goodbye)).await;
                    return Ok(received);
                }
            }
            _ => return Err(FetchError::Protocol("a frame that has no place here")),
        }
    }
}
