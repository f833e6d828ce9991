//! Seeded choices: the only source of chance in the generator, the same on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The seed of everything the generator makes; streams keep its uses apart.
const SEED: u64 = 0x7479_7221_7175_6b31;

/// A stream of choices, named by a number.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// The choices of `stream`; two streams never share a draw.
    pub(super) fn new(stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        rng.set_stream(stream);
        Dice(rng)
    }

    /// A whole number in `0..n`, every one as likely; 0 when `n` is 0 or 1.
    pub(super) fn below(&mut self, n: usize) -> usize {
        // A multiply and a shift: exact integers, so the same everywhere.
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// True in `percent` of 100 draws.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, every one as likely. `items` is never empty.
    pub(super) fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }

    /// A rank in `0..n` with a weight near 1 / (rank + 4): Zipf's law, with its head flattened.
    pub(super) fn zipf(&mut self, n: usize) -> usize {
        let weight = |rank: usize| 1_000_000 / (rank + 4);
        let mut left = self.below((0..n).map(weight).sum());
        (0..n)
            .find(|&rank| {
                let stop = left < weight(rank);
                left = left.saturating_sub(weight(rank));
                stop
            })
            .unwrap_or(0)
    }

    /// `n` different numbers of `0..of`, in drawn order (all of them when `n` is larger).
    pub(super) fn distinct(&mut self, n: usize, of: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..of).collect();
        self.shuffle(&mut all);
        all.truncate(n);
        all
    }

    /// Puts `items` into a random order.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
