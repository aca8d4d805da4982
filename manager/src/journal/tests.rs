//! Recovery from every cut and every flipped bit.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::fs;

/// What a node would hold: the position and all entries applied, as a snapshot would keep them.
#[derive(Clone, Debug, Default, PartialEq)]
struct State(Vec<(u64, Vec<u8>)>);

impl State {
    fn replay(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Message { at, bytes } => self.0.push((at, bytes.to_vec())),
            Entry::View { at, view, members } => {
                self.0.push((at, format!("{view} {members:?}").into()))
            }
        }
    }

    fn save(&self) -> Vec<u8> {
        format!("{:?}", self.0).into_bytes()
    }
}

fn recover_into(dir: &Path, snapshots: &[State]) -> (State, Recovered) {
    let mut state = State::default();
    let load = |state: &mut State, bytes: &[u8], _| {
        let known = snapshots.iter().find(|s| s.save() == bytes).ok_or("unknown bytes")?;
        *state = known.clone();
        Ok(())
    };
    let recovered = recover(dir, &mut state, load, State::replay).unwrap();
    (state, recovered)
}

fn sample() -> Vec<Entry<'static>> {
    vec![
        Entry::View { at: 1 << 40, view: 1, members: vec![1, 2, 3] },
        Entry::Message { at: 1 << 40, bytes: b"first" },
        Entry::Message { at: (1 << 40) + 3, bytes: b"" },
        Entry::View { at: 2 << 40, view: 2, members: vec![1, 3] },
        Entry::Message { at: (2 << 40) + 1, bytes: b"a longer message than the others" },
    ]
}

fn written(dir: &Path, entries: &[Entry<'_>]) -> PathBuf {
    let (_, recovered) = recover_into(dir, &[]);
    let mut journal = Journal::open(dir, Sync::Os, &recovered).unwrap();
    entries.iter().for_each(|entry| journal.append(entry));
    assert_eq!(journal.flush().unwrap(), entries.last().map_or(0, Entry::upto));
    journal.path.clone()
}

fn expected(entries: &[Entry<'_>]) -> State {
    let mut state = State::default();
    entries.iter().cloned().for_each(|entry| state.replay(entry));
    state
}

#[test]
fn what_was_flushed_is_recovered_and_the_journal_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let entries = sample();
    written(dir.path(), &entries[..2]);
    let (state, recovered) = recover_into(dir.path(), &[]);
    assert_eq!((state, recovered.upto), (expected(&entries[..2]), entries[1].upto()));
    let mut journal = Journal::open(dir.path(), Sync::Disk, &recovered).unwrap();
    entries[2..].iter().for_each(|entry| journal.append(entry));
    journal.flush().unwrap();
    let (state, recovered) = recover_into(dir.path(), &[]);
    assert_eq!(state, expected(&entries));
    assert_eq!((recovered.entries, recovered.repairs.len()), (5, 0));
}

#[test]
fn a_file_cut_at_any_byte_gives_the_entries_before_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let entries = sample();
    let path = written(dir.path(), &entries);
    let whole = fs::read(&path).unwrap();
    for length in 0..=whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (state, recovered) = recover_into(dir.path(), &[]);
        let count = state.0.len();
        assert_eq!(state, expected(&entries[..count]), "cut at {length}");
        assert_eq!(recovered.upto, entries[..count].last().map_or(0, Entry::upto));
        assert_eq!(recovered.repairs.is_empty(), {
            let mut ends = vec![16];
            let mut bytes = Vec::new();
            ends.extend(entries.iter().map(|entry| {
                entry.encode(&mut bytes);
                16 + bytes.len()
            }));
            ends.contains(&length)
        });
        // It goes on from there, and what is appended then is found behind what was kept.
        let mut journal = Journal::open(dir.path(), Sync::Os, &recovered).unwrap();
        let more = Entry::Message { at: 9 << 40, bytes: b"more" };
        journal.append(&more);
        journal.flush().unwrap();
        let (state, again) = recover_into(dir.path(), &[]);
        assert_eq!((state.0.len(), again.repairs.len()), (count + 1, 0), "cut at {length}");
        for file in fs::read_dir(dir.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_never_gives_a_wrong_entry() {
    let dir = tempfile::tempdir().unwrap();
    let entries = sample();
    let path = written(dir.path(), &entries);
    let whole = fs::read(&path).unwrap();
    for at in 16..whole.len() {
        for bit in [0, 3, 7] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            fs::write(&path, &damaged).unwrap();
            let (state, recovered) = recover_into(dir.path(), &[]);
            assert!(state.0.len() < entries.len(), "byte {at} bit {bit}");
            assert_eq!(state, expected(&entries[..state.0.len()]), "byte {at} bit {bit}");
            assert_eq!(recovered.repairs.len(), 1);
        }
    }
}

#[test]
fn a_snapshot_makes_older_files_superfluous_and_a_crash_at_any_step_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let entries = sample();
    let (_, recovered) = recover_into(dir.path(), &[]);
    let mut journal = Journal::open(dir.path(), Sync::Os, &recovered).unwrap();
    entries[..3].iter().for_each(|entry| journal.append(entry));
    let position = journal.rotate().unwrap();
    let snapshot = [expected(&entries[..3])];
    let check = |step: &str| {
        assert_eq!(recover_into(dir.path(), &snapshot).0, expected(&entries), "{step}")
    };
    entries[3..].iter().for_each(|entry| journal.append(entry));
    journal.flush().unwrap();
    check("segment begun, no snapshot yet");
    let mut file = SnapshotFile::create(dir.path(), "own").unwrap();
    file.write_all(&snapshot[0].save()[..5]).unwrap();
    check("half a snapshot");
    file.write_all(&snapshot[0].save()[5..]).unwrap();
    file.finish(position).unwrap();
    check("snapshot in place, nothing deleted");
    journal.prune(position).unwrap();
    check("pruned");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "one snapshot, one segment");
}

#[test]
fn an_unusable_snapshot_is_set_aside_and_the_one_before_serves() {
    let dir = tempfile::tempdir().unwrap();
    let entries = sample();
    let (_, recovered) = recover_into(dir.path(), &[]);
    let mut journal = Journal::open(dir.path(), Sync::Os, &recovered).unwrap();
    journal.append(&entries[0]);
    let position = journal.rotate().unwrap();
    journal.append(&entries[1]);
    journal.flush().unwrap();
    let mut file = SnapshotFile::create(dir.path(), "own").unwrap();
    file.write_all(b"rotten").unwrap();
    file.finish(position).unwrap();
    let (state, recovered) = recover_into(dir.path(), &[]);
    assert_eq!(state, expected(&entries[..2]));
    assert!(recovered.repairs[0].contains("unknown bytes"), "{:?}", recovered.repairs);
}

#[test]
fn with_its_only_snapshot_gone_a_node_starts_empty_rather_than_with_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (_, recovered) = recover_into(dir.path(), &[]);
    let mut journal = Journal::open(dir.path(), Sync::Os, &recovered).unwrap();
    journal.restart(5 << 40).unwrap();
    journal.append(&Entry::Message { at: 5 << 40, bytes: b"x" });
    journal.flush().unwrap();
    let (state, recovered) = recover_into(dir.path(), &[]);
    assert_eq!((state, recovered.upto), (State::default(), 0));
    assert!(recovered.repairs[0].contains("missing"), "{:?}", recovered.repairs);
}

#[test]
fn an_abandoned_snapshot_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    drop(SnapshotFile::create(dir.path(), "own").unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_an_error_that_says_what_to_do() {
    let error = Error {
        path: "/data/journal".into(),
        what: "write",
        source: io::ErrorKind::StorageFull.into(),
    };
    assert!(error.to_string().contains("leaves the group. Make room"), "{error}");
}

proptest! {
    #[test]
    fn entries_come_back_and_no_bytes_panic(bytes in vec(any::<u8>(), 0..200), at: u64, members: Vec<u16>, junk in vec(any::<u8>(), 0..60)) {
        let at = at >> 1;
        let mut out = Vec::new();
        let entries = [Entry::Message { at, bytes: &bytes }, Entry::View { at, view: 7, members }];
        for entry in &entries {
            out.clear();
            entry.encode(&mut out);
            let (again, length) = Entry::decode(&out).unwrap().unwrap();
            prop_assert_eq!((&again, length), (entry, out.len()));
        }
        let _ = Entry::decode(&junk);
    }
}
