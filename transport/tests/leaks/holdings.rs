//! What a process holds: descriptors, threads, mappings, memory, what its io_uring instances wait for, and what it has
//! of adapters.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

/// Bytes of private memory that an allocator may hold more than before, however little is used.
const SLACK_BYTES: u64 = 3 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Holdings {
    descriptors: Vec<String>,
    threads: usize,
    mappings: usize,
    /// Requests that io_uring instances hold, as far as this kernel tells.
    requests: usize,
    /// Queue pairs, completion queues, regions and domains, in all adapters.
    adapters: BTreeMap<String, u64>,
    private_bytes: u64,
    shared_bytes: u64,
}

impl Holdings {
    pub(crate) fn now() -> Holdings {
        let mut holdings = Holdings::once();
        // What the kernel does behind a call's back (the end of a thread, of an io_uring) gets time to be done.
        for _ in 0..50 {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let next = Holdings::once();
            holdings.threads = holdings.threads.min(next.threads);
            holdings.mappings = holdings.mappings.min(next.mappings);
            holdings.requests = holdings.requests.min(next.requests);
            for (what, count) in &mut holdings.adapters {
                *count = next.adapters.get(what).map_or(0, |next| (*next).min(*count));
            }
            if next.descriptors.len() < holdings.descriptors.len() {
                holdings.descriptors = next.descriptors;
            }
        }
        holdings
    }

    fn once() -> Holdings {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let kib = |key: &str| -> u64 {
            let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let mut descriptors: Vec<String> = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                Some(fs::read_link(path).ok()?.to_string_lossy().into_owned())
            })
            // The directory that is read is one, too.
            .filter(|name| !name.starts_with("/proc/"))
            .collect();
        descriptors.sort();
        Holdings {
            descriptors,
            threads: fs::read_dir("/proc/self/task").unwrap().count(),
            mappings: fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
            requests: requests(),
            adapters: adapters(),
            private_bytes: kib("RssAnon:") << 10,
            shared_bytes: kib("RssShmem:") << 10,
        }
    }

    /// Panics if this is more than `before`.
    pub(crate) fn is_no_more_than(&self, before: &Holdings) {
        assert!(
            self.descriptors.len() <= before.descriptors.len(),
            "descriptors: {:#?}\nbefore: {:#?}",
            self.descriptors,
            before.descriptors
        );
        assert!(self.threads <= before.threads, "threads: {self}, before {before}");
        let more = |(what, count): &(&String, &u64)| before.adapters.get(*what) < Some(*count);
        let more: Vec<_> = self.adapters.iter().filter(more).collect();
        assert!(more.is_empty(), "of adapters: {more:?}, before {:?}", before.adapters);
        // An allocator's arenas come and go by a few.
        assert!(self.mappings <= before.mappings + 6, "mappings: {self}, before {before}");
        assert!(self.requests <= before.requests + 2, "io_uring requests: {self}, before {before}");
        assert!(
            self.private_bytes <= before.private_bytes + SLACK_BYTES,
            "memory: {self}, before {before}"
        );
        assert!(
            self.shared_bytes <= before.shared_bytes + (256 << 10),
            "shared memory: {self}, before {before}"
        );
    }
}

/// What `rdma resource` counts, by adapter and kind; nothing where there is none. A line is `0: rxe0: pd 1 cq 1 qp 1 …`.
fn adapters() -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    if std::env::var_os("QUINTET_RXE").is_none() {
        return counts;
    }
    let output = std::process::Command::new("rdma").args(["resource", "show"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, adapter, kinds @ ..] = &words[..] else { panic!("{line}") };
        for kind in kinds.chunks_exact(2) {
            counts.insert(format!("{adapter} {}", kind[0]), kind[1].parse().unwrap());
        }
    }
    assert!(counts.keys().any(|kind| kind.ends_with(" qp")), "{counts:?}");
    counts
}

/// Lines about waiting requests in what the kernel says of io_uring descriptors.
fn requests() -> usize {
    let is_ring = |fd: &fs::DirEntry| {
        fs::read_link(fd.path()).is_ok_and(|name| name.to_string_lossy().contains("io_uring"))
    };
    let fds = fs::read_dir("/proc/self/fd").unwrap().flatten().filter(is_ring);
    let infos = fds.map(|fd| {
        let name = fd.file_name();
        let info = format!("/proc/self/fdinfo/{}", name.to_string_lossy());
        let text = fs::read_to_string(info).unwrap_or_default();
        text.lines().filter(|l| l.trim_start().starts_with("op=")).count()
    });
    infos.sum()
}

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} descriptors, {} threads, {} mappings, {} requests, {} KiB private, {} KiB shared",
            self.descriptors.len(),
            self.threads,
            self.mappings,
            self.requests,
            self.private_bytes >> 10,
            self.shared_bytes >> 10
        )
    }
}
