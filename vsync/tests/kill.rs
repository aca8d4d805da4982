//! Deaths of processes: nothing that was delivered is lost, and what comes back comes back whole.

mod cluster;

use cluster::process::{Process, child, wait_for_equal, wait_for_view};
use cluster::{Options, options, wait_for};
use quintet_vsync::PathPolicy;

const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;

on_every_path!(
    a_killed_member_is_removed_and_returns,
    a_stopped_member_is_evicted_and_joins_again,
    two_killed_block_the_third_until_one_is_back,
    all_killed_restart_from_their_records,
);

/// Not a test: what the child processes of the others run.
#[test]
fn child_node() {
    child();
}

fn three(path: PathPolicy) -> (tempfile::TempDir, Options, Vec<Process>) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(3, path);
    options.data = Some(dir.path().into());
    let nodes: Vec<Process> = (0..3).map(|i| Process::start(&options, i)).collect();
    wait_for_view(&nodes.iter().collect::<Vec<_>>(), 3);
    (dir, options, nodes)
}

fn a_killed_member_is_removed_and_returns(path: PathPolicy) {
    let (_dir, options, mut nodes) = three(path);
    nodes.iter_mut().for_each(|n| n.send("a", 2000));
    wait_for("some deliveries", || nodes[1].seen().entries.len() > 500);
    let victim = nodes.pop().unwrap();
    let delivered_there = victim.seen().entries;
    victim.kill();
    wait_for_view(&nodes.iter().collect::<Vec<_>>(), 2);
    let entries = wait_for_equal(&nodes.iter().collect::<Vec<_>>(), 4000);
    assert_eq!(
        entries[..delivered_there.len()],
        delivered_there,
        "what the victim delivered, the survivors did"
    );
    let count = |n: usize| entries.iter().filter(|e| e.1 == format!("a{n}")).count();
    assert!((0..2000).all(|n| (2..=3).contains(&count(n))), "both survivors' messages, each once");
    nodes.push(Process::start(&options, 2));
    wait_for_view(&nodes.iter().collect::<Vec<_>>(), 3);
    nodes[2].send("back", 10);
    let entries = wait_for_equal(&nodes.iter().collect::<Vec<_>>(), entries.len() + 10);
    assert!(entries.iter().any(|e| e.1 == "back9"));
}

fn a_stopped_member_is_evicted_and_joins_again(path: PathPolicy) {
    let (_dir, _options, mut nodes) = three(path);
    nodes[0].send("a", 100);
    wait_for_equal(&nodes.iter().collect::<Vec<_>>(), 100);
    nodes[2].signal(SIGSTOP);
    wait_for("the view without it", || nodes[0].seen().view.1 == 2 && nodes[1].seen().view.1 == 2);
    // Enough to reuse the whole log several times: what the stopped node would find is not what was delivered.
    nodes[0].send("while-it-slept-", 50_000);
    wait_for("progress without it", || nodes[1].seen().entries.len() == 50_100);
    nodes[2].signal(SIGCONT);
    wait_for("its eviction", || nodes[2].seen().evictions > 0);
    wait_for_view(&nodes.iter().collect::<Vec<_>>(), 3);
    wait_for_equal(&nodes.iter().collect::<Vec<_>>(), 50_100);
}

fn two_killed_block_the_third_until_one_is_back(path: PathPolicy) {
    let (_dir, options, mut nodes) = three(path);
    nodes[1].send("a", 300);
    let before = wait_for_equal(&nodes.iter().collect::<Vec<_>>(), 300);
    let (c, b) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    // Stopped first, so that neither sees the other die.
    b.signal(SIGSTOP);
    c.signal(SIGSTOP);
    b.kill();
    c.kill();
    wait_for("the survivor to block", || nodes[0].seen().blocked);
    nodes.push(Process::start(&options, 2));
    wait_for_view(&nodes.iter().collect::<Vec<_>>(), 2);
    wait_for("the survivor to go on", || !nodes[0].seen().blocked);
    nodes[0].send("b", 10);
    let after = wait_for_equal(&nodes.iter().collect::<Vec<_>>(), 310);
    assert_eq!(after[..300], before);
    nodes.push(Process::start(&options, 1));
    wait_for_view(&nodes.iter().collect::<Vec<_>>(), 3);
    assert_eq!(wait_for_equal(&nodes.iter().collect::<Vec<_>>(), 310), after);
}

fn all_killed_restart_from_their_records(path: PathPolicy) {
    let (_dir, options, mut nodes) = three(path);
    nodes.iter_mut().for_each(|n| n.send("a", 200));
    let before = wait_for_equal(&nodes.iter().collect::<Vec<_>>(), 600);
    let view = nodes[0].seen().view.0;
    nodes.drain(..).for_each(Process::kill);
    let mut nodes: Vec<Process> = (0..3).map(|i| Process::start(&options, i)).collect();
    wait_for_view(&nodes.iter().collect::<Vec<_>>(), 3);
    assert!(nodes[0].seen().view.0 > view);
    nodes[2].send("b", 5);
    let after = wait_for_equal(&nodes.iter().collect::<Vec<_>>(), 605);
    assert_eq!(after[..600], before);
}
