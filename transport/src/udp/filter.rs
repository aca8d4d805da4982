//! What the kernel keeps from this node: packets that nobody here could have asked for, before they are queued or wake
//! anybody.
//!
//! Who floods a port with garbage makes its owner look at each packet, and wakes it for that. But nearly all that is meant
//! for a node carries something which the node itself has made: the connection id of a packet, the cookie of a hello. Both
//! hold its *mark*, random in each run, so one comparison in a socket filter (classic BPF, no privilege needed) tells
//! them from what was sent blindly. Without the mark come only the first words of those who are not known yet:
//!
//! - a hello without cookie, and a knock. In a flood of those, one in so many is let through;
//! - another release's packets, until the first was told of in the log.
//!
//! The mark is no secret: who sees a node's packets can forge it. It saves work, and proves nothing; everything behind the
//! filter is as careful as without. Where the filter is refused the node does without, and says so.
//!
//! The kernel may have joined several datagrams (UDP GRO) and judges all by the first. It joins only what comes from one address
//! and port, one after the other, and never heartbeats, so that who forges even that makes a link slow, not silent.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LEN, BPF_RET, BPF_W,
    SKF_AD_OFF, SKF_AD_RANDOM, sock_filter,
};

use crate::reliable::{CONNECTION_MARK_AT, COOKIE_AT, FLAG_HANDSHAKE, INIT_LEN, VERSION};

/// How long a node's mark is.
pub(crate) const MARK_LEN: usize = 4;
/// Offsets count from the UDP header.
const UDP_HEADER: u32 = 8;
/// Where the program ends, one way and the other.
const PASS: u8 = 13;
const DROP: u8 = 14;

/// What is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// What this node's connection ids end with and its cookies begin with.
    pub(crate) mark: [u8; MARK_LEN],
    /// One in so many hellos without it: a power of two.
    pub(crate) one_in: u32,
    /// Other versions of the wire format, too.
    pub(crate) foreign: bool,
}

impl Filter {
    /// The program. Looking at what a packet is too short for ends it, with "drop".
    pub(crate) fn program(&self) -> [sock_filter; 15] {
        assert!(self.one_in.is_power_of_two() && self.mark != [0; MARK_LEN], "{self:?}");
        let mark = u32::from_be_bytes(self.mark);
        let other_version = if self.foreign { PASS } else { DROP };
        [
            load(BPF_W | BPF_ABS, at(CONNECTION_MARK_AT)),
            branch(1, mark, PASS, 2),
            load(BPF_B | BPF_ABS, at(0)),
            branch(3, VERSION.into(), 4, other_version),
            load(BPF_B | BPF_ABS, at(1)),
            branch(5, FLAG_HANDSHAKE.into(), 6, DROP),
            load(BPF_W | BPF_LEN, 0),
            branch(7, at(INIT_LEN), 8, DROP),
            load(BPF_W | BPF_ABS, at(COOKIE_AT)),
            branch(9, mark, PASS, 10),
            load(BPF_W | BPF_ABS, (SKF_AD_OFF + SKF_AD_RANDOM) as u32),
            statement(BPF_ALU | BPF_AND | BPF_K, self.one_in - 1),
            branch(12, 0, PASS, DROP),
            statement(BPF_RET | BPF_K, u32::MAX),
            statement(BPF_RET | BPF_K, 0),
        ]
    }
}

/// A mark of these random bytes: not zero, which is what nobody made.
pub(crate) fn mark(mut random: [u8; MARK_LEN]) -> [u8; MARK_LEN] {
    random[0] |= 1;
    random
}

/// Which socket of a port gets a packet, by its flags: the one with that index.
pub(crate) fn sorting(flag: u8) -> [sock_filter; 3] {
    // What sorts counts from the payload on.
    let flags = load(BPF_B | BPF_ABS, 1);
    [flags, statement(BPF_ALU | BPF_AND | BPF_K, flag.into()), statement(BPF_RET | BPF_A, 0)]
}

/// `BPF_RET | A`: not in libc.
const BPF_A: u32 = 0x10;

const fn at(payload: usize) -> u32 {
    UDP_HEADER + payload as u32
}

const fn load(from: u32, k: u32) -> sock_filter {
    statement(BPF_LD | from, k)
}

const fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// The instruction at `here`: goes on there if what was loaded is `k`, else elsewhere.
const fn branch(here: u8, k: u32, equal: u8, other: u8) -> sock_filter {
    let code = (BPF_JMP | BPF_JEQ | BPF_K) as u16;
    sock_filter { code, jt: equal - here - 1, jf: other - here - 1, k }
}

#[cfg(test)]
mod tests {
    use super::super::socket::{Batch, Port, Socket};
    use super::*;
    use crate::id::{Member, NodeId};
    use crate::reliable::{
        COOKIE_LEN, Claim, FLAG_KEY_PHASE, FLAG_QUIET, HEADER_LEN, Handshake, Header, NOISE_1_LEN,
    };

    const MARK: [u8; MARK_LEN] = [9, 8, 7, 6];

    fn port(addr: &str, filter: Filter) -> (Port, Socket) {
        let port = Port::bind(addr.parse().unwrap(), None).unwrap();
        port.filter(Some(&filter)).unwrap();
        let to = port.main.local().unwrap();
        (port, Socket::connect(&to.ip().into(), to).unwrap())
    }

    /// How many of `count` such packets get through; over loopback they have arrived when they are sent.
    fn through((port, sender): &(Port, Socket), packet: &[u8], count: usize) -> usize {
        let mut batch = Batch::new(true);
        let mut arrived = 0;
        for _ in 0..count {
            sender.send(packet, None).unwrap();
            for socket in std::iter::once(&port.main).chain(&port.quiet) {
                arrived += batch.receive(socket, true).0;
            }
        }
        arrived
    }

    fn data(flags: u8, mark: [u8; MARK_LEN], len: usize) -> Vec<u8> {
        let mut packet = vec![0; len];
        let connection = u64::from(u32::from_le_bytes(mark)) << 32 | 5;
        Header { flags, connection, number: 5 }.emit(&mut packet);
        packet
    }

    fn hello(cookie: [u8; COOKIE_LEN]) -> Vec<u8> {
        let claim = Claim { cluster: 1, from: Member::new(2, 3), to: NodeId(4) };
        let mut packet = vec![0; INIT_LEN];
        Handshake::Init { claim, cookie, noise: [9; NOISE_1_LEN] }.emit(77, &mut packet);
        packet
    }

    fn knock() -> Vec<u8> {
        let claim = Claim { cluster: 1, from: Member::new(2, 3), to: NodeId(4) };
        let mut packet = vec![0; INIT_LEN];
        Handshake::Knock(claim).emit(0, &mut packet);
        packet
    }

    #[test]
    fn what_bears_the_mark_and_first_words_get_through_and_nothing_else() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let at = port(addr, Filter { mark: MARK, one_in: 1, foreign: false });
            for flags in [0, FLAG_QUIET, FLAG_KEY_PHASE, FLAG_HANDSHAKE] {
                for len in [HEADER_LEN, 100, INIT_LEN, 1200] {
                    assert_eq!(through(&at, &data(flags, MARK, len), 1), 1, "{flags} {len}");
                    let first_word = flags == FLAG_HANDSHAKE && len == INIT_LEN;
                    let other = data(flags, [9, 8, 7, 5], len);
                    assert_eq!(through(&at, &other, 1), first_word.into(), "{flags} {len}");
                }
            }
            for unasked in [hello([0; COOKIE_LEN]), knock()] {
                assert_eq!(through(&at, &unasked, 3), 3);
                assert_eq!(through(&at, &unasked[..INIT_LEN - 1], 3), 0);
            }
            for len in 0..HEADER_LEN.min(CONNECTION_MARK_AT + MARK_LEN) {
                assert_eq!(through(&at, &vec![VERSION; len], 1), 0, "{len}");
            }
        }
    }

    #[test]
    fn other_versions_get_through_until_they_are_known() {
        for foreign in [false, true] {
            let at = port("127.0.0.1:0", Filter { mark: MARK, one_in: 1, foreign });
            let mut packet = knock();
            packet[0] = VERSION + 1;
            assert_eq!(through(&at, &packet, 3), if foreign { 3 } else { 0 });
        }
    }

    #[test]
    fn in_a_flood_few_first_words_get_through_and_all_answers_to_ours() {
        let at = port("127.0.0.1:0", Filter { mark: MARK, one_in: 16, foreign: false });
        let unasked = through(&at, &hello([7; COOKIE_LEN]), 1600);
        assert!((20..500).contains(&unasked), "{unasked} of 1600");
        let mut cookie = [0; COOKIE_LEN];
        cookie[..MARK_LEN].copy_from_slice(&MARK);
        assert_eq!(through(&at, &hello(cookie), 50), 50);
        assert_eq!(through(&at, &data(FLAG_HANDSHAKE, MARK, 300), 50), 50);
    }

    #[test]
    fn joined_datagrams_get_through_together() {
        let (port, sender) = port("127.0.0.1:0", Filter { mark: MARK, one_in: 1, foreign: false });
        let bytes = [data(0, MARK, 200), data(0, MARK, 200), data(0, MARK, 150)].concat();
        sender.send(&bytes, Some(200)).unwrap();
        let (mut batch, mut seen) = (Batch::new(true), Vec::new());
        let (count, _) = batch.receive(&port.main, true);
        for index in 0..count {
            seen.extend(batch.datagrams(index).map(|datagram| datagram.to_vec()));
        }
        assert_eq!((seen.len(), seen.concat()), (3, bytes));
    }
}
