//! Which adapters, ports and addresses can carry links, and for each that cannot: why, and what to do about it.
//!
//! Most of it is read from the kernel's files, so that it can be said even where the library is missing.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rdma_sys::{ibv_mtu, ibv_port_state};

use super::device::{Device, Trouble};
use super::library::Library;
use crate::config::{Marks, PARTITION};
use crate::report::{Finding, VerbsReport};

const CLASS: &str = "/sys/class/infiniband";
/// Addresses looked at per port: the tables have hundreds of entries, the first few are in use.
const GIDS_MAX: u8 = 32;
/// Partitions looked at per port.
const PARTITIONS_MAX: u16 = 128;
/// In a partition's key: full member, not a limited one.
const FULL_MEMBER: u16 = 1 << 15;
/// `IBV_LINK_LAYER_ETHERNET`.
const ETHERNET: u8 = 2;

/// An address that links can go through.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) device: Arc<Device>,
    pub(super) port: u8,
    pub(super) gid_index: u8,
    pub(super) gid: [u8; 16],
    pub(super) lid: u16,
    /// Of the port's partitions the one that is used: its place in the table, and its key.
    pub(super) partition: (u16, u16),
    /// How what goes from there is marked.
    pub(super) marks: Marks,
}

impl Place {
    /// The largest packet of the port as `ibv_mtu` numbers them: as it is now, since an interface's MTU may change.
    pub(super) fn mtu(&self) -> u8 {
        self.device.port(self.port).map_or(ibv_mtu::IBV_MTU_256, |port| port.active_mtu).clamp(1, 5)
            as u8
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gid = std::net::Ipv6Addr::from(self.gid);
        write!(f, "{} port {} gid {} ({gid})", self.device.name, self.port, self.gid_index)
    }
}

/// Looks at every adapter, or at the one named, for addresses in `partition`, or in each port's first.
pub(super) fn discover(only: Option<&str>, partition: Option<u16>) -> (Vec<Place>, VerbsReport) {
    let mut report = VerbsReport::default();
    let mut places = Vec::new();
    let names = adapters(Path::new(CLASS));
    if names.is_empty() {
        report.add(Finding::unusable(
            "adapters",
            format!("{CLASS} lists none"),
            "plug one in and load its driver; on plain Ethernet: rdma link add rxe0 type rxe netdev eth0",
        ));
    }
    if let Some(only) = only
        && !names.iter().any(|name| name == only)
    {
        report.add(Finding::unusable(
            only,
            "there is no such adapter".into(),
            "name one of those listed, or none",
        ));
    }
    let library = match Library::get() {
        Ok(library) => Some(library),
        Err(why) => {
            // The loader may have found one, and not liked it.
            let fix = "install, or install anew, the packages libibverbs1 and ibverbs-providers (elsewhere: rdma-core)";
            report.add(Finding::unusable("library", why.to_owned(), fix));
            None
        }
    };
    for name in names.iter().filter(|name| only.is_none_or(|only| *name == only)) {
        let Some(library) = library else { break };
        match Device::open(library, name) {
            Ok(device) => look_at(&device, partition, &mut places, &mut report),
            Err(trouble) => report.add(explain(name, &trouble)),
        }
    }
    // Routable addresses before link-local ones.
    places.sort_by_key(|place| place.gid[0] == 0xfe);
    (places, report)
}

fn adapters(class: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(class) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn explain(name: &str, trouble: &Trouble) -> Finding {
    match trouble {
        Trouble::Kernel(error) => Finding::unusable(
            name,
            format!("the kernel offers no verbs to programs: {error}"),
            "load the module ib_uverbs",
        ),
        Trouble::Unknown => Finding::unusable(
            name,
            "the library has no driver for it, or may not open it".into(),
            "install ibverbs-providers; in a container, pass on /dev/infiniband",
        ),
        Trouble::Open(error) => {
            let fix = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "give this user access to /dev/infiniband/uverbs*"
                }
                _ => "see the kernel's log (dmesg)",
            };
            Finding::unusable(name, format!("it cannot be opened: {error}"), fix)
        }
    }
}

fn look_at(
    device: &Arc<Device>,
    wanted: Option<u16>,
    places: &mut Vec<Place>,
    report: &mut VerbsReport,
) {
    let ports: PathBuf = [CLASS, &device.name, "ports"].iter().collect();
    for port in adapters(&ports).iter().filter_map(|name| name.parse::<u8>().ok()) {
        let subject = format!("{} port {port}", device.name);
        let attributes = match device.port(port) {
            Ok(attributes) => attributes,
            Err(error) => {
                let fix = "see the kernel's log (dmesg)";
                report.add(Finding::unusable(
                    &subject,
                    format!("it does not answer: {error}"),
                    fix,
                ));
                continue;
            }
        };
        if attributes.state != ibv_port_state::IBV_PORT_ACTIVE {
            let (state, fix) = match attributes.link_layer {
                ETHERNET => ("its network interface is down", "ip link set dev INTERFACE up"),
                _ => ("it is not active", "look at the cable, and that a subnet manager runs"),
            };
            report.add(Finding::unusable(&subject, state.into(), fix));
            continue;
        }
        if attributes.active_mtu < ibv_mtu::IBV_MTU_1024 {
            let fix = "an Ethernet MTU of 1500 gives 1024, one of 4200 gives 4096";
            report.add(Finding::note(&subject, "its MTU is below 1024: slow".into(), fix));
        }
        let keys = 0..attributes.pkey_tbl_len.min(PARTITIONS_MAX);
        let keys: Vec<u16> = keys.map_while(|index| device.partition(port, index).ok()).collect();
        let Some(partition) = find(&keys, wanted) else {
            let keys: Vec<String> = keys
                .iter()
                .filter(|&&key| is_valid(key))
                .map(|key| format!("{key:#06x}"))
                .collect();
            report.add(Finding::unusable(
                &subject,
                format!(
                    "it is not in partition {:#06x}; its keys are: {}",
                    wanted.unwrap_or_default(),
                    keys.join(", ")
                ),
                "let the subnet manager add the port to that partition, or name one of these (transport.partition)",
            ));
            continue;
        };
        let mut found = 0;
        let gids = attributes.gid_tbl_len.clamp(0, i32::from(GIDS_MAX)) as u8;
        for gid_index in 0..gids {
            let Ok(gid) = device.gid(port, gid_index) else { continue };
            if gid[8..] == [0; 8] {
                continue;
            }
            let place = Place {
                device: device.clone(),
                port,
                gid_index,
                gid,
                lid: attributes.lid,
                partition,
                marks: Marks::default(),
            };
            let kind = kind_of(&ports, port, gid_index);
            if attributes.link_layer == ETHERNET && kind.as_deref() != Some("RoCE v2") {
                let kind = kind.unwrap_or_else(|| "unknown".into());
                let fix = "nothing needs to be done where another gid of the port is RoCE v2";
                report.add(Finding::note(
                    &place.to_string(),
                    format!("its kind is {kind}; only RoCE v2 is used on Ethernet"),
                    fix,
                ));
                continue;
            }
            report.add(Finding::usable(&place.to_string()));
            places.push(place);
            found += 1;
        }
        if found == 0 {
            let fix = "give its network interface an IP address";
            report.add(Finding::unusable(&subject, "it has no address of use".into(), fix));
        }
    }
}

fn is_valid(key: u16) -> bool {
    key & PARTITION != 0
}

/// Place and key of a partition in a port's table. One that the port is a full member of goes first.
fn find(keys: &[u16], wanted: Option<u16>) -> Option<(u16, u16)> {
    let fits = |key: u16| match wanted {
        Some(wanted) => (key ^ wanted) & PARTITION == 0,
        None => true,
    };
    let found = keys.iter().enumerate().filter(|&(_, &key)| is_valid(key) && fits(key));
    let found = found.map(|(index, &key)| (index as u16, key));
    match wanted {
        // Of the same partition only; without a wish, the table's order is the subnet manager's.
        Some(_) => found.max_by_key(|&(index, key)| (key & FULL_MEMBER, std::cmp::Reverse(index))),
        None => found.min(),
    }
}

/// Why the ends of a queue pair would not hear each other, if so: by their partitions' keys.
pub(super) fn parted(own: u16, peer: u16) -> Option<String> {
    if (own ^ peer) & PARTITION != 0 {
        return Some(format!(
            "this end is in partition {own:#06x} and the peer's in {peer:#06x}: transport.partition must be the same on all nodes"
        ));
    }
    ((own | peer) & FULL_MEMBER == 0).then(|| {
        format!(
            "both ends are limited members of partition {own:#06x}, and such do not hear each other: let the subnet manager make them full members"
        )
    })
}

fn kind_of(ports: &Path, port: u8, gid_index: u8) -> Option<String> {
    let file = ports.join(format!("{port}/gid_attrs/types/{gid_index}"));
    fs::read_to_string(file).ok().map(|kind| kind.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_found_by_its_number_and_full_membership_goes_first() {
        let keys = [0, 0x7fff, 0x8000, 0x0001, 0x8002, 0x8001, 0x8001];
        assert_eq!(find(&keys, None), Some((1, 0x7fff)), "the first that is one");
        assert_eq!(find(&keys, Some(0x0001)), Some((5, 0x8001)));
        assert_eq!(find(&keys, Some(0x8001)), Some((5, 0x8001)));
        assert_eq!(find(&keys, Some(0xffff)), Some((1, 0x7fff)), "a limited member is one");
        assert_eq!(find(&keys, Some(0x8003)), None);
        assert_eq!((find(&[], None), find(&[0], None)), (None, None));
    }

    #[test]
    fn ends_that_would_not_hear_each_other_are_told_why() {
        for (own, peer) in [(0xffff, 0xffff), (0x8001, 0x0001), (0x0001, 0x8001)] {
            assert_eq!(parted(own, peer), None);
        }
        let other = parted(0x8001, 0xffff).expect("two partitions");
        assert!(other.contains("0x8001") && other.contains("0xffff"), "{other}");
        assert!(parted(1, 1).expect("two limited members").contains("limited"));
    }
}
