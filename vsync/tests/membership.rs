//! Coming and going of members, in one process.

mod cluster;

use cluster::{App, assert_equal, options, start_all, wait_for, wait_for_entries, wait_for_view};
#[cfg(feature = "verbs")]
use quintet_transport::Path;
use quintet_vsync::{NodeId, PathPolicy, SendError};

on_every_path!(
    a_member_that_stops_is_removed_and_comes_back_with_state,
    leaving_is_a_clean_hand_over,
    a_join_under_load_leaves_no_gap,
    the_coordinator_may_stop_too,
    without_a_quorum_the_survivor_blocks_and_goes_on_when_one_is_back,
    a_total_restart_goes_on_from_the_records,
);

fn a_member_that_stops_is_removed_and_comes_back_with_state(path: PathPolicy) {
    let options = options(3, path);
    let mut apps = start_all(&options);
    wait_for_view(&apps.iter().collect::<Vec<_>>(), 3);
    (0..200).for_each(|k| apps[k % 3].send(&format!("a{k}")));
    wait_for_entries(&apps.iter().collect::<Vec<_>>(), 200);

    apps.pop().unwrap().stop();
    let rest: Vec<&App> = apps.iter().collect();
    wait_for_view(&rest, 2);
    (0..200).for_each(|k| apps[k % 2].send(&format!("b{k}")));
    wait_for_entries(&rest, 400);

    let back = App::start(options.config(2));
    let all = [&apps[0], &apps[1], &back];
    wait_for_view(&all, 3);
    (0..300).for_each(|k| all[k % 3].send(&format!("c{k}")));
    wait_for_entries(&all, 700);
    assert_eq!(back.ledger().entries.len(), 700);
    assert!(back.ledger().loaded >= 400, "the state came by transfer");
}

fn a_join_under_load_leaves_no_gap(path: PathPolicy) {
    let options = options(3, path);
    let mut apps = start_all(&options);
    wait_for_view(&apps.iter().collect::<Vec<_>>(), 3);
    apps.pop().unwrap().stop();
    wait_for_view(&apps.iter().collect::<Vec<_>>(), 2);
    let back = std::thread::scope(|s| {
        let sender = s.spawn(|| (0..20_000).for_each(|k| apps[k % 2].send(&format!("m{k}"))));
        let back = App::start(options.config(2));
        wait_for_view(&[&apps[0], &apps[1], &back], 3);
        sender.join().unwrap();
        back
    });
    let all = [&apps[0], &apps[1], &back];
    wait_for_entries(&all, 20_000);
    assert_eq!(back.ledger().entries.len(), 20_000);
}

/// The cable between the adapters is away while this lives.
#[cfg(feature = "verbs")]
struct Cut;

#[cfg(feature = "verbs")]
impl Cut {
    fn sh(script: &str) {
        let status = std::process::Command::new("sh").args(["-ec", script]).status().expect("sh");
        assert!(status.success(), "{script}");
    }

    fn now() -> Cut {
        Cut::sh("ip link set eth-b down");
        Cut
    }
}

#[cfg(feature = "verbs")]
impl Drop for Cut {
    /// With the interface the kernel has dropped what was said about it.
    fn drop(&mut self) {
        Cut::sh(
            "ip link set eth-b up
            ip neighbour replace 10.77.0.1 lladdr 02:00:00:00:00:0a dev eth-b nud permanent
            ip route replace local 10.77.0.2 dev eth-b table 12
            ip route replace 10.77.0.1 dev eth-b src 10.77.0.2 table 13",
        );
    }
}

#[test]
#[cfg(feature = "verbs")]
fn a_cable_that_is_away_for_a_while_removes_nobody_who_is_linked_by_verbs() {
    if !cluster::has_adapters() {
        return;
    }
    let apps = start_all(&options(3, PathPolicy::Verbs));
    let all: Vec<&App> = apps.iter().collect();
    wait_for_view(&all, 3);
    (0..200).for_each(|k| all[k % 3].send(&format!("a{k}")));
    wait_for_entries(&all, 200);
    let view = all[0].view();
    let cut = Cut::now();
    (0..200).for_each(|k| all[k % 3].send(&format!("b{k}")));
    // Far longer than a silent member would be waited for.
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(all.iter().any(|app| app.ledger().entries.len() < 400), "the cable carries them");
    drop(cut);
    wait_for_entries(&all, 400);
    assert_equal(&all);
    for app in all {
        assert_eq!((app.view(), app.ledger().evictions), (view, 0));
    }
}

/// What `act` starts runs as another user: its shared memory is nobody else's.
#[cfg(feature = "verbs")]
fn as_user<T: Send>(user: u32, act: impl FnOnce() -> T + Send) -> T {
    let start = || {
        // SAFETY: no pointers. The system call, unlike the library's function, is about this thread alone.
        let failed = unsafe { libc::syscall(libc::SYS_setresuid, -1, user, -1) };
        assert_eq!(failed, 0, "a guest's root may be anybody");
        act()
    };
    std::thread::scope(|scope| scope.spawn(start).join().expect("started"))
}

#[test]
#[cfg(feature = "verbs")]
fn a_cable_that_stays_away_leaves_the_group_to_udp_as_it_is_and_takes_it_back() {
    if !cluster::has_adapters() {
        return;
    }
    Cut::sh("chmod 666 /dev/infiniband/*");
    let options = options(3, PathPolicy::Verbs);
    let start = |index: usize| {
        let mut config = options.config(index);
        config.path = PathPolicy::Auto;
        as_user(60_000 + index as u32, || App::start(config))
    };
    let apps: Vec<App> = (0..3).map(start).collect();
    let all: Vec<&App> = apps.iter().collect();
    wait_for_view(&all, 3);
    let go_by = |app: &App, path: Path| {
        let status = app.status();
        status.links.iter().filter(|link| link.alive && link.path == path).count()
    };
    // Nodes 1 and 3 have the same end of the cable.
    let by_verbs = || all.iter().all(|app| go_by(app, Path::Verbs) == 2);
    wait_for("links over verbs", by_verbs);
    let view = all[0].view();
    (0..200).for_each(|k| all[k % 3].send(&format!("a{k}")));
    wait_for_entries(&all, 200);
    let (cut, start) = (Cut::now(), std::time::Instant::now());
    (0..200).for_each(|k| all[k % 3].send(&format!("b{k}")));
    wait_for_entries(&all, 400);
    // The second end of the cable is away, and with it what its node has.
    wait_for("links over udp", || go_by(all[1], Path::Udp) == 2);
    // Longer than a link may be without a queue pair where it has no other way.
    while start.elapsed() < std::time::Duration::from_secs(12) {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    (0..200).for_each(|k| all[k % 3].send(&format!("c{k}")));
    wait_for_entries(&all, 600);
    drop(cut);
    wait_for("links over verbs again", by_verbs);
    (0..200).for_each(|k| all[k % 3].send(&format!("d{k}")));
    wait_for_entries(&all, 800);
    assert_equal(&all);
    for app in all {
        assert_eq!((app.view(), app.ledger().evictions), (view, 0));
    }
}

fn leaving_is_a_clean_hand_over(path: PathPolicy) {
    let apps = start_all(&options(3, path));
    let all: Vec<&App> = apps.iter().collect();
    wait_for_view(&all, 3);
    (0..500).for_each(|k| all[2].send(&format!("{k}")));
    all[2].leave();
    wait_for("Left", || all[2].ledger().left);
    let rest = &all[..2];
    wait_for_view(rest, 2);
    // Everything committed before the wish to leave is delivered, and nobody waited for a time-out.
    wait_for_entries(rest, 500);
    let ledger = all[0].ledger();
    let last = ledger.views.last().unwrap();
    assert_eq!(last.view.departed.len(), 1);
    assert_eq!(last.view.departed[0].why, quintet_vsync::Why::Left);
    assert_eq!(last.view.departed[0].member.node, NodeId(3));
    assert_eq!(all[2].group().send(b"x").unwrap_err(), SendError::Closed);
}

fn the_coordinator_may_stop_too(path: PathPolicy) {
    let mut apps = start_all(&options(3, path));
    wait_for_view(&apps.iter().collect::<Vec<_>>(), 3);
    let lowest = apps[0].ledger().views[0].view.members[0].node;
    let index = usize::from(lowest.0) - 1;
    apps[0].send("before");
    wait_for_entries(&apps.iter().collect::<Vec<_>>(), 1);
    apps.remove(index).stop();
    let rest: Vec<&App> = apps.iter().collect();
    wait_for_view(&rest, 2);
    rest[0].send("after");
    wait_for_entries(&rest, 2);
}

fn without_a_quorum_the_survivor_blocks_and_goes_on_when_one_is_back(path: PathPolicy) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(3, path);
    options.data = Some(dir.path().into());
    let mut apps = start_all(&options);
    wait_for_view(&apps.iter().collect::<Vec<_>>(), 3);
    apps[0].send("one");
    wait_for_entries(&apps.iter().collect::<Vec<_>>(), 1);
    // Both at once, as far as the survivor can tell.
    let (c, b) = (apps.pop().unwrap(), apps.pop().unwrap());
    std::thread::scope(|s| {
        s.spawn(|| b.stop());
        s.spawn(|| c.stop());
    });
    let a = &apps[0];
    wait_for("blocked", || a.ledger().blocked);
    wait_for("no lease", || {
        !a.group().lease_valid(quintet_transport::clock::now()) || !a.ledger().blocked
    });
    let b = App::start(options.config(1));
    wait_for_view(&[a, &b], 2);
    a.send("two");
    wait_for_entries(&[a, &b], 2);
    assert!(!a.ledger().blocked);
    let c = App::start(options.config(2));
    wait_for_view(&[a, &b, &c], 3);
    wait_for_entries(&[a, &b, &c], 2);
}

fn a_total_restart_goes_on_from_the_records(path: PathPolicy) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(3, path);
    options.data = Some(dir.path().into());
    let apps = start_all(&options);
    let all: Vec<&App> = apps.iter().collect();
    wait_for_view(&all, 3);
    (0..100).for_each(|k| all[k % 3].send(&format!("{k}")));
    wait_for_entries(&all, 100);
    let view = all[0].ledger().view();
    std::thread::scope(|s| apps.into_iter().for_each(|a| drop(s.spawn(|| a.stop()))));

    let apps = start_all(&options);
    let all: Vec<&App> = apps.iter().collect();
    wait_for_view(&all, 3);
    assert!(all[0].ledger().view() > view, "view ids go on");
    all[1].send("again");
    wait_for_entries(&all, 101);
    assert_equal(&all);
}
