//! The machine that measures.

use serde_json::{Value, json};
use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a reader needs to know of it.
pub(crate) fn describe() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let load = read("/proc/loadavg");
    json!({
        "name": read("/proc/sys/kernel/hostname"),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": model.trim_start_matches([' ', '\t', ':']),
        "cores": cores(),
        "load_average": load.split(' ').next().and_then(|load| load.parse::<f64>().ok()),
    })
}

/// Of the machine, however few of them this process keeps to.
fn cores() -> i64 {
    // SAFETY: no pointers.
    unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }
}

/// Whether somebody has that port, and if it is one of TCP listens there.
pub(crate) fn listens(tcp: bool, port: u16) -> bool {
    let tables = if tcp { ["tcp", "tcp6"] } else { ["udp", "udp6"] };
    let (ours, listening) = (format!(":{port:04X}"), "0A");
    tables.iter().any(|table| {
        let table = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        table.lines().any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let is_ours = fields.next().is_some_and(|at| at.ends_with(&ours));
            is_ours && (!tcp || fields.nth(1) == Some(listening))
        })
    })
}

/// Datagrams that the socket there had no room for, since it was made. None if the kernel does not tell.
pub(crate) fn datagrams_dropped(at: SocketAddr) -> Option<u64> {
    let table = if at.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
    dropped_in(&std::fs::read_to_string(table).ok()?, at.port())
}

/// Of all sockets that have that port: a measurement's own is chosen among those that nobody has.
fn dropped_in(table: &str, port: u16) -> Option<u64> {
    let ours = format!(":{port:04X}");
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let dropped = fields.clone().last()?.parse().ok()?;
            fields.nth(1)?.ends_with(&ours).then_some(dropped)
        })
        .reduce(|sum: u64, dropped| sum + dropped)
}

/// The interface that has that address.
pub(crate) fn nic(address: IpAddr) -> Value {
    let Some(name) = interface(address) else { return Value::Null };
    let read = |what: &str| {
        let text = std::fs::read_to_string(format!("/sys/class/net/{name}/{what}")).ok()?;
        text.trim().parse::<i64>().ok()
    };
    let driver = std::fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok();
    let driver = driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    json!({
        "name": name,
        "driver": driver,
        "mtu": read("mtu"),
        "megabits_per_s": read("speed").filter(|speed| *speed > 0),
    })
}

fn interface(address: IpAddr) -> Option<String> {
    let mut list = std::ptr::null_mut();
    // SAFETY: the call fills `list`, which is freed below, once.
    if unsafe { libc::getifaddrs(&raw mut list) } < 0 {
        return None;
    }
    let (mut at, mut found) = (list.cast_const(), None);
    while !at.is_null() && found.is_none() {
        // SAFETY: (1) `at` is an entry of the list, which is freed only below; (2) an entry's name is NUL-terminated;
        // (3) its address, where there is one, is as long as its family says.
        unsafe {
            let entry = &*at;
            if address_at(entry.ifa_addr) == Some(address) {
                found = Some(CStr::from_ptr(entry.ifa_name).to_string_lossy().into_owned());
            }
            at = entry.ifa_next;
        }
    }
    // SAFETY: it came from getifaddrs, and nothing of it is used any more.
    unsafe { libc::freeifaddrs(list) };
    found
}

/// # Safety
/// Null, or an address that is as long as its family says.
unsafe fn address_at(at: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller's promise.
    unsafe {
        match i32::from(at.as_ref()?.sa_family) {
            libc::AF_INET => {
                let address = at.cast::<libc::sockaddr_in>().read_unaligned();
                Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr))))
            }
            libc::AF_INET6 => {
                let address = at.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_measurement_is_of_the_same_machine() {
        let before = describe()["cores"].clone();
        std::thread::spawn(move || {
            let core = *crate::cpu::allowed().last().expect("a core");
            crate::cpu::pin(core).expect("an allowed core");
            assert_eq!(describe()["cores"], before);
        })
        .join()
        .expect("the thread");
    }

    #[test]
    fn an_address_leads_to_its_interface() {
        let lo = nic(IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(lo["name"], "lo");
        assert!(lo["mtu"].as_i64() > Some(1000), "{lo}");
        // Reserved for examples: nobody has it.
        assert_eq!(nic("192.0.2.77".parse().expect("an address")), Value::Null);
    }

    #[test]
    fn a_port_is_listened_at_while_somebody_does() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let udp = std::net::UdpSocket::bind("[::1]:0")
            .or_else(|_| std::net::UdpSocket::bind("127.0.0.1:0"));
        let udp = udp.expect("a port");
        let (t, u) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        assert!(listens(true, t) && listens(false, u));
        let client = std::net::TcpStream::connect(("127.0.0.1", t)).expect("it listens");
        assert!(!listens(true, client.local_addr().unwrap().port()), "a connection is no listener");
        drop((tcp, udp));
        assert!(!listens(true, t));
    }

    #[test]
    fn what_a_socket_dropped_is_in_the_kernels_table() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
          3374: 0100007F:DA94 00000000:0000 07 00000000:00000680 00:00000000 00000000     0        0 4250995 2 00000000e1a38cc0 17
          3375: 0100007F:0035 0100007F:DA94 07 00000000:00000680 00:00000000 00000000     0        0 4250996 2 00000000e1a38cc0 5";
        assert_eq!(dropped_in(table, 0xda94), Some(17));
        assert_eq!(dropped_in(table, 53), Some(5));
        assert_eq!(dropped_in(table, 54), None);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let at = socket.local_addr().expect("bound");
        assert_eq!(datagrams_dropped(at), Some(0));
        // More than any buffer holds, and nobody reads.
        let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_default").expect("a limit");
        for _ in 0..limit.trim().parse::<usize>().expect("bytes") / 60_000 + 2 {
            socket.send_to(&[0; 60_000], at).expect("sent");
        }
        assert!(datagrams_dropped(at) > Some(0));
    }
}
