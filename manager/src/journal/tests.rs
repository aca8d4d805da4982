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
    journal.move_to(dir.path(), 5 << 40).unwrap();
    fs::remove_file(dir.path().join(format!("journal-{:020}.log", 0))).unwrap();
    journal.append(&Entry::Message { at: 5 << 40, bytes: b"x" });
    journal.flush().unwrap();
    let (state, recovered) = recover_into(dir.path(), &[]);
    assert_eq!((state, recovered.upto), (State::default(), 0));
    assert!(recovered.repairs[0].contains("missing"), "{:?}", recovered.repairs);
}

/// A data directory whose node has `sample()[..2]`, and has received a snapshot of `sample()[..3]` and the rest.
fn learned(data: &Path) -> (Journal, [State; 1]) {
    let entries = sample();
    let state = settle(data).unwrap();
    written(&state, &entries[..2]);
    let (_, recovered) = recover_into(&state, &[]);
    let mut journal = Journal::open(&state, Sync::Os, &recovered).unwrap();
    let received = receive(data).unwrap();
    let snapshot = [expected(&entries[..3])];
    let mut file = SnapshotFile::create(&received, "received").unwrap();
    file.write_all(&snapshot[0].save()).unwrap();
    let position = entries[2].upto();
    file.finish(position).unwrap();
    journal.move_to(&received, position).unwrap();
    entries[3..].iter().for_each(|entry| journal.append(entry));
    journal.flush().unwrap();
    (journal, snapshot)
}

#[test]
fn a_learner_killed_between_any_two_steps_has_what_it_had_or_all_of_the_group() {
    let (old, new) = (expected(&sample()[..2]), expected(&sample()));
    for steps in 0..=place::STEPS.len() {
        let dir = tempfile::tempdir().unwrap();
        let (_, snapshot) = learned(dir.path());
        place::STEPS[..steps].iter().for_each(|step| step(dir.path()).unwrap());
        // It may be killed while it puts things in order, too.
        for _ in 0..2 {
            let state = settle(dir.path()).unwrap();
            let (recovered, figures) = recover_into(&state, &snapshot);
            let whole = if steps == 0 { &old } else { &new };
            assert_eq!(&recovered, whole, "killed after {steps} steps");
            // What it says it has is what it has.
            let last = sample()[whole.0.len() - 1].upto();
            assert_eq!((figures.upto, figures.repairs.len()), (last, 0));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        }
    }
}

#[test]
fn a_learner_killed_before_all_was_received_has_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = learned(dir.path());
    let whole = fs::read(&journal.path).unwrap();
    let snapshot = journal.dir().join(format!("snapshot-{:020}.state", sample()[2].upto()));
    for (path, length) in [(&journal.path, whole.len() - 3), (&journal.path, 0), (&snapshot, 4)] {
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length as u64).unwrap();
    }
    let state = settle(dir.path()).unwrap();
    assert_eq!(recover_into(&state, &[]).0, expected(&sample()[..2]));
}

#[test]
fn a_journal_that_was_adopted_goes_on_in_its_new_place() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, snapshot) = learned(dir.path());
    journal.adopt(dir.path()).unwrap();
    journal.append(&Entry::Message { at: 9 << 40, bytes: b"more" });
    journal.flush().unwrap();
    let state = settle(dir.path()).unwrap();
    assert_eq!(journal.dir(), state);
    let (recovered, figures) = recover_into(&state, &snapshot);
    assert_eq!((recovered.0.len(), figures.upto), (sample().len() + 1, (9 << 40) + 1));
    // And its own snapshots make what was received superfluous.
    let position = journal.rotate().unwrap();
    let mut file = SnapshotFile::create(journal.dir(), "own").unwrap();
    file.write_all(&recovered.save()).unwrap();
    file.finish(position).unwrap();
    journal.prune(position).unwrap();
    assert_eq!(fs::read_dir(&state).unwrap().count(), 2, "one snapshot, one segment");
    assert_eq!(recover_into(&state, std::slice::from_ref(&recovered)).0, recovered);
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
