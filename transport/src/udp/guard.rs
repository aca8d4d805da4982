//! Where unencrypted packets are allowed: on loopback, and in private network namespaces on request.
//!
//! Until packets are encrypted, whoever can send to the port could write into replicas. Loopback is as safe as
//! the machine; a network namespace of one's own (tests, demonstrations) is as safe as who set it up. Anything
//! else is refused, whatever the configuration says.

use std::fs;
use std::io;
use std::net::SocketAddr;

use crate::error::Error;

/// Whether the addresses may be used without encryption; `allowed` is the configuration's word.
pub(crate) fn check(
    addrs: impl IntoIterator<Item = SocketAddr>,
    allowed: bool,
) -> Result<(), Error> {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net"));
    match addrs.into_iter().find(|addr| !addr.ip().is_loopback()) {
        None => Ok(()),
        // Of the calling thread: it is the one that opens the sockets.
        Some(addr) => {
            judge(addr, allowed, namespace("thread-self"), namespace("1")).map_err(Error::Plaintext)
        }
    }
}

fn judge(
    addr: SocketAddr,
    allowed: bool,
    own: io::Result<std::path::PathBuf>,
    init: io::Result<std::path::PathBuf>,
) -> Result<(), String> {
    let refused =
        format!("UDP on {addr} would be readable and forgeable by anybody on that network");
    if !allowed {
        return Err(format!(
            "{refused}: packets are not encrypted yet; use a loopback address, or set `plaintext = true` in a private \
             network namespace"
        ));
    }
    match (own, init) {
        (Ok(own), Ok(init)) if own != init => Ok(()),
        (Ok(_), Ok(_)) => Err(format!(
            "{refused}: `plaintext = true` is honoured only in a network namespace of one's own, and this process is \
             in init's (/proc/thread-self/ns/net equals /proc/1/ns/net); start it with `ip netns exec` or `unshare --net`"
        )),
        (Err(error), _) | (_, Err(error)) => Err(format!(
            "{refused}: `plaintext = true` is honoured only in a network namespace other than init's, and whether this \
             is one cannot be told: reading /proc/thread-self/ns/net and /proc/1/ns/net failed ({error}); the second needs \
             root or CAP_SYS_PTRACE"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn ns(text: &str) -> io::Result<PathBuf> {
        Ok(PathBuf::from(text))
    }

    #[test]
    fn only_loopback_and_private_namespaces_pass() {
        let far: SocketAddr = "192.0.2.1:7000".parse().unwrap();
        check(["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()], false).unwrap();
        let error = check([far], false).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1:7000") && error.contains("plaintext = true"), "{error}");
        assert_eq!(judge(far, true, ns("net:[2]"), ns("net:[1]")), Ok(()));
        assert!(
            judge(far, true, ns("net:[1]"), ns("net:[1]")).unwrap_err().contains("ip netns exec")
        );
        let denied = Err(io::ErrorKind::PermissionDenied.into());
        assert!(judge(far, true, ns("net:[1]"), denied).unwrap_err().contains("/proc/1/ns/net"));
    }
}
