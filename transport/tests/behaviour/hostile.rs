//! A writer in shared memory that has gone mad, with real processes: it scribbles over its own segment, which its peer
//! maps and reads, and tries to pull it from under the reader. The reader goes on, and says why the link ended.

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use quintet_transport::*;

use crate::harness::*;

/// Offsets in a segment, as shm/layout.rs has them: what is scribbled over, and how the link must end.
const PLACES: [(&str, usize, usize, &[Evidence]); 5] = [
    ("ends of logs", 528, 592, &[Evidence::ClosedByPeer, Evidence::Malformed]),
    ("reclaimed ends", 1024, 1088, &[Evidence::ClosedByPeer, Evidence::Malformed]),
    ("rows of peers", 4096, 20_480, &[Evidence::ClosedByPeer]),
    ("words and logs", 24_576, usize::MAX, &[Evidence::ClosedByPeer, Evidence::Malformed]),
    (
        "all of it",
        0,
        usize::MAX,
        &[
            Evidence::ClosedByPeer,
            Evidence::Malformed,
            Evidence::ProcessExited,
            Evidence::HeartbeatMissed,
        ],
    ),
];

/// The words of this process's only segment.
fn own_segment() -> &'static [AtomicU64] {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|l| l.contains("memfd:quintet-") && l.contains(" rw-s ")).unwrap();
    let (from, rest) = line.split_once('-').unwrap();
    let [from, to] = [from, rest.split_once(' ').unwrap().0]
        .map(|address| usize::from_str_radix(address, 16).unwrap());
    // SAFETY: mapped, writable, and for as long as the poller lives, which is to the end of this process.
    unsafe { std::slice::from_raw_parts(from as *const AtomicU64, (to - from) / 8) }
}

/// The kernel lets nobody change the segment's size, nor map it writable once more.
fn cannot_be_pulled_away() {
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| {
        let name = fs::read_link(fd.path()).ok()?;
        name.to_string_lossy().contains("memfd:quintet-").then(|| fd.path())
    });
    let mut tried = 0;
    for path in files {
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        for length in [0, 4096, 1 << 30] {
            assert!(file.set_len(length).is_err(), "its size can be changed to {length}");
        }
        let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: plain numbers.
        let punched = unsafe { libc::fallocate(file.as_raw_fd(), hole, 0, 4096) };
        assert_ne!(punched, 0, "a page can be taken away");
        tried += 1;
    }
    assert!(tried > 0, "no segment was found");
}

/// Not a test by itself: scribbles from T_FROM to T_TO, and publishes and beats meanwhile.
#[test]
fn scribbler() {
    let Some(config) = child_config() else { return };
    let number = |name| child_argument(name).unwrap().parse::<usize>().unwrap();
    let mut node = Node::new(config);
    until(std::slice::from_mut(&mut node), "it is linked", |n| n[0].try_link(1).is_some());
    let link = node.link(1);
    node.poller.attach(link, GROUP, 0);
    cannot_be_pulled_away();
    node.poller.set_word(CONTROL, 0, 1);
    node.turn();
    let segment = own_segment();
    let (from, to) = (number("T_FROM") / 8, (number("T_TO") / 8).min(segment.len()));
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for index in 0.. {
        // What is published is sound when it is; what it says of its ring need not be.
        node.send(GROUP, index, &[7; 100]);
        node.turn();
        for _ in 0..64 {
            let word = &segment[from + random() as usize % (to - from)];
            let value = match random() % 4 {
                0 => random(),
                1 => random() % 5000,
                2 => ((random() % 4) << 32) | (random() % 5000),
                _ => word.load(Ordering::Relaxed) ^ 1 << (random() % 64),
            };
            word.store(value, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_scribbling_writer_harms_no_reader() {
    for (what, from, to, ends) in PLACES {
        let configs = configs(2, PathPolicy::Shm);
        let mut arguments = as_arguments(&configs[1]);
        arguments.extend([("T_FROM", from.to_string()), ("T_TO", to.to_string())]);
        let mut nodes = vec![Node::new(configs[0].clone())];
        let process = Process::start("hostile::scribbler", &arguments);
        until(&mut nodes, "the scribbler is linked", |nodes| nodes[0].try_link(2).is_some());
        let link = nodes[0].link(2);
        nodes[0].poller.open(link, GROUP, 0);
        let bytes = nodes[0].poller.peer_bytes(link, GROUP).unwrap();
        let mut at = [nodes[0].control_from(link), 0];
        let mut sum = 0u64;
        until(&mut nodes, what, |nodes| {
            let poller = &mut nodes[0].poller;
            for (lane, at) in [CONTROL, GROUP].into_iter().zip(&mut at) {
                for word in 0..8 {
                    sum ^= poller.peer_word(link, lane, word);
                }
                while let Some(record) = poller.peek(link, lane, *at) {
                    assert!(record.end > *at, "{what}: a record ends behind its beginning");
                    sum = record
                        .payload
                        .iter()
                        .fold(sum, |sum, &byte| sum.rotate_left(1) ^ u64::from(byte));
                    let _ = bytes.intact(record.position);
                    *at = record.end;
                }
                poller.release(link, lane, *at);
            }
            nodes[0].dead(link).is_some()
        });
        std::hint::black_box(sum);
        let evidence = nodes[0].dead(link).unwrap();
        assert!(ends.contains(&evidence), "{what}: {evidence:?}");
        drop(process);
        // The node itself is as good as before.
        nodes[0].poller.forget(link);
        let mut sound = configs[1].clone();
        sound.me.incarnation.0 += 1;
        nodes.push(Node::new(sound));
        until(&mut nodes, "a sound peer is linked", |nodes| nodes[0].try_link(2) != Some(link));
    }
}
