//! Links without pollers, between the two adapters of scripts/soft-roce-vm: what moves, and what is refused.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::discover::{Place, discover};
use super::immediate::Immediate;
use super::link::VerbsLink;
use super::offer::Offer;
use super::queue_pair::{RECEIVES, SENDS};
use crate::config::Marks;
use crate::event::Evidence;
use crate::lane::{CONTROL, GROUP, LaneId, LaneSpec};
use crate::log::Ring;
use crate::memory::Memory;
use crate::own::Own;
use crate::wait::{Bell, Waker};

pub(super) fn adapters() -> Option<[Place; 2]> {
    if std::env::var_os("QUINTET_RXE").is_none() {
        crate::skip::skip("no adapters: run it with scripts/soft-roce-vm");
        return None;
    }
    let place = |name| {
        let (places, report) = discover(Some(name), None);
        assert!(report.usable(), "{report}");
        places.into_iter().next().expect("a usable address")
    };
    Some([place("rxe0"), place("rxe1")])
}

pub(super) fn lanes() -> Vec<LaneSpec> {
    vec![
        LaneSpec { name: "control", words: 3, log_bytes: 4096 },
        LaneSpec { name: "group", words: 100, log_bytes: 4096 },
    ]
}

/// One end: a node's memory and a link.
struct End {
    own: Own,
    source: Arc<Memory>,
    place: Place,
    link: VerbsLink,
    offer: Offer,
}

impl End {
    fn new(place: &Place) -> End {
        let source = Arc::new(Memory::anonymous(8192).unwrap());
        let rings = (0..2).map(|i| Ring::new(source.clone(), 4096 * i, 4096)).collect();
        let own = Own::new(&lanes(), rings, &Waker::new(Bell::new().unwrap()));
        let link = VerbsLink::new(place, &source, &lanes()).unwrap();
        let offer = link.offer(place, 0, 77, 0);
        End { own, source, place: place.clone(), link, offer }
    }

    fn connect(&mut self, peer: &Offer) {
        self.link.connect(&self.place, &self.offer, peer).unwrap();
    }

    fn publish(&mut self, lane: LaneId, text: &[u8]) {
        let writer = self.own.lane(lane).log.writer();
        let mut slot = writer.reserve(text.len()).expect("room");
        slot.copy_from_slice(text);
        slot.commit();
        self.own.publish(lane, 1);
    }

    fn flush(&mut self) {
        self.link.flush(&self.own, true);
        self.own.flushed(false);
    }

    /// A turn's housekeeping: what was put off goes with the next flush.
    fn housekeep(&mut self) {
        self.link.life(crate::clock::now(), None).expect("a good link");
    }

    fn head(&self, lane: LaneId) -> u64 {
        self.own.lane(lane).log.head()
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        std::thread::yield_now();
    }
}

/// Two ends; the second is told `tell(offer)` in place of the first's offer.
fn pair(places: &[Place; 2], tell: impl Fn(Offer) -> Offer) -> (End, End) {
    let (mut a, mut b) = (End::new(&places[0]), End::new(&places[1]));
    let (from_a, from_b) = (tell(a.offer), b.offer);
    a.connect(&from_b);
    b.connect(&from_a);
    (a, b)
}

#[test]
fn logs_and_words_move_by_remote_writes() {
    let Some(places) = adapters() else { return };
    let (mut a, mut b) = pair(&places, |offer| offer);
    for lane in [CONTROL, GROUP] {
        a.link.attach(lane, 0);
        b.link.open(lane, 0);
    }
    a.publish(GROUP, b"by remote write");
    for word in 0..100 {
        a.own.set_word(GROUP, word, 1000 + word as u64);
    }
    a.flush();
    until("the last word", || {
        b.link.refresh();
        b.link.word(GROUP, 99) == 1099
    });
    assert!((0..100).all(|word| b.link.word(GROUP, word) == 1000 + word as u64));
    assert_eq!(b.link.peek(GROUP, 0).expect("seen before its words").payload, b"by remote write");
    let end = b.link.head(GROUP);
    b.link.release(GROUP, end);
    b.housekeep();
    b.flush();
    until("the release", || {
        a.link.refresh();
        a.link.released(GROUP, end) == Some(end)
    });
    // Reclaiming waits for the adapter as well, and asks it.
    until("the completion", || {
        let floor = a.link.floor(GROUP, end);
        a.housekeep();
        a.flush();
        a.link.refresh();
        floor == end
    });
}

#[test]
fn the_news_of_one_log_are_one_write_and_words_wait_for_its_end() {
    let Some(places) = adapters() else { return };
    let (mut a, mut b) = pair(&places, |offer| offer);
    a.link.attach(GROUP, 0);
    b.link.open(GROUP, 0);
    a.publish(GROUP, b"whose end is written, for nothing is known");
    a.flush();
    until("the first", || b.link.refresh() && b.link.head(GROUP) == a.head(GROUP));
    let first = a.head(GROUP);
    assert_eq!(b.link.told_end(GROUP), first);
    // Over the end of the ring as well, where the news are two pieces.
    for round in 0..100 {
        let at = a.head(GROUP);
        a.publish(GROUP, format!("message {round}, whose end its bell tells").as_bytes());
        let bells = a.link.doorbells();
        a.flush();
        assert_eq!(a.link.doorbells(), bells + 1);
        until("another", || b.link.refresh() && b.link.head(GROUP) == a.head(GROUP));
        assert_eq!(b.link.told_end(GROUP), first, "no second write");
        let record = b.link.peek(GROUP, at).expect("a record");
        assert!(record.payload.starts_with(format!("message {round},").as_bytes()));
        let end = record.end;
        b.link.release(GROUP, end);
        b.housekeep();
        b.flush();
        until("its release", || {
            a.link.refresh();
            a.link.released(GROUP, end) == Some(end)
        });
        // Small ones were copied when they were posted: no completion is waited for.
        assert_eq!(a.link.floor(GROUP, end), end);
        a.own.lane_mut(GROUP).log.reclaim(end);
    }
    // A word of the lane is ordered after its log by the inbox alone.
    a.own.set_word(GROUP, 0, 1);
    a.flush();
    until("the word", || b.link.refresh() && b.link.word(GROUP, 0) == 1);
    assert_eq!(b.link.told_end(GROUP), a.head(GROUP), "written before the word");
    // Once it is there, words go alone.
    a.own.set_word(GROUP, 0, 2);
    a.flush();
    until("the next word", || b.link.refresh() && b.link.word(GROUP, 0) == 2);
}

#[test]
fn a_reader_that_begins_late_and_goes_at_once_holds_no_log_up() {
    let Some(places) = adapters() else { return };
    let (mut a, _b) = pair(&places, |offer| offer);
    a.publish(GROUP, &[1; 100]);
    let head = a.head(GROUP);
    a.link.attach(GROUP, head);
    a.link.detach(GROUP);
    a.flush();
    assert_eq!(a.link.floor(GROUP, head), head);
}

#[test]
fn bells_that_come_late_change_nothing() {
    let Some(places) = adapters() else { return };
    let (mut a, mut b) = pair(&places, |offer| offer);
    a.link.attach(GROUP, 0);
    b.link.open(GROUP, 0);
    // None of it is looked at before all has come.
    let texts: [&[u8]; 4] = [b"written", b"rung", b"rung again", b"written, with a word"];
    for (round, text) in texts.iter().enumerate() {
        a.publish(GROUP, text);
        if round == 3 {
            a.own.set_word(GROUP, 0, 7);
        }
        a.flush();
    }
    let head = a.head(GROUP);
    until("all of it", || b.link.told_end(GROUP) == head);
    until("the word", || {
        b.link.refresh();
        assert!(b.link.word(GROUP, 0) == 0 || b.link.head(GROUP) == head, "a word before its log");
        b.link.word(GROUP, 0) == 7
    });
    let mut at = 0;
    for text in texts {
        let record = b.link.peek(GROUP, at).expect("a record");
        assert_eq!(record.payload, text);
        at = record.end;
    }
    assert_eq!((b.link.peek(GROUP, at), b.link.failure()), (None, None));
    // A lane that is opened late knows what its bells told before.
    a.link.attach(CONTROL, 0);
    for text in [&b"one"[..], b"two"] {
        a.publish(CONTROL, text);
        a.flush();
    }
    let head = a.head(CONTROL);
    until("both", || {
        b.link.refresh();
        b.link.rung(CONTROL) == head
    });
    assert_eq!(b.link.head(CONTROL), 0, "nobody reads it");
    b.link.open(CONTROL, 0);
    until("they are seen", || b.link.refresh() && b.link.head(CONTROL) == head);
}

#[test]
fn a_bell_that_lies_shows_nothing_but_what_is_a_log() {
    let Some(places) = adapters() else { return };
    let end = |lane: LaneId, at: u64| Immediate::end(lane.index(), at).emit();
    // What is rung, and whether the link goes on.
    let lies = [
        ("an old end", end(GROUP, 0), true),
        ("one that wraps around", end(GROUP, 0u64.wrapping_sub(8)), true),
        ("a lane that nobody reads", end(CONTROL, 512), true),
        ("a lane that is not", end(LaneId(5), 8), false),
        ("no lane", u32::MAX, false),
        ("more than a ring", end(GROUP, 4096 + 8), false),
        ("much more than a ring", end(GROUP, 1 << 29), false),
        ("the middle of a record", end(GROUP, 8), false),
        ("what was never written", end(GROUP, 1024), false),
        ("nonsense", 0x1234_5678, true),
    ];
    for (what, immediate, goes_on) in lies {
        let (mut a, mut b) = pair(&places, |offer| offer);
        a.link.attach(GROUP, 0);
        b.link.open(GROUP, 0);
        let text = [7; 40];
        a.publish(GROUP, &text);
        // What was opened is looked at once without a bell.
        b.link.refresh();
        a.link.lie(immediate);
        until(what, || b.link.refresh());
        assert_eq!(b.link.peek(GROUP, 0), None, "{what}");
        assert_eq!(b.link.failure(), (!goes_on).then_some(Evidence::Malformed), "{what}");
        if goes_on {
            a.flush();
            until("the truth", || b.link.refresh() && b.link.head(GROUP) == a.head(GROUP));
            assert_eq!(b.link.peek(GROUP, 0).expect("a record").payload, text, "{what}");
        }
    }
}

/// The answer to a message may wait for something better to go with, but not for ever.
#[test]
fn releases_go_with_others_or_late_or_when_there_are_many() {
    let Some(places) = adapters() else { return };
    let (mut a, mut b) = pair(&places, |offer| offer);
    for end in [&mut a, &mut b] {
        end.link.attach(GROUP, 0);
        end.link.open(GROUP, 0);
        end.flush();
    }
    let released = |end: &mut End, upto| {
        end.link.refresh();
        end.link.released(GROUP, upto) == Some(upto)
    };
    let take = |a: &mut End, b: &mut End, len: usize| {
        a.publish(GROUP, &vec![1; len]);
        a.flush();
        until("it comes", || b.link.refresh() && b.link.head(GROUP) == a.head(GROUP));
        b.link.release(GROUP, a.head(GROUP));
        let bells = b.link.doorbells();
        b.flush();
        b.link.doorbells() - bells
    };
    assert_eq!(take(&mut a, &mut b, 100), 0, "few: later");
    b.housekeep();
    b.flush();
    until("after housekeeping", || released(&mut a, b.link.head(GROUP)));
    assert_eq!(take(&mut a, &mut b, 100), 0, "few: later");
    b.publish(GROUP, b"with something else");
    b.own.set_word(GROUP, 0, 1);
    b.flush();
    until("with the next ends", || released(&mut a, b.link.head(GROUP)));
    assert_eq!(take(&mut a, &mut b, 600), 1, "an eighth of the ring: at once");
    until("many", || released(&mut a, b.link.head(GROUP)));
}

#[test]
fn a_key_that_is_not_the_peers_writes_nothing() {
    let Some(places) = adapters() else { return };
    let mut other = End::new(&places[0]);
    other.link.open(CONTROL, 0);
    let foreign = other.offer;
    type Wrong = Box<dyn Fn(Offer) -> Offer>;
    let wrongs: [(&str, Wrong); 3] = [
        ("a made-up key", Box::new(|o| Offer { rkey: o.rkey ^ 0x5500, ..o })),
        ("beyond the inbox", Box::new(|o| Offer { inbox: o.inbox + o.inbox_len, ..o })),
        // The other inbox is of the same process and adapter, but in another peer's domain.
        (
            "another peer's inbox",
            Box::new(move |o| Offer { rkey: foreign.rkey, inbox: foreign.inbox, ..o }),
        ),
    ];
    for (what, wrong) in &wrongs {
        let (mut a, mut b) = pair(&places, wrong);
        a.link.open(CONTROL, 0);
        b.link.attach(CONTROL, 0);
        b.own.set_word(CONTROL, 0, 0x5151);
        b.flush();
        until(what, || {
            a.link.refresh();
            b.link.refresh();
            b.link.failure().is_some()
        });
        assert_eq!(b.link.failure(), Some(Evidence::PathBroken), "{what}");
        other.link.refresh();
        assert_eq!((a.link.word(CONTROL, 0), other.link.word(CONTROL, 0)), (0, 0), "{what}");
    }
}

#[test]
fn what_a_peer_claims_is_bounded() {
    let Some(places) = adapters() else { return };
    let (mut a, mut b) = pair(&places, |offer| offer);
    a.link.attach(CONTROL, 0);
    b.link.open(CONTROL, 0);
    // A peer that says to have released what it was never sent.
    b.link.claim(CONTROL, 1 << 40);
    b.flush();
    until("the claim", || a.link.refresh());
    a.publish(CONTROL, b"not sent yet");
    let head = a.own.lane(CONTROL).log.head();
    assert_eq!(a.link.released(CONTROL, head), Some(0));
}

/// The cable carries less than when the queue pairs were connected, while this lives.
struct Narrow;

impl Narrow {
    fn set(mtu: u32) {
        for end in ["eth-a", "eth-b"] {
            let ip = ["link", "set", end, "mtu", &mtu.to_string()];
            assert!(Command::new("ip").args(ip).status().expect("ip").success());
        }
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        Narrow::set(4200);
    }
}

#[test]
fn a_path_that_carries_small_packets_only_is_not_proven() {
    let Some(places) = adapters() else { return };
    let (mut a, mut b) = pair(&places, |offer| offer);
    let (mut c, mut d) = pair(&places, |offer| offer);
    // As it is where adapters say more than what is between them carries.
    let narrow = Narrow;
    Narrow::set(1500);
    a.link.prove();
    b.link.prove();
    // Small ones do get through there, sent after the proofs.
    c.link.attach(CONTROL, 0);
    d.link.open(CONTROL, 0);
    for value in 1..=10 {
        c.own.set_word(CONTROL, 0, value);
        c.flush();
        until("a small write", || d.link.refresh() && d.link.word(CONTROL, 0) == value);
    }
    for end in [&mut a, &mut b] {
        end.link.refresh();
        assert_eq!(end.link.proven(77), (false, false));
    }
    drop((a, b, narrow));
    let (mut a, mut b) = pair(&places, |offer| offer);
    a.link.prove();
    b.link.prove();
    until("both are proven", || {
        a.link.refresh();
        b.link.refresh();
        a.link.proven(77) == (true, true) && b.link.proven(77) == (true, true)
    });
}

/// The traffic class of packets of RoCE that come in at an interface.
fn classes_at(interface: &CStr) -> impl FnMut() -> Vec<u8> + use<> {
    // SAFETY: no pointers, and a live name.
    let (socket, index) = unsafe {
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let protocol = i32::from((libc::ETH_P_IP as u16).to_be());
        (libc::socket(libc::AF_PACKET, kind, protocol), libc::if_nametoindex(interface.as_ptr()))
    };
    assert!(socket >= 0 && index > 0);
    // SAFETY: a descriptor just made; an all-zero address is a valid value.
    let (socket, mut at) =
        unsafe { (OwnedFd::from_raw_fd(socket), std::mem::zeroed::<libc::sockaddr_ll>()) };
    at.sll_family = libc::AF_PACKET as u16;
    at.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    at.sll_ifindex = index as i32;
    let len = size_of_val(&at) as u32;
    // SAFETY: a live address of that length.
    assert_eq!(unsafe { libc::bind(socket.as_raw_fd(), (&raw const at).cast(), len) }, 0);
    move || {
        let mut classes = Vec::new();
        let mut packet = [0u8; 256];
        loop {
            let (to, len) = (packet.as_mut_ptr().cast(), packet.len());
            // SAFETY: a live buffer of that length.
            let len = unsafe { libc::recv(socket.as_raw_fd(), to, len, libc::MSG_TRUNC) };
            if len < 0 {
                return classes;
            }
            // IPv4 without options, UDP, to RoCE's port.
            if packet[0] == 0x45 && packet[9] == 17 && packet[22..24] == 4791u16.to_be_bytes() {
                classes.push(packet[1]);
            }
        }
    }
}

#[test]
fn packets_are_marked_as_the_configuration_says() {
    let Some(mut places) = adapters() else { return };
    for traffic_class in [0, 104] {
        places[0].marks = Marks { traffic_class, service_level: 3 };
        let (mut a, mut b) = pair(&places, |offer| offer);
        let mut classes = classes_at(c"eth-b");
        a.link.attach(CONTROL, 0);
        b.link.open(CONTROL, 0);
        a.publish(CONTROL, b"marked");
        a.flush();
        until("it arrives", || b.link.refresh() && b.link.head(CONTROL) > 0);
        let classes = classes();
        assert!(
            !classes.is_empty() && classes.iter().all(|&class| class == traffic_class),
            "{classes:?}"
        );
    }
}

/// Neither end looks while both post and ring as much as they may, and ask for every completion: their queues are full.
#[test]
fn a_full_completion_queue_loses_nothing() {
    let Some(places) = adapters() else { return };
    let (a, b) = pair(&places, |offer| offer);
    let mut ends = [a, b];
    for end in &mut ends {
        end.link.attach(GROUP, 0);
        end.link.open(GROUP, 0);
        end.publish(GROUP, b"not known to be read");
        end.flush();
        end.link.floor(GROUP, u64::MAX);
    }
    let flushes = 2 * u64::from(SENDS.max(RECEIVES));
    for value in 1..=flushes {
        for end in &mut ends {
            end.own.set_word(GROUP, 0, value);
            end.flush();
        }
    }
    // All that goes without a look has gone.
    std::thread::sleep(Duration::from_millis(200));
    until("the last value at both", || {
        ends.iter_mut().for_each(|end| {
            end.link.refresh();
            end.flush();
        });
        ends.iter().all(|end| end.link.word(GROUP, 0) == flushes)
    });
    for end in &ends {
        assert_eq!(end.link.failure(), None);
        assert!(end.place.device.event().is_none(), "the adapter reports trouble");
    }
}

/// How many huge pages of 2 MiB there are, and how many are free.
fn huge_pages() -> [u64; 2] {
    let at = "/sys/kernel/mm/hugepages/hugepages-2048kB";
    ["nr_hugepages", "free_hugepages"].map(|name| {
        let text = std::fs::read_to_string(format!("{at}/{name}")).expect("huge pages");
        text.trim().parse().expect("a number")
    })
}

#[test]
fn an_inbox_is_of_huge_pages_where_there_are_and_all_are_given_back() {
    let Some(places) = adapters() else { return };
    let lanes = vec![LaneSpec { name: "control", words: 3, log_bytes: 1 << 20 }];
    for set_aside in [0, 3] {
        std::fs::write("/proc/sys/vm/nr_hugepages", set_aside.to_string()).unwrap();
        assert_eq!(huge_pages(), [set_aside; 2]);
        let make = |place| {
            let source = Arc::new(Memory::anonymous(1 << 20).unwrap());
            let ring = Ring::new(source.clone(), 0, 1 << 20);
            let own = Own::new(&lanes, vec![ring], &Waker::new(Bell::new().unwrap()));
            let link = VerbsLink::new(place, &source, &lanes).unwrap();
            let offer = link.offer(place, 0, 77, 0);
            End { own, source, place: place.clone(), link, offer }
        };
        let (mut a, mut b) = (make(&places[0]), make(&places[1]));
        assert_eq!(huge_pages()[1], set_aside.saturating_sub(2), "one for each inbox");
        let (from_a, from_b) = (a.offer, b.offer);
        a.connect(&from_b);
        b.connect(&from_a);
        a.link.attach(CONTROL, 0);
        b.link.open(CONTROL, 0);
        let text = vec![7; 300_000];
        a.publish(CONTROL, &text);
        a.flush();
        until("it arrives", || b.link.refresh() && b.link.head(CONTROL) > 0);
        assert_eq!(b.link.peek(CONTROL, 0).expect("a record").payload, text);
        drop((a, b));
        assert_eq!(huge_pages(), [set_aside; 2]);
    }
    std::fs::write("/proc/sys/vm/nr_hugepages", "0").unwrap();
}

#[test]
fn nothing_is_left_behind() {
    let Some(places) = adapters() else { return };
    let resources = || {
        let output = Command::new("rdma").args(["resource", "show"]).output().expect("rdma");
        let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
        (String::from_utf8_lossy(&output.stdout).into_owned(), fds)
    };
    let before = resources();
    for round in 0..200 {
        let (mut a, mut b) = pair(&places, |offer| offer);
        a.link.attach(CONTROL, 0);
        b.link.open(CONTROL, 0);
        a.publish(CONTROL, b"round");
        a.flush();
        // Some end in the middle of a transfer, some frozen first.
        if round % 2 == 0 {
            until("it arrives", || b.link.refresh() && b.link.head(CONTROL) > 0);
            b.link.freeze();
            assert_eq!(b.link.peek(CONTROL, 0).expect("frozen, and readable").payload, b"round");
        }
        drop((a.source.clone(), b));
    }
    assert_eq!(resources(), before);
}

#[test]
fn the_binary_needs_no_rdma_library() {
    let ldd = Command::new("ldd").arg(std::env::current_exe().unwrap()).output().expect("ldd");
    let needed = String::from_utf8_lossy(&ldd.stdout);
    assert!(needed.contains("libc.so"), "{needed}");
    assert!(!needed.contains("ibverbs") && !needed.contains("rdmacm"), "{needed}");
}
