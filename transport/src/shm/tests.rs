//! Segments of strangers: whatever they hold, a reader refuses it or reads on, but never crashes. And meetings.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use proptest::prelude::*;

use super::hello::{Greeting, Message};
use super::layout::*;
use super::rendezvous::{Rendezvous, Scene, Standing};
use super::replica::Replica;
use super::segment::Segment;
use super::socket;
#[cfg(feature = "verbs")]
use crate::config::PathPolicy;
use crate::config::{Config, PeerConfig};
use crate::id::{Member, NodeId};
use crate::lane::{GROUP, LaneId, LaneSpec};
use crate::log::Reader;
use crate::memory::Memory;
use crate::time::Time;
use crate::wait::Bell;

fn config() -> Config {
    let mut config = Config::new("hostile", Member::new(1, 7), "127.0.0.1:0".parse().unwrap());
    config.lanes = vec![
        LaneSpec { name: "control", words: 8, log_bytes: 4096 },
        LaneSpec { name: "group", words: 8, log_bytes: 4096 },
    ];
    config
}

fn segment() -> (Segment, OwnedFd) {
    let segment = Segment::new(&config()).map_err(|(_, e)| e).unwrap();
    let file = segment.file().try_clone_to_owned().unwrap();
    (segment, file)
}

#[test]
fn a_sound_segment_is_mapped_read_only() {
    let (segment, file) = segment();
    let replica = Replica::map(&file, 2, 3).unwrap();
    assert_eq!(replica.member(), Member::new(1, 7));
    assert!(!replica.owner_died());
    drop(segment);
    assert!(!replica.owner_died(), "a dropped poller is not a dead process");
    // The seal: nobody can map it writable any more.
    let len = config().lanes.iter().map(|l| l.log_bytes).sum::<usize>();
    assert!(Memory::shared(file.as_fd(), len, true).is_err());
    assert!(Replica::map(&file, 3, 0).is_err(), "another number of lanes");
    assert!(Replica::map(&file, 2, 64).is_err(), "no such row");
}

/// Writes the host's settings, so only where nobody else lives: in the guest of scripts/soft-roce-vm.
#[cfg(feature = "verbs")]
#[test]
fn adapters_read_logs_from_huge_pages_where_there_are() {
    if std::env::var_os("QUINTET_RXE").is_none() {
        return crate::skip::skip("no adapters: run it with scripts/soft-roce-vm");
    }
    let set_aside = |count: u64| {
        std::fs::write("/proc/sys/vm/nr_hugepages", count.to_string()).unwrap();
    };
    let free = || {
        let at = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
        std::fs::read_to_string(at).expect("huge pages").trim().parse::<u64>().expect("a number")
    };
    let mut config = config();
    config.lanes[1].log_bytes = 2 << 20;
    config.verbs.trusted_fabric = true;
    // The log's own size, and not quite another of everything else.
    for (pages, taken) in [(0, 0), (1, 0), (3, 2)] {
        set_aside(pages);
        assert_eq!(free(), pages, "as many as asked for");
        let segment = Segment::new(&config).map_err(|(_, e)| e).unwrap();
        assert_eq!(pages - free(), taken);
        let file = segment.file().try_clone_to_owned().unwrap();
        let replica = Replica::map(&file, 2, 3).expect("peers of this host read it all the same");
        assert_eq!(replica.member(), Member::new(1, 7));
        assert!(Memory::shared(file.as_fd(), segment.memory().len(), true).is_err(), "sealed");
        drop((segment, replica, file));
        assert_eq!(free(), pages, "all are given back");
    }
    set_aside(8);
    for path in [PathPolicy::Shm, PathPolicy::Udp] {
        let config = Config { path, ..config.clone() };
        let _segment = Segment::new(&config).map_err(|(_, e)| e).unwrap();
        assert_eq!(free(), 8, "no adapter will read it");
    }
    set_aside(0);
}

#[test]
fn files_that_could_hurt_are_refused() {
    let plain = OwnedFd::from(tempfile::tempfile().unwrap());
    assert!(Replica::map(&plain, 2, 0).err().unwrap().contains("sealed"));
    let (pipe, _other) = std::io::pipe().unwrap();
    assert!(Replica::map(&OwnedFd::from(pipe), 2, 0).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn a_reader_survives_any_header_and_any_log(
        header in prop::collection::vec((0usize..128, prop_oneof![any::<u64>(), 0u64..40_000]), 0..6),
        log in prop::collection::vec((0usize..512, prop_oneof![any::<u64>(), (0u64..5, 0u64..5000).prop_map(|(k, l)| k << 32 | l)]), 0..60),
        head in prop_oneof![any::<u64>(), (0u64..600).prop_map(|n| n * 8)],
        at in any::<u64>(),
    ) {
        let (segment, file) = segment();
        let owner = segment.memory_for_test();
        for (word, value) in header {
            owner.word(8 * word).store(value, std::sync::atomic::Ordering::Relaxed);
        }
        let (places, _) = plan(&config().lanes);
        for (word, value) in log {
            owner.word(places[1].log_at + 8 * word).store(value, std::sync::atomic::Ordering::Relaxed);
        }
        if let Ok(replica) = Replica::map(&file, 2, 5) {
            for lane in [LaneId(0), GROUP] {
                for word in replica.words(lane) {
                    word.load(std::sync::atomic::Ordering::Relaxed);
                }
                let mut reader = Reader::new(replica.ring(lane), 0);
                let _ = reader.advance(head);
                let mut next = at & !7;
                for _ in 0..600 {
                    match reader.peek(next) {
                        Ok(Some(record)) => next = record.end,
                        _ => break,
                    }
                }
                reader.release(at);
                reader.skip();
                prop_assert!(reader.released() <= reader.visible());
            }
            let _ = (replica.turns(), replica.owner_died(), replica.echo(), replica.is_open(1));
        }
    }
}

/// Page faults of this thread so far that needed no disk.
fn faults() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is writable memory of the type getrusage fills; zeroed bytes are a valid rusage.
    unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init().ru_minflt
    }
}

#[test]
fn the_owner_meets_no_page_fault_where_it_first_writes() {
    let mut config = config();
    config.lanes[1].log_bytes = 4 << 20;
    let segment = Segment::new(&config).map_err(|(_, e)| e).unwrap();
    let memory = segment.memory_for_test();
    let before = faults();
    let end = memory.len() / 8 * 8;
    for at in (end - (4 << 20)..end).step_by(4096) {
        memory.word(at).store(1, std::sync::atomic::Ordering::Relaxed);
    }
    let met = faults() - before;
    assert!(met < 64, "{met} faults in 1024 pages");
}

static ROW: AtomicPtr<AtomicU64> = AtomicPtr::new(null_mut());
static SEEN: AtomicU64 = AtomicU64::new(0);

/// Notes what the row holds.
extern "C" fn look(_signal: libc::c_int) {
    let row = ROW.load(Ordering::Relaxed);
    // SAFETY: null, or the word of a segment that outlives the signals; loads and stores are safe in a handler.
    if let Some(row) = unsafe { row.as_ref() } {
        SEEN.fetch_max(row.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The kernel interrupts the one that welcomes as soon as the welcome is there: a peer on another processor is as fast.
#[test]
fn a_row_is_open_before_the_peer_is_told_of_it() {
    let me = "127.0.0.1:0".parse().unwrap();
    let cluster = format!("row-{}", std::process::id());
    let mut config = Config { cluster: cluster.clone(), ..config() };
    config.peers = vec![PeerConfig { node: NodeId(2), addr: me }];
    let segment = Segment::new(&config).map_err(|(_, e)| e).unwrap();
    let mut host = Rendezvous::new(&config, Time::ZERO).unwrap();

    let mut guest = Config::new(&cluster, Member::new(2, 8), me);
    guest.lanes = config.lanes.clone();
    let (theirs, bell) = (Segment::new(&guest).map_err(|(_, e)| e).unwrap(), Bell::new().unwrap());
    let pidfd = socket::own_pidfd().unwrap();
    let to_host = socket::connect(&format!("quintet/{cluster}/1")).unwrap();
    let (from, to, session) = (guest.me, NodeId(1), 5);
    let hello = Greeting { from, to, row: 0, session, control_from: 0, cluster };
    let fds = [theirs.file(), bell.fd(), pidfd.as_fd()];
    socket::send(&to_host, &Message::Hello(hello).encode(), &fds).unwrap();

    let memory = segment.memory_for_test();
    ROW.store(std::ptr::from_ref(memory.word(row(0) + ROW_SESSION)).cast_mut(), Ordering::Relaxed);
    // SAFETY: the handler only loads and stores; this thread is the one to be interrupted.
    unsafe {
        libc::signal(libc::SIGIO, look as *const () as libc::sighandler_t);
        let owner = [0, libc::gettid()]; // F_OWNER_TID
        assert_eq!(libc::fcntl(to_host.as_raw_fd(), 15 /* F_SETOWN_EX */, &owner), 0);
        let flags = libc::fcntl(to_host.as_raw_fd(), libc::F_GETFL);
        assert_eq!(libc::fcntl(to_host.as_raw_fd(), libc::F_SETFL, flags | libc::O_ASYNC), 0);
    }
    let (bell, standings) = (Bell::new().unwrap(), [Standing::default()]);
    let scene = Scene { segment: &segment, bell: &bell, control_head: 0, standings: &standings };
    while !socket::readable(to_host.as_fd()) {
        host.poll(Time::ZERO, &scene, &mut Vec::new());
    }
    ROW.store(null_mut(), Ordering::Relaxed);
    let Some(answer) = socket::receive(&to_host).unwrap() else { panic!("no answer") };
    let Ok(Message::Welcome(welcome)) = Message::decode(answer.message()) else {
        panic!("refused")
    };
    assert_eq!(SEEN.load(Ordering::Relaxed), open(welcome.session));
}
