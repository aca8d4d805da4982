//! Every target over its corpus, and over mutations of it from a fixed seed.

use quintet_fuzz::{Mutator, TARGETS, corpus, corpus_dir, samples, target};

/// Microseconds for a target, about, in a release build.
const BUDGET_US: u32 = 1_000_000;

fn over_corpus(name: &str) {
    let target = target(name).expect("a target");
    let corpus = corpus(name);
    assert!(!corpus.is_empty());
    for input in &corpus {
        (target.run)(input);
    }
    let mut mutator = Mutator::new(0x5eed);
    for _ in 0..BUDGET_US / target.cost_us {
        (target.run)(&mutator.next(&corpus));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $( #[test] fn $name() { over_corpus(stringify!($name)) } )*

        #[test]
        fn none_is_left_out() {
            let names = [$( stringify!($name) ),*];
            assert_eq!(names, TARGETS.map(|target| target.name));
            for name in names {
                assert!(!samples(name).is_empty(), "{name} has samples");
                let seeds = std::fs::read_dir(corpus_dir(name)).map_or(0, Iterator::count);
                assert!(seeds > 0, "corpus/{name} has seeds: cargo run -p quintet-fuzz seeds");
            }
            let folders = std::fs::read_dir(corpus_dir("")).expect("the corpus").flatten();
            for folder in folders.filter(|f| f.path().is_dir()) {
                let name = folder.file_name().into_string().unwrap();
                assert!(names.contains(&name.as_str()), "corpus/{name} is of no target");
            }
        }
    };
}

targets!(packet connection handshake shm_hello shm_segment verbs_note stats frame config journal control);

#[test]
fn mutations_differ_and_come_again_with_their_seed() {
    let corpus = samples("frame");
    let take = |seed| {
        let mut mutator = Mutator::new(seed);
        (0..500).map(|_| mutator.next(&corpus)).collect::<Vec<_>>()
    };
    assert_eq!(take(1), take(1));
    assert_ne!(take(1), take(3));
    let mut distinct = take(1);
    distinct.sort();
    distinct.dedup();
    assert!(distinct.len() > 300, "{} of 500 are distinct", distinct.len());
}
