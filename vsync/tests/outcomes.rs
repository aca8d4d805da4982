//! Every send has one outcome, and the sender learns of it.

mod cluster;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cluster::process::{Process, child};
use cluster::{App, options, start_all, wait_for, wait_for_view};
use quintet_vsync::{MessageId, PathPolicy, Unresolved};

on_every_path!(
    a_removed_member_learns_what_became_of_its_messages,
    a_member_that_leaves_and_does_not_see_its_view_end_cannot_tell,
    a_message_that_survives_a_view_change_keeps_its_id,
);

const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;

/// Not a test: what the child processes of the others run.
#[test]
fn child_node() {
    child();
}

/// How the first node's membership ends.
#[derive(PartialEq)]
enum End {
    Evicted,
    /// It had asked to leave, which needs a quorum that it did not have.
    Left,
}

/// A member falls silent with messages on their way, and the others go on without it.
fn removed(path: PathPolicy, end: End) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(3, path);
    options.data = Some(dir.path().into());
    let mut nodes: Vec<Process> = (0..3).map(|i| Process::start(&options, i)).collect();
    cluster::process::wait_for_view(&nodes.iter().collect::<Vec<_>>(), 3);
    nodes[0].send("delivered", 50);
    wait_for("deliveries", || nodes[0].seen().entries.len() == 50);
    // The peers stop: what comes now is published, and nobody says that he has it.
    nodes[1].signal(SIGSTOP);
    nodes[2].signal(SIGSTOP);
    nodes[0].send("published", 50);
    wait_for("the sender to block", || nodes[0].seen().blocked);
    // Its view is wedged: what comes now stays where it is.
    nodes[0].send("committed", 50);
    wait_for("the commits", || nodes[0].seen().sent.len() == 150);
    if end == End::Left {
        nodes[0].leave();
    }
    nodes[0].signal(SIGSTOP);
    nodes[1].signal(SIGCONT);
    nodes[2].signal(SIGCONT);
    wait_for("the view without it", || nodes[1].seen().view.1 == 2 && nodes[2].seen().view.1 == 2);
    nodes[0].signal(SIGCONT);
    wait_for("its end", || match end {
        End::Evicted => nodes[0].seen().evictions > 0,
        End::Left => nodes[0].seen().left,
    });

    let seen = nodes[0].seen();
    let [delivered, indeterminate, not_delivered] = &seen.fates;
    assert_eq!(seen.sent, seen.fates.concat(), "each once, in the order sent");
    assert!(delivered.len() >= 50);
    assert!(!indeterminate.is_empty());
    assert!(not_delivered.len() >= 50, "a wedged view publishes nothing");
    let elsewhere = nodes[1].seen().entries;
    assert!(!elsewhere.iter().any(|(_, text)| text.starts_with("committed")));
}

fn a_removed_member_learns_what_became_of_its_messages(path: PathPolicy) {
    removed(path, End::Evicted);
}

fn a_member_that_leaves_and_does_not_see_its_view_end_cannot_tell(path: PathPolicy) {
    removed(path, End::Left);
}

/// Ends the senders however the test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Small bursts without end, so that a view change finds some on their way.
fn bursts(app: &App, stop: &AtomicBool) -> Vec<MessageId> {
    let mut ids = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        ids.extend((0..32).map(|_| app.send_id("m")));
        thread::sleep(Duration::from_millis(1));
    }
    ids
}

fn a_message_that_survives_a_view_change_keeps_its_id(path: PathPolicy) {
    let options = options(3, path);
    let mut apps = start_all(&options);
    let mut third = apps.pop().unwrap();
    let stop = AtomicBool::new(false);
    let sent: Vec<Vec<MessageId>> = thread::scope(|s| {
        let _stop = Stop(&stop);
        wait_for_view(&[&apps[0], &apps[1], &third], 3);
        let senders: Vec<_> = apps.iter().map(|a| s.spawn(|| bursts(a, &stop))).collect();
        // Views change under load until one cuts into a sender's stream.
        wait_for("a message that was re-sent", || {
            third.leave();
            wait_for("Left", || third.ledger().left);
            assert_eq!(third.ledger().ended[0].1, Unresolved::default());
            third = App::start(options.config(2));
            wait_for_view(&[&apps[0], &apps[1], &third], 3);
            apps.iter().any(|a| a.ledger().views.iter().any(|v| !v.resent.is_empty()))
        });
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().map(|s| s.join().unwrap()).collect()
    });
    for (app, sent) in apps.iter().zip(&sent) {
        wait_for("all own messages", || app.ledger().own.len() == sent.len());
        let ledger = app.ledger();
        assert!(ledger.own.iter().map(|(_, id)| id).eq(sent), "each once, in the order sent");
        for change in &ledger.views {
            // The first of the stream that were not delivered before the view, under the ids they had.
            let begin = ledger.own.partition_point(|(at, _)| at.view() < change.view.id);
            let rest = ledger.own[begin..].iter().map(|(_, id)| id);
            assert!(change.resent.iter().eq(rest.take(change.resent.len())));
        }
    }
}
