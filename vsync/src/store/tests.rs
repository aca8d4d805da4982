use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};

use quintet_transport::{Incarnation, NodeId};

use super::{Found, RECORD_MAX, Store};
use crate::error::StoreError;

const NODE: NodeId = NodeId(3);

fn open(dir: &tempfile::TempDir) -> Result<(Store, Option<Found>), StoreError> {
    Store::open(Some(dir.path()), NODE)
}

fn found(dir: &tempfile::TempDir) -> Option<Found> {
    open(dir).unwrap().1
}

fn record(n: u64) -> Vec<u8> {
    vec![n as u8; 100 + n as usize]
}

fn saved(upto: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, none) = open(&dir).unwrap();
    assert_eq!(none, None);
    for n in 1..=upto {
        store.save(Incarnation(n), &record(n)).unwrap();
    }
    dir
}

fn damage(dir: &tempfile::TempDir, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(dir.path().join("acceptor")).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

fn slot(sequence: u64) -> u64 {
    4096 + (sequence % 2) * 32768
}

#[test]
fn the_newest_record_is_found_again() {
    for upto in 0..5 {
        let dir = saved(upto);
        let expected =
            (upto > 0).then(|| Found { incarnation: Incarnation(upto), record: record(upto) });
        assert_eq!(found(&dir), expected);
    }
}

#[test]
fn a_record_may_have_any_length_up_to_the_limit() {
    let dir = saved(0);
    for len in [0, 1, RECORD_MAX] {
        open(&dir).unwrap().0.save(Incarnation(7), &vec![9; len]).unwrap();
        assert_eq!(found(&dir).unwrap().record.len(), len);
    }
}

#[test]
fn saving_goes_on_after_reopening() {
    let dir = saved(3);
    open(&dir).unwrap().0.save(Incarnation(4), &record(4)).unwrap();
    assert_eq!(found(&dir).unwrap().record, record(4));
}

#[test]
fn a_torn_write_leaves_the_record_before() {
    for cut in [0, 3, 8, 16, 20, 23, 24, 60, 103] {
        let dir = saved(4);
        // Record 5 would replace record 3: as much of it as a crash let through, over the old content.
        let (mut store, _) = open(&dir).unwrap();
        store.save(Incarnation(5), &record(5)).unwrap();
        drop(store);
        let mut all = fs::read(dir.path().join("acceptor")).unwrap();
        let old = {
            let dir = saved(4);
            fs::read(dir.path().join("acceptor")).unwrap()
        };
        let at = slot(5) as usize + cut;
        all[at..slot(5) as usize + 32768].copy_from_slice(&old[at..slot(5) as usize + 32768]);
        fs::write(dir.path().join("acceptor"), all).unwrap();
        assert_eq!(found(&dir).unwrap().record, record(4), "cut after {cut} bytes");
    }
}

#[test]
fn a_flipped_bit_in_the_newest_record_is_noticed() {
    let dir = saved(4);
    damage(&dir, slot(4) + 40, &[0xFF]);
    assert_eq!(found(&dir).unwrap().record, record(3));
}

#[test]
fn no_whole_record_is_an_error_that_says_what_it_means() {
    let dir = saved(4);
    damage(&dir, slot(4) + 40, &[0xFF]);
    damage(&dir, slot(3) + 40, &[0xFF]);
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("two groups"), "{error}");
}

#[test]
fn a_cut_file_is_an_error() {
    for keep in [0, 10, 4096, 5000, 69631] {
        let dir = saved(2);
        let file = OpenOptions::new().write(true).open(dir.path().join("acceptor")).unwrap();
        file.set_len(keep).unwrap();
        let error = open(&dir).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{keep} bytes")), "{error}");
    }
}

#[test]
fn a_foreign_file_and_another_nodes_file_are_refused() {
    let dir = saved(1);
    let error = Store::open(Some(dir.path()), NodeId(4)).unwrap_err();
    assert!(matches!(error, StoreError::WrongNode { found: 3, expected: 4, .. }), "{error}");
    damage(&dir, 0, b"something");
    assert!(matches!(open(&dir).unwrap_err(), StoreError::Damaged { .. }));
}

#[test]
fn a_newer_format_is_named_as_such() {
    let dir = saved(1);
    damage(&dir, 8, &9u32.to_le_bytes());
    assert!(matches!(open(&dir).unwrap_err(), StoreError::Version { found: 9, known: 1, .. }));
}

#[test]
fn one_process_at_a_time() {
    let dir = saved(1);
    let first = open(&dir).unwrap();
    assert!(matches!(open(&dir).unwrap_err(), StoreError::Busy { .. }));
    drop(first);
    open(&dir).unwrap();
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    // As root permissions do not bind, so a file stands where the directory should be; otherwise the mode does it.
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("data");
    fs::write(&blocked, b"").unwrap();
    fs::set_permissions(&blocked, fs::Permissions::from_mode(0o400)).unwrap();
    let error = Store::open(Some(&blocked), NODE).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("data") && text.contains("writable"), "{text}");
}

#[test]
fn memory_remembers_nothing() {
    let (mut store, _) = Store::open(None, NODE).unwrap();
    store.save(Incarnation(1), b"x").unwrap();
    assert_eq!(Store::open(None, NODE).unwrap().1, None);
}
