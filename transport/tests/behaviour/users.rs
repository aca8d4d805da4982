//! Nodes of two users on one host: whose memory is shared with whom.
//!
//! Credentials are a thread's own, so two users are two threads here. Only root can change them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quintet_transport::*;

use crate::harness::*;
use crate::skip::skip;

const GROUP_OF_BOTH: u32 = 4242;

/// This thread goes on as that user, in these groups; the rest of the process stays who it is.
fn become_user(user: u32, group: u32, groups: &[u32]) {
    // SAFETY: bare system calls, which change this thread only; `groups` is as long as is said.
    let done = unsafe {
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr())
            | libc::syscall(libc::SYS_setresgid, group, group, group)
            | libc::syscall(libc::SYS_setresuid, user, user, user)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Who a node is: its user, main group and groups, and the group that it shares memory with.
type Who = (u32, u32, &'static [u32], Option<u32>);

/// The path that two nodes meet by, and why, as the one that looks for the other sees it.
fn meet(who: [Who; 2]) -> (Path, String) {
    let up = Arc::new(AtomicUsize::new(0));
    let run = |(config, who): (Config, Who)| {
        let up = up.clone();
        std::thread::spawn(move || {
            let (user, group, groups, shares) = who;
            become_user(user, group, groups);
            let other = config.peers[0].node.0;
            let mut nodes = [Node::new(Config { shm_gid: shares, ..config })];
            until(&mut nodes, "they meet", |nodes| nodes[0].try_link(other).is_some());
            up.fetch_add(1, Ordering::Relaxed);
            until(&mut nodes, "both do", |_| up.load(Ordering::Relaxed) == 2);
            let link = &nodes[0].poller.links()[0];
            (link.path, link.reason.to_string())
        })
    };
    let threads: Vec<_> = configs(2, PathPolicy::Auto).into_iter().zip(who).map(run).collect();
    let mut ends = threads.into_iter().map(|thread| thread.join().unwrap());
    let (first, second) = (ends.next().unwrap(), ends.next().unwrap());
    assert_eq!(first.0, second.0);
    second
}

#[test]
fn memory_is_shared_with_the_same_user_and_with_the_group_that_both_name() {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        return skip("only root can be two users");
    }
    const ALONE: Who = (65_001, 65_001, &[], None);
    const OTHER: Who = (65_002, 65_002, &[], None);
    assert_eq!(meet([ALONE, ALONE]).0, Path::Shm, "the same user");
    let (path, why) = meet([ALONE, OTHER]);
    assert_eq!(path, Path::Udp);
    assert!(why.contains("runs as another user (65001)"), "{why}");
    // As a group besides, and as the main one.
    let one: Who = (65_001, 65_001, &[7, GROUP_OF_BOTH], Some(GROUP_OF_BOTH));
    let two: Who = (65_002, GROUP_OF_BOTH, &[], Some(GROUP_OF_BOTH));
    assert_eq!(meet([one, two]).0, Path::Shm);
    assert_eq!(meet([two, one]).0, Path::Shm);
    // In the group, which the other does not name; and the other way round.
    let unnamed: Who = (65_002, GROUP_OF_BOTH, &[], None);
    let (path, why) = meet([unnamed, one]);
    assert_eq!(path, Path::Udp);
    assert!(why.contains("does not share memory with this user"), "{why}");
    let (path, why) = meet([one, unnamed]);
    assert_eq!(path, Path::Udp);
    assert!(why.contains("runs as another user (65001)"), "{why}");
    // Named by one who looks for somebody outside.
    let (path, why) = meet([OTHER, one]);
    assert_eq!(path, Path::Udp);
    assert!(why.contains("(65002), who is not in group 4242"), "{why}");
}

#[test]
fn one_who_is_not_in_the_group_is_told_at_its_start() {
    let mut config = configs(1, PathPolicy::Shm).remove(0);
    config.shm_gid = Some(987_654_321);
    let said = Poller::new(config).err().expect("it is refused").to_string();
    assert!(said.contains("group 987654321, and this process is not in it"), "{said}");
}
