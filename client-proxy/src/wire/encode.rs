//! Frames to bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Farewell, Frame, Purpose, Reason, Text, View,
    limits::{
        ADDRESS_BYTES_MAX, CLUSTER_BYTES_MAX, FRAME_BYTES_MAX, MEMBERS_MAX, PATH_BYTES_MAX,
        TEXT_BYTES_MAX,
    },
};

pub(super) const HELLO: u8 = 1;
pub(super) const WELCOME: u8 = 2;
pub(super) const VIEW: u8 = 3;
pub(super) const CALL: u8 = 4;
pub(super) const REPLY: u8 = 5;
pub(super) const REFUSE: u8 = 6;
pub(super) const GOODBYE: u8 = 7;
pub(super) const PING: u8 = 8;
pub(super) const PONG: u8 = 9;
pub(super) const FETCH: u8 = 10;
pub(super) const PACKAGE: u8 = 11;
pub(super) const NO_PACKAGE: u8 = 12;
pub(super) const LATE: u8 = 13;

/// Why a frame cannot be sent. Nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unencodable {
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
}

/// Appends a frame's bytes to `out`, except for a trailing message or chunk: that is returned, shares its memory with
/// the frame, and has to follow. (`None`: the frame is whole.)
///
/// # Errors
/// A field exceeds its limit; `out` is as it was.
pub fn encode(frame: &Frame, out: &mut BytesMut) -> Result<Option<Bytes>, Unencodable> {
    let start = out.len();
    out.put_u32_le(0);
    let tail = fields(frame, out).and_then(|tail| {
        let length = out.len() - start - 4 + tail.as_ref().map_or(0, Bytes::len);
        fits("a frame", length, FRAME_BYTES_MAX).map(|()| (length, tail))
    });
    match tail {
        Ok((length, tail)) => {
            out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
            Ok(tail)
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

fn fields(frame: &Frame, out: &mut BytesMut) -> Result<Option<Bytes>, Unencodable> {
    match frame {
        Frame::Hello(hello) => {
            out.put_u8(HELLO);
            out.put_u16_le(hello.version);
            out.put_u128_le(hello.client.0);
            out.put_u8(match hello.purpose {
                Purpose::Calls => 1,
                Purpose::Packages => 2,
            });
            text(out, "a cluster's name", &hello.cluster, CLUSTER_BYTES_MAX)?;
        }
        Frame::Welcome(welcome) => {
            out.put_u8(WELCOME);
            out.put_u16_le(welcome.member.node);
            out.put_u64_le(welcome.member.incarnation);
            view(out, &welcome.view)?;
        }
        Frame::View(v) => {
            out.put_u8(VIEW);
            view(out, v)?;
        }
        Frame::Call(call) => {
            out.put_u8(CALL);
            out.put_u64_le(call.seq);
            out.put_u64_le(call.first_incomplete);
            out.put_u32_le(call.deadline_ms);
            out.put_u64_le(call.min_position);
            text(out, "a method's path", &call.path, PATH_BYTES_MAX)?;
            return Ok(Some(call.body.framed().clone()));
        }
        Frame::Reply(reply) => {
            out.put_u8(REPLY);
            out.put_u64_le(reply.seq);
            out.put_u8(reply.status.code.number());
            out.put_u64_le(reply.position);
            cut(out, &reply.status.message);
            return Ok(Some(reply.body.framed().clone()));
        }
        Frame::Refuse(refuse) => {
            out.put_u8(REFUSE);
            out.put_u64_le(refuse.seq);
            out.put_u8(match refuse.reason {
                Reason::NotPrimary => 1,
                Reason::Starting => 2,
                Reason::Overloaded => 3,
                Reason::Draining => 4,
                Reason::UnknownMethod => 5,
                Reason::Expired => 6,
            });
            cut(out, &refuse.message);
        }
        Frame::Late(late) => {
            out.put_u8(LATE);
            out.put_u64_le(late.seq);
            cut(out, &late.message);
        }
        Frame::Goodbye(goodbye) => {
            out.put_u8(GOODBYE);
            out.put_u8(match goodbye.reason {
                Farewell::Finished => 1,
                Farewell::Leaving => 2,
                Farewell::Draining => 3,
                Farewell::Removed => 4,
                Farewell::Version => 5,
                Farewell::Cluster => 6,
                Farewell::Full => 7,
                Farewell::Protocol => 8,
                Farewell::Silent => 9,
            });
            cut(out, &goodbye.message);
        }
        Frame::Ping(token) => {
            out.put_u8(PING);
            out.put_u64_le(*token);
        }
        Frame::Pong(token) => {
            out.put_u8(PONG);
            out.put_u64_le(*token);
        }
        Frame::Fetch(digest) => {
            out.put_u8(FETCH);
            out.put_slice(&digest.0);
        }
        Frame::Package(package) => {
            out.put_u8(PACKAGE);
            out.put_slice(&package.digest.0);
            out.put_u64_le(package.total);
            out.put_u64_le(package.offset);
            return Ok(Some(package.bytes.clone()));
        }
        Frame::NoPackage(digest) => {
            out.put_u8(NO_PACKAGE);
            out.put_slice(&digest.0);
        }
    }
    Ok(None)
}

fn view(out: &mut BytesMut, view: &View) -> Result<(), Unencodable> {
    fits("a view's membership", view.members.len(), MEMBERS_MAX)?;
    out.put_u64_le(view.id);
    out.put_u8(u8::from(view.primary));
    out.put_u16_le(view.members.len() as u16);
    for member in &view.members {
        out.put_u16_le(member.member.node);
        out.put_u64_le(member.member.incarnation);
        text(out, "a manager's address", &member.address, ADDRESS_BYTES_MAX)?;
    }
    Ok(())
}

fn text(
    out: &mut BytesMut,
    what: &'static str,
    text: &Text,
    limit: usize,
) -> Result<(), Unencodable> {
    fits(what, text.len(), limit)?;
    put(out, text);
    Ok(())
}

/// Text for people may be cut: better a short reason than none.
fn cut(out: &mut BytesMut, text: &Text) {
    put(out, text.cut(TEXT_BYTES_MAX));
}

fn put(out: &mut BytesMut, text: &str) {
    debug_assert!(text.len() <= usize::from(u16::MAX));
    out.put_u16_le(text.len() as u16);
    out.put_slice(text.as_bytes());
}

fn fits(what: &'static str, length: usize, limit: usize) -> Result<(), Unencodable> {
    if length <= limit { Ok(()) } else { Err(Unencodable::TooLong { what, length, limit }) }
}
