//! A skip is loud, and a failure where everything must run.

#[path = "../skip.rs"]
mod skip;

use std::process::Command;

use skip::{skip, skip_unless};

#[test]
fn a_test_that_cannot_run_may_be_skipped() {
    skip_unless(false, "no compiler");
}

#[test]
#[should_panic(expected = "cannot run: no compiler")]
fn but_not_where_everything_must_run() {
    skip_unless(true, "no compiler");
}

#[test]
fn the_environment_says_which() {
    if std::env::var_os("QUINTET_SKIP_CHILD").is_some() {
        return skip("no such tool");
    }
    let skips = |all: &str| {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_environment_says_which", "--nocapture"])
            .envs([("QUINTET_SKIP_CHILD", "1"), ("QUINTET_TEST_ALL", all)])
            .output()
            .unwrap();
        (child.status.success(), String::from_utf8_lossy(&child.stderr).into_owned())
    };
    let (passed, said) = skips("0");
    assert!(passed && said.contains("SKIPPED: no such tool"), "{said}");
    let (passed, said) = skips("1");
    assert!(!passed && said.contains("no such tool"), "{said}");
}
