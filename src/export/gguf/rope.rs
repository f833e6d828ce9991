//! The rotary embedding in GGUF: the order of channels, and the divisors of frequencies.
//!
//! transformers turns channel i of a head with channel i + c/2, llama.cpp channel 2i with 2i + 1: rows of
//! queries and keys are reordered head by head.

use crate::model::Config;
use crate::model::rope::RopeScaling;

/// Rows in llama.cpp's order of what is in transformers': heads of `head` rows, `width` entries each.
pub(super) fn interleaved(values: &[f32], head: usize, width: usize) -> Vec<f32> {
    reordered(values, head, width, |row| row / 2 + (row % 2) * (head / 2))
}

/// The reverse.
pub(super) fn halved(values: &[f32], head: usize, width: usize) -> Vec<f32> {
    reordered(values, head, width, |row| 2 * (row % (head / 2)) + row / (head / 2))
}

fn reordered(values: &[f32], head: usize, width: usize, from: impl Fn(usize) -> usize) -> Vec<f32> {
    let heads = values.chunks_exact((head * width).max(1));
    heads
        .flat_map(|rows| {
            (0..head).map(|row| &rows[from(row) * width..(from(row) + 1) * width]).collect::<Vec<_>>()
        })
        .flatten()
        .copied()
        .collect()
}

/// What the frequencies are divided by, one for each pair of channels, where Llama 3 scales them; a linear
/// scaling is a key of the metadata.
pub(super) fn factors(config: &Config) -> Option<Vec<f32>> {
    match config.rope_scaling {
        Some(RopeScaling::Llama3 { .. }) => {}
        None | Some(RopeScaling::Linear { .. }) => return None,
    }
    let unscaled = Config { rope_scaling: None, ..config.clone() };
    let pairs = unscaled.inverse_frequencies().into_iter().zip(config.inverse_frequencies());
    Some(pairs.map(|(unscaled, scaled)| (unscaled / scaled) as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_that_turn_together_become_neighbours_and_go_back() {
        let rows: Vec<f32> = (0..12).map(|i| i as f32).collect();
        assert_eq!(interleaved(&rows, 6, 1), [0., 3., 1., 4., 2., 5., 6., 9., 7., 10., 8., 11.]);
        assert_eq!(interleaved(&rows, 6, 2), [0., 1., 6., 7., 2., 3., 8., 9., 4., 5., 10., 11.]);
        for width in [1, 2] {
            assert_eq!(halved(&interleaved(&rows, 6, width), 6, width), rows);
        }
    }
}
