//! Sound inputs of every target, as this build writes them: where mutation begins.

use std::time::Duration;

use bytes::BytesMut;
use quintet_client::wire::{self, *};
use quintet_manager::journal::Entry;
use quintet_manager::replica::{Call as Ordered, Message, Replica};
use quintet_transport::reliable::{
    COOKIE_LEN, Claim, Connection, GREETING_MAX, Greeting, HEADER_LEN, Handshake, Hello as Meeting,
    INIT_LEN, NOISE_1_LEN, PacketView, Sink,
};
use quintet_transport::{Member as Node, NodeId, Time, fuzz};
use quintet_vsync::core::Durable;

use crate::targets::{LANES, Ones, settings, table};

/// Inputs that the target understands.
pub fn samples(name: &str) -> Vec<Vec<u8>> {
    match name {
        "packet" => packets(),
        "connection" => connection(),
        "handshake" => handshakes(),
        "shm_hello" => fuzz::shm_hellos(),
        "shm_segment" => vec![Vec::new(), fuzz::shm_segment_sample()],
        "verbs_note" => fuzz::verbs_notes(),
        "stats" => vec![board()],
        "frame" => frames(),
        "config" => vec![CONFIG.as_bytes().to_vec()],
        "journal" => journal(),
        "control" => control(),
        _ => Vec::new(),
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn place(&mut self, _: u8, _: u64, _: &[u8]) {}
}

/// What two connections say to each other when they begin.
fn packets() -> Vec<Vec<u8>> {
    let mut now = Time::from_nanos(1);
    let mut sides = [0, 1].map(|_| Connection::new(settings(), now));
    for side in &mut sides {
        for lane in 0..LANES {
            side.attach(lane, 0, 0, |_| true);
            side.publish(lane, 512);
            side.open(lane, 0);
        }
    }
    let (mut out, mut said) = ([0; 1500], Vec::new());
    for _ in 0..6 {
        now += Duration::from_millis(2);
        for from in 0..2 {
            sides[from].handle_timeout(now);
            while let Some(sent) = sides[from].poll_transmit(now, &mut out, &Ones) {
                said.push(out[..sent.len].to_vec());
                let packet = PacketView::parse(&out[..sent.len]).expect("our own");
                sides[1 - from].handle_packet(now, &packet, &mut Nowhere).expect("it is taken");
            }
        }
    }
    said
}

fn connection() -> Vec<Vec<u8>> {
    let mut one = Vec::new();
    for packet in packets() {
        let payload = &packet[HEADER_LEN..];
        one.extend((payload.len() as u16).to_le_bytes());
        one.push(2);
        one.extend(payload);
    }
    vec![one]
}

fn handshakes() -> Vec<Vec<u8>> {
    let (from, cookie) = (Node::new(2, 9), [7; COOKIE_LEN]);
    let claim = Claim { cluster: 77, from, to: NodeId(1) };
    let messages = [
        Handshake::Init { claim, cookie, noise: [3; NOISE_1_LEN] },
        Handshake::Retry { cookie },
        Handshake::Answer(b"sealed"),
        Handshake::Finish(b"sealed"),
        Handshake::Knock(claim),
    ];
    let emit = |message: Handshake<'_>| {
        let mut buffer = vec![0; 2 * INIT_LEN];
        let len = message.emit(5, &mut buffer);
        buffer.truncate(len);
        buffer
    };
    let mut all = messages.map(emit).to_vec();
    let hello = Meeting { from, serial: 1, connection: 5, holds: 0, lanes: table() };
    for greeting in [Greeting::Hello(hello), Greeting::Refused(from)] {
        let mut buffer = vec![0; GREETING_MAX];
        let len = greeting.emit(&mut buffer);
        all.push(buffer[..len].to_vec());
    }
    all
}

fn board() -> Vec<u8> {
    let mut bytes = b"QNTSTATS".to_vec();
    for number in [2u32, 2, 12, 48, 1, 256] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(b"\x03one\x03two\x03why\0\0\0\0");
    for value in [1u64, 2] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.resize(bytes.len() + 256, b'x');
    bytes
}

fn frames() -> Vec<Vec<u8>> {
    let text = || Text::from("/bank.Bank/Transfer");
    let (seq, body) = (3, Body::from(&b"message"[..]));
    let status = Status::new(Code::from_number(14).expect("a code"), "not now");
    let digest = wire::Digest([5; 32]);
    let hello = Hello {
        version: 1,
        cluster: Text::from("demo"),
        client: ClientId(9),
        purpose: Purpose::Calls,
    };
    let call = Call {
        seq,
        first_incomplete: 1,
        deadline_ms: 50,
        min_position: 0,
        path: text(),
        body: body.clone(),
    };
    let member = Member { node: 1, incarnation: 2 };
    let place = ViewMember { member, address: Text::from("127.0.0.1:7201") };
    let view = View { id: 4, primary: true, members: vec![place] };
    let whole = |frame: Frame| {
        let mut out = BytesMut::new();
        let tail = wire::encode(&frame, &mut out).expect("it fits");
        let mut bytes = out.to_vec();
        bytes.extend(tail.iter().flatten());
        bytes
    };
    [
        Frame::Hello(hello),
        Frame::View(view.clone()),
        Frame::Welcome(Welcome { member, view }),
        Frame::Call(call),
        Frame::Reply(Reply { seq, status, position: 8, body }),
        Frame::Refuse(Refuse { seq, reason: Reason::Overloaded, message: text() }),
        Frame::Late(Late { seq, message: text() }),
        Frame::Goodbye(Goodbye { reason: Farewell::Leaving, message: text() }),
        Frame::Ping(1),
        Frame::Pong(1),
        Frame::Fetch(digest),
        Frame::Package(Package { digest, total: 9, offset: 0, bytes: b"some bytes"[..].into() }),
        Frame::NoPackage(digest),
    ]
    .into_iter()
    .map(whole)
    .collect()
}

const CONFIG: &str = concat!(
    include_str!("../../manager/src/config/sample.toml"),
    r#"
[transport]
path = "shm"

[timing]
heartbeat_ms = 15
suspect_ms = 45
dead_ms = 100
"#
);

fn journal() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for entry in [
        Entry::Message { at: 9, bytes: b"some message" },
        Entry::View { at: 1 << 40, view: 1, members: vec![1, 2, 3] },
    ] {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        all.push(bytes);
    }
    let call =
        Ordered { client: 1, seq: 2, first_incomplete: 1, instance: 0, method: 3, body: b"body" };
    let messages = [
        Message::Call(call),
        Message::Renew { client: 4 },
        Message::Round { round: 5 },
        Message::Audit { token: 6 },
    ];
    all.extend(messages.iter().map(|message| message.encode(1_700_000_000)));
    let mut replica = Replica::default();
    replica.install(1 << 40, 1, vec![1, 2, 3]);
    for (at, message) in messages.iter().enumerate() {
        let bytes = message.encode(1_700_000_000 + at as u64);
        let _ = replica.apply(1 << 40 | at as u64, &bytes);
    }
    all.push(replica.encode());
    all
}

fn control() -> Vec<Vec<u8>> {
    let durable = Durable::configured(&[NodeId(1), NodeId(2), NodeId(3)]).encode();
    // A version, a value, and two absent options: the value is what control records hold.
    let value = &durable[1..durable.len() - 2];
    let with = |kind: u8, before: usize, value: &[u8], after: usize| {
        [&[durable[0], kind][..], &vec![0; before], value, &vec![0; after]].concat()
    };
    let mut all = vec![with(9, 0, value, 0)];
    for zeroes in 0..48 {
        all.push(with(6, zeroes, value, 0));
        all.push(with(1, 3, value, zeroes));
        for kind in [2, 3, 4, 5, 7, 8, 10] {
            all.push(with(kind, zeroes, &[], 0));
        }
    }
    all.push(durable);
    all
}
