//! The trace: every step of a run as a line, always hashed, printed or kept only when asked for.
//!
//! The hash is what "the same seed gives the same run" is tested by. Lines are formatted only when somebody looks
//! at them; the hash is taken over numbers, so a run of thousands of seeds does not spend its time in `format!`.

use std::fmt;

use crate::entropy::mix;

/// A control record as a person reads it: its kind (the codec's second byte) and its size.
pub fn control_kind(bytes: &[u8]) -> (&'static str, usize) {
    const KINDS: [&str; 12] = [
        "?", "announce", "join", "donate", "prepare", "promise", "accept", "accepted", "nack",
        "decide", "start", "?",
    ];
    (bytes.get(1).and_then(|&kind| KINDS.get(usize::from(kind))).unwrap_or(&"?"), bytes.len())
}

/// Where a run's lines go.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: u64,
    print: bool,
    /// The last lines, for the report of a failing run.
    tail: Option<std::collections::VecDeque<String>>,
}

const TAIL: usize = 400;

impl Trace {
    /// A trace that prints each line, or keeps the last ones for `tail`, or only hashes.
    pub fn new(print: bool, keep: bool) -> Self {
        Trace { hash: 0, lines: 0, print, tail: keep.then(std::collections::VecDeque::new) }
    }

    /// One step: `numbers` enter the hash, `line` is what a person reads.
    pub fn step(&mut self, now_ns: u64, numbers: [u64; 4], line: fmt::Arguments<'_>) {
        self.lines += 1;
        for n in numbers {
            self.hash = mix(self.hash ^ n).wrapping_add(now_ns);
        }
        if self.print || self.tail.is_some() {
            let text = format!("{:>10.3}ms {line}", now_ns as f64 / 1e6);
            if self.print {
                println!("{text}");
            }
            if let Some(tail) = &mut self.tail {
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(text);
            }
        }
    }

    /// Is anybody reading the lines?
    pub fn is_read(&self) -> bool {
        self.print || self.tail.is_some()
    }

    /// Hash of all steps so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Number of steps so far.
    pub fn steps(&self) -> u64 {
        self.lines
    }

    /// The last lines kept.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().flatten().map(String::as_str)
    }
}
