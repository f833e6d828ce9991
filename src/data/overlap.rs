//! Whether sequences share text with others, by what the tokens are and not by where they come from.

use std::collections::{BTreeSet, HashSet};

use super::sets::Sequences;

/// Tokens in a row that make a passage: two sequences that have them in common hold the same text.
pub(super) const PASSAGE: usize = 32;

/// A multiplier of the rolling hash: odd, with bits all over.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The passages of some sequences.
pub struct Passages {
    /// Tokens of a passage: [`PASSAGE`], or a whole sequence where sequences are shorter.
    length: usize,
    hashes: HashSet<u64>,
}

impl Passages {
    /// Of some sets of sequences, to compare with sequences of `other` tokens.
    pub fn of(sets: &[&Sequences], other: usize) -> Self {
        let length = sets.iter().map(|sequences| sequences.length).fold(PASSAGE.min(other), usize::min);
        let mut hashes = HashSet::new();
        for set in sets {
            for i in 0..set.count() {
                each_passage(set.get(i), length, |_, hash| {
                    hashes.insert(hash);
                    false
                });
            }
        }
        Self { length, hashes }
    }

    /// Whether a sequence shares a passage with them.
    pub fn overlaps(&self, sequence: &[u32]) -> bool {
        each_passage(sequence, self.length, |_, hash| self.hashes.contains(&hash))
    }

    /// How many sequences hold a part of a passage. They are taken as one text: sequences that lie side by
    /// side share passages across their borders.
    pub fn count(&self, sequences: &Sequences) -> usize {
        let mut touched = BTreeSet::new();
        each_passage(&sequences.tokens, self.length, |last, hash| {
            if self.hashes.contains(&hash) {
                touched.extend((last + 1 - self.length) / sequences.length..=last / sequences.length);
            }
            false
        });
        touched.len()
    }
}

/// Calls `found` with the place of the last token and the hash of every run of `length` tokens, until it says
/// true; whether it did. A sequence that is shorter has none.
fn each_passage(sequence: &[u32], length: usize, mut found: impl FnMut(usize, u64) -> bool) -> bool {
    let leading = (0..length).fold(1_u64, |power, _| power.wrapping_mul(BASE));
    let mut hash = 0_u64;
    for (i, &token) in sequence.iter().enumerate() {
        hash = hash.wrapping_mul(BASE).wrapping_add(mixed(token));
        if i >= length {
            hash = hash.wrapping_sub(leading.wrapping_mul(mixed(sequence[i - length])));
        }
        if i + 1 >= length && found(i, hash) {
            return true;
        }
    }
    false
}

/// A token's bits spread over 64.
fn mixed(token: u32) -> u64 {
    let x = (u64::from(token) + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) ^ (x >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(tokens: impl Iterator<Item = u32>, length: usize) -> Sequences {
        Sequences { tokens: tokens.collect(), length }
    }

    #[test]
    fn short_sequences_side_by_side_share_a_passage_across_their_border() {
        let passages = Passages::of(&[&sequences(1010..1042, 32)], 32);
        assert_eq!(passages.count(&sequences(1000..1064, 32)), 2);
        assert_eq!(passages.count(&sequences(1011..1075, 32)), 0);
    }

    #[test]
    fn a_shared_passage_is_found_at_any_phase_and_less_is_not() {
        let passages = Passages::of(&[&sequences(1000..1256, 64)], 64);
        let with = |from: u32, shared: u32| -> Vec<u32> {
            (5000..5010).chain(from..from + shared).chain(7000..7040).collect()
        };
        assert!(passages.overlaps(&with(1003, 32)) && passages.overlaps(&with(1100, 60)));
        assert!(!passages.overlaps(&with(1003, 31)), "one token less");
        assert!(!passages.overlaps(&with(1050, 40)), "14 and 26 tokens of two sequences");
        assert!(!passages.overlaps(&[1000; 64]));
        assert_eq!(passages.count(&sequences((0..64).chain(1064..1128).chain(2000..2064), 64)), 1);
    }

    #[test]
    fn sequences_shorter_than_a_passage_are_compared_whole() {
        let passages = Passages::of(&[&sequences(0..16, 8)], 64);
        assert!(passages.overlaps(&(8..16).collect::<Vec<_>>()));
        // 24 tokens in a row, in two sequences.
        assert_eq!(Passages::of(&[&sequences(0..64, 64)], 16).count(&sequences(40..72, 16)), 2);
        assert!(
            passages.overlaps(&(0..20).collect::<Vec<_>>())
                && !passages.overlaps(&(4..12).collect::<Vec<_>>())
        );
    }

    #[test]
    fn equal_passages_have_equal_hashes_wherever_they_begin() {
        let mut seen = Vec::new();
        let tokens: Vec<u32> = (0..5).chain(0..40).chain(0..32).collect();
        each_passage(&tokens, 32, |_, hash| {
            seen.push(hash);
            false
        });
        assert_eq!(seen.len(), tokens.len() - 31);
        assert_eq!(seen[5], seen[45]);
        let all: HashSet<u64> = seen.iter().copied().collect();
        assert_eq!(all.len(), seen.len() - 1, "no others");
    }
}
