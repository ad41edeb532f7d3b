//! Mutates known inputs and watches what the code does with them.
//!
//! Deterministic: the same seed gives the same inputs, on every machine. The number of
//! inputs and the seed come from the environment (`CATRUST_FUZZ_INPUTS`,
//! `CATRUST_FUZZ_SEED`); `make test` takes few, `make fuzz` a million for each target.
//! Without feedback from coverage, so that it needs no other compiler; what makes up for
//! that are good inputs to begin with, and the words of each format.

use std::panic::{AssertUnwindSafe, catch_unwind};

const DEFAULT_INPUTS: u64 = 4_000;
const DEFAULT_SEED: u64 = 20_261_124;
/// Most changes that are made to one input.
const MOST_CHANGES: usize = 6;
/// Longest input; a mutation that would make a longer one is cut.
const LONGEST: usize = 64 * 1024;

/// What a target begins with.
#[derive(Default)]
pub struct Corpus {
    /// Inputs to mutate; one at least.
    pub inputs: Vec<Vec<u8>>,
    /// Words of the format, to be put anywhere.
    pub words: Vec<&'static str>,
}

impl Corpus {
    /// Inputs that are text.
    pub fn of<T: Into<Vec<u8>>>(inputs: impl IntoIterator<Item = T>, words: &[&'static str]) -> Self {
        Self { inputs: inputs.into_iter().map(Into::into).collect(), words: words.to_vec() }
    }
}

/// Gives `target` as many inputs as the environment says.
///
/// # Panics
/// When `target` does: with the input as a Rust literal, and the seed.
pub fn run(corpus: &Corpus, target: impl FnMut(&[u8])) {
    let setting = |name: &str, default| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    };
    let inputs = setting("CATRUST_FUZZ_INPUTS", DEFAULT_INPUTS);
    run_with(inputs, setting("CATRUST_FUZZ_SEED", DEFAULT_SEED), corpus, target);
}

fn run_with(inputs: u64, seed: u64, corpus: &Corpus, mut target: impl FnMut(&[u8])) {
    assert!(!corpus.inputs.is_empty(), "nothing to begin with");
    let mut random = Random(seed);
    for number in 0..inputs {
        let input = match corpus.inputs.get(usize::try_from(number).unwrap_or(usize::MAX)) {
            // As they are first: an input that is refused for what it is would show nothing.
            Some(input) => input.clone(),
            None => mutated(corpus, &mut random),
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
            eprintln!("input {number} of seed {seed}: b\"{}\"", input.escape_ascii());
            std::panic::resume_unwind(panic);
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): all that is asked of it is to be the same
/// everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is at least 1.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }

    /// A place in `input`, its end included.
    fn place(&mut self, input: &[u8]) -> usize {
        self.below(input.len() + 1)
    }

    /// A range of `input`, short ones more often.
    fn range(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let start = self.place(input);
        let most = if self.below(4) == 0 { input.len() } else { 16 };
        start..(start + self.below(most + 1)).min(input.len())
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

fn mutated(corpus: &Corpus, random: &mut Random) -> Vec<u8> {
    let mut input = random.pick(&corpus.inputs).clone();
    for _ in 0..=random.below(MOST_CHANGES) {
        change(&mut input, corpus, random);
        input.truncate(LONGEST);
    }
    input
}

fn change(input: &mut Vec<u8>, corpus: &Corpus, random: &mut Random) {
    const INTERESTING: &[u8] = &[0, 1, 0x0A, b' ', b'"', b'.', b'0', b'9', b'=', 0x7F, 0x80, 0xC3, 0xFF];
    match random.below(10) {
        0 if !input.is_empty() => {
            let at = random.below(input.len());
            input[at] ^= 1 << random.below(8);
        }
        1 if !input.is_empty() => {
            let at = random.below(input.len());
            input[at] = *random.pick(INTERESTING);
        }
        2 => {
            let bytes: Vec<u8> = (0..=random.below(4)).map(|_| random.next().to_le_bytes()[0]).collect();
            insert(input, random.place(input), &bytes);
        }
        3 if !corpus.words.is_empty() => {
            let (word, range) = (*random.pick(&corpus.words), random.range(input));
            input.splice(range, word.bytes());
        }
        4 => drop(input.drain(random.range(input))),
        5 => {
            let copied = input[random.range(input)].to_vec();
            insert(input, random.place(input), &copied);
        }
        6 => {
            let (other, range) = (random.pick(&corpus.inputs), random.range(input));
            let part = other[random.range(other)].to_vec();
            input.splice(range, part);
        }
        // Depth and length: the same again and again.
        7 => {
            let range = random.range(input);
            let part = input[range.start..range.end.min(range.start + 8)].to_vec();
            let times = 1 << random.below(11);
            insert(input, range.start, &part.repeat(times));
        }
        8 => input.truncate(random.place(input)),
        _ => {
            let number =
                random.pick(&["-1", "0", "255", "65536", "2147483648", "18446744073709551616", "1e400"]);
            let range = random.range(input);
            input.splice(range, number.bytes());
        }
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}

#[test]
fn a_planted_panic_is_found() {
    let corpus = Corpus::of(["the quick brown fox"], &["jumps"]);
    let found = catch_unwind(|| {
        run_with(20_000, 1, &corpus, |input| assert!(!input.windows(5).any(|five| five == b"jumps")));
    });
    assert!(found.is_err(), "20,000 inputs, and the word was never put in");
}

#[test]
fn inputs_are_the_same_for_the_same_seed() {
    let inputs = |seed| {
        let mut all = Vec::new();
        run_with(500, seed, &Corpus::of(["{\"a\":[1,2]}"], &["null"]), |input| all.push(input.to_vec()));
        all
    };
    assert_eq!(inputs(7), inputs(7));
    assert_ne!(inputs(7), inputs(8));
}
