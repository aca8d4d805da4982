//! Segments of strangers: whatever they hold, a reader refuses it or reads on, but never crashes.

use std::os::fd::{AsFd, OwnedFd};

use proptest::prelude::*;

use super::layout::*;
use super::replica::Replica;
use super::segment::Segment;
use crate::config::Config;
use crate::id::Member;
use crate::lane::{GROUP, LaneId, LaneSpec};
use crate::log::Reader;
use crate::memory::Memory;

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
