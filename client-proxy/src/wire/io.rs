//! Frames over a tokio stream, in bounded memory and without losing bytes when a future is dropped.
//!
//! A reader's buffer grows only as bytes arrive, so a peer that announces 64 MiB and sends nothing costs nothing.
//! A writer queues frames up to a limit and hands the kernel as many as it takes at once: batching appears by itself
//! when there is something to batch, and a lonely frame leaves at once. Long messages are written from where they lie.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{Frame, Malformed, Unencodable, decode, encode, frame_length};

/// Asked of the kernel in one read.
const READ_BYTES: usize = 64 << 10;
/// A message up to this length is copied behind its head: cheaper than one more entry in a vectored write.
const INLINE_BYTES: usize = 1024;
/// Slices handed to one vectored write.
const SLICES: usize = 64;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer sent something that is not a frame; nothing behind it can be understood.
    #[error("malformed frame: {0}")]
    Malformed(#[from] Malformed),
    /// The connection was closed inside a frame.
    #[error("the connection ended inside a frame")]
    Truncated,
}

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
    frame_bytes_max: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader that refuses frames longer than `frame_bytes_max`.
    pub fn new(io: R, frame_bytes_max: usize) -> Self {
        Self { io, buffer: BytesMut::new(), frame_bytes_max }
    }

    /// The next frame; `None` when the peer closed between frames. Safe to cancel: no byte is lost.
    ///
    /// # Errors
    /// See [`ReadError`]; the reader is of no use afterwards.
    pub async fn read_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// As [`read_frame`](Self::read_frame), for those who poll several at once.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, ReadError>> {
        loop {
            if let Some(frame) = self.buffered_frame()? {
                return Poll::Ready(Ok(Some(frame)));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                let whole = self.buffer.is_empty();
                return Poll::Ready(if whole { Ok(None) } else { Err(ReadError::Truncated) });
            }
        }
    }

    /// A frame that has arrived already, without asking the connection.
    ///
    /// # Errors
    /// What has arrived is not a frame.
    pub fn buffered_frame(&mut self) -> Result<Option<Frame>, Malformed> {
        let Some(length) = frame_length(&self.buffer, self.frame_bytes_max)? else {
            return Ok(None);
        };
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        decode(self.buffer.split_to(length).freeze()).map(Some)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Frames handed out share this memory; `reserve` reuses it when they are gone and else begins a new block.
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES / 4 {
            self.buffer.reserve(READ_BYTES);
        }
        // The future holds nothing: what it reads is in the buffer at once, so it may be dropped after one poll.
        pin!(self.io.read_buf(&mut self.buffer)).poll(cx)
    }

    /// The connection.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.io
    }
}

/// The queue of a [`FrameWriter`] has no room; the peer does not read fast enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueFull {
    /// The bytes queued have reached the limit.
    #[error(
        "{queued} bytes wait to be sent, the limit is {limit}: the peer does not read fast enough"
    )]
    Full {
        /// Bytes queued.
        queued: usize,
        /// The limit.
        limit: usize,
    },
    /// The frame cannot be sent at all.
    #[error(transparent)]
    Unencodable(#[from] Unencodable),
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameWriter<W> {
    io: W,
    /// Heads and short messages, whole frames one behind the other, the youngest of what is queued.
    open: BytesMut,
    /// Slices that precede `open`, in order.
    sealed: VecDeque<Bytes>,
    queued: usize,
    /// Bytes that the connection has taken, ever.
    written: u64,
    queue_bytes_max: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// A writer that queues up to `queue_bytes_max` bytes (and one frame above).
    pub fn new(io: W, queue_bytes_max: usize) -> Self {
        let (open, sealed) = (BytesMut::new(), VecDeque::new());
        Self { io, open, sealed, queued: 0, written: 0, queue_bytes_max }
    }

    /// Queues a frame without writing it.
    ///
    /// # Errors
    /// The queue is full or the frame exceeds a limit; nothing was queued.
    pub fn queue(&mut self, frame: &Frame) -> Result<(), QueueFull> {
        if self.queued >= self.queue_bytes_max {
            return Err(QueueFull::Full { queued: self.queued, limit: self.queue_bytes_max });
        }
        let before = self.open.len();
        let tail = encode(frame, &mut self.open)?;
        self.queued += self.open.len() - before;
        if let Some(tail) = tail {
            self.queued += tail.len();
            if tail.len() <= INLINE_BYTES {
                self.open.extend_from_slice(&tail);
            } else {
                self.sealed.push_back(self.open.split().freeze());
                self.sealed.push_back(tail);
            }
        }
        Ok(())
    }

    /// Bytes queued.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Bytes that the connection has taken since the beginning: while it does not grow, the peer does not read.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes all that is queued. Safe to cancel: what was not written stays queued.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// As [`flush`](Self::flush), for those who poll several at once.
    ///
    /// # Errors
    /// The connection failed.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.queued > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            let parts =
                self.sealed.iter().map(|part| &part[..]).chain(std::iter::once(&self.open[..]));
            for (slice, part) in slices.iter_mut().zip(parts) {
                *slice = IoSlice::new(part);
                count += 1;
            }
            let written = match &slices[..count] {
                [one] => ready!(Pin::new(&mut self.io).poll_write(cx, one))?,
                several => ready!(Pin::new(&mut self.io).poll_write_vectored(cx, several))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.consume(written);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn consume(&mut self, mut written: usize) {
        self.queued -= written;
        self.written += written as u64;
        while let Some(front) = self.sealed.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.sealed.pop_front();
        }
        self.open.advance(written);
    }

    /// Queues a frame and writes all that is queued.
    ///
    /// # Errors
    /// The frame exceeds a limit ([`io::ErrorKind::InvalidInput`]), or the connection failed.
    pub async fn write_frame(&mut self, frame: &Frame) -> io::Result<()> {
        match self.queue(frame) {
            Ok(()) => self.flush().await,
            Err(QueueFull::Full { .. }) => {
                self.flush().await?;
                self.queue(frame)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                self.flush().await
            }
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidInput, error)),
        }
    }

    /// The connection.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.io
    }
}
