//! An application that does not consume pushes back on senders, and on nothing else.

mod cluster;

use std::time::{Duration, Instant};

use cluster::{App, options, start_all, wait_for, wait_for_entries, wait_for_view};
use quintet_vsync::{PathPolicy, SendError};

on_every_path!(a_slow_application_pushes_back);

fn a_slow_application_pushes_back(path: PathPolicy) {
    let mut options = options(3, path);
    options.group_log = 1 << 14;
    options.queue = 64;
    let mut apps = start_all(&options);
    wait_for_view(&apps.iter().collect::<Vec<_>>(), 3);
    apps[2].set_slow(20);
    // Far more than the logs hold: the sender must be refused at some time, and lose nothing.
    let (mut sent, mut refused) = (0, 0);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        match apps[0].group().send(format!("{sent:0>100}").as_bytes()) {
            Ok(_) => sent += 1,
            Err(SendError::Full) => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert!(refused > 0, "{sent} messages went into a log of 16 KiB that nobody emptied");
    assert_eq!(apps[2].ledger().view(), apps[0].ledger().view(), "the slow one is still a member");
    assert_eq!(apps[0].ledger().members().len(), 3, "nobody was removed for being slow");

    // A view change does not wait for it either.
    apps.remove(1).stop();
    wait_for("the others' view", || apps[0].ledger().members().len() == 2);
    apps[1].set_slow(0);
    let all: Vec<&App> = apps.iter().collect();
    wait_for_view(&all, 2);
    wait_for_entries(&all, sent);
    assert_eq!(all[1].ledger().entries.len(), sent);
}
