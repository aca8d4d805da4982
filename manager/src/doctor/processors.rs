//! Processors: how many, how much of them, how fast they wake, and what the clock costs.

use super::{Check, Host, Judgement, fine, not_applicable, problem, unknown, warning};
use crate::config::{Config, NodeConfig, WaitChoice};
use std::net::SocketAddr;

const AREA: &str = "processors";

/// What was seen.
pub(super) struct Facts {
    supply: Supply,
    /// Having the driver of an adapter polled, where a node never sleeps: what the kernel said.
    busy_poll: Option<Result<(), String>>,
    /// Processors that the cgroups of this process may use on average, and which file says so.
    quota: Option<(f64, String)>,
    /// Governors in use, each once; empty without frequency scaling.
    governors: Vec<String>,
    /// `current_clocksource`.
    clock: Option<String>,
    pressure: Pressure,
    /// Ticks that the hypervisor took since boot, of all ticks.
    steal: Option<(u64, u64)>,
}

/// Processors against the threads that want one each.
struct Supply {
    processors: usize,
    /// Nodes of the configuration that have an address of this host; one without a configuration.
    pollers: usize,
    spins: bool,
}

/// `/proc/pressure/cpu`.
enum Pressure {
    /// The kernel has none.
    Missing,
    /// Part of the last ten seconds in which somebody waited, percent.
    Some(f64),
}

impl Facts {
    pub(super) fn look(host: &Host, config: Option<&Config>) -> Facts {
        let mut governors: Vec<String> = host
            .names("sys/devices/system/cpu")
            .iter()
            .filter_map(|cpu| {
                host.text(&format!("sys/devices/system/cpu/{cpu}/cpufreq/scaling_governor"))
            })
            .collect();
        governors.sort();
        governors.dedup();
        let avg10 = host.text("proc/pressure/cpu").and_then(|text| some_avg10(&text));
        let spins = config.is_some_and(|config| config.transport.wait == WaitChoice::Spin);
        let poll = || quintet_transport::probe_busy_poll().map_err(|error| error.to_string());
        Facts {
            busy_poll: spins.then(poll),
            supply: Supply {
                processors: std::thread::available_parallelism().map_or(1, |n| n.get()),
                pollers: config.map_or(1, pollers_here),
                spins,
            },
            quota: quota(host),
            governors,
            clock: host.text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            pressure: avg10.map_or(Pressure::Missing, Pressure::Some),
            steal: host.text("proc/stat").and_then(|text| stolen(&text)),
        }
    }

    pub(super) fn judge(&self) -> Vec<Check> {
        let why_supply = "each node has one thread that polls; one that waits for a processor is late for its peers";
        let why_busy_poll = "a node that never sleeps takes packets from the adapter itself, without waiting for its interrupt";
        let why_quota = "a node whose quota is used up stands still for the rest of the period, 100 ms as a rule, and is taken for dead";
        let why_governor = "a processor that must speed up first answers late after each pause";
        let why_clock = "the clock is read several times per turn; without the time-stamp counter each reading is a system call";
        let why_pressure = "a peer's silence is excused while this host is short of processors, if the kernel tells";
        let why_steal = "a virtual machine that gets no processor is silent without knowing it";
        vec![
            Check::new(AREA, "count", why_supply, supply(&self.supply)),
            Check::new(AREA, "busy polling", why_busy_poll, busy_poll(self.busy_poll.as_ref())),
            Check::new(AREA, "cgroup quota", why_quota, judge_quota(self.quota.as_ref())),
            Check::new(AREA, "governor", why_governor, governor(&self.governors)),
            Check::new(AREA, "clock source", why_clock, clock(self.clock.as_deref())),
            Check::new(AREA, "pressure", why_pressure, pressure(&self.pressure)),
            Check::new(AREA, "stolen time", why_steal, steal(self.steal)),
        ]
    }
}

fn busy_poll(tried: Option<&Result<(), String>>) -> Judgement {
    match tried {
        None => not_applicable("for wait = \"spin\" only"),
        Some(Ok(())) => fine("allowed; `quintet status` says whether the adapter can"),
        Some(Err(said)) => warning(
            format!("refused ({said})"),
            "give quintetd CAP_NET_ADMIN (AmbientCapabilities= in quintetd.service), or sysctl -w net.core.busy_read=50",
        ),
    }
}

/// Nodes that this host would run: those at the address of the configuration's own node.
fn pollers_here(config: &Config) -> usize {
    let first = |node: &NodeConfig| node.transport.0.first().map(SocketAddr::ip);
    let own = config.nodes.iter().find(|node| node.id == config.node).and_then(first);
    config.nodes.iter().filter(|node| first(node) == own).count().max(1)
}

fn supply(supply: &Supply) -> Judgement {
    let Supply { processors, pollers, spins } = *supply;
    let found = format!("{processors} processors, {pollers} polling");
    if spins && processors <= pollers {
        let found = format!("{found} without ever sleeping (wait = \"spin\")");
        problem(
            found,
            "set transport.wait = \"adaptive\", or give each node a processor and one to spare",
        )
    } else if processors < 2 {
        warning(found, "give the host a second processor: components run beside the poller")
    } else {
        fine(found)
    }
}

/// The smallest quota of the cgroups that this process is in.
fn quota(host: &Host) -> Option<(f64, String)> {
    let mut least: Option<(f64, String)> = None;
    let mut offer = |quota: Option<f64>, path: String| {
        if let Some(quota) = quota
            && least.as_ref().is_none_or(|(known, _)| quota < *known)
        {
            least = Some((quota, path));
        }
    };
    for line in host.text("proc/self/cgroup")?.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let mut groups = vec![group.trim_matches('/')];
        while let Some((parent, _)) = groups[groups.len() - 1].rsplit_once('/') {
            groups.push(parent);
        }
        groups.push("");
        for group in groups {
            let group = if group.is_empty() { String::new() } else { format!("{group}/") };
            if controllers.is_empty() {
                let path = format!("sys/fs/cgroup/{group}cpu.max");
                offer(host.text(&path).and_then(|text| max(&text)), path);
            } else if controllers.split(',').any(|controller| controller == "cpu") {
                let path = format!("sys/fs/cgroup/cpu/{group}cpu.cfs_quota_us");
                let period = host.value::<f64>(&path.replace("quota", "period"));
                let quota = host.value::<f64>(&path).filter(|quota| *quota > 0.0);
                offer(quota.zip(period).map(|(quota, period)| quota / period), path);
            }
        }
    }
    least
}

/// `cpu.max`: quota and period, or `max` for none.
fn max(text: &str) -> Option<f64> {
    let mut fields = text.split_ascii_whitespace();
    let (quota, period) =
        (fields.next()?.parse::<f64>().ok()?, fields.next()?.parse::<f64>().ok()?);
    (period > 0.0).then_some(quota / period)
}

fn judge_quota(quota: Option<&(f64, String)>) -> Judgement {
    let Some((quota, path)) = quota else { return fine("none") };
    let found = format!("{quota:.2} processors (/{path})");
    let fix = "take the limit away (CPUQuota= of the unit, --cpus or limits.cpu of the container), or make it at least 2";
    if *quota < 1.0 {
        problem(found, fix)
    } else if *quota < 2.0 {
        warning(found, fix)
    } else {
        fine(found)
    }
}

fn governor(governors: &[String]) -> Judgement {
    let found = governors.join(", ");
    if governors.is_empty() {
        not_applicable("no frequency scaling here (a virtual machine, or the firmware does it)")
    } else if governors.iter().all(|g| g == "performance" || g == "schedutil") {
        fine(found)
    } else {
        warning(found, "cpupower frequency-set -g performance")
    }
}

fn clock(source: Option<&str>) -> Judgement {
    match source {
        None => unknown("/sys/devices/system/clocksource cannot be read"),
        Some(
            source @ ("tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page"),
        ) => fine(source),
        Some(source) => warning(
            source,
            "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource; if it is not available, see what dmesg says of the TSC",
        ),
    }
}

/// `avg10` of the line `some`.
fn some_avg10(text: &str) -> Option<f64> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    some.split_ascii_whitespace().find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

fn pressure(pressure: &Pressure) -> Judgement {
    match pressure {
        Pressure::Missing => warning(
            "/proc/pressure/cpu is not there",
            "boot with psi=1 (a kernel with CONFIG_PSI), and let the container see /proc/pressure",
        ),
        Pressure::Some(percent) if *percent > 50.0 => warning(
            format!("somebody waited for a processor in {percent:.0} % of the last ten seconds"),
            "move other work away, or give the host more processors",
        ),
        Pressure::Some(percent) => fine(format!(
            "somebody waited for a processor in {percent:.0} % of the last ten seconds"
        )),
    }
}

/// Stolen ticks and all ticks, from the first line of `/proc/stat`.
fn stolen(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.lines().next()?.split_ascii_whitespace();
    let ticks: Vec<u64> = (fields.next()? == "cpu")
        .then(|| fields.take(8).map_while(|field| field.parse().ok()).collect())?;
    Some((*ticks.get(7)?, ticks.iter().fold(0, |sum, ticks| sum.saturating_add(*ticks))))
}

fn steal(steal: Option<(u64, u64)>) -> Judgement {
    let Some((stolen, all)) = steal else { return unknown("/proc/stat cannot be read") };
    let percent = stolen as f64 * 100.0 / all.max(1) as f64;
    let found = format!("{percent:.1} % since boot");
    if percent > 2.0 {
        warning(found, "ask for dedicated processors, or a host that is not oversold")
    } else {
        fine(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::*;
    use super::super::host::plant;
    use super::*;

    #[test]
    fn busy_polling_is_judged_for_those_who_never_sleep() {
        assert_eq!(busy_poll(None).0, NotApplicable);
        assert_eq!(busy_poll(Some(&Result::Ok(()))).0, Ok);
        let (verdict, found, fix) = busy_poll(Some(&Err("not permitted".to_owned())));
        assert_eq!((verdict, found.as_str()), (Warning, "refused (not permitted)"));
        assert!(fix.unwrap().contains("CAP_NET_ADMIN"));
    }

    #[test]
    fn spinning_wants_a_processor_for_each_node() {
        let judge = |processors, pollers, spins| supply(&Supply { processors, pollers, spins }).0;
        assert_eq!(judge(2, 1, true), Ok);
        assert_eq!(judge(2, 2, true), Problem);
        assert_eq!(judge(2, 8, false), Ok);
        assert_eq!(judge(1, 1, false), Warning);
    }

    #[test]
    fn the_tightest_quota_of_all_groups_counts() {
        let (_dir, host) = plant(&[
            ("proc/self/cgroup", "0::/a.slice/b.service\n"),
            ("sys/fs/cgroup/a.slice/cpu.max", "150000 100000"),
            ("sys/fs/cgroup/a.slice/b.service/cpu.max", "max 100000"),
            ("sys/fs/cgroup/cpu.max", "400000 100000"),
        ]);
        let found = quota(&host).unwrap();
        assert_eq!(found, (1.5, "sys/fs/cgroup/a.slice/cpu.max".into()));
        assert_eq!(judge_quota(Some(&found)).0, Warning);
        let (_dir, host) = plant(&[
            ("proc/self/cgroup", "4:memory:/x\n1:cpu,cpuacct:/docker/1\n"),
            ("sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us", "50000"),
            ("sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us", "100000"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
        ]);
        let found = quota(&host).unwrap();
        assert_eq!(found.0, 0.5);
        assert_eq!(judge_quota(Some(&found)).0, Problem);
        assert_eq!(
            (judge_quota(None).0, max("max 100000"), max("1 0"), max("")),
            (Ok, None, None, None)
        );
    }

    #[test]
    fn governors_and_clocks_that_cost_time_are_named() {
        let judge =
            |names: &[&str]| governor(&names.iter().map(|n| (*n).into()).collect::<Vec<_>>()).0;
        assert_eq!((judge(&[]), judge(&["performance"])), (NotApplicable, Ok));
        assert_eq!(judge(&["performance", "powersave"]), Warning);
        assert_eq!(
            (clock(Some("tsc")).0, clock(Some("hpet")).0, clock(None).0),
            (Ok, Warning, Unknown)
        );
    }

    #[test]
    fn pressure_and_stolen_time_are_read_as_the_kernel_writes_them() {
        let text = "some avg10=61.20 avg60=9.0 avg300=1.0 total=5\nfull avg10=0.00 total=0\n";
        assert_eq!(some_avg10(text), Some(61.2));
        assert_eq!(pressure(&Pressure::Some(61.2)).0, Warning);
        assert_eq!(pressure(&Pressure::Some(4.0)).0, Ok);
        assert_eq!(pressure(&Pressure::Missing).0, Warning);
        assert_eq!(stolen("cpu  10 0 10 70 0 0 0 10 0 0\ncpu0 1"), Some((10, 100)));
        assert_eq!((stolen("cpu 1 2"), stolen("intr 1")), (None, None));
        assert_eq!(
            (steal(Some((10, 100))).0, steal(Some((1, 100))).0, steal(None).0),
            (Warning, Ok, Unknown)
        );
        assert_eq!(steal(Some((0, 0))).0, Ok);
    }
}
