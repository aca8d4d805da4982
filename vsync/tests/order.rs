//! One total order for all, whatever carries it.

mod cluster;

use std::sync::Arc;
use std::thread;

use cluster::{App, options, start_all, wait_for, wait_for_entries, wait_for_view};
use quintet_transport::clock;
use quintet_vsync::{NodeId, Passage, Passages, PathPolicy, SendError, State};

on_every_path!(
    two_nodes_agree,
    three_nodes_agree,
    a_lone_message_needs_no_other,
    messages_of_all_sizes_arrive_whole,
    what_was_sent_before_the_first_view_is_delivered_in_it,
    members_hold_the_read_lease_and_say_what_they_are,
    what_a_quorum_made_durable_is_known_to_all,
    the_stages_of_own_messages_are_told,
);

fn all_send(path: PathPolicy, n: usize, each: usize) {
    let apps = start_all(&options(n, path));
    let all: Vec<&App> = apps.iter().collect();
    wait_for_view(&all, n);
    thread::scope(|s| {
        for (i, app) in apps.iter().enumerate() {
            s.spawn(move || (0..each).for_each(|k| app.send(&format!("{i}:{k}"))));
        }
    });
    wait_for_entries(&all, n * each);
    for i in 0..n {
        // FIFO per sender, nothing lost, nothing twice.
        let mine: Vec<String> = all[0]
            .ledger()
            .texts()
            .into_iter()
            .filter(|t| t.starts_with(&format!("{i}:")))
            .collect();
        let expected: Vec<String> = (0..each).map(|k| format!("{i}:{k}")).collect();
        assert_eq!(mine, expected);
    }
    assert_eq!(all[0].ledger().entries.len(), n * each);
}

fn two_nodes_agree(path: PathPolicy) {
    all_send(path, 2, 2000);
}

fn three_nodes_agree(path: PathPolicy) {
    all_send(path, 3, 3000);
}

#[test]
fn one_node_alone_delivers_to_itself() {
    all_send(PathPolicy::Auto, 1, 2000);
}

fn a_lone_message_needs_no_other(path: PathPolicy) {
    let apps = start_all(&options(3, path));
    let all: Vec<&App> = apps.iter().collect();
    wait_for_view(&all, 3);
    // One at a time: each is delivered without any other traffic to carry acknowledgements or nulls.
    for k in 0..50 {
        apps[k % 3].send(&format!("lone {k}"));
        wait_for_entries(&all, k + 1);
    }
}

fn what_was_sent_before_the_first_view_is_delivered_in_it(path: PathPolicy) {
    let options = options(3, path);
    let first = App::start(options.config(0));
    first.send("early");
    let second = App::start(options.config(1));
    let third = App::start(options.config(2));
    let all = [&first, &second, &third];
    wait_for_view(&all, 3);
    wait_for_entries(&all, 1);
    assert_eq!(all[2].ledger().texts(), ["early"]);
}

fn messages_of_all_sizes_arrive_whole(path: PathPolicy) {
    let apps = start_all(&options(2, path));
    let all: Vec<&App> = apps.iter().collect();
    wait_for_view(&all, 2);
    let max = apps[0].group().max_message();
    let sizes = [0, 1, 7, 8, 9, 1000, 1400, 65_000, 100_000, max];
    for (k, size) in sizes.into_iter().enumerate() {
        let bytes: Vec<u8> = (0..size).map(|b| (b * 31 + k) as u8).collect();
        wait_for("room", || all[k % 2].group().send(&bytes).is_ok());
    }
    wait_for_entries(&all, sizes.len());
    let ledger = all[1].ledger();
    for (k, size) in sizes.into_iter().enumerate() {
        let e = ledger.entries.iter().find(|e| e.bytes.len() == size).expect("each size once");
        assert!(e.bytes.iter().enumerate().all(|(b, x)| *x == (b * 31 + k) as u8), "size {size}");
        assert_eq!(e.sender, NodeId(k as u16 % 2 + 1));
    }
    drop(ledger);
    let error = all[0].group().send(&vec![0; max + 1]).unwrap_err();
    assert_eq!(error, SendError::TooLarge { limit: max });
}

fn the_stages_of_own_messages_are_told(path: PathPolicy) {
    let options = options(3, path);
    let passages = Arc::new(Passages::new(64));
    let mut config = options.config(0);
    config.passages = Some(passages.clone());
    let others = [1, 2].map(|i| App::start(options.config(i)));
    let app = App::start(config);
    let all = [&app, &others[0], &others[1]];
    wait_for_view(&all, 3);
    for k in 0..20 {
        let before = clock::now();
        app.send("mine");
        wait_for_entries(&all, 2 * k + 1);
        let passage = passages.take().expect("it was the only one under way");
        assert_eq!(passage.id, app.ledger().own[k].1);
        let Passage { published, visible, stable, .. } = passage;
        assert!([before, published, visible, stable, clock::now()].is_sorted(), "{passage:?}");
        others[k % 2].send("another's");
        wait_for_entries(&all, 2 * k + 2);
        assert_eq!(passages.take(), None);
    }
}

fn members_hold_the_read_lease_and_say_what_they_are(path: PathPolicy) {
    let apps = start_all(&options(3, path));
    let all: Vec<&App> = apps.iter().collect();
    wait_for_view(&all, 3);
    for app in &all {
        wait_for("the lease", || app.group().lease_valid(clock::now()));
        wait_for("the status", || {
            let status = app.status();
            status.state == State::Member && status.links.len() == 2 && status.view.is_some()
        });
        assert_eq!(app.status().history.len(), app.ledger().views.len());
    }
}

fn what_a_quorum_made_durable_is_known_to_all(path: PathPolicy) {
    let apps = start_all(&options(3, path));
    let all: Vec<&App> = apps.iter().collect();
    wait_for_view(&all, 3);
    let (tx, rx) = std::sync::mpsc::channel();
    all[1].group().on_persisted(move |p| tx.send(p).unwrap_or_default());
    all[0].send("one");
    wait_for_entries(&all, 1);
    let at = all[0].ledger().state;
    for app in &all {
        wait_for("persisted_by_quorum", || app.group().persisted_by_quorum() >= at);
    }
    assert_eq!(rx.into_iter().next(), Some(all[1].group().persisted_by_quorum()));
}
