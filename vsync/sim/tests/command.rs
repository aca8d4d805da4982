//! The program as a person meets it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_quintet-sim"))
        .args(["--seed", "3", "--trace"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the simulator");
    let mut first = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    output.read_line(&mut first).expect("a line");
    drop(output);
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    let status = child.wait().expect("an end");
    assert!(!first.is_empty());
    assert_eq!((said.as_str(), status.signal()), ("", Some(libc::SIGPIPE)));
}

fn sim(args: &[&str]) -> (bool, String) {
    let done =
        Command::new(env!("CARGO_BIN_EXE_quintet-sim")).args(args).output().expect("it runs");
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8(said).expect("text"))
}

#[test]
fn no_seeds_are_not_seeds_that_passed() {
    for seeds in ["5..5", "7..5"] {
        let (good, said) = sim(&["run", "--seeds", seeds]);
        assert!(!good && said.contains(&format!("no seed is in {seeds}")), "{said}");
    }
}

#[test]
fn what_did_not_hold_is_named() {
    let (good, said) = sim(&["--seed", "0", "--bug", "null-over-record"]);
    assert!(
        !good && said.contains("VIOLATION seed 0 of invariant correct peers are believed"),
        "{said}"
    );
    let (good, said) =
        sim(&["run", "--seeds", "0..1", "--no-shrink", "--bug", "delivers-unstable"]);
    assert!(!good && said.contains("violated       17 one trim: 1 seeds"), "{said}");
}
