//! How much those are listened to who prove nothing: hellos and knocks without a cookie of ours.
//!
//! Each may be the first word of a node that joins, and costs, answered, as much as a packet that is sent. So they have a budget.
//! What is over it is not answered, and in a flood the kernel lets only one in so many through ([`Filter`]), as
//! many as the budget is for: who is let through is chance, and a node that joins says hello at least twenty times a second.
//! What comes after the first word, by either side, has a mark and is not concerned.
//!
//! When a peer with a link falls silent nothing is filtered for a while, so that the filter cannot be what makes it silent. If it
//! stays silent then, the filter was not it, and is needed all the more: a flood that nothing keeps away may be.

use std::time::Duration;

use super::filter::{Filter, MARK_LEN};
use super::*;
use crate::reliable::{VERSION, WireError};

/// Strangers that are answered each second, and at once after silence.
const PER_SECOND: u32 = 1000;
const AT_ONCE: u32 = 128;
/// So many, or so long, are enough to tell how many come. More than are answered at once: those are no flood.
const ENOUGH: u32 = 2 * AT_ONCE;
const SPAN: Duration = Duration::from_millis(50);
/// At most one in so many is let through.
const ONE_IN_MAX: u64 = 4096;
/// How long nothing is filtered after a peer fell silent, and how long before that it may be so again.
const DOUBT: Duration = Duration::from_secs(1);
const DOUBT_APART: Duration = Duration::from_secs(10);

/// The budget, and what the kernel is told.
#[derive(Debug)]
pub(super) struct Strangers {
    filter: Filter,
    /// Until then the budget is spent.
    spent: Time,
    /// Came since then.
    came: u32,
    since: Time,
    /// Since when a silent peer was last searched for, with nothing filtered for [`DOUBT`].
    doubted: Option<Time>,
    /// What the sockets have.
    attached: Option<Filter>,
    /// The first version of the wire format that was met and is not ours.
    pub(super) foreign: Option<u8>,
    /// The kernel refuses filters.
    refused: bool,
}

impl Strangers {
    pub(super) fn new(mark: [u8; MARK_LEN], now: Time) -> Self {
        Strangers {
            filter: Filter { mark, one_in: 1, foreign: true },
            spent: now,
            came: 0,
            since: now,
            doubted: None,
            attached: None,
            foreign: None,
            refused: false,
        }
    }

    /// What this node makes bears it.
    pub(super) fn mark(&self) -> [u8; MARK_LEN] {
        self.filter.mark
    }

    /// One in so many of those who prove nothing is let through; 0 while nothing is filtered.
    #[cfg(test)]
    pub(super) fn one_in(&self) -> u32 {
        self.attached.map_or(0, |filter| filter.one_in)
    }

    /// One more; whether it is answered.
    pub(super) fn admit(&mut self, now: Time) -> bool {
        const EACH: Duration = Duration::from_micros(1_000_000 / PER_SECOND as u64);
        self.came += 1;
        let from = self.spent.max(now);
        let within = from.since(now) < EACH * AT_ONCE;
        if within {
            self.spent = from + EACH;
        }
        within
    }

    /// A peer with a link is silent.
    pub(super) fn doubt(&mut self, now: Time) {
        if self.doubted.is_none_or(|since| now >= since + DOUBT_APART) {
            self.doubted = Some(now);
        }
    }

    /// What the kernel shall filter from now on, if that is another than until now.
    fn look(&mut self, now: Time) -> Option<Option<Filter>> {
        let span = now.since(self.since);
        if self.came >= ENOUGH || span >= SPAN {
            let budget = u64::from(PER_SECOND) * span.as_micros().max(1) as u64 / 1_000_000;
            let came = u64::from(self.came) * u64::from(self.filter.one_in);
            let usual = budget.max(AT_ONCE.into());
            let one_in = (came / usual).max(1).next_power_of_two().min(ONE_IN_MAX) as u32;
            // Fewer at once, more only when it is clear: each change costs a compilation in the kernel.
            if one_in > self.filter.one_in || one_in <= self.filter.one_in / 4 {
                self.filter.one_in = one_in;
            }
            (self.came, self.since) = (0, now);
        }
        let doubts = self.doubted.is_some_and(|since| now < since + DOUBT);
        let wanted = (!doubts).then_some(self.filter);
        (wanted != self.attached && !self.refused).then_some(wanted)
    }
}

impl Udp {
    /// Tells the kernel what to keep from us, if that has changed.
    pub(super) fn screen(&mut self, now: Time) {
        let Some(filter) = self.strangers.look(now) else { return };
        self.strangers.attached = filter;
        self.means.filters(filter.as_ref());
        for door in &self.doors {
            if let Err(error) = door.port.filter(filter.as_ref()) {
                // A filter that could not be changed any more would be worse than none.
                let doors = self.doors.iter();
                doors.for_each(|door| _ = door.port.filter(None));
                (self.strangers.refused, self.strangers.attached) = (true, None);
                self.means.cannot_filter(&error);
                tracing::warn!(
                    "the kernel refuses a socket filter ({error}; seccomp of a container?): floods of forged packets cost \
                     this node more than they need"
                );
                return;
            }
        }
    }

    /// Two releases that do not understand each other would be silent for ever: that is told, once.
    pub(super) fn on_unreadable(&mut self, error: WireError) -> bool {
        self.strays += 1;
        if let (WireError::Version(version), None) = (error, self.strangers.foreign) {
            self.strangers.foreign = Some(version);
            self.strangers.filter.foreign = false;
            tracing::warn!(
                "a packet has version {version} of the wire format, and this node speaks {VERSION}: run the same release of \
                 Quintet on all nodes; if it is the same, something else sends to this port"
            );
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Node, addresses, config, identity, linked, linked_pair, until};
    use super::*;
    use crate::clock;
    use crate::reliable::{COOKIE_LEN, Claim, Handshake, INIT_LEN, NOISE_1_LEN};
    use std::net::UdpSocket;
    use std::sync::atomic::{AtomicBool, Ordering};

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Lets as many a millisecond come for a second as the filter lets through of `each`; returns how many are answered.
    fn second(strangers: &mut Strangers, now: &mut Time, each: u32) -> u32 {
        let mut answered = 0;
        for millisecond in 0..1000 {
            *now += MILLISECOND;
            let one_in = strangers.filter.one_in;
            for _ in 0..(each + millisecond % one_in) / one_in {
                answered += u32::from(strangers.admit(*now));
                strangers.look(*now);
            }
            strangers.look(*now);
        }
        answered
    }

    #[test]
    fn few_are_all_answered_and_of_many_as_many_as_there_is_a_budget_for() {
        let mut now = Time::from_millis(10_000);
        let mut strangers = Strangers::new([1; 4], now);
        assert_eq!(second(&mut strangers, &mut now, 1), 1000);
        assert_eq!(strangers.filter.one_in, 1);
        let answered = second(&mut strangers, &mut now, 100);
        assert!((PER_SECOND / 2..=PER_SECOND + AT_ONCE).contains(&answered), "{answered}");
        assert!((64..=256).contains(&strangers.filter.one_in), "{strangers:?}");
        second(&mut strangers, &mut now, 0);
        assert_eq!(strangers.filter.one_in, 1, "the flood is over");
        assert_eq!(second(&mut strangers, &mut now, 1), 1000);
    }

    #[test]
    fn a_flood_after_long_silence_is_seen_at_once() {
        let mut now = Time::from_millis(10_000);
        let mut strangers = Strangers::new([1; 4], now);
        now += Duration::from_secs(3600);
        for _ in 0..7 * ENOUGH {
            strangers.admit(now);
            now += Duration::from_micros(10);
            strangers.look(now);
        }
        assert!(strangers.filter.one_in >= 64, "{strangers:?}");
    }

    #[test]
    fn who_says_hello_at_once_with_many_others_is_no_flood() {
        let mut now = Time::from_millis(10_000);
        let mut strangers = Strangers::new([1; 4], now);
        let (mut came, mut answered) = (0, 0);
        for _ in 0..100 {
            for _ in 0..64 {
                came += 1;
                answered += u32::from(strangers.admit(now));
                strangers.look(now);
                assert_eq!(strangers.filter.one_in, 1, "{came} came");
            }
            now += SPAN;
        }
        // 1,280 a second.
        assert!(answered > came * 3 / 4, "{answered} of {came}");
    }

    #[test]
    fn a_peer_that_stays_silent_does_not_keep_the_filter_off() {
        let mut now = Time::from_millis(1);
        let mut strangers = Strangers::new([1; 4], now);
        let mut unfiltered = Duration::ZERO;
        for _ in 0..4 * 2000 {
            strangers.doubt(now);
            if let Some(filter) = strangers.look(now) {
                strangers.attached = filter;
            }
            if strangers.attached.is_none() {
                unfiltered += Duration::from_millis(5);
            }
            now += Duration::from_millis(5);
        }
        assert_eq!(unfiltered, DOUBT * 4, "in forty seconds");
    }

    #[test]
    fn the_own_stall_is_no_reason_to_doubt() {
        let (_, mut a, mut b) = linked_pair();
        until(&mut [&mut a, &mut b], "signs of life", |nodes| !nodes[0].udp.probing);
        // Takes what has come, heartbeats too.
        a.udp.expected = true;
        a.turn();
        a.udp.strangers.doubted = None;
        std::thread::sleep(a.udp.heartbeat * 3);
        // Nobody has spoken meanwhile, for nobody was run.
        a.turn();
        assert!(a.udp.strangers.doubted.is_none());
        // From here on it is the other one's.
        until(&mut [&mut a], "doubt", |nodes| nodes[0].udp.strangers.doubted.is_some());
    }

    /// A node that nobody is linked to, and where it receives.
    fn with_two_rails() -> (Node, [std::net::SocketAddr; 2]) {
        let addrs = addresses(2);
        let mut config = config(&addrs, 0, 1);
        let second = UdpSocket::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        config.rails = vec![Rail { bind: second, interface: None, peers: Vec::new() }];
        (Node::with(&config), [addrs[0], second])
    }

    /// Whether a packet without our mark gets through to that node.
    fn is_reached(node: &mut Node, addr: std::net::SocketAddr) -> bool {
        let mut packet = [0; 64];
        Header { flags: 0, connection: 77, number: 5 }.emit(&mut packet);
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&packet, addr).unwrap();
        let before = node.udp.strays;
        // Over loopback it has arrived.
        (0..10).for_each(|_| node.turn());
        node.udp.strays > before
    }

    #[test]
    fn what_bears_no_mark_does_not_get_through_on_any_rail() {
        let (mut node, [first, second]) = with_two_rails();
        for addr in [first, second] {
            assert!(!is_reached(&mut node, addr), "{addr}");
        }
        node.udp.strangers.doubt(clock::now());
        node.turn();
        for addr in [first, second] {
            assert!(is_reached(&mut node, addr), "{addr}: without a filter");
        }
    }

    #[test]
    fn what_was_found_by_looking_is_taken_before_other_rails_are_asked() {
        let (mut node, [first, second]) = with_two_rails();
        // Unfiltered.
        node.udp.strangers.doubt(clock::now());
        node.turn();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut packet = [0; 64];
        Header { flags: 0, connection: 77, number: 5 }.emit(&mut packet);
        let ours = packet;
        packet[0] ^= 0x80;
        assert!(matches!(Header::parse(&packet), Err(WireError::Version(_))));
        socket.send_to(&packet, second).unwrap();
        assert!(node.udp.look());
        socket.send_to(&ours, first).unwrap();
        let before = node.udp.strays;
        node.turn();
        assert_eq!(node.udp.strays, before + 2);
        assert!(node.udp.strangers.foreign.is_some(), "it was written over");
    }

    #[test]
    fn nothing_is_filtered_while_a_peer_is_silent() {
        let (addrs, mut a, mut b) = linked_pair();
        // One of them may have been silent for a moment, before or meanwhile.
        until(&mut [&mut a, &mut b], "signs of life", |nodes| !nodes[0].udp.probing);
        a.udp.strangers.doubted = None;
        assert!(!is_reached(&mut a, addrs[0]));
        // The filter could be at fault.
        until(&mut [&mut a], "silence", |nodes| nodes[0].udp.probing);
        a.turn();
        assert!(is_reached(&mut a, addrs[0]));
        until(&mut [&mut a, &mut b], "a sign of life", |nodes| !nodes[0].udp.probing);
        assert!(is_reached(&mut a, addrs[0]), "not at once again");
        a.udp.strangers.doubted = None;
        a.turn();
        assert!(!is_reached(&mut a, addrs[0]));
    }

    #[test]
    fn a_node_joins_while_hellos_in_its_name_flood_the_others() {
        let addrs = addresses(3);
        let (mut a, mut b) = (Node::start(&addrs, 0, 1), Node::start(&addrs, 1, 1));
        until(&mut [&mut a, &mut b], "a link", |nodes| {
            nodes[0].link_to(1).is_some() && nodes[1].link_to(0).is_some()
        });
        let claims = [1, 2].map(|to| Claim {
            cluster: identity("test", 0).cluster().tag(),
            from: Member::new(3, 1),
            to: NodeId(to),
        });
        let (over, to) = (Arc::new(AtomicBool::new(false)), [addrs[0], addrs[1]]);
        let flooding = std::thread::spawn({
            let over = over.clone();
            move || {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..20 {
                        for (claim, addr) in claims.into_iter().zip(to) {
                            let (mut packet, cookie) = ([0; INIT_LEN], [7; COOKIE_LEN]);
                            Handshake::Init { claim, cookie, noise: [9; NOISE_1_LEN] }
                                .emit(77, &mut packet);
                            socket.send_to(&packet, addr).unwrap();
                        }
                    }
                    std::thread::sleep(MILLISECOND);
                }
            }
        });
        until(&mut [&mut a, &mut b], "a flood", |nodes| {
            nodes.iter().all(|node| node.udp.strangers.one_in() > 1)
        });
        let mut c = Node::start(&addrs, 2, 1);
        let links = (a.link_to(1), b.link_to(0));
        let (mut most, begin) = (0, clock::now());
        until(&mut [&mut a, &mut b, &mut c], "a third node", |nodes| {
            most = nodes[0].udp.strangers.one_in().max(most);
            linked(nodes)
        });
        println!("joined after {:?}, one in {most} heard", clock::now().since(begin));
        over.store(true, Ordering::Relaxed);
        flooding.join().unwrap();
        assert!(most > 1, "the flood went on");
        assert_eq!(links, (a.link_to(1), b.link_to(0)), "the others noticed nothing");
    }
}
