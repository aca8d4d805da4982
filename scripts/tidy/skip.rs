//! How a test says that it cannot run here: aloud, and as a failure where everything must run.
//!
//! A test that returns early counts as passed, so a machine that lacks root, a compiler or grpcio would show green
//! for what nobody tried. `scripts/test` installs what the tests need and sets `QUINTET_TEST_ALL=1`; then a skip
//! fails. Tests of other crates take this file in with `#[path]`: it is too small for a crate.

/// Says what is missing, with the way to get it. The caller returns then.
#[track_caller]
pub(crate) fn skip(missing: &str) {
    skip_unless(std::env::var_os("QUINTET_TEST_ALL").is_some_and(|value| value == "1"), missing);
}

#[track_caller]
pub(crate) fn skip_unless(all_must_run: bool, missing: &str) {
    assert!(!all_must_run, "QUINTET_TEST_ALL=1, and this test cannot run: {missing}");
    eprintln!("SKIPPED: {missing}");
}
