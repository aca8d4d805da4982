use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quintet_transport::{
    Config, GROUP, LogBytes, LogWriter, Member, NodeId, Path, PathPolicy, PeerConfig, Poller, Time,
    clock,
};

use super::Deliveries;
use crate::core::ViewId;
use crate::engine::deliver::{Item, Remains, Source};
use crate::engine::outbox::Outbox;
use crate::engine::ring::{Descriptor, Kind, ring};
use crate::engine::shared::Shared;
use crate::event::{Event, MessageId, Unresolved};
use crate::status::{Counters, State, Status};

/// The poller's side of a queue, over a real log.
struct Fixture {
    poller: Poller,
    writer: LogWriter,
    outbox: Outbox,
    consumed: Arc<AtomicU64>,
    next: u64,
}

fn fixture(capacity: usize) -> (Fixture, Deliveries) {
    let me = Member::new(1, 1);
    let mut config = Config::new("deliveries", me, "127.0.0.1:0".parse().unwrap());
    config.path = PathPolicy::Shm;
    let poller = Poller::new(config).unwrap();
    let (commands, _) = crossbeam_channel::unbounded();
    let status = Status {
        at: Time::ZERO,
        me,
        state: State::Outside,
        view: None,
        links: Vec::new(),
        parking: poller.parking().into_owned(),
        udp: poller.udp().cloned(),
        counters: Counters::default(),
        history: Vec::new(),
    };
    let shared = Arc::new(Shared::new(1000, poller.waker(), commands, status));
    let (tx, rx) = ring(capacity);
    let consumed = Arc::new(AtomicU64::new(0));
    let mut outbox = Outbox::new(tx, shared.clone());
    let source = Source {
        member: me,
        own: true,
        bytes: poller.own_bytes(GROUP),
        consumed: consumed.clone(),
        wake_every: 1,
    };
    outbox.item(Item::Source { slot: 0, source: Some(Box::new(source)) });
    let writer = poller.log(GROUP);
    (Fixture { poller, writer, outbox, consumed, next: 0 }, Deliveries::new(shared, rx))
}

fn remains(poller: &Poller, writer: &LogWriter) -> Box<Remains> {
    let (unresolved, log) = (Unresolved::default(), writer.clone());
    Box::new(Remains { unresolved, log, head: poller.head(GROUP) })
}

impl Fixture {
    fn end(self, last: Option<Item>) {
        self.outbox.end(remains(&self.poller, &self.writer), last);
    }

    /// Sends message number `next`, and returns the byte position after it.
    fn send(&mut self) -> u64 {
        let mut slot = self.writer.reserve(8).unwrap();
        slot.copy_from_slice(&self.next.to_le_bytes());
        slot.commit();
        assert!(self.poller.committed(GROUP).is_some());
        let p = self.poller.publish(GROUP, self.next);
        let end = self.poller.head(GROUP);
        self.outbox.message(Descriptor {
            kind: Kind::Message,
            slot: 0,
            len: p.len,
            at: self.next,
            position: p.position,
            end,
        });
        self.next += 1;
        end
    }
}

/// Number of the next message; panics on anything else.
fn message(d: &mut Deliveries) -> Option<u64> {
    d.try_next().map(|e| match e {
        Event::Message(m) => {
            assert!(m.own && m.intact() && m.sender == Member::new(1, 1));
            assert_eq!(m.at.0, u64::from_le_bytes(m.bytes.try_into().unwrap()));
            m.at.0
        }
        other => panic!("{other:?}"),
    })
}

#[test]
fn of_a_links_changes_that_wait_the_latest_is_told() {
    let (mut f, mut d) = fixture(16);
    f.outbox.close_gate();
    let change = |peer, n: usize| {
        let path = if n.is_multiple_of(2) { Path::Verbs } else { Path::Udp };
        Item::Path(NodeId(peer), path, format!("change {n}").into())
    };
    for n in 0..1000 {
        f.outbox.item(change(2, n));
        if n == 500 {
            f.outbox.item(Item::Resumed);
            f.outbox.item(change(3, n));
        }
    }
    f.outbox.open_gate();
    f.outbox.flush();
    let mut told = Vec::new();
    while let Some(event) = d.try_next() {
        told.push(match event {
            Event::Path { peer, path, reason } => format!("{} {path} {reason}", peer.0),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(told, ["Resumed", "3 verbs change 500", "2 udp change 999"]);
}

#[test]
fn a_message_is_consumed_when_the_next_is_asked_for() {
    let (mut f, mut d) = fixture(16);
    let (first, second) = (f.send(), f.send());
    assert!(d.try_next().is_none(), "nothing is visible before the flush");
    f.outbox.flush();
    assert_eq!(message(&mut d), Some(0));
    assert_eq!(f.consumed.load(Ordering::Relaxed), 0, "still in the application's hands");
    assert_eq!(message(&mut d), Some(1));
    assert_eq!(f.consumed.load(Ordering::Relaxed), first);
    assert_eq!(message(&mut d), None);
    assert_eq!(f.consumed.load(Ordering::Relaxed), second);
}

#[test]
fn what_does_not_fit_waits_in_order() {
    let (mut f, mut d) = fixture(4);
    for n in 0..20 {
        f.send();
        if n == 10 {
            f.outbox.item(Item::Resumed);
        }
    }
    let (mut messages, mut resumed_after) = (0, None);
    loop {
        f.outbox.flush();
        match d.try_next() {
            Some(Event::Message(m)) => {
                assert_eq!(m.at.0, messages);
                messages += 1;
            }
            Some(Event::Resumed) => resumed_after = Some(messages),
            Some(other) => panic!("{other:?}"),
            None => break,
        }
    }
    assert_eq!((messages, resumed_after), (20, Some(11)));
    assert!(!f.outbox.is_open() || f.outbox.full_count > 0);
}

#[test]
fn behind_the_gate_only_transfer_bytes_pass() {
    let (mut f, mut d) = fixture(16);
    f.outbox.close_gate();
    f.send();
    f.outbox.item(Item::Resumed);
    f.outbox.flush();
    assert!(d.try_next().is_none());
    assert!(!f.outbox.is_open(), "the core keeps its messages meanwhile");
    f.outbox.open_gate();
    f.outbox.flush();
    assert_eq!(message(&mut d), Some(0));
    assert!(matches!(d.try_next(), Some(Event::Resumed)));
}

#[test]
fn the_end_comes_after_everything_and_only_once() {
    let (mut f, mut d) = fixture(4);
    for _ in 0..10 {
        f.send();
    }
    f.end(Some(Item::Evicted(ViewId(7))));
    for n in 0..10 {
        assert_eq!(message(&mut d), Some(n));
    }
    assert!(!d.is_finished());
    assert!(matches!(d.next(Duration::ZERO), Some(Event::Evicted(ViewId(7)))));
    assert!(d.is_finished());
    assert!(d.next(Duration::from_secs(60)).is_none(), "does not wait for what cannot come");
}

#[test]
fn a_state_that_was_never_whole_is_not_followed_by_messages() {
    let (mut f, mut d) = fixture(16);
    f.outbox.close_gate();
    f.send();
    let open = f.writer.reserve(8).unwrap();
    let behind = f.writer.reserve(8).unwrap().commit();
    let hidden = open.position();
    let remains = remains(&f.poller, &f.writer);
    assert_eq!(remains.head, hidden);
    f.outbox.end(remains, Some(Item::Evicted(ViewId(1))));
    assert_eq!(d.unresolved(), None);
    assert!(matches!(d.try_next(), Some(Event::Evicted(_))));
    let delivered_unseen = vec![MessageId(0)];
    let unresolved = d.unresolved().unwrap();
    assert_eq!(unresolved.indeterminate, delivered_unseen);
    assert_eq!(unresolved.not_delivered, [], "an open reservation hides what is behind it");
    open.commit();
    let unresolved = d.unresolved().unwrap();
    assert_eq!(unresolved.indeterminate, delivered_unseen);
    assert_eq!(unresolved.not_delivered, [MessageId(hidden), MessageId(behind)]);
}

/// A peer's log whose first record was delivered here and then overwritten, for the peer does not count us any more.
fn overwritten() -> (LogBytes, Descriptor) {
    let sockets = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let addresses = sockets.map(|s| s.local_addr().unwrap());
    let cluster = format!("overwritten-{}", std::process::id());
    let [mut peer, mut me] = [1, 0].map(|other: u16| {
        let node = 2 - other;
        let address = addresses[usize::from(1 - other)];
        let mut config = Config::new(&cluster, Member::new(node, 1), address);
        let addr = addresses[usize::from(other)];
        config.peers = vec![PeerConfig { node: NodeId(3 - node), addr }];
        config.path = PathPolicy::Shm;
        Poller::new(config).unwrap()
    });
    let turn = |poller: &mut Poller| {
        poller.poll(clock::now());
        poller.flush(clock::now());
        match poller.poll_event() {
            Some(quintet_transport::Event::Up { link, .. }) => Some(link),
            _ => None,
        }
    };
    let (mut to_me, mut to_peer) = (None, None);
    while to_me.is_none() || to_peer.is_none() {
        to_me = to_me.or(turn(&mut peer));
        to_peer = to_peer.or(turn(&mut me));
    }
    let (to_me, to_peer) = (to_me.unwrap(), to_peer.unwrap());
    peer.attach(to_me, GROUP, 0);
    me.open(to_peer, GROUP, 0);
    peer.log(GROUP).reserve(8).unwrap().commit();
    assert!(peer.committed(GROUP).is_some());
    let record = peer.publish(GROUP, 0);
    while me.peek(to_peer, GROUP, 0).is_none() {
        turn(&mut peer);
        turn(&mut me);
    }
    let bytes = me.peer_bytes(to_peer, GROUP).unwrap();
    assert!(bytes.intact(0));
    let end = peer.head(GROUP);
    peer.detach(to_me, GROUP);
    peer.reclaim(GROUP, end);
    turn(&mut peer);
    assert!(!bytes.intact(0), "its owner went on without this node");
    let position = record.position;
    (bytes, Descriptor { kind: Kind::Message, slot: 1, len: record.len, at: 1, position, end })
}

#[test]
fn own_messages_behind_one_that_is_not_whole_are_indeterminate() {
    let (mut f, mut d) = fixture(16);
    let (bytes, gone) = overwritten();
    let consumed = Arc::new(AtomicU64::new(0));
    let member = Member::new(2, 1);
    let source = Source { member, own: false, bytes, consumed, wake_every: 1 };
    f.outbox.item(Item::Source { slot: 1, source: Some(Box::new(source)) });
    let first = f.send();
    f.outbox.message(gone);
    let second = f.send();
    f.send();
    let committed = f.writer.reserve(8).unwrap().commit();
    let mut remains = remains(&f.poller, &f.writer);
    let published = MessageId(committed + 1000);
    remains.unresolved.indeterminate = vec![published];
    f.outbox.end(remains, Some(Item::Evicted(ViewId(7))));
    assert_eq!(message(&mut d), Some(0));
    assert!(matches!(d.try_next(), Some(Event::Evicted(_))), "the rest is not handed out");
    let unresolved = d.unresolved().unwrap();
    assert_eq!(unresolved.indeterminate, [MessageId(first), MessageId(second), published]);
    assert_eq!(unresolved.not_delivered, [MessageId(committed)]);
    assert_eq!(d.unresolved(), Some(unresolved), "and again");
}

#[test]
fn a_sleeping_application_is_woken() {
    let (mut f, mut d) = fixture(16);
    std::thread::scope(|s| {
        let reader = s.spawn(move || {
            for n in 0..200 {
                match d.next(Duration::from_secs(60)) {
                    Some(Event::Message(m)) => assert_eq!(m.at.0, n),
                    other => panic!("{other:?}"),
                }
            }
            d
        });
        for _ in 0..200 {
            f.send();
            f.outbox.flush();
            std::thread::sleep(Duration::from_micros(200));
            f.outbox.flush();
        }
        while f.outbox.flush() || !reader.is_finished() {
            std::thread::yield_now();
        }
        let mut d = reader.join().unwrap();
        f.end(None);
        assert!(d.next(Duration::from_secs(60)).is_none() && d.is_finished());
    });
}

#[test]
fn memory_outlives_its_log_until_the_queue_passed_it() {
    let (mut f, mut d) = fixture(16);
    f.send();
    f.outbox.item(Item::Source { slot: 0, source: None });
    f.outbox.item(Item::Resumed);
    f.outbox.flush();
    let Fixture { poller, consumed, .. } = f;
    drop(poller);
    assert_eq!(message(&mut d), Some(0));
    assert_eq!(Arc::strong_count(&consumed), 2);
    assert!(matches!(d.try_next(), Some(Event::Resumed)));
    assert_eq!(Arc::strong_count(&consumed), 1, "the queue let go of the memory");
}
