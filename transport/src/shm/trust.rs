//! With whom memory is shared: processes of the same user and, where the configuration says so, of one group.
//!
//! Who is at the other end of a socket is what the kernel recorded when it connected or began to listen; nothing that it
//! says of itself counts.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};

/// More groups than any process has.
const GROUPS_MAX: usize = 65_536;

/// Who may have our memory, and give us its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trust {
    group: Option<u32>,
}

impl Trust {
    /// The same user and that group.
    pub(super) fn new(group: Option<u32>) -> Result<Trust, String> {
        group.map_or(Ok(()), check_shm_gid).map(|()| Trust { group })
    }

    /// Why not with the process at the other end.
    pub(super) fn judge(self, socket: &OwnedFd) -> Result<(), String> {
        let other = match credentials(socket) {
            Ok(other) if other.uid == own_user() => return Ok(()),
            Ok(other) => other,
            Err(error) => return Err(format!("runs as nobody knows whom: {error}")),
        };
        let user = other.uid;
        match self.group {
            None => Err(format!("runs as another user ({user})")),
            Some(gid) if other.gid == gid => Ok(()),
            Some(gid) if groups(socket).is_ok_and(|groups| groups.contains(&gid)) => Ok(()),
            Some(gid) => Err(format!("runs as another user ({user}), who is not in group {gid}")),
        }
    }
}

/// Whether this process may share memory with that group ([`Config::shm_gid`](crate::Config::shm_gid)). If not, why, and
/// what to do.
pub fn check_shm_gid(gid: u32) -> Result<(), String> {
    if own_groups().contains(&gid) {
        return Ok(());
    }
    Err(format!(
        "memory is to be shared with group {gid}, and this process is not in it, so its peers would turn it away: \
         add the user to the group, or write SupplementaryGroups={gid} in the unit"
    ))
}

fn own_user() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

fn own_groups() -> Vec<u32> {
    let mut groups = vec![0; GROUPS_MAX];
    // SAFETY: room for as many as are said to fit.
    let count = unsafe { libc::getgroups(GROUPS_MAX as i32, groups.as_mut_ptr()) };
    groups.truncate(usize::try_from(count).unwrap_or(0));
    // SAFETY: no arguments, cannot fail.
    groups.push(unsafe { libc::getegid() });
    groups
}

fn credentials(socket: &OwnedFd) -> io::Result<libc::ucred> {
    let mut it = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: `it` has `len` writable bytes.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut it).cast(), &mut len)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(it) }
}

/// The supplementary groups of the process at the other end.
fn groups(socket: &OwnedFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; GROUPS_MAX];
    let mut len = size_of_val(&groups[..]) as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERGROUPS);
    // SAFETY: `groups` has `len` writable bytes.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, groups.as_mut_ptr().cast(), &mut len)
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(len as usize / size_of::<u32>());
    Ok(groups)
}
