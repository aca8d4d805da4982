//! What cannot be done is said in words, before anything is measured where that can be known.

use std::process::{Command, Output, Stdio};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn nothing_at_all_is_not_measured() {
    for how in [
        "pingpong -n 0",
        "put -n 0 --fail-if p99>1ns",
        "pingpong -D 0",
        "rate -D 0",
        "bw -n 0",
        "incast -D 0",
        "multicast -D 0",
        "detect -n 0",
    ] {
        let output = super::perf(how);
        assert_eq!(output.status.code(), Some(2), "{how}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{how}");
    }
}

/// Measuring would take an hour: who says it at once has not measured.
#[test]
fn what_cannot_come_of_it_is_said_before_it_is_measured() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().display();
    for (how, words) in [
        ("--fail-if p98>1us".to_owned(), "there is no p98"),
        ("--fail-if p99>1x".to_owned(), "--baseline"),
        (format!("--svg {dir}/none/plot"), "none/plot: No such file"),
        (format!("--hgrm {dir}/none/plot"), "none/plot: No such file"),
        (format!("--hlog {dir}"), "is a directory"),
    ] {
        let output = super::perf(&format!("pingpong -D 3600 {how}"));
        let error = said(&output);
        assert!(output.status.code() == Some(1) && error.contains(words), "{how}: {error}");
        assert!(output.stdout.is_empty(), "{how}");
    }
    let samples = format!("pingpong -n 1000000000000 --samples {dir}/samples");
    let output = super::perf(&samples);
    let error = said(&output);
    assert!(output.status.code() == Some(1) && error.contains("no memory for"), "{error}");
}

#[test]
fn a_full_disk_is_an_error_in_words() {
    for how in ["", " --json", " --csv", " --svg /dev/full", " --samples /dev/full"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there");
        let out = if how.contains("/dev/full") { Stdio::null() } else { full.into() };
        let output = Command::new(env!("CARGO_BIN_EXE_quintet-perf"))
            .args(format!("pingpong -n 20 --warm-up 2{how}").split(' '))
            .stdout(out)
            .output()
            .expect("the program starts");
        let error = said(&output);
        assert_eq!(output.status.code(), Some(1), "{how}: {error}");
        assert!(error.contains("No space left"), "{how}: {error}");
    }
}

#[test]
fn a_measurement_beside_a_baseline_is_of_the_same_machine_if_pinned() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("baseline.json");
    let common = "pingpong --wait block -n 20 --warm-up 2";
    std::fs::write(&file, super::perf(&format!("{common} --json")).stdout).expect("written");
    let output = super::perf(&format!("{common} --pin 0,0 --baseline {}", file.display()));
    let error = said(&output);
    if output.status.success() {
        assert!(
            error.contains("parameters differ") && !error.contains("another machine"),
            "{error}"
        );
    } else {
        assert!(error.contains("core 0"), "a machine that has another first core: {error}");
    }
}
