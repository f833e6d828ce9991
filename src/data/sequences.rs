//! Sequences drawn from a stream of tokens at random places, no two overlapping, while the stream goes by:
//! only what is drawn is held.

use rand::RngExt as _;

use super::overlap::Passages;
use super::sets::Sequences;
use crate::base::rng::Rng;

/// Draws sequences. The stream is cut into slots at a random phase, and slots are drawn: those that a shuffle
/// of all would put first, in its order.
pub(super) struct Drawing<'a> {
    length: usize,
    wanted: usize,
    rng: Rng,
    /// Sequences that share a passage with these are no candidates.
    avoid: Option<&'a Passages>,
    /// Tokens that are not in a slot yet; until the phase is known, all.
    held: Vec<u32>,
    /// Tokens before the first slot, once that is known.
    phase: Option<usize>,
    dice: Dice,
    kept: Vec<u32>,
    /// Tokens that came.
    pub tokens: usize,
    /// Slots that were candidates.
    pub slots: usize,
}

impl<'a> Drawing<'a> {
    /// Draws `wanted` sequences of `length` tokens.
    pub(super) fn new(wanted: usize, length: usize, rng: Rng, avoid: Option<&'a Passages>) -> Self {
        let (held, kept) = (Vec::new(), Vec::new());
        let dice = Dice::default();
        Self { length, wanted, rng, avoid, held, phase: None, dice, kept, tokens: 0, slots: 0 }
    }

    /// Takes the next tokens of the stream.
    pub(super) fn push(&mut self, tokens: &[u32]) {
        self.tokens += tokens.len();
        self.held.extend_from_slice(tokens);
        // With more tokens than this the phase may be any.
        if self.phase.is_none() && self.tokens.saturating_sub(self.wanted * self.length) + 1 >= self.length {
            self.begin();
        }
        self.cut();
    }

    fn begin(&mut self) {
        let slack = self.tokens.saturating_sub(self.wanted * self.length).min(self.length - 1);
        let phase = if slack == 0 { 0 } else { self.rng.random_range(0..=slack) };
        self.phase = Some(phase);
        self.held.drain(..phase.min(self.held.len()));
    }

    /// Cuts the slots off that are complete.
    fn cut(&mut self) {
        if self.phase.is_none() {
            return;
        }
        let held = std::mem::take(&mut self.held);
        let slots = held.chunks_exact(self.length);
        self.held = slots.remainder().to_vec();
        slots.for_each(|slot| self.offer(slot));
    }

    /// One step of the shuffle, of which only the first `wanted` places are held.
    fn offer(&mut self, slot: &[u32]) {
        if self.avoid.is_some_and(|passages| passages.overlaps(slot)) {
            return;
        }
        let place = self.dice.next(&mut self.rng);
        let last = self.slots;
        self.slots += 1;
        let length = self.length;
        let at = place * length..(place + 1) * length;
        if last < self.wanted {
            self.kept.extend_from_slice(slot);
            if place < last {
                let (front, back) = self.kept.split_at_mut(last * length);
                front[at].swap_with_slice(back);
            }
        } else if place < self.wanted {
            self.kept[at].copy_from_slice(slot);
        }
    }

    /// The sequences, fewer than wanted where the stream was too short.
    pub(super) fn finish(&mut self) -> Sequences {
        if self.phase.is_none() {
            self.begin();
        }
        self.cut();
        Sequences { tokens: std::mem::take(&mut self.kept), length: self.length }
    }
}

/// Places below 1, 2, 3 … in turn, several out of one random number: the numbers that a shuffle of `rand`
/// 0.10 makes, which are kept here so that a draw never changes.
#[derive(Default)]
struct Dice {
    /// Numbers made.
    made: u32,
    /// A random number below the product of the next `left` bounds.
    chunk: u32,
    left: u8,
}

impl Dice {
    fn next(&mut self, rng: &mut Rng) -> usize {
        let bound = self.made + 1;
        self.made = bound;
        if bound == 1 {
            return 0;
        }
        if self.left == 0 {
            let (product, count) = product(bound);
            self.chunk = rng.random_range(..product);
            self.left = count;
        }
        self.left -= 1;
        if self.left == 0 {
            return self.chunk as usize;
        }
        let place = self.chunk % bound;
        self.chunk /= bound;
        place as usize
    }
}

/// The largest product of numbers from `first` on that fits, and how many they are.
fn product(first: u32) -> (u32, u8) {
    let mut product = first;
    let mut count = 1;
    while let Some(larger) = product.checked_mul(first + u32::from(count)) {
        product = larger;
        count += 1;
    }
    (product, count)
}

#[cfg(test)]
mod tests {
    use rand::seq::SliceRandom;

    use super::*;
    use crate::base::rng;

    /// The same over a whole stream, with the shuffle of `rand`.
    fn shuffled(stream: &[u32], wanted: usize, length: usize, mut rng: Rng) -> Vec<u32> {
        let slack = stream.len().saturating_sub(wanted * length).min(length - 1);
        let phase = if slack == 0 { 0 } else { rng.random_range(0..=slack) };
        let mut slots: Vec<usize> =
            (phase..).step_by(length).take_while(|s| s + length <= stream.len()).collect();
        slots.shuffle(&mut rng);
        slots.truncate(wanted);
        slots.iter().flat_map(|&s| &stream[s..s + length]).copied().collect()
    }

    #[test]
    fn what_goes_by_is_drawn_as_from_the_whole_shuffled() {
        for (tokens, wanted, length) in [
            (0, 1, 4),
            (3, 1, 4),
            (7, 1, 4),
            (639, 10, 64),
            (640, 10, 64),
            (703, 10, 64),
            (704, 10, 64),
            (5000, 10, 64),
        ]
        .into_iter()
        .chain([(100_000, 7, 3), (20_000, 5000, 1), (9, 0, 4), (20_000, 5000, 4), (70_001, 1, 1)])
        {
            let stream: Vec<u32> = (0..tokens).collect();
            for (seed, block) in [(1, 1), (2, 63), (3, 100_000)] {
                let mut drawing = Drawing::new(wanted, length, rng::stream(seed, "w"), None);
                stream.chunks(block).for_each(|tokens| drawing.push(tokens));
                let drawn = drawing.finish().tokens;
                let expected = shuffled(&stream, wanted, length, rng::stream(seed, "w"));
                assert!(drawn == expected, "{tokens} {wanted} {length} {seed}");
                assert_eq!(drawing.tokens, stream.len());
            }
        }
    }

    #[test]
    fn only_what_is_drawn_is_held() {
        let mut drawing = Drawing::new(10, 64, rng::stream(1, "w"), None);
        for block in 0..1000_u32 {
            let tokens: Vec<u32> = (block * 1000..block * 1000 + 1000).collect();
            drawing.push(&tokens);
            assert!(drawing.held.len() < 12 * 64 && drawing.kept.len() <= 640);
        }
        assert_eq!(drawing.finish().count(), 10);
    }

    #[test]
    fn sequences_that_share_a_passage_with_others_are_not_drawn() {
        let stream: Vec<u32> = (0..2000).collect();
        let taken = Sequences { tokens: (100..300).collect(), length: 100 };
        let passages = Passages::of(&[&taken], 100);
        let mut drawing = Drawing::new(10, 100, rng::stream(4, "w"), Some(&passages));
        drawing.push(&stream);
        let drawn = drawing.finish();
        assert_eq!(drawn.count(), 10);
        assert!((0..10).all(|i| !passages.overlaps(drawn.get(i))));
        assert!(drawing.slots < 19);
    }
}
