//! What carries RDMA writes beyond the adapter: partitions, and an Ethernet that must not lose what queue pairs send.
//!
//! An adapter sends a window again from its first lost packet on, so loss costs far more than over UDP. Ethernet is kept
//! from it twice: by pauses per priority (PFC, IEEE 802.1Qbb), and before they are needed by slowing down where a switch
//! marks packets (DCQCN). Pauses are asked of `dcb`, of which every driver knows; whether marks are heeded only some
//! drivers tell, in files; and that something was lost all of them count, under names of their own.

use super::{Check, Host, Judgement, fine, not_applicable, unknown, warning};

const AREA: &str = "rdma";
/// What is counted when something was lost, or came out of order, which is the same to an adapter.
const LOSSES: [&str; 8] = [
    "local_ack_timeout_err",
    "packet_seq_err",
    "out_of_sequence",
    "rcvd_seq_err",
    "out_of_seq_request",
    "retry_exceeded_err",
    "to_retransmits",
    "seq_err_naks_rcvd",
];
/// Where packets that arrived are counted.
const ARRIVALS: [&str; 2] = ["hw_counters/rcvd_pkts", "counters/port_rcv_packets"];
/// Of a million packets, so many may be lost.
const LOST_PPM_MAX: f64 = 100.0;

/// All ports of all adapters.
pub(super) struct Facts {
    ports: Vec<Port>,
}

/// One port.
#[derive(Clone, Debug, Default)]
struct Port {
    name: String,
    adapter: String,
    ethernet: bool,
    /// Made by the kernel, over an interface that knows nothing of it.
    software: bool,
    /// Its network interface.
    interface: Option<String>,
    /// The partition key at index 0, which queue pairs are made with.
    partition: Option<u16>,
    /// Priorities that are paused, as a bit set.
    paused: Option<u8>,
    /// Priority of our packets, by the driver's own setting; they ask for none.
    priority: u8,
    /// Marks are answered, and the answers heeded: as far as this driver tells.
    marks: Option<(bool, bool)>,
    /// Answers to marks that were sent and heeded.
    answers: Option<(u64, u64)>,
    /// Losses that were counted, and packets that arrived.
    lost: Option<(u64, u64)>,
}

impl Facts {
    pub(super) fn look(host: &Host) -> Facts {
        let of = |adapter: String| {
            let ports = host.names(&format!("sys/class/infiniband/{adapter}/ports"));
            ports.into_iter().map(move |port| look_at(host, &adapter, &port)).collect::<Vec<_>>()
        };
        Facts { ports: host.names("sys/class/infiniband").into_iter().flat_map(of).collect() }
    }

    pub(super) fn judge(&self) -> Vec<Check> {
        let why_partition = "ports hear each other only within a partition, of which one of the two is a full member";
        let why_pauses = "Ethernet throws away what does not fit, and an adapter then sends all again from there";
        let why_marks = "who slows down where switches mark packets is seldom paused, and pauses none of the others";
        let why_losses =
            "an adapter repairs a loss after 17 ms, and gives the link up after the seventh";
        let of = |port: &Port| {
            let check = |what: &str, why, judgement| {
                Check::new(AREA, format!("{} {what}", port.name), why, judgement)
            };
            [
                check("partition", why_partition, partition(port.partition)),
                check("pauses (PFC)", why_pauses, pauses(port)),
                check("marks (DCQCN)", why_marks, marks(port)),
                check("losses", why_losses, losses(port)),
            ]
        };
        self.ports.iter().flat_map(of).collect()
    }
}

fn look_at(host: &Host, adapter: &str, port: &str) -> Port {
    let at = format!("sys/class/infiniband/{adapter}/ports/{port}");
    let interface = host.text(&format!("{at}/gid_attrs/ndevs/0"));
    let counted = |name: &str| host.value::<u64>(&format!("{at}/hw_counters/{name}"));
    let losses: Vec<u64> = LOSSES.iter().filter_map(|name| counted(name)).collect();
    let arrived = ARRIVALS.iter().find_map(|name| host.value::<u64>(&format!("{at}/{name}")));
    let class = host.text(&format!("sys/class/infiniband/{adapter}/tc/{port}/traffic_class"));
    let class = class.and_then(|text| text.rsplit('=').next()?.trim().parse::<u8>().ok());
    Port {
        name: format!("{adapter} port {port}"),
        adapter: adapter.to_owned(),
        ethernet: host.text(&format!("{at}/link_layer")).as_deref() == Some("Ethernet"),
        software: host.has(&format!("sys/class/infiniband/{adapter}/parent")),
        partition: host
            .text(&format!("{at}/pkeys/0"))
            .and_then(|key| u16::from_str_radix(key.trim_start_matches("0x"), 16).ok()),
        paused: interface.as_ref().and_then(|interface| {
            paused(&host.output(&["dcb", "-j", "pfc", "show", "dev", interface])?)
        }),
        // The upper three bits of the traffic class, as adapters and switches come.
        priority: class.unwrap_or(0) >> 5,
        marks: interface.as_ref().and_then(|interface| {
            let any = |role: &str| {
                let files = format!("sys/class/net/{interface}/ecn/{role}/enable");
                let names = host.names(&files);
                let on = |name: &String| host.value::<u8>(&format!("{files}/{name}")) == Some(1);
                (!names.is_empty()).then(|| names.iter().any(on))
            };
            any("roce_np").zip(any("roce_rp"))
        }),
        answers: counted("np_cnp_sent").zip(counted("rp_cnp_handled")),
        lost: (!losses.is_empty()).then(|| losses.iter().sum()).zip(arrived),
        interface,
    }
}

/// Priorities that are paused, from what `dcb -j pfc show` says.
fn paused(text: &str) -> Option<u8> {
    let said: serde_json::Value = serde_json::from_str(text).ok()?;
    let each = said.get("prio_pfc").or_else(|| said.get("prio-pfc"))?.as_array()?;
    let on = |value: &serde_json::Value| value.as_bool() == Some(true) || value == "on";
    Some((0..8).filter(|&i| each.get(i).is_some_and(on)).fold(0, |set, i| set | 1 << i))
}

fn partition(key: Option<u16>) -> Judgement {
    match key {
        None => unknown("pkeys/0 cannot be read"),
        Some(key) if key & 0x7fff == 0 => warning(
            "none at index 0",
            "have the subnet manager put the port into a partition (partitions.conf of opensm)",
        ),
        Some(key) if key & 0x8000 == 0 => warning(
            format!("a limited member of {key:#06x}: limited members do not hear each other"),
            "make the ports of the nodes full members (`ALL=full` in partitions.conf of opensm)",
        ),
        Some(key) => fine(format!("a full member of {:#06x}", key & 0x7fff)),
    }
}

fn pauses(port: &Port) -> Judgement {
    let interface = port.interface.as_deref().unwrap_or("INTERFACE");
    let priority = port.priority;
    match port.paused {
        _ if !port.ethernet => not_applicable("InfiniBand loses nothing for want of room"),
        _ if port.software => not_applicable("made in software: its interface knows nothing of it"),
        None => unknown(format!("`dcb pfc show dev {interface}` says nothing of it")),
        Some(0) => warning(
            "no priority is paused: what does not fit is lost",
            format!(
                "dcb pfc set dev {interface} prio-pfc {priority}:on, and the same on all switches"
            ),
        ),
        Some(set) if set & 1 << priority == 0 => {
            let on = (0..8).find(|i| set & 1 << i != 0).unwrap_or(0);
            warning(
                format!("on for priority {on}, but our packets have priority {priority}"),
                format!(
                    "echo {} > /sys/class/infiniband/{}/tc/1/traffic_class (where the driver has it), or pause priority {priority}",
                    on << 5,
                    port.adapter
                ),
            )
        }
        Some(_) => fine(format!("on for priority {priority}, that of our packets")),
    }
}

fn marks(port: &Port) -> Judgement {
    let interface = port.interface.as_deref().unwrap_or("INTERFACE");
    match (port.marks, port.answers) {
        _ if !port.ethernet => not_applicable("InfiniBand has its own congestion control"),
        _ if port.software => {
            not_applicable("made in software: it neither sees marks nor heeds them")
        }
        (Some((true, true)), _) => fine("answered, and the answers heeded"),
        (Some((answered, _)), _) => {
            let (role, what) =
                if answered { ("roce_rp", "heeded") } else { ("roce_np", "answered") };
            warning(
                format!("marks of switches are not {what} ({role} is off)"),
                format!("echo 1 > /sys/class/net/{interface}/ecn/{role}/enable/{}", port.priority),
            )
        }
        (None, Some((sent, heeded))) if sent + heeded > 0 => {
            fine(format!("{sent} were answered, {heeded} answers heeded"))
        }
        (None, _) => unknown("this driver does not tell, and no mark was met yet"),
    }
}

fn losses(port: &Port) -> Judgement {
    let Some((lost, arrived)) = port.lost else {
        return unknown("this driver does not count them");
    };
    let ppm = lost as f64 * 1e6 / arrived.max(1) as f64;
    let found = format!("{lost} beside {arrived} packets that arrived");
    if lost < 10 || ppm <= LOST_PPM_MAX {
        return fine(found);
    }
    let fix = if port.ethernet {
        "see pauses and marks above, the same on the switches, and the cables (ethtool -S)"
    } else {
        "look for bad cables: ibqueryerrors"
    };
    warning(format!("{found}: {ppm:.0} in a million"), fix)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, *};
    use super::super::host::plant;
    use super::*;

    const DCB: &str = "commands/dcb -j pfc show dev ens1";
    const AT: &str = "sys/class/infiniband/mlx5_0";

    /// The port of an Ethernet adapter with its files, and more of them.
    fn judged(more: &[(&str, &str)]) -> Vec<Check> {
        let more = more.iter().map(|(path, text)| (path.replace('@', AT), *text));
        let files = [
            (format!("{AT}/ports/1/link_layer"), "Ethernet\n"),
            (format!("{AT}/ports/1/gid_attrs/ndevs/0"), "ens1\n"),
            (format!("{AT}/ports/1/pkeys/0"), "0xffff\n"),
        ];
        let files: Vec<_> = files.into_iter().chain(more).collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let (_dir, host) = plant(&files);
        Facts::look(&host).judge()
    }

    fn of(checks: &[Check], what: &str) -> (Verdict, String, String) {
        let check = checks.iter().find(|check| check.name == format!("mlx5_0 port 1 {what}"));
        let check = check.unwrap_or_else(|| panic!("no {what} in {checks:#?}"));
        (check.verdict, check.found.clone(), check.fix.clone().unwrap_or_default())
    }

    #[test]
    fn a_machine_without_adapters_has_nothing_to_judge() {
        let (_dir, host) = plant(&[]);
        assert!(Facts::look(&host).judge().is_empty());
    }

    #[test]
    fn a_port_that_hears_no_other_is_named() {
        let of = |key| of(&judged(&[("@/ports/1/pkeys/0", key)]), "partition");
        assert_eq!(of("0xffff").1, "a full member of 0x7fff");
        assert_eq!((of("0xffff").0, of("0x8001").0), (Ok, Ok));
        let (verdict, found, fix) = of("0x7fff");
        assert!(verdict == Warning && found.contains("limited") && fix.contains("ALL=full"));
        assert_eq!((of("0x0000").0, of("strange").0), (Warning, Unknown));
    }

    #[test]
    fn pauses_are_wanted_for_the_priority_of_our_packets() {
        let of = |dcb: &str, more: &[(&str, &str)]| {
            let mut files = vec![(DCB, dcb)];
            files.extend_from_slice(more);
            of(&judged(&files), "pauses (PFC)")
        };
        let none = r#"{"pfc_cap":8,"prio_pfc":[false,false,false,false,false,false,false,false]}"#;
        let third = r#"{"pfc_cap":8,"prio_pfc":[false,false,false,true,false,false,false,false]}"#;
        let (verdict, _, fix) = of(none, &[]);
        assert_eq!(verdict, Warning);
        assert!(fix.contains("dcb pfc set dev ens1 prio-pfc 0:on"), "{fix}");
        let (verdict, found, fix) = of(third, &[]);
        assert_eq!(verdict, Warning, "{found}");
        assert!(fix.contains("echo 96 > /sys/class/infiniband/mlx5_0/tc/1/traffic_class"), "{fix}");
        let class = ("@/tc/1/traffic_class", "Global tclass=106\n");
        assert_eq!(of(third, &[class]).0, Ok);
        assert_eq!(of("nonsense", &[]).0, Unknown);
        assert_eq!(of(none, &[("@/ports/1/link_layer", "InfiniBand")]).0, NotApplicable);
        assert_eq!(of(none, &[("@/parent", "ens1")]).0, NotApplicable);
        assert_eq!(self::of(&judged(&[]), "pauses (PFC)").0, Unknown);
    }

    #[test]
    fn marks_are_to_be_answered_and_heeded() {
        let of = |more: &[(&str, &str)]| of(&judged(more), "marks (DCQCN)");
        let np = "sys/class/net/ens1/ecn/roce_np/enable/0";
        let rp = "sys/class/net/ens1/ecn/roce_rp/enable/0";
        assert_eq!(of(&[(np, "1"), (rp, "1")]).0, Ok);
        let (verdict, found, fix) = of(&[(np, "1"), (rp, "0")]);
        assert!(verdict == Warning && found.contains("not heeded"), "{found}");
        assert!(fix.contains("ecn/roce_rp/enable/0"), "{fix}");
        assert!(of(&[(np, "0"), (rp, "1")]).1.contains("not answered"));
        let counted = |sent| {
            let at = "@/ports/1/hw_counters/";
            let (sent_at, heeded_at) = (format!("{at}np_cnp_sent"), format!("{at}rp_cnp_handled"));
            of(&[(&sent_at, sent), (&heeded_at, "0")]).0
        };
        assert_eq!((counted("7"), counted("0"), of(&[]).0), (Ok, Unknown, Unknown));
        assert_eq!(of(&[("@/ports/1/link_layer", "InfiniBand")]).0, NotApplicable);
    }

    #[test]
    fn losses_are_judged_by_what_arrived() {
        let of = |names: &[&str; 2], lost, arrived| {
            let paths = names.map(|name| format!("@/ports/1/{name}"));
            of(&judged(&[(&paths[0], lost), (&paths[1], arrived)]), "losses")
        };
        let mlx5 = ["hw_counters/packet_seq_err", "counters/port_rcv_packets"];
        let rxe = ["hw_counters/rcvd_seq_err", "hw_counters/rcvd_pkts"];
        assert_eq!((of(&mlx5, "0", "0").0, of(&mlx5, "100", "1000000").0), (Ok, Ok));
        let (verdict, found, _) = of(&rxe, "5000", "1000000");
        assert_eq!(verdict, Warning);
        assert!(found.contains("5000 in a million"), "{found}");
        // A handful after the cable was plugged in is nothing.
        assert_eq!(of(&mlx5, "5", "20").0, Ok);
        assert_eq!(self::of(&judged(&[]), "losses").0, Unknown);
    }
}
