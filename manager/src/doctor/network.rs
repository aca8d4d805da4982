//! Socket buffers and interfaces.

use super::{Check, Host, Judgement, Verdict, fine, not_applicable, problem, unknown, warning};
use quintet_transport::limits::{RECEIVE_BUFFER, SEND_BUFFER};

const AREA: &str = "network";
/// CAP_NET_ADMIN as a bit of `CapEff`.
const NET_ADMIN: u64 = 1 << 12;
/// IPv6 promises it on every link.
const MTU_LEAST: u64 = 1280;

/// What was seen.
pub(super) struct Facts {
    /// net.core.rmem_max and wmem_max.
    receive: Option<u64>,
    send: Option<u64>,
    /// May exceed both.
    privileged: bool,
    interfaces: Vec<Interface>,
}

/// One network interface.
#[derive(Clone, Debug, Default)]
struct Interface {
    name: String,
    mtu: u64,
    up: bool,
    /// Mode, and members with their MTU, of a bond.
    bond: Option<(String, Vec<(String, u64)>)>,
    /// The interface beneath, with its MTU, of a VLAN.
    vlan: Option<(String, u64)>,
}

impl Facts {
    pub(super) fn look(host: &Host) -> Facts {
        let capabilities = host
            .line("proc/self/status", "CapEff")
            .and_then(|hex| u64::from_str_radix(&hex, 16).ok());
        let names = host.names("sys/class/net").into_iter();
        Facts {
            receive: host.value("proc/sys/net/core/rmem_max"),
            send: host.value("proc/sys/net/core/wmem_max"),
            privileged: capabilities.is_some_and(|set| set & NET_ADMIN != 0),
            interfaces: names.filter_map(|name| interface(host, name)).collect(),
        }
    }

    pub(super) fn judge(&self) -> Vec<Check> {
        let why_buffers =
            "what arrives while the poller is late must find room, or it is lost and sent again";
        let why_interfaces = "datagrams are as large as the interface allows; a smaller step behind it loses or splits them";
        let judge = |key, has, wants: i32| buffer(key, has, wants as u64, self.privileged);
        let mut checks = vec![
            Check::new(
                AREA,
                "rmem_max",
                why_buffers,
                judge("rmem_max", self.receive, RECEIVE_BUFFER),
            ),
            Check::new(AREA, "wmem_max", why_buffers, judge("wmem_max", self.send, SEND_BUFFER)),
        ];
        let judged = self.interfaces.iter().map(|i| (i.name.clone(), judge_interface(i)));
        let mut judged: Vec<_> =
            judged.filter(|(_, judgement)| judgement.0 != Verdict::NotApplicable).collect();
        if judged.is_empty() {
            judged.push((
                "interfaces".into(),
                unknown("none is up but loopback, as far as can be seen"),
            ));
        }
        checks
            .extend(judged.into_iter().map(|(name, j)| Check::new(AREA, name, why_interfaces, j)));
        checks
    }
}

fn interface(host: &Host, name: String) -> Option<Interface> {
    let at = format!("sys/class/net/{name}");
    let mtu_of = |name: &str| host.value::<u64>(&format!("sys/class/net/{name}/mtu"));
    let bond = host.text(&format!("{at}/bonding/mode")).map(|mode| {
        let members = host.text(&format!("{at}/bonding/slaves")).unwrap_or_default();
        let members = members.split_whitespace().filter_map(|m| Some((m.to_owned(), mtu_of(m)?)));
        (mode.split(' ').next().unwrap_or_default().to_owned(), members.collect())
    });
    // A VLAN names what it lies on as a link `lower_NAME`.
    let vlan = host
        .text(&format!("{at}/uevent"))
        .filter(|text| text.contains("DEVTYPE=vlan"))
        .and_then(|_| {
            let names = host.names(&at).into_iter();
            let below =
                names.filter_map(|entry| entry.strip_prefix("lower_").map(str::to_owned)).next()?;
            let mtu = mtu_of(&below)?;
            Some((below, mtu))
        });
    // Tunnels and the like say "unknown" while they work.
    let state = host.text(&format!("{at}/operstate")).unwrap_or_default();
    let up = name != "lo" && (state == "up" || state == "unknown");
    Some(Interface { mtu: mtu_of(&name)?, name, up, bond, vlan })
}

fn buffer(key: &str, has: Option<u64>, wants: u64, privileged: bool) -> Judgement {
    match has {
        None => unknown(format!("/proc/sys/net/core/{key} cannot be read")),
        Some(has) if has >= wants => fine(format!("{has} bytes; {wants} are asked for")),
        Some(has) if privileged => fine(format!(
            "{has} bytes are less than the {wants} asked for, but this user may exceed them (CAP_NET_ADMIN); does quintetd run as it?"
        )),
        Some(has) => warning(
            format!("{has} bytes; {wants} are asked for"),
            format!("sysctl -w net.core.{key}={wants}, and the same line in /etc/sysctl.d"),
        ),
    }
}

fn judge_interface(interface: &Interface) -> Judgement {
    let Interface { name, mtu, up, bond, vlan } = interface;
    if !up {
        return not_applicable("down");
    }
    if *mtu < MTU_LEAST {
        return problem(
            format!("MTU {mtu}"),
            format!("ip link set {name} mtu 1500 (at least {MTU_LEAST})"),
        );
    }
    if let Some((mode, members)) = bond {
        let of: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
        let found = format!("MTU {mtu}, a bond ({mode}) of {}", of.join(", "));
        if let Some((odd, other)) = members.iter().find(|(_, other)| other != mtu) {
            return warning(
                format!("{found}; {odd} has MTU {other}"),
                format!("ip link set {odd} mtu {mtu}"),
            );
        }
        if mode == "balance-rr" {
            return warning(
                format!("{found}: packets overtake each other, which is taken for loss"),
                "use mode 802.3ad with xmit_hash_policy=layer3+4, or active-backup",
            );
        }
        return fine(found);
    }
    match vlan {
        Some((below, other)) if mtu > other => warning(
            format!("MTU {mtu}, a VLAN on {below}, which has only {other}"),
            format!("ip link set {below} mtu {mtu}"),
        ),
        Some((below, _)) => fine(format!("MTU {mtu}, a VLAN on {below}")),
        None => fine(format!("MTU {mtu}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::*;
    use super::super::host::plant;
    use super::*;

    #[test]
    fn buffers_are_judged_by_what_the_transport_asks_for() {
        let judge = |has, privileged| buffer("rmem_max", has, 4 << 20, privileged).0;
        assert_eq!((judge(Some(212_992), false), judge(Some(212_992), true)), (Warning, Ok));
        assert_eq!((judge(Some(4 << 20), false), judge(None, false)), (Ok, Unknown));
        let fix = buffer("rmem_max", Some(1), 4 << 20, false).2.unwrap();
        assert!(fix.contains("sysctl -w net.core.rmem_max=4194304"), "{fix}");
        let (_dir, host) = plant(&[("proc/self/status", "CapEff:\t0000000000001000\n")]);
        assert!(Facts::look(&host).privileged);
        let (_dir, host) = plant(&[("proc/self/status", "CapEff:\t0000000000000fff\n")]);
        assert!(!Facts::look(&host).privileged);
    }

    #[test]
    fn interfaces_are_read_with_what_lies_beneath_them() {
        let (_dir, host) = plant(&[
            ("sys/class/net/lo/mtu", "65536"),
            ("sys/class/net/lo/operstate", "unknown"),
            ("sys/class/net/eth0/mtu", "1500"),
            ("sys/class/net/eth0/operstate", "up"),
            ("sys/class/net/eth1/mtu", "9000"),
            ("sys/class/net/eth1/operstate", "down"),
            ("sys/class/net/bond0/mtu", "9000"),
            ("sys/class/net/bond0/operstate", "up"),
            ("sys/class/net/bond0/bonding/mode", "802.3ad 4"),
            ("sys/class/net/bond0/bonding/slaves", "eth0 eth1"),
            ("sys/class/net/v5/mtu", "9000"),
            ("sys/class/net/v5/operstate", "up"),
            ("sys/class/net/v5/uevent", "DEVTYPE=vlan\nINTERFACE=v5"),
            ("sys/class/net/v5/lower_eth0/x", ""),
        ]);
        let checks = Facts::look(&host).judge();
        let of = |name: &str| checks.iter().find(|check| check.name == name);
        assert!(of("lo").is_none() && of("eth1").is_none());
        assert_eq!(of("eth0").unwrap().verdict, Ok);
        let bond = of("bond0").unwrap();
        assert_eq!(
            (bond.verdict, bond.fix.as_deref()),
            (Warning, Some("ip link set eth0 mtu 9000"))
        );
        assert!(
            bond.found.contains("802.3ad") && bond.found.contains("eth0, eth1"),
            "{}",
            bond.found
        );
        let vlan = of("v5").unwrap();
        assert_eq!(
            (vlan.verdict, vlan.fix.as_deref()),
            (Warning, Some("ip link set eth0 mtu 9000"))
        );
    }

    #[test]
    fn odd_interfaces_are_judged() {
        let eth = Interface { name: "eth0".into(), mtu: 1500, up: true, ..Interface::default() };
        assert_eq!(judge_interface(&eth).0, Ok);
        assert_eq!(judge_interface(&Interface { mtu: 576, ..eth.clone() }).0, Problem);
        let bond = |mode: &str| Interface {
            bond: Some((mode.into(), vec![("a".into(), 1500), ("b".into(), 1500)])),
            ..eth.clone()
        };
        assert_eq!(judge_interface(&bond("active-backup")).0, Ok);
        assert_eq!(judge_interface(&bond("balance-rr")).0, Warning);
        let vlan = Interface { vlan: Some(("eth1".into(), 1500)), ..eth };
        assert_eq!(judge_interface(&vlan).0, Ok);
    }

    #[test]
    fn a_machine_without_interfaces_is_not_judged() {
        let (_dir, host) = plant(&[("sys/class/net/lo/mtu", "65536")]);
        assert_eq!(Facts::look(&host).judge().last().unwrap().verdict, Unknown);
    }
}
