//! Inputs that are nearly right: samples with bits, numbers and pieces changed, from a seed.
//!
//! Bytes drawn at random stop at the first magic number. What finds mistakes is what gets past the first checks: a
//! length that is off by one or enormous, a piece repeated, cut out, or taken from another sample.

/// Numbers at which things break.
const EDGES: [u64; 14] = [
    0,
    1,
    7,
    8,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    u64::MAX - 7,
    u64::MAX,
];
/// No input is longer.
const LEN_MAX: usize = 1 << 16;

/// Makes inputs out of samples.
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// Same seed, same inputs.
    pub fn new(seed: u64) -> Mutator {
        Mutator { state: seed | 1 }
    }

    fn random(&mut self) -> u64 {
        // xorshift64*, by Vigna.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.random() % n.max(1) as u64) as usize
    }

    /// The next input.
    pub fn next(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = match corpus {
            [] => Vec::new(),
            _ => corpus[self.below(corpus.len())].clone(),
        };
        for _ in 0..=self.below(6) {
            self.change(&mut input, corpus);
        }
        input.truncate(LEN_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len());
        let rest = input.len() - at;
        match self.below(9) {
            0 if rest > 0 => input[at] ^= 1 << self.below(8),
            1 if rest > 0 => input[at] = self.random() as u8,
            2 | 3 => {
                let width = [1, 2, 4, 8][self.below(4)].min(rest);
                let edge = EDGES[self.below(EDGES.len())];
                input[at..at + width].copy_from_slice(&edge.to_le_bytes()[..width]);
            }
            4 if rest > 0 => {
                let delta = [1, 2, 8, 255, 254, 248][self.below(6)];
                input[at] = input[at].wrapping_add(delta);
            }
            5 => input.truncate(at),
            6 => {
                let end = at + self.below(rest.min(64) + 1);
                input.drain(at..end);
            }
            7 => {
                let end = at + self.below(rest.min(64) + 1);
                let piece = input[at..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            _ if !corpus.is_empty() => {
                let other = &corpus[self.below(corpus.len())];
                let from = self.below(other.len());
                let len = self.below((other.len() - from).min(256) + 1);
                let end = (at + self.below(len + 1)).min(input.len());
                input.splice(at..end, other[from..from + len].iter().copied());
            }
            _ => input.push(self.random() as u8),
        }
    }
}
