//! `quintet-fuzz TARGET|all [--seconds N] [--seed N]`: tries mutations of a target's corpus for so long. An input that
//! makes it fail is kept in the corpus. `quintet-fuzz seeds` writes samples of this build's formats into all of them.

use std::fs;
use std::time::{Duration, Instant};

use quintet_fuzz::{Mutator, TARGETS, Target, corpus, corpus_dir, target, write_seeds};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let length = Duration::from_secs(option("--seconds").unwrap_or(60));
    let seed = option("--seed").unwrap_or(1);
    let names = || TARGETS.map(|target| target.name).join(", ");
    match arguments.first().map(String::as_str) {
        Some("seeds") => {
            for target in TARGETS {
                let count = write_seeds(target.name).expect("the corpus can be written");
                println!("{}: {count} seeds", target.name);
            }
        }
        Some("all") => TARGETS.into_iter().for_each(|target| fuzz(target, length, seed)),
        Some(name) if target(name).is_some() => {
            target(name).into_iter().for_each(|target| fuzz(target, length, seed));
        }
        _ => {
            eprintln!(
                "usage: quintet-fuzz TARGET|all|seeds [--seconds N] [--seed N]\ntargets: {}",
                names()
            );
            std::process::exit(2);
        }
    }
}

fn fuzz(target: Target, length: Duration, seed: u64) {
    let (corpus, mut mutator) = (corpus(target.name), Mutator::new(seed));
    let start = Instant::now();
    let (mut tried, mut longest) = (0u64, Duration::ZERO);
    while start.elapsed() < length {
        let input = mutator.next(&corpus);
        let begin = Instant::now();
        if let Err(panic) = std::panic::catch_unwind(|| (target.run)(&input)) {
            let path = corpus_dir(target.name).join(format!("failed-{seed}-{tried}"));
            fs::create_dir_all(corpus_dir(target.name)).expect("a folder for the corpus");
            fs::write(&path, &input).expect("the input is kept");
            eprintln!("{}: input number {tried} fails; it is in {}", target.name, path.display());
            std::panic::resume_unwind(panic);
        }
        longest = longest.max(begin.elapsed());
        tried += 1;
    }
    println!("{}: {tried} inputs, the longest took {longest:?}", target.name);
}
