//! Frames survive the way there and back; nothing else is taken for one.

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, prelude::*};

use super::*;

fn whole(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    let tail = encode(frame, &mut out).unwrap();
    out.extend_from_slice(&tail.unwrap_or_default());
    out.freeze()
}

fn text(max: usize) -> impl Strategy<Value = Text> {
    vec(any::<char>(), 0..max).prop_map(|chars| Text::from(chars.into_iter().collect::<String>()))
}

fn view() -> impl Strategy<Value = View> {
    let member = (any::<u16>(), any::<u64>(), text(30)).prop_map(|(node, incarnation, address)| {
        ViewMember { member: Member { node, incarnation }, address }
    });
    (any::<u64>(), any::<bool>(), vec(member, 0..8)).prop_map(|(id, primary, members)| View {
        id,
        primary,
        members,
    })
}

fn body() -> impl Strategy<Value = Body> {
    vec(any::<u8>(), 0..3000).prop_map(Body::from)
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let purpose = prop_oneof![Just(Purpose::Calls), Just(Purpose::Packages)];
    let reason = prop_oneof![
        Just(Reason::NotPrimary),
        Just(Reason::Starting),
        Just(Reason::Overloaded),
        Just(Reason::Draining),
        Just(Reason::UnknownMethod),
        Just(Reason::Expired)
    ];
    let farewell = prop_oneof![
        Just(Farewell::Finished),
        Just(Farewell::Leaving),
        Just(Farewell::Draining),
        Just(Farewell::Removed),
        Just(Farewell::Version),
        Just(Farewell::Cluster),
        Just(Farewell::Full),
        Just(Farewell::Protocol),
        Just(Farewell::Silent)
    ];
    prop_oneof![
        (any::<u16>(), text(40), any::<u128>(), purpose).prop_map(
            |(version, cluster, client, purpose)| Frame::Hello(Hello {
                version,
                cluster,
                client: ClientId(client),
                purpose
            })
        ),
        (any::<u16>(), any::<u64>(), view()).prop_map(|(node, incarnation, view)| Frame::Welcome(
            Welcome { member: Member { node, incarnation }, view }
        )),
        view().prop_map(Frame::View),
        (any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>(), text(60), body()).prop_map(
            |(seq, first_incomplete, deadline_ms, min_position, path, body)| Frame::Call(Call {
                seq,
                first_incomplete,
                deadline_ms,
                min_position,
                path,
                body
            })
        ),
        (any::<u64>(), 0..17u8, text(60), any::<u64>(), body()).prop_map(
            |(seq, code, message, position, body)| {
                Frame::Reply(Reply {
                    seq,
                    status: Status { code: Code::from_number(code).unwrap(), message },
                    position,
                    body,
                })
            }
        ),
        (any::<u64>(), reason, text(60)).prop_map(|(seq, reason, message)| Frame::Refuse(Refuse {
            seq,
            reason,
            message
        })),
        (farewell, text(60))
            .prop_map(|(reason, message)| Frame::Goodbye(Goodbye { reason, message })),
        (any::<u64>(), text(60)).prop_map(|(seq, message)| Frame::Late(Late { seq, message })),
        any::<u64>().prop_map(Frame::Ping),
        any::<u64>().prop_map(Frame::Pong),
        any::<[u8; 32]>().prop_map(|digest| Frame::Fetch(Digest(digest))),
        (any::<[u8; 32]>(), any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..3000)).prop_map(
            |(digest, total, offset, bytes)| Frame::Package(Package {
                digest: Digest(digest),
                total,
                offset,
                bytes: bytes.into()
            })
        ),
        any::<[u8; 32]>().prop_map(|digest| Frame::NoPackage(Digest(digest))),
    ]
}

proptest! {
    #[test]
    fn a_frame_comes_back_as_it_was(frame in any_frame()) {
        let bytes = whole(&frame);
        let length = frame_length(&bytes, limits::FRAME_BYTES_MAX).unwrap().unwrap();
        prop_assert_eq!(length + 4, bytes.len());
        prop_assert_eq!(decode(bytes.slice(4..)).unwrap(), frame);
    }

    #[test]
    fn a_shortened_frame_is_refused_unless_its_last_field_is_open_ended(frame in any_frame(), keep in 0.0..1.0f64) {
        let bytes = whole(&frame).slice(4..);
        let cut = bytes.slice(..(bytes.len() as f64 * keep) as usize);
        if !matches!(frame, Frame::Package(_)) {
            prop_assert!(decode(cut).is_err());
        } else {
            let _ = decode(cut);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(kind in 0..16u8, bytes in vec(any::<u8>(), 0..200)) {
        let mut frame = vec![kind];
        frame.extend(bytes);
        if let Ok(frame) = decode(Bytes::from(frame.clone())) {
            // Whatever is understood is what would have been said.
            prop_assert_eq!(decode(whole(&frame).slice(4..)).unwrap(), frame);
        }
    }

    #[test]
    fn a_damaged_frame_never_panics(frame in any_frame(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut bytes = whole(&frame).slice(4..).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let _ = decode(bytes.into());
    }

    #[test]
    fn a_stream_in_pieces_gives_the_same_frames(frames in vec(any_frame(), 1..12), piece in 1..700usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            // A pipe smaller than most frames makes every write and read partial.
            let (near, far) = tokio::io::duplex(piece);
            let expected = frames.clone();
            let writing = async move {
                let mut writer = FrameWriter::new(near, 1 << 20);
                for frame in &frames {
                    writer.queue(frame).unwrap();
                }
                writer.flush().await.unwrap();
                assert_eq!(writer.queued(), 0);
            };
            let reading = async move {
                let mut reader = FrameReader::new(far, limits::FRAME_BYTES_MAX);
                let mut read = Vec::new();
                while let Some(frame) = reader.read_frame().await.unwrap() {
                    read.push(frame);
                }
                assert_eq!(read, expected);
            };
            tokio::join!(writing, reading);
        });
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_anything_is_allocated() {
    let error = frame_length(&u32::MAX.to_le_bytes(), limits::FRAME_BYTES_MAX).unwrap_err();
    assert_eq!(
        error,
        Malformed::Length { length: u32::MAX as usize, limit: limits::FRAME_BYTES_MAX }
    );
    assert_eq!(
        frame_length(&0u32.to_le_bytes(), 10),
        Err(Malformed::Length { length: 0, limit: 10 })
    );
    assert_eq!(
        frame_length(&11u32.to_le_bytes(), 10),
        Err(Malformed::Length { length: 11, limit: 10 })
    );
    assert_eq!(frame_length(&10u32.to_le_bytes(), 10), Ok(Some(10)));
    assert_eq!(frame_length(&[1, 2, 3], 10), Ok(None));
}

#[test]
fn a_browser_and_a_grpc_client_at_the_wrong_port_are_told_so() {
    let http1 = frame_length(b"GET / HTTP/1.1", limits::FRAME_BYTES_MAX).unwrap_err();
    assert!(http1.to_string().contains("looks like HTTP/1"), "{http1}");
    let http2 = frame_length(b"PRI * HTTP/2.0", limits::FRAME_BYTES_MAX).unwrap_err();
    assert!(http2.to_string().contains("looks like HTTP/2"), "{http2}");
}

#[test]
fn what_exceeds_a_limit_is_not_encoded_and_leaves_no_trace() {
    let path = Text::from("x".repeat(limits::PATH_BYTES_MAX + 1));
    let body = Body::empty();
    let call = Frame::Call(Call {
        seq: 1,
        first_incomplete: 1,
        deadline_ms: 0,
        min_position: 0,
        path,
        body,
    });
    let mut out = BytesMut::from(&b"before"[..]);
    assert!(encode(&call, &mut out).is_err());
    assert_eq!(&out[..], b"before");
}

#[test]
fn a_long_message_for_people_is_cut_at_a_character() {
    let message = Text::from("é".repeat(limits::TEXT_BYTES_MAX));
    let refuse = Frame::Refuse(Refuse { seq: 1, reason: Reason::Overloaded, message });
    let Frame::Refuse(back) = decode(whole(&refuse).slice(4..)).unwrap() else {
        panic!("another frame")
    };
    assert_eq!(back.message.len(), limits::TEXT_BYTES_MAX);
}

#[test]
fn a_body_is_exactly_one_uncompressed_message() {
    assert_eq!(Body::from_framed(Bytes::from_static(b"\0\0\0\0\x02ab")).unwrap().message(), "ab");
    assert_eq!(
        Body::from_framed(Bytes::from_static(b"\x01\0\0\0\x02ab")),
        Err(BodyError::Compressed)
    );
    assert_eq!(Body::from_framed(Bytes::from_static(b"\x02\0\0\0\x02ab")), Err(BodyError::Flag(2)));
    assert_eq!(
        Body::from_framed(Bytes::from_static(b"\0\0\0\0\x02a")),
        Err(BodyError::Truncated { have: 6, need: 7 })
    );
    assert_eq!(
        Body::from_framed(Bytes::from_static(b"\0\0\0\0\x02abc")),
        Err(BodyError::Trailing(1))
    );
    assert_eq!(
        Body::from_framed(Bytes::from_static(b"\0\0")),
        Err(BodyError::Truncated { have: 2, need: 5 })
    );
    assert_eq!(
        Body::from_framed(Bytes::from_static(b"\0\xff\xff\xff\xff")),
        Err(BodyError::TooLong(0xffff_ffff))
    );
    assert!(Body::empty().is_empty());
}

#[test]
fn a_full_queue_says_so() {
    let mut writer = FrameWriter::new(Vec::<u8>::new(), 10);
    writer.queue(&Frame::Ping(1)).unwrap();
    assert_eq!(writer.queue(&Frame::Ping(2)), Err(QueueFull::Full { queued: 13, limit: 10 }));
}
