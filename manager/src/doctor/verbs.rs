//! RDMA: whether there is an adapter, and a library to speak to it with.
//!
//! What each adapter, port and address is worth is for the transport's own discovery to say, where there is an adapter;
//! its findings become checks of this area, beside the two here.

use super::{Check, Host, Judgement, fine, not_applicable, problem, system, warning};
use crate::config::{Config, PathChoice};
use quintet_transport::{Finding, Marks, Verdict as Worth, discover_verbs};

const AREA: &str = "rdma";
const WHY_PATH: &str = "a daemon that may use verbs alone does not start without them; another one does, and says so in its log";

const WHY_MARKS: &str = "switches that keep RDMA apart, and lose none of it, know it by transport.traffic_class or service_level";

const WHY_PARTITION: &str = "InfiniBand keeps partitions apart: ports hear each other in the same one, if one of the two is a full member";

/// What was seen.
pub(super) struct Facts {
    /// Names in /sys/class/infiniband.
    adapters: Vec<String>,
    /// Loading libibverbs: what the loader said if it could not.
    library: Result<(), String>,
    /// Of the transport's discovery; none without an adapter.
    findings: Vec<Finding>,
    /// What packets are marked with.
    marks: Marks,
    /// The partitions' keys of each port, and the one that is configured.
    partitions: Vec<(String, Vec<u16>)>,
    partition: Option<u16>,
    /// The configuration forbids every other path.
    only: bool,
    /// It says that the fabric is to be trusted, and leaves the path open: it counts on verbs.
    hoped: bool,
}

impl Facts {
    pub(super) fn look(host: &Host, config: Option<&Config>) -> Facts {
        let adapters = host.names("sys/class/infiniband");
        let device = config.and_then(|config| config.transport.device.as_deref());
        let partition = config.and_then(|config| config.transport.partition);
        let found = (!adapters.is_empty()).then(|| discover_verbs(device, partition));
        Facts {
            partitions: partitions(host, &adapters),
            partition,
            adapters,
            findings: found.map_or_else(Vec::new, |report| report.findings),
            library: system::loadable(c"libibverbs.so.1"),
            marks: config.map_or_else(Marks::default, |config| Marks {
                traffic_class: config.transport.traffic_class,
                service_level: config.transport.service_level,
            }),
            only: config.is_some_and(|config| config.transport.path == PathChoice::Verbs),
            hoped: config.is_some_and(|config| {
                config.transport.path == PathChoice::Auto && config.transport.trusted_fabric
            }),
        }
    }

    pub(super) fn judge(&self) -> Vec<Check> {
        let why_adapters =
            "peers with adapters on both sides could be linked by RDMA; all others use UDP";
        let why_library =
            "adapters are spoken to through libibverbs, which is looked for when the daemon starts";
        let mut checks = vec![
            Check::new(AREA, "adapters", why_adapters, adapters(&self.adapters)),
            Check::new(AREA, "libibverbs", why_library, library(&self.adapters, &self.library)),
        ];
        if !self.adapters.is_empty() {
            checks.push(Check::new(AREA, "marks", WHY_MARKS, fine(self.marks.to_string())));
        }
        if self.partitions.iter().any(|(_, keys)| !keys.is_empty()) {
            let found = judge_partition(&self.partitions, self.partition);
            checks.push(Check::new(AREA, "partition", WHY_PARTITION, found));
        }
        let of = |f: &Finding| Check::new(AREA, f.subject.clone(), why_adapters, finding(f));
        checks.extend(self.findings.iter().map(of));
        let usable = self.findings.iter().any(|f| f.verdict == Worth::Usable);
        if self.hoped && !usable {
            let found = "trusted_fabric is stated, and no adapter here is usable: links between hosts go over UDP";
            let fix = "put right what is said above, or leave trusted_fabric out";
            checks.push(Check::new(AREA, "path", WHY_PATH, warning(found, fix)));
        }
        if self.only && !usable {
            let found = "transport.path is \"verbs\", and no adapter here is usable";
            let fix = "put right what is said above, or set transport.path = \"auto\"";
            checks.push(Check::new(AREA, "path", WHY_PATH, problem(found, fix)));
        }
        checks
    }
}

fn adapters(names: &[String]) -> Judgement {
    if names.is_empty() {
        not_applicable("none (/sys/class/infiniband is empty or not there)")
    } else {
        fine(names.join(", "))
    }
}

/// The partitions' keys of each port of each adapter. Empty entries of the tables are left out.
fn partitions(host: &Host, adapters: &[String]) -> Vec<(String, Vec<u16>)> {
    let mut found = Vec::new();
    for adapter in adapters {
        let ports = format!("sys/class/infiniband/{adapter}/ports");
        for port in host.names(&ports) {
            let table = format!("{ports}/{port}/pkeys");
            let mut indices: Vec<u16> =
                host.names(&table).iter().filter_map(|name| name.parse().ok()).collect();
            indices.sort_unstable();
            let key = |index: &u16| {
                let text = host.text(&format!("{table}/{index}"))?;
                u16::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
            };
            let keys = indices.iter().filter_map(key).filter(|key| key & 0x7fff != 0).collect();
            found.push((format!("{adapter} port {port}"), keys));
        }
    }
    found
}

/// Whether a port is in the partition that is configured, or else in the default one, as a full member.
fn judge_partition(ports: &[(String, Vec<u16>)], wanted: Option<u16>) -> Judgement {
    let listed: Vec<String> = ports
        .iter()
        .map(|(port, keys)| {
            let keys: Vec<String> = keys.iter().map(|key| format!("{key:#06x}")).collect();
            format!("{port}: {}", keys.join(", "))
        })
        .collect();
    let listed = listed.join("; ");
    let used = |keys: &[u16]| match wanted {
        Some(wanted) => keys.iter().copied().filter(|key| (key ^ wanted) & 0x7fff == 0).max(),
        None => keys.first().copied(),
    };
    let used: Vec<u16> = ports.iter().filter_map(|(_, keys)| used(keys)).collect();
    match (wanted, used.iter().any(|key| key & 0x8000 != 0)) {
        (Some(wanted), _) if used.is_empty() => warning(
            format!("no port is in partition {wanted:#06x} ({listed})"),
            "let the subnet manager add the ports to it, or set transport.partition to one of these keys on all nodes",
        ),
        (_, false) => warning(
            format!("only limited members of it are here ({listed})"),
            "let the subnet manager make the ports of the nodes full members: two limited ones do not hear each other",
        ),
        _ => fine(listed),
    }
}

/// Without RDMA a node uses UDP, unless its configuration forbids that.
fn finding(finding: &Finding) -> Judgement {
    match &finding.verdict {
        Worth::Usable => fine("usable"),
        Worth::Note { reason, fix } | Worth::Unusable { reason, fix } => {
            warning(reason.clone(), fix.clone())
        }
    }
}

fn library(adapters: &[String], tried: &Result<(), String>) -> Judgement {
    match tried {
        Ok(()) => fine("can be loaded"),
        Err(said) if adapters.is_empty() => not_applicable(format!("{said}; no adapter needs it")),
        Err(said) => {
            warning(said.clone(), "apt install libibverbs1 ibverbs-providers (or rdma-core)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::*;
    use super::super::host::plant;
    use super::*;

    #[test]
    fn a_missing_library_matters_where_there_is_an_adapter() {
        let missing = Err("libibverbs.so.1: cannot open shared object file".to_owned());
        let adapter = ["mlx5_0".to_owned()];
        assert_eq!(
            (library(&[], &missing).0, library(&adapter, &missing).0),
            (NotApplicable, Warning)
        );
        assert_eq!(library(&adapter, &std::result::Result::Ok(())).0, Ok);
        assert_eq!((adapters(&[]).0, adapters(&adapter).0), (NotApplicable, Ok));
        let no_address = Worth::Unusable { reason: "no GID".into(), fix: "bring it up".into() };
        let of = |verdict| finding(&Finding { subject: "mlx5_0 port 1".into(), verdict });
        assert_eq!((of(Worth::Usable).0, of(no_address).2), (Ok, Some("bring it up".into())));
        let (_dir, host) = plant(&[("sys/class/infiniband/rxe0/ports/1/state", "4: ACTIVE")]);
        let facts = Facts::look(&host, None);
        assert_eq!(facts.adapters, ["rxe0"]);
        assert!(!facts.findings.is_empty() && facts.judge().len() == 3 + facts.findings.len());
        let told = facts.judge();
        let marks = told.iter().find(|check| check.name == "marks").expect("a check");
        assert_eq!(marks.found, "traffic class 0, service level 0");
    }

    #[test]
    fn the_partition_is_looked_for_among_those_of_the_ports() {
        let at = "sys/class/infiniband/mlx5_0/ports/1/pkeys";
        let keys = [("0", "0x7fff\n"), ("1", "0x8001\n"), ("2", "0x0000\n"), ("10", "0x0002\n")];
        let files = keys.map(|(index, key)| (format!("{at}/{index}"), key));
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, key)| (path.as_str(), *key)).collect();
        let (_dir, host) = plant(&files);
        let ports = partitions(&host, &["mlx5_0".to_owned()]);
        assert_eq!(ports, [("mlx5_0 port 1".to_owned(), vec![0x7fff, 0x8001, 0x0002])]);
        let judged = |wanted| judge_partition(&ports, wanted);
        let (verdict, found, _) = judged(Some(0x0001));
        assert_eq!((verdict, found.as_str()), (Ok, "mlx5_0 port 1: 0x7fff, 0x8001, 0x0002"));
        for (wanted, said) in [(None, "limited"), (Some(2), "limited"), (Some(3), "0x0003")] {
            let (verdict, found, fix) = judged(wanted);
            assert!(verdict == Warning && found.contains(said) && fix.is_some(), "{found}");
        }
    }

    #[test]
    fn that_nothing_is_usable_is_said_where_verbs_are_counted_on() {
        let worst = |only, hoped, findings: &[Worth]| {
            let of = |verdict: &Worth| Finding { subject: "rxe0".into(), verdict: verdict.clone() };
            let findings = findings.iter().map(of).collect();
            let (adapters, marks) = (vec![], Marks::default());
            let library = Result::Ok(());
            let partitions = vec![];
            let partition = None;
            let facts =
                Facts { adapters, library, findings, marks, partitions, partition, only, hoped };
            let checks = facts.judge();
            checks.iter().find(|check| check.name == "path").map(|check| check.verdict)
        };
        let down = Worth::Unusable { reason: "no GID".into(), fix: "bring it up".into() };
        assert_eq!(worst(true, false, &[]), Some(Problem));
        assert_eq!(worst(true, false, std::slice::from_ref(&down)), Some(Problem));
        assert_eq!(worst(false, true, std::slice::from_ref(&down)), Some(Warning));
        for (only, hoped) in [(true, false), (false, true)] {
            assert_eq!(worst(only, hoped, &[down.clone(), Worth::Usable]), None);
        }
        assert_eq!(worst(false, false, &[down]), None);
    }
}
