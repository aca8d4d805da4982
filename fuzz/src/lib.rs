//! Every place where bytes come in from somebody else, as a function that takes any bytes and must neither panic nor
//! hang, nor say that it understood what it did not.
//!
//! The functions are driven twice. `tests/corpus.rs` runs them on any toolchain over the inputs in `corpus/` and over
//! mutations of them from a fixed seed; the binary does that for as long as you like:
//!
//! ```sh
//! cargo run --release -p quintet-fuzz -- packet --seconds 300
//! ```
//!
//! `corpus/TARGET/` holds one input a file: seeds, which are samples as some build wrote them (`quintet-fuzz seeds` writes
//! those of this one beside them, worth doing when a format changes), and whatever has once made a target fail.

mod mutate;
mod samples;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

pub use mutate::Mutator;
pub use samples::samples;

/// One way in.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Takes any bytes. Panics if what came of them is wrong.
    pub run: fn(&[u8]),
    /// Microseconds that one input takes, about: it decides how many are tried.
    pub cost_us: u32,
}

/// All of them.
pub const TARGETS: [Target; 11] = [
    Target { name: "packet", run: targets::packet, cost_us: 1 },
    Target { name: "connection", run: targets::connection, cost_us: 20 },
    Target { name: "handshake", run: targets::handshake, cost_us: 1 },
    Target { name: "shm_hello", run: targets::shm_hello, cost_us: 1 },
    Target { name: "shm_segment", run: targets::shm_segment, cost_us: 100 },
    Target { name: "verbs_note", run: targets::verbs_note, cost_us: 1 },
    Target { name: "stats", run: targets::stats, cost_us: 1 },
    Target { name: "frame", run: targets::frame, cost_us: 1 },
    Target { name: "config", run: targets::config, cost_us: 20 },
    Target { name: "journal", run: targets::journal, cost_us: 2 },
    Target { name: "control", run: targets::control, cost_us: 2 },
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Where a target's inputs lie.
pub fn corpus_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

/// Seeds of a target at most.
const SEEDS_MAX: usize = 12;

/// Writes samples of a target as this build makes them into its corpus, each under the sum of its bytes. How many there are.
pub fn write_seeds(name: &str) -> std::io::Result<usize> {
    let (dir, samples) = (corpus_dir(name), samples(name));
    fs::create_dir_all(&dir)?;
    let step = samples.len().div_ceil(SEEDS_MAX).max(1);
    for sample in samples.iter().step_by(step) {
        fs::write(dir.join(format!("seed-{:08x}", crc32fast::hash(sample))), sample)?;
    }
    Ok(samples.len().div_ceil(step))
}

/// A target's inputs: the files, and what the encoders of this build write.
pub fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut inputs = samples(name);
    if let Ok(files) = fs::read_dir(corpus_dir(name)) {
        let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        paths.sort();
        inputs.extend(paths.iter().map(|path| fs::read(path).expect("a file of the corpus")));
    }
    inputs
}
