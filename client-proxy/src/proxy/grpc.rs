//! The parts of gRPC over HTTP/2 that are pure functions: time-outs, status trailers, the framing of a request.

use std::{fmt::Write, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::wire::{BODY_PREFIX, Body, BodyError, Code, Status};

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub(super) const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// A caller's own name for a call; its retry under the same name is not a new call.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("quintet-request-id");

/// Reads `grpc-timeout`: up to eight digits and a unit.
pub(super) fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Writes a status into headers (of a response without a message) or trailers.
pub(super) fn put_status(headers: &mut HeaderMap, status: &Status) {
    let code = match status.code {
        Code::Ok => HeaderValue::from_static("0"),
        other => HeaderValue::from(u16::from(other.number())),
    };
    headers.insert(GRPC_STATUS, code);
    if !status.message.is_empty() {
        headers.insert(GRPC_MESSAGE, percent_encoded(&status.message));
    }
}

/// A message as the specification wants it: printable ASCII but for `%`, everything else percent-encoded.
fn percent_encoded(message: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("writing to a string does not fail"),
        }
    }
    HeaderValue::from_str(&encoded).expect("printable ASCII is a header value")
}

/// Puts a request together from DATA frames. One that comes in one frame, as nearly all do, is passed on as it is; of
/// several, the pieces are joined once, as they are held for replay anyway.
#[derive(Debug)]
pub(super) struct Unary {
    bytes_max: usize,
    first: Bytes,
    joined: BytesMut,
}

impl Unary {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, first: Bytes::new(), joined: BytesMut::new() }
    }

    fn length(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    /// Takes a DATA frame's bytes. Anything wrong is told as soon as it shows.
    pub(super) fn push(&mut self, data: Bytes) -> Result<(), Status> {
        if self.length() == 0 {
            self.first = data;
        } else {
            if self.joined.is_empty() {
                self.joined.extend_from_slice(&std::mem::take(&mut self.first));
            }
            self.joined.extend_from_slice(&data);
        }
        let start = if self.joined.is_empty() { &self.first[..] } else { &self.joined[..] };
        if start.len() < BODY_PREFIX {
            return Ok(());
        }
        let need = Body::framed_length(start).map_err(refuse)?;
        if need - BODY_PREFIX > self.bytes_max {
            let message = format!(
                "not executed: the request of {} bytes exceeds this proxy's limit of {} (limits.message_bytes_max)",
                need - BODY_PREFIX,
                self.bytes_max
            );
            return Err(Status::new(Code::ResourceExhausted, message));
        }
        if self.length() > need {
            Err(refuse(BodyError::Trailing(self.length() - need)))
        } else {
            Ok(())
        }
    }

    /// The request is complete.
    pub(super) fn finish(self) -> Result<Body, Status> {
        if self.length() == 0 {
            let message = "not executed: the call ended without a request message; only unary calls are supported";
            return Err(Status::new(Code::Unimplemented, message));
        }
        Body::from_framed(if self.joined.is_empty() { self.first } else { self.joined.freeze() })
            .map_err(refuse)
    }
}

fn refuse(error: BodyError) -> Status {
    match error {
        BodyError::Compressed => Status::new(
            Code::Unimplemented,
            "not executed: compressed messages are not supported; send identity",
        ),
        BodyError::Trailing(_) => Status::new(
            Code::Unimplemented,
            "not executed: more than one request message: streaming calls are not supported, only unary ones",
        ),
        BodyError::TooLong(_) => {
            Status::new(Code::ResourceExhausted, format!("not executed: {error}"))
        }
        BodyError::Truncated { .. } | BodyError::Flag(_) => {
            Status::new(Code::Internal, format!("not executed: malformed request: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timeouts() {
        assert_eq!(timeout(b"1S"), Some(Duration::from_secs(1)));
        assert_eq!(timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(timeout(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout(b"7u"), Some(Duration::from_micros(7)));
        assert_eq!(timeout(b"7n"), Some(Duration::from_nanos(7)));
        for wrong in [&b""[..], b"S", b"1", b"1s", b"-1S", b"123456789S", b"1.5S"] {
            assert_eq!(timeout(wrong), None);
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        let mut trailers = HeaderMap::new();
        put_status(&mut trailers, &Status::new(Code::NotFound, "100 % müde\n"));
        assert_eq!(trailers[GRPC_STATUS], "5");
        assert_eq!(trailers[GRPC_MESSAGE], "100 %25 m%C3%BCde%0A");
    }

    #[test]
    fn a_request_in_one_frame_is_not_copied() {
        let data = Bytes::from_static(b"\0\0\0\0\x02ab");
        let mut unary = Unary::new(10);
        unary.push(data.clone()).unwrap();
        assert_eq!(unary.finish().unwrap().framed().as_ptr(), data.as_ptr());
    }

    fn code(frames: &[&'static [u8]]) -> Code {
        let mut unary = Unary::new(4);
        let pushed = frames.iter().try_for_each(|frame| unary.push(Bytes::from_static(frame)));
        pushed.and_then(|()| unary.finish()).unwrap_err().code
    }

    #[test]
    fn what_is_not_one_plain_message_is_refused() {
        assert_eq!(code(&[]), Code::Unimplemented);
        assert_eq!(code(&[b"\x01\0\0\0\0"]), Code::Unimplemented);
        assert_eq!(code(&[b"\0\0\0\0\x01a", b"\0"]), Code::Unimplemented);
        assert_eq!(code(&[b"\0\0\0\0\x05"]), Code::ResourceExhausted);
        assert_eq!(code(&[b"\0\0\0\0\x04abc"]), Code::Internal);
        assert_eq!(code(&[b"\0\0"]), Code::Internal);
        assert_eq!(code(&[b"\x07\0\0\0\0"]), Code::Internal);
    }

    proptest! {
        #[test]
        fn the_cuts_between_frames_do_not_matter(message in prop::collection::vec(any::<u8>(), 0..300), cut in 1..50usize) {
            let framed = Body::from(&message[..]).into_framed();
            let mut unary = Unary::new(300);
            for piece in framed.chunks(cut) {
                unary.push(Bytes::copy_from_slice(piece)).unwrap();
            }
            prop_assert_eq!(&unary.finish().unwrap()[..], &message[..]);
        }
    }
}
