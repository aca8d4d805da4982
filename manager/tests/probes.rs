//! The probes that bpftrace and perf attach to are in the program that is shipped, with their names.

use std::collections::BTreeSet;

/// Names in the ELF notes of owner "stapsdt": three words, then provider, name and arguments, a zero byte after each.
fn probes(program: &[u8]) -> BTreeSet<String> {
    const OWNER: &[u8] = b"stapsdt\0";
    let mut found = BTreeSet::new();
    for at in 0..program.len().saturating_sub(OWNER.len()) {
        if program[at..].starts_with(OWNER)
            && let Some(texts) = program.get(at + OWNER.len() + 3 * 8..)
        {
            let mut texts = texts.split(|byte| *byte == 0).map(String::from_utf8_lossy);
            if texts.next().as_deref() == Some("quintet") {
                found.extend(texts.next().map(String::from));
            }
        }
    }
    found
}

#[test]
fn the_daemon_has_its_probes() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_quintetd")).unwrap();
    let expected = ["deliver", "link_down", "link_up", "publish", "retransmit", "view", "visible"];
    assert_eq!(probes(&program), BTreeSet::from(expected.map(String::from)));
    assert_eq!(probes(b"stapsdt\0 cut off"), BTreeSet::new());
}
