use super::*;
use proptest::prelude::*;

const US: Duration = Duration::from_micros(1);

fn packet(flags: u8, connection: u64, number: u64, body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    let mut writer = Writer::packet(&mut buffer);
    body(&mut writer);
    let len = writer.len();
    buffer.truncate(len);
    Header { flags, connection, number }.emit(&mut buffer);
    buffer
}

#[test]
fn a_packet_with_every_frame_survives_the_way() {
    let packet = packet(FLAG_QUIET, 77, 9, |w| {
        w.log(1, 4096, 5).copy_from_slice(b"hello");
        w.words(2, 1);
        w.word(WordEntry { index: 3, value: 4, after: 5 });
        w.ack(US * 250, US * 70_000, 8, [(90, 100), (70, 80), (5, 5)].into_iter());
        w.credit(1, 4000);
        w.ping();
        w.close(2);
        w.start(2, 64);
        w.note(b"by the way");
        w.challenge(8);
        w.response(9);
        w.padding();
    });
    let view = PacketView::parse(&packet).unwrap();
    assert_eq!(view.header, Header { flags: FLAG_QUIET, connection: 77, number: 9 });
    check_frames(view.payload).unwrap();
    let frames: Vec<_> = Frames::new(view.payload).map(Result::unwrap).collect();
    assert!(matches!(frames[0], Frame::Log { lane: 1, position: 4096, bytes: b"hello" }));
    let Frame::Words { lane: 2, entries } = frames[1] else { panic!("words expected") };
    assert_eq!(entries.collect::<Vec<_>>(), [WordEntry { index: 3, value: 4, after: 5 }]);
    let Frame::Ack(ack) = frames[2] else { panic!("ack expected") };
    assert_eq!((ack.largest, ack.held_us, ack.waited_us), (100, 250, u16::MAX));
    assert_eq!(ack.congested, 8);
    assert_eq!(ack.ranges().collect::<Vec<_>>(), [(90, 100), (70, 80), (5, 5)]);
    assert!(matches!(frames[3], Frame::Credit { lane: 1, released: 4000 }));
    assert!(matches!(frames[4], Frame::Ping));
    assert!(matches!(frames[5], Frame::Close { reason: 2 }));
    assert!(matches!(frames[6], Frame::Start { lane: 2, from: 64 }));
    assert!(matches!(frames[7], Frame::Note { bytes: b"by the way" }));
    assert!(matches!(frames[8..], [Frame::Challenge(8), Frame::Response(9), Frame::Padding]));
}

#[test]
fn the_header_is_where_it_always_was() {
    let packet = packet(FLAG_QUIET, 0x0807_0605_0403_0201, 0x1817_1615_1413_1211, |w| w.ping());
    let expected =
        [4, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, PING];
    assert_eq!(packet, expected);
}

#[test]
fn what_this_build_does_not_speak_is_refused() {
    let good = packet(0, 1, 2, |w| w.ping());
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Header::parse(&bytes)
    };
    assert_eq!(with(0, 1), Err(WireError::Version(1)));
    assert_eq!(with(1, 0x80), Err(WireError::Flags(0x80)));
    assert_eq!(with(3, 1), Err(WireError::Flags(0)));
    assert_eq!(Header::parse(&good[..HEADER_LEN - 1]), Err(WireError::Truncated));
}

#[test]
fn an_impossible_ack_ends_instead_of_wrapping() {
    // Ranges that would reach below zero, and a gap of nothing.
    let packet = packet(0, 1, 2, |w| {
        w.u8(ACK);
        w.u64(3);
        w.u32(0);
        w.u32(0);
        w.u32(1);
        w.u8(2);
        w.u32(900);
        w.u32(1);
        w.u32(0);
        w.u32(0);
    });
    let view = PacketView::parse(&packet).unwrap();
    let Some(Ok(Frame::Ack(ack))) = Frames::new(view.payload).next() else {
        panic!("ack expected")
    };
    assert_eq!(ack.ranges().collect::<Vec<_>>(), [(2, 3)]);
}

#[test]
fn a_log_frame_past_the_end_of_positions_is_refused() {
    let packet = packet(0, 1, 2, |w| w.log(0, u64::MAX - 1, 4).fill(7));
    let view = PacketView::parse(&packet).unwrap();
    assert_eq!(check_frames(view.payload), Err(WireError::Value("log position")));
}

proptest! {
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = PacketView::parse(&noise);
        if check_frames(&noise).is_ok() {
            for frame in Frames::new(&noise) {
                match frame.unwrap() {
                    Frame::Words { entries, .. } => prop_assert!(entries.count() <= 255),
                    Frame::Ack(ack) => {
                        let mut below = u64::MAX;
                        for (first, last) in ack.ranges() {
                            prop_assert!(first <= last && last <= below);
                            below = first;
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn frames_of_any_values_survive(lane: u8, position in 0..u64::MAX / 2, bytes in proptest::collection::vec(any::<u8>(), 0..900),
                                    words in proptest::collection::vec((any::<u16>(), any::<u64>(), any::<u64>()), 0..20)) {
        let packet = packet(0, 5, 6, |w| {
            w.words(lane, words.len() as u8);
            for &(index, value, after) in &words {
                w.word(WordEntry { index, value, after });
            }
            w.log(lane, position, bytes.len() as u16).copy_from_slice(&bytes);
        });
        let view = PacketView::parse(&packet).unwrap();
        let mut frames = Frames::new(view.payload);
        let Some(Ok(Frame::Words { lane: l, entries })) = frames.next() else { panic!("words expected") };
        prop_assert_eq!(l, lane);
        prop_assert_eq!(entries.map(|e| (e.index, e.value, e.after)).collect::<Vec<_>>(), words);
        let Some(Ok(Frame::Log { lane: l, position: p, bytes: b })) = frames.next() else { panic!("log expected") };
        prop_assert_eq!((l, p, b), (lane, position, &bytes[..]));
        prop_assert!(frames.next().is_none());
    }
}

#[test]
fn a_note_longer_than_any_is_refused() {
    let packet = packet(0, 1, 2, |w| {
        w.u8(NOTE);
        w.u8(201);
        w.take(201);
    });
    let view = PacketView::parse(&packet).unwrap();
    assert_eq!(check_frames(view.payload), Err(WireError::Value("note length")));
}
