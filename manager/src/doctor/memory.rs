//! Memory for lanes and their replicas, and how many files may be open.

use super::{Check, Host, Judgement, fine, not_applicable, problem, system, unknown, warning};
use crate::config::Config;
use crate::limits::Limits;

const AREA: &str = "memory";
/// Files of a daemon besides its clients: journal, libraries, sockets and eventfds.
const OWN_FILES: u64 = 128;
/// Files for one peer: sockets, its memory, its pidfd.
const PEER_FILES: u64 = 8;

/// What was seen.
pub(super) struct Facts {
    need: Need,
    /// Making shared memory of that size and sealing it: what the kernel said if it refused.
    lanes: Result<(), String>,
    /// Bytes that can be had without swapping.
    available: Option<u64>,
    /// The cgroups' smallest limit, bytes.
    bound: Option<u64>,
    /// RLIMIT_NOFILE, RLIMIT_MEMLOCK.
    files: Option<u64>,
    locked: Option<u64>,
    /// Of the default size: how many there are.
    hugepages: Option<u64>,
    rdma: bool,
}

/// What a daemon of that configuration wants.
struct Need {
    /// Bytes of its own lanes.
    lanes: u64,
    /// These, and replicas of all peers' lanes: what UDP keeps.
    all: u64,
    /// What is registered with adapters: for every peer its inbox, and the own lanes once more, since what one peer's
    /// queue pair may use is no other's. The kernel counts each time.
    registered: u64,
    files: u64,
}

impl Need {
    fn of(config: Option<&Config>) -> Need {
        let sizes = quintet_vsync::Limits::default();
        let lanes = (sizes.control_log + sizes.group_log + sizes.bulk_log) as u64 + (64 << 10);
        let nodes = config.map_or(3, |config| config.nodes.len()) as u64;
        let registered = 2 * lanes * nodes.saturating_sub(1);
        let limits = config.map_or_else(Limits::default, |config| config.limits.clone());
        let files = OWN_FILES + limits.connections as u64 + PEER_FILES * nodes;
        Need { lanes, all: lanes * nodes, registered, files }
    }
}

impl Facts {
    pub(super) fn look(host: &Host, config: Option<&Config>) -> Facts {
        let need = Need::of(config);
        let kilobytes = |path, key| -> Option<u64> {
            let value = host.line(path, key)?;
            value.split(' ').next()?.parse::<u64>().ok()?.checked_mul(1024)
        };
        Facts {
            lanes: system::sealed_memory(need.lanes).map_err(|error| error.to_string()),
            available: kilobytes("proc/meminfo", "MemAvailable"),
            bound: bound(host),
            files: system::limit(libc::RLIMIT_NOFILE),
            locked: system::limit(libc::RLIMIT_MEMLOCK),
            hugepages: host.line("proc/meminfo", "HugePages_Total").and_then(|n| n.parse().ok()),
            rdma: host.has("sys/class/infiniband"),
            need,
        }
    }

    pub(super) fn judge(&self) -> Vec<Check> {
        let why_lanes = "peers on the same host read a node's lanes where they are; unsealed they could be cut off beneath the reader";
        let why_room = "lanes and the replicas of peers' lanes are allocated whole at the start";
        let why_files = "each client connection takes a file, each peer some more";
        let why_locked = "memory that an adapter writes to must be locked";
        let why_huge = "an adapter knows few pages by heart: large ones spare it look-ups";
        let why_shm = "programs that keep shared memory there are bounded by its size";
        vec![
            Check::new(AREA, "sealed memory", why_lanes, lanes(&self.need, &self.lanes)),
            Check::new(AREA, "room", why_room, room(&self.need, self.available, self.bound)),
            Check::new(
                AREA,
                "/dev/shm",
                why_shm,
                not_applicable(
                    "not used: lanes are memory files without a name, which its size does not bound",
                ),
            ),
            Check::new(AREA, "open files", why_files, files(&self.need, self.files)),
            Check::new(
                AREA,
                "locked memory",
                why_locked,
                locked(&self.need, self.locked, self.rdma),
            ),
            Check::new(AREA, "hugepages", why_huge, hugepages(self.hugepages, self.rdma)),
        ]
    }
}

/// The tightest memory limit of the cgroups that this process is in.
fn bound(host: &Host) -> Option<u64> {
    let groups = host.text("proc/self/cgroup")?;
    let mut bounds = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (top, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            "memory" => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        let mut group = group.trim_matches('/');
        loop {
            bounds.extend(host.value::<u64>(&format!("{top}/{group}/{file}")));
            if group.is_empty() {
                break;
            }
            group = group.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }
    // The old hierarchy spells "no limit" as the largest number of pages.
    bounds.into_iter().filter(|bound| *bound < 1 << 60).min()
}

fn size(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mebibytes => format!("{mebibytes} MiB"),
    }
}

fn lanes(need: &Need, tried: &Result<(), String>) -> Judgement {
    match tried {
        Ok(()) => fine(format!("{} were allocated and sealed", size(need.lanes))),
        Err(said) => problem(
            format!("{} of shared memory are refused: {said}", size(need.lanes)),
            "free memory or raise the memory limit of the unit or container (MemoryMax=); sealing needs a kernel of 5.1 or later",
        ),
    }
}

fn room(need: &Need, available: Option<u64>, bound: Option<u64>) -> Judgement {
    let Some(available) = available else { return unknown("/proc/meminfo cannot be read") };
    let least = available.min(bound.unwrap_or(u64::MAX));
    let limit = bound.map_or_else(String::new, |bound| format!(", cgroup limit {}", size(bound)));
    let found =
        format!("{} available{limit}; lanes and replicas take {}", size(available), size(need.all));
    let fix = "free memory, or raise the limit (MemoryMax= of the unit, --memory of the container)";
    if least < need.all {
        problem(found, fix)
    } else if least / 4 < need.all {
        warning(found, fix)
    } else {
        fine(found)
    }
}

fn files(need: &Need, limit: Option<u64>) -> Judgement {
    match limit {
        None => unknown("getrlimit is refused"),
        Some(u64::MAX) => fine("no limit"),
        Some(limit) if limit < need.files => warning(
            format!("{limit}; with limits.connections full {} would be open", need.files),
            format!(
                "set LimitNOFILE={} in quintetd.service, or ulimit -n before the start",
                need.files.next_power_of_two()
            ),
        ),
        Some(limit) => fine(format!("{limit}, of which {} are needed at most", need.files)),
    }
}

fn locked(need: &Need, limit: Option<u64>, rdma: bool) -> Judgement {
    match limit {
        None => unknown("getrlimit is refused"),
        Some(u64::MAX) => fine("no limit"),
        Some(limit) if !rdma => not_applicable(format!(
            "{}; only RDMA locks memory, and there is no adapter",
            size(limit)
        )),
        Some(limit) if limit < need.registered => warning(
            format!(
                "{}; registering lanes and inboxes for all peers takes {}",
                size(limit),
                size(need.registered)
            ),
            "set LimitMEMLOCK=infinity in quintetd.service, or ulimit -l unlimited before the start",
        ),
        Some(limit) => fine(size(limit)),
    }
}

fn hugepages(count: Option<u64>, rdma: bool) -> Judgement {
    match count {
        None => unknown("/proc/meminfo does not tell"),
        Some(count) if !rdma => not_applicable(format!(
            "{count} reserved; only RDMA would use them, and there is no adapter"
        )),
        Some(0) => warning(
            "none reserved",
            "sysctl -w vm.nr_hugepages=64, and the same line in /etc/sysctl.d",
        ),
        Some(count) => fine(format!("{count} reserved")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::*;
    use super::super::host::plant;
    use super::*;

    const NEED: Need = Need { lanes: 13 << 20, all: 39 << 20, registered: 52 << 20, files: 1200 };

    #[test]
    fn room_is_judged_by_what_is_least() {
        let judge = |available: u64, bound: Option<u64>| {
            room(&NEED, Some(available << 20), bound.map(|b| b << 20)).0
        };
        assert_eq!((judge(1000, None), judge(100, None), judge(30, None)), (Ok, Warning, Problem));
        assert_eq!((judge(1000, Some(20)), judge(1000, Some(500))), (Problem, Ok));
        assert_eq!(room(&NEED, None, None).0, Unknown);
    }

    #[test]
    fn every_peer_costs_an_inbox_and_the_own_lanes_once_more() {
        let need = Need::of(None);
        assert_eq!((need.all, need.registered), (3 * need.lanes, 4 * need.lanes));
    }

    #[test]
    fn refused_memory_is_a_problem() {
        assert_eq!(lanes(&NEED, &Err("No space left on device".into())).0, Problem);
        assert_eq!(lanes(&NEED, &std::result::Result::Ok(())).0, Ok);
    }

    #[test]
    fn limits_are_judged_by_the_need() {
        let judge = |limit| files(&NEED, limit).0;
        assert_eq!(
            (judge(Some(1024)), judge(Some(4096)), judge(Some(u64::MAX))),
            (Warning, Ok, Ok)
        );
        assert!(files(&NEED, Some(1024)).2.unwrap().contains("LimitNOFILE=2048"));
        let judge = |limit, rdma| locked(&NEED, limit, rdma).0;
        assert_eq!(
            (judge(Some(65_536), false), judge(Some(65_536), true)),
            (NotApplicable, Warning)
        );
        assert_eq!((judge(Some(1 << 30), true), judge(Some(u64::MAX), true)), (Ok, Ok));
        assert_eq!((judge(Some(51 << 20), true), judge(Some(52 << 20), true)), (Warning, Ok));
        let said = locked(&NEED, Some(65_536), true).1;
        assert!(said.starts_with("64 KiB; ") && said.ends_with(" 52 MiB"), "{said}");
        assert_eq!(
            (hugepages(Some(0), false).0, hugepages(Some(0), true).0),
            (NotApplicable, Warning)
        );
        assert_eq!((hugepages(Some(8), true).0, hugepages(None, true).0), (Ok, Unknown));
    }

    #[test]
    fn cgroup_limits_are_found_in_either_hierarchy() {
        let (_dir, host) = plant(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max"),
            ("sys/fs/cgroup/a/memory.max", "1000"),
        ]);
        assert_eq!(bound(&host), Some(1000));
        let (_dir, host) = plant(&[
            ("proc/self/cgroup", "4:memory:/x\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712"),
        ]);
        assert_eq!(bound(&host), None);
        assert_eq!(bound(&plant(&[]).1), None);
    }
}
