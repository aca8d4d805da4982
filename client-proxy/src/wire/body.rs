//! A message in gRPC's length-prefixed framing, kept as one slice so that it can be passed on as it came.

use std::{fmt, ops::Deref};

use bytes::{BufMut, Bytes, BytesMut};

use super::limits::MESSAGE_BYTES_MAX;

/// Bytes in front of a message: a flag (1 = compressed) and its length, big-endian.
pub const BODY_PREFIX: usize = 5;

static EMPTY: [u8; BODY_PREFIX] = [0; BODY_PREFIX];

/// One uncompressed message with gRPC's prefix in front of it. Dereferences to the message; clones share memory.
///
/// ```
/// use quintet_client::wire::Body;
/// let body = Body::from(&b"abc"[..]);
/// assert_eq!(&body[..], b"abc");
/// assert_eq!(&body.framed()[..], b"\0\0\0\0\x03abc");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Body(Bytes);

/// Why bytes are not one whole, uncompressed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Shorter than the prefix, or than the prefix says.
    #[error("the message ends early: {have} of {need} bytes")]
    Truncated {
        /// Bytes present, prefix included.
        have: usize,
        /// Bytes announced, prefix included.
        need: usize,
    },
    /// Something follows the message.
    #[error("{0} bytes follow the message: more than one message where one is expected")]
    Trailing(usize),
    /// The compressed flag is set.
    #[error("the message is compressed")]
    Compressed,
    /// The flag byte has an undefined value.
    #[error("flag byte {0:#04x} in front of the message is neither 0 nor 1")]
    Flag(u8),
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message of {0} bytes is longer than the limit of {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
}

impl Body {
    /// The empty message.
    #[must_use]
    pub fn empty() -> Self {
        Self(Bytes::from_static(&EMPTY))
    }

    /// Takes a message that has its prefix already, without copying.
    ///
    /// # Errors
    /// The bytes are not exactly one uncompressed message.
    pub fn from_framed(framed: Bytes) -> Result<Self, BodyError> {
        let need = Self::framed_length(&framed)?;
        match framed.len() {
            have if have < need => Err(BodyError::Truncated { have, need }),
            have if have > need => Err(BodyError::Trailing(have - need)),
            _ => Ok(Self(framed)),
        }
    }

    /// Length, prefix included, of the message that begins with these bytes.
    ///
    /// # Errors
    /// The prefix is not whole, or not that of an uncompressed message within the limit.
    pub fn framed_length(start: &[u8]) -> Result<usize, BodyError> {
        let Some((&[flag, a, b, c, d], _)) = start.split_first_chunk::<BODY_PREFIX>() else {
            return Err(BodyError::Truncated { have: start.len(), need: BODY_PREFIX });
        };
        match flag {
            0 => {}
            1 => return Err(BodyError::Compressed),
            other => return Err(BodyError::Flag(other)),
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(BodyError::TooLong(length));
        }
        Ok(BODY_PREFIX + length)
    }

    /// The message with its prefix, as it goes into a DATA frame.
    #[must_use]
    pub fn framed(&self) -> &Bytes {
        &self.0
    }

    /// The message with its prefix, giving up this reference.
    #[must_use]
    pub fn into_framed(self) -> Bytes {
        self.0
    }

    /// The message alone, sharing this memory.
    #[must_use]
    pub fn message(&self) -> Bytes {
        self.0.slice(BODY_PREFIX..)
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl Deref for Body {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0[BODY_PREFIX..]
    }
}

impl From<&[u8]> for Body {
    /// Copies the message behind a prefix.
    ///
    /// # Panics
    /// The message is longer than `u32::MAX` bytes. One beyond [`MESSAGE_BYTES_MAX`] is refused by `encode`.
    fn from(message: &[u8]) -> Self {
        let length = u32::try_from(message.len()).expect("a message's length fits 32 bits");
        let mut framed = BytesMut::with_capacity(BODY_PREFIX + message.len());
        framed.put_u8(0);
        framed.put_u32(length);
        framed.put_slice(message);
        Self(framed.freeze())
    }
}

impl From<Vec<u8>> for Body {
    fn from(message: Vec<u8>) -> Self {
        Self::from(&message[..])
    }
}

impl From<Bytes> for Body {
    fn from(message: Bytes) -> Self {
        Self::from(&message[..])
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} B)", self.len())
    }
}
