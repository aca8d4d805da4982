//! Where unencrypted packets are allowed: on loopback, and in private network namespaces on request.
//!
//! Until packets are encrypted, whoever can send to the port could write into replicas. Loopback is as safe as
//! the machine; a network namespace of one's own (tests, demonstrations) is as safe as who set it up. Anything
//! else is refused, whatever the configuration says.
//!
//! A namespace is private when it is not init's *and* no route of it has a gateway. Comparing with init's alone would
//! let an ordinary container through, which has a namespace of its own and a way out of it. Where init's namespace
//! cannot be read (that needs root, and an init that may be traced), the missing gateway has to do.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::error::Error;

/// Whether unencrypted UDP may be received at this address, in the network namespace of the calling thread: on loopback
/// always, elsewhere where `allowed` and the namespace is private. For who checks a configuration before a start; a
/// [`Poller`](crate::Poller) asks this itself.
///
/// # Errors
/// [`Error::Plaintext`], which says why not and what would be allowed.
pub fn check_plaintext(addr: SocketAddr, allowed: bool) -> Result<(), Error> {
    check([addr], allowed)
}

/// Whether the addresses may be used without encryption; `allowed` is the configuration's word.
pub(crate) fn check(
    addrs: impl IntoIterator<Item = SocketAddr>,
    allowed: bool,
) -> Result<(), Error> {
    let Some(addr) = addrs.into_iter().find(|addr| !addr.ip().is_loopback()) else { return Ok(()) };
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    // Of the calling thread: it is the one that opens the sockets.
    let table = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let surroundings = Surroundings {
        own: namespace("thread-self"),
        init: namespace("1").or_else(|| kernel_thread().and_then(namespace)),
        // A kernel without IPv6 has no such table.
        gateway: table("route").map(|v4| {
            has_gateway_v4(&v4) || table("ipv6_route").is_ok_and(|v6| has_gateway_v6(&v6))
        }),
    };
    judge(addr, allowed, &surroundings).map_err(Error::Plaintext)
}

/// What can be seen of the namespace this thread is in.
struct Surroundings {
    own: Option<PathBuf>,
    init: Option<PathBuf>,
    gateway: io::Result<bool>,
}

/// A process in init's namespace that hides nothing from root, where init does: kthreadd, always process 2 where it
/// can be seen at all.
fn kernel_thread() -> Option<&'static str> {
    let name = fs::read_to_string("/proc/2/comm").ok()?;
    (name.trim_end() == "kthreadd").then_some("2")
}

/// RTF_GATEWAY of the kernel's route tables.
const GATEWAY: u32 = 2;

/// Whether a route of /proc/net/route goes through a gateway.
fn has_gateway_v4(table: &str) -> bool {
    table.lines().skip(1).any(|line| flags(line.split_whitespace().nth(3)) & GATEWAY != 0)
}

/// The same of /proc/net/ipv6_route.
fn has_gateway_v6(table: &str) -> bool {
    table.lines().any(|line| flags(line.split_whitespace().nth(8)) & GATEWAY != 0)
}

/// Flags in hexadecimal; what cannot be read counts as a gateway.
fn flags(column: Option<&str>) -> u32 {
    column.and_then(|text| u32::from_str_radix(text, 16).ok()).unwrap_or(GATEWAY)
}

fn judge(addr: SocketAddr, allowed: bool, around: &Surroundings) -> Result<(), String> {
    let refused =
        format!("UDP on {addr} would be readable and forgeable by anybody on that network");
    if !allowed {
        return Err(format!(
            "{refused}: packets are not encrypted yet; use a loopback address, or set `plaintext = true` in a private \
             network namespace"
        ));
    }
    let own_way = "start it in one of its own, without a gateway (`ip netns add`, `ip netns exec`)";
    if around.own.is_none() || around.own == around.init {
        return Err(format!(
            "{refused}: `plaintext = true` is honoured only in a private network namespace, and this process is in \
             init's, or cannot tell (/proc/thread-self/ns/net against /proc/1/ns/net): {own_way}"
        ));
    }
    match &around.gateway {
        Ok(false) => Ok(()),
        Ok(true) => Err(format!(
            "{refused}: `plaintext = true` is honoured only in a private network namespace, and this one has a route \
             through a gateway: {own_way}"
        )),
        Err(error) => Err(format!(
            "{refused}: `plaintext = true` is honoured only in a private network namespace, and whether this one has a \
             gateway cannot be told: reading /proc/thread-self/net/route failed ({error})"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "Iface\tDestination\tGateway\tFlags\n";

    fn around(own: Option<&str>, init: Option<&str>, gateway: bool) -> Surroundings {
        Surroundings {
            own: own.map(PathBuf::from),
            init: init.map(PathBuf::from),
            gateway: Ok(gateway),
        }
    }

    #[test]
    fn only_loopback_and_private_namespaces_pass() {
        let far: SocketAddr = "192.0.2.1:7000".parse().unwrap();
        check(["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()], false).unwrap();
        let error = check([far], false).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1:7000") && error.contains("plaintext = true"), "{error}");
        let private = around(Some("net:[2]"), Some("net:[1]"), false);
        assert_eq!(judge(far, true, &private), Ok(()));
        assert!(judge(far, false, &private).is_err());
        assert_eq!(judge(far, true, &around(Some("net:[2]"), None, false)), Ok(()));
        for public in [
            around(Some("net:[1]"), Some("net:[1]"), false),
            around(None, None, false),
            around(Some("net:[2]"), Some("net:[1]"), true),
            around(Some("net:[2]"), None, true),
        ] {
            assert!(judge(far, true, &public).unwrap_err().contains("ip netns"));
        }
        let blind = Surroundings { gateway: Err(io::ErrorKind::NotFound.into()), ..private };
        assert!(judge(far, true, &blind).is_err());
    }

    #[test]
    fn a_gateway_is_found_in_either_table() {
        assert!(has_gateway_v4(&format!("{V4}eth0\t00000000\t010200C0\t0003\n")));
        assert!(!has_gateway_v4(&format!("{V4}eth0\t000200C0\t00000000\t0001\n")));
        assert!(!has_gateway_v4(V4));
        assert!(has_gateway_v4(&format!("{V4}nonsense\n")));
        let v6 = |flags: &str| {
            format!("{0} 00 {0} 00 {0} ffffffff 00000001 00000000 {flags} lo\n", "0".repeat(32))
        };
        assert!(has_gateway_v6(&v6("00000003")));
        assert!(!has_gateway_v6(&v6("00200200")));
    }
}
