//! Bytes to frames. Never panics, whatever the bytes.

use bytes::{Buf, Bytes, TryGetError};

use super::{
    Body, BodyError, Call, ClientId, Code, Digest, Farewell, Frame, Goodbye, Hello, Late, Member,
    Package, Purpose, Reason, Refuse, Reply, Status, Text, View, ViewMember, Welcome, encode,
    limits::{
        ADDRESS_BYTES_MAX, CLUSTER_BYTES_MAX, FRAME_BYTES_MAX, MEMBERS_MAX, PATH_BYTES_MAX,
        TEXT_BYTES_MAX,
    },
};

/// What is wrong with bytes that should have been a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The length field is zero or beyond the limit.
    #[error("a frame cannot be {length} bytes long (1 to {limit}){}", hint(*.length))]
    Length {
        /// The length read.
        length: usize,
        /// The most it may be.
        limit: usize,
    },
    /// No frame has this type.
    #[error("frame type {0} is unknown")]
    Type(u8),
    /// The frame ends inside a field.
    #[error("the frame ends inside a field")]
    Truncated,
    /// Bytes are left over behind the last field.
    #[error("{0} bytes follow the last field of the frame")]
    Trailing(usize),
    /// A field is longer than its limit.
    #[error("{what} of {length} exceeds the limit of {limit}")]
    TooLong {
        /// Which field.
        what: &'static str,
        /// Its length.
        length: usize,
        /// The most it may be.
        limit: usize,
    },
    /// A field has a value without meaning.
    #[error("{value} is no {what}")]
    Value {
        /// What it should have been.
        what: &'static str,
        /// What was there.
        value: u8,
    },
    /// A text is not UTF-8.
    #[error("{0} is not UTF-8")]
    Utf8(&'static str),
    /// The message at the end of a call or reply is not framed as it should be.
    #[error("message in the frame: {0}")]
    Body(#[from] BodyError),
}

impl From<TryGetError> for Malformed {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

/// The first four bytes of protocols that people point at the wrong port.
fn hint(length: usize) -> &'static str {
    match &(length as u32).to_le_bytes() {
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"HTTP" => {
            ": this looks like HTTP/1, not like a Quintet client"
        }
        b"PRI " => ": this looks like HTTP/2 (gRPC clients connect to quintet-proxy)",
        [0x16, 3, _, _] => ": this looks like TLS",
        _ => "",
    }
}

/// Length of the frame (without its length field) that begins with these bytes; `None` when fewer than four are here.
///
/// # Errors
/// The length is zero or greater than `limit`.
pub fn frame_length(start: &[u8], limit: usize) -> Result<Option<usize>, Malformed> {
    let Some((length, _)) = start.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    let limit = limit.min(FRAME_BYTES_MAX);
    if length == 0 || length > limit {
        Err(Malformed::Length { length, limit })
    } else {
        Ok(Some(length))
    }
}

/// Reads one frame from exactly its bytes (without the length field). Texts and messages share the memory of `frame`.
///
/// # Errors
/// The bytes are not a frame.
pub fn decode(mut frame: Bytes) -> Result<Frame, Malformed> {
    let input = &mut frame;
    let decoded = match input.try_get_u8()? {
        encode::HELLO => Frame::Hello(Hello {
            version: input.try_get_u16_le()?,
            client: ClientId(input.try_get_u128_le()?),
            purpose: match input.try_get_u8()? {
                1 => Purpose::Calls,
                2 => Purpose::Packages,
                value => return Err(Malformed::Value { what: "purpose", value }),
            },
            cluster: text(input, "a cluster's name", CLUSTER_BYTES_MAX)?,
        }),
        encode::WELCOME => Frame::Welcome(Welcome { member: member(input)?, view: view(input)? }),
        encode::VIEW => Frame::View(view(input)?),
        encode::CALL => Frame::Call(Call {
            seq: input.try_get_u64_le()?,
            first_incomplete: input.try_get_u64_le()?,
            deadline_ms: input.try_get_u32_le()?,
            min_position: input.try_get_u64_le()?,
            path: text(input, "a method's path", PATH_BYTES_MAX)?,
            body: Body::from_framed(input.split_off(0))?,
        }),
        encode::REPLY => {
            let seq = input.try_get_u64_le()?;
            let code = input.try_get_u8()?;
            let position = input.try_get_u64_le()?;
            let code = Code::from_number(code)
                .ok_or(Malformed::Value { what: "status code", value: code })?;
            let message = text(input, "a status message", TEXT_BYTES_MAX)?;
            let body = Body::from_framed(input.split_off(0))?;
            Frame::Reply(Reply { seq, status: Status { code, message }, position, body })
        }
        encode::REFUSE => Frame::Refuse(Refuse {
            seq: input.try_get_u64_le()?,
            reason: match input.try_get_u8()? {
                1 => Reason::NotPrimary,
                2 => Reason::Starting,
                3 => Reason::Overloaded,
                4 => Reason::Draining,
                5 => Reason::UnknownMethod,
                6 => Reason::Expired,
                value => return Err(Malformed::Value { what: "reason to refuse", value }),
            },
            message: text(input, "a reason", TEXT_BYTES_MAX)?,
        }),
        encode::LATE => Frame::Late(Late {
            seq: input.try_get_u64_le()?,
            message: text(input, "a reason", TEXT_BYTES_MAX)?,
        }),
        encode::GOODBYE => Frame::Goodbye(Goodbye {
            reason: match input.try_get_u8()? {
                1 => Farewell::Finished,
                2 => Farewell::Leaving,
                3 => Farewell::Draining,
                4 => Farewell::Removed,
                5 => Farewell::Version,
                6 => Farewell::Cluster,
                7 => Farewell::Full,
                8 => Farewell::Protocol,
                9 => Farewell::Silent,
                value => return Err(Malformed::Value { what: "reason to end", value }),
            },
            message: text(input, "a reason", TEXT_BYTES_MAX)?,
        }),
        encode::PING => Frame::Ping(input.try_get_u64_le()?),
        encode::PONG => Frame::Pong(input.try_get_u64_le()?),
        encode::FETCH => Frame::Fetch(digest(input)?),
        encode::PACKAGE => Frame::Package(Package {
            digest: digest(input)?,
            total: input.try_get_u64_le()?,
            offset: input.try_get_u64_le()?,
            bytes: input.split_off(0),
        }),
        encode::NO_PACKAGE => Frame::NoPackage(digest(input)?),
        other => return Err(Malformed::Type(other)),
    };
    if frame.is_empty() { Ok(decoded) } else { Err(Malformed::Trailing(frame.len())) }
}

fn member(input: &mut Bytes) -> Result<Member, Malformed> {
    Ok(Member { node: input.try_get_u16_le()?, incarnation: input.try_get_u64_le()? })
}

fn view(input: &mut Bytes) -> Result<View, Malformed> {
    let id = input.try_get_u64_le()?;
    let primary = match input.try_get_u8()? {
        0 => false,
        1 => true,
        value => return Err(Malformed::Value { what: "yes or no", value }),
    };
    let count = usize::from(input.try_get_u16_le()?);
    within("a view's membership", count, MEMBERS_MAX)?;
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        let member = member(input)?;
        members.push(ViewMember {
            member,
            address: text(input, "a manager's address", ADDRESS_BYTES_MAX)?,
        });
    }
    Ok(View { id, primary, members })
}

fn digest(input: &mut Bytes) -> Result<Digest, Malformed> {
    let mut digest = [0; 32];
    input.try_copy_to_slice(&mut digest)?;
    Ok(Digest(digest))
}

fn text(input: &mut Bytes, what: &'static str, limit: usize) -> Result<Text, Malformed> {
    let length = usize::from(input.try_get_u16_le()?);
    within(what, length, limit)?;
    if length > input.len() {
        return Err(Malformed::Truncated);
    }
    Text::from_utf8(input.split_to(length)).map_err(|_| Malformed::Utf8(what))
}

fn within(what: &'static str, length: usize, limit: usize) -> Result<(), Malformed> {
    if length <= limit { Ok(()) } else { Err(Malformed::TooLong { what, length, limit }) }
}
