//! The stream in pieces of any size, damaged anywhere.

use super::stream::*;
use super::*;
use crate::executor::Saved;
use crate::journal::Entry;
use proptest::collection::vec;
use proptest::prelude::*;

fn saved() -> impl Strategy<Value = Saved> {
    (any::<(u32, u64, u64)>(), "[a-z]{0,9}", vec(any::<u8>(), 0..90), vec(any::<u8>(), 0..90))
        .prop_map(|((id, position, time_ns), failure, state, records)| Saved {
            id,
            position,
            time_ns,
            failure,
            state,
            records,
        })
}

fn snapshot_bytes(replica: &[u8], instances: &[Saved]) -> Vec<u8> {
    let mut out = Vec::new();
    write_replica(&mut out, replica).unwrap();
    instances.iter().for_each(|saved| write_instance(&mut out, saved).unwrap());
    write_end(&mut out).unwrap();
    out
}

proptest! {
    #[test]
    fn a_transfer_in_pieces_of_any_size_gives_snapshot_and_tail(
        replica in vec(any::<u8>(), 0..200),
        instances in vec(saved(), 0..4),
        tail in vec(vec(any::<u8>(), 0..40), 0..6),
        piece in 1usize..300,
    ) {
        let mut bytes = snapshot_bytes(&replica, &instances);
        let snapshot_len = bytes.len();
        for (at, message) in tail.iter().enumerate() {
            let mut entry = Vec::new();
            Entry::Message { at: at as u64, bytes: message }.encode(&mut entry);
            write_tail(&mut bytes, &entry).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let (mut learner, mut got, mut got_tail) = (Learner::default(), None, Vec::new());
        for chunk in bytes.chunks(piece) {
            learner.push(chunk);
            while let Some(learned) = learner.next(dir.path()).unwrap() {
                match learned {
                    Learned::Snapshot(snapshot, file) => {
                        let path = file.finish(7).unwrap();
                        got = Some((snapshot, std::fs::read(path).unwrap()));
                    }
                    Learned::Tail(entry) => match Entry::decode(&entry).unwrap().unwrap().0 {
                        Entry::Message { bytes, .. } => got_tail.push(bytes.to_vec()),
                        Entry::View { .. } => prop_assert!(false, "no view was sent"),
                    },
                }
            }
        }
        let (snapshot, file) = got.unwrap();
        prop_assert_eq!(&snapshot.replica, &replica);
        prop_assert_eq!(&snapshot.instances, &instances);
        prop_assert_eq!(got_tail, tail);
        // What lies on disk now is the same snapshot.
        prop_assert_eq!(&file, &bytes[..snapshot_len]);
        prop_assert_eq!(read_snapshot(&file).unwrap().instances, instances);
    }

    #[test]
    fn a_damaged_or_cut_snapshot_is_never_taken_for_whole(
        replica in vec(any::<u8>(), 0..60), instances in vec(saved(), 0..3),
        at: prop::sample::Index, bit in 0u8..8,
    ) {
        let bytes = snapshot_bytes(&replica, &instances);
        let at = at.index(bytes.len());
        prop_assert!(read_snapshot(&bytes[..at]).is_err());
        let mut damaged = bytes;
        damaged[at] ^= 1 << bit;
        prop_assert!(read_snapshot(&damaged).is_err());
    }

    #[test]
    fn no_bytes_make_a_learner_panic(bytes in vec(any::<u8>(), 0..300), kind in 1u8..5) {
        let dir = tempfile::tempdir().unwrap();
        let mut learner = Learner::default();
        learner.push(&[kind]);
        learner.push(&bytes);
        while let Ok(Some(_)) = learner.next(dir.path()) {}
    }
}

#[test]
fn an_abandoned_transfer_leaves_the_directory_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = snapshot_bytes(b"replica", &[]);
    let mut learner = Learner::default();
    learner.push(&bytes[..bytes.len() - 3]);
    assert!(learner.next(dir.path()).unwrap().is_none());
    drop(learner);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
