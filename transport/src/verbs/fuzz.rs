//! A way in for the fuzz targets: what a peer's driver says about queue pairs.

use super::offer::{Ask, Message, NOTE_MAX, Offer};

/// Takes a note. What is understood has one spelling.
pub fn verbs_note(bytes: &[u8]) {
    if bytes.len() > NOTE_MAX {
        return;
    }
    if let Some(message) = Message::parse(bytes) {
        let mut again = [0; NOTE_MAX];
        let len = message.emit(&mut again);
        assert_eq!(&again[..len], bytes);
    }
}

/// Notes, of each kind.
pub fn verbs_notes() -> Vec<Vec<u8>> {
    let offer = Offer {
        attempt: 2,
        mtu: 3,
        places: 2,
        wants: 1,
        lid: 7,
        partition: 0xffff,
        gid: [0xfe; 16],
        qpn: 0x1234,
        psn: 0x00ab_cdef,
        rkey: 0x1357_9bdf,
        inbox: 0x7f00_1234_5000,
        inbox_len: 13 << 20,
        control_from: 4096,
        ..Offer::default()
    };
    let messages = [
        Message::Offer(offer),
        Message::Answer(Offer { by_udp: true, service_level: 5, resumes: 0x123456, ..offer }),
        Message::Ask(Ask { resumes: 0x123456, places: 2, ..Ask::default() }),
        Message::Decline("no adapter is there"),
    ];
    let emit = |message: &Message<'_>| {
        let mut note = [0; NOTE_MAX];
        let len = message.emit(&mut note);
        note[..len].to_vec()
    };
    messages.iter().map(emit).collect()
}
