//! What a candidate scores on a draw, and what one gains on another: paired by sequence, because both read the
//! same text and most of the spread is the text's.

use crate::base::Estimate;

/// How often chance alone may look like a gain.
const LEVEL: f64 = 0.05;
/// Sequences that a standard error is taken of, at least.
pub(super) const FEWEST_SEQUENCES: usize = 8;

/// What one candidate scores on the tokens of a draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Lower is better, NaN is worst.
    pub fitness: f64,
    /// The fitness on every whole sequence of the draw; empty where the fitness is not a mean over sequences.
    pub sequences: Vec<f64>,
}

impl From<f64> for Score {
    /// Of a fitness that is not a mean over sequences.
    fn from(fitness: f64) -> Self {
        Self { fitness, sequences: vec![] }
    }
}

impl Score {
    /// What this one gains on another, positive where it is better; its standard error where both have sequences.
    /// None where either has no number.
    pub fn gain_on(&self, other: &Self) -> Option<Estimate> {
        let value = other.fitness - self.fitness;
        let gains: Vec<f64> = other.sequences.iter().zip(&self.sequences).map(|(a, b)| a - b).collect();
        value.is_finite().then(|| Estimate::mean(value, stderr(&gains), gains.len()))
    }

    /// Whether it loses against another by more than what chance gives.
    pub(super) fn loses_against(&self, other: &Self) -> bool {
        other.gain_on(self).is_some_and(|gain| gain.stderr.is_some() && is_significant(&gain, 1))
    }

    /// Adds the score on `tokens` more tokens to that on `before`.
    pub(super) fn append(&mut self, before: usize, next: Self, tokens: usize) {
        let share = tokens as f64 / (before + tokens) as f64;
        self.fitness += (next.fitness - self.fitness) * share;
        self.sequences.extend(next.sequences);
    }
}

/// Whether the largest of so many gains exceeds what chance gives in one of twenty cases; true of one whose standard
/// error is not known. By the bound P(Z > z) ≤ exp(−z²/2) / 2 for each: 2.1 standard errors of one, 2.7 of four.
pub(super) fn is_significant(gain: &Estimate, compared: usize) -> bool {
    let errors = (2.0 * (compared.max(1) as f64 / (2.0 * LEVEL)).ln()).sqrt();
    gain.value > gain.stderr.map_or(0.0, |stderr| errors * stderr)
}

/// The standard error of the mean; none of too few.
fn stderr(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() >= FEWEST_SEQUENCES).then(|| (squares / (n - 1.0) / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(sequences: &[f64]) -> Score {
        let fitness = sequences.iter().sum::<f64>() / sequences.len() as f64;
        Score { fitness, sequences: sequences.to_vec() }
    }

    #[test]
    fn a_gain_is_paired_so_that_the_spread_of_the_text_does_not_count() {
        let text: Vec<f64> = (0..16).map(f64::from).collect();
        let better: Vec<f64> =
            text.iter().enumerate().map(|(i, t)| t - 0.1 - 0.01 * (i % 2) as f64).collect();
        let gain = score(&better).gain_on(&score(&text)).unwrap();
        // Differences 0.1 and 0.11, eight of each: variance 16·0.005²/15.
        assert!((gain.value - 0.105).abs() < 1e-12);
        assert!((gain.stderr.unwrap() - (16.0 * 0.005f64.powi(2) / 15.0 / 16.0).sqrt()).abs() < 1e-12);
        assert_eq!(gain.n, Some(16));
        assert!(is_significant(&gain, 1) && score(&text).loses_against(&score(&better)));
        assert!(!score(&better).loses_against(&score(&text)));
    }

    #[test]
    fn noise_is_no_gain_and_few_sequences_never_drop_a_candidate() {
        let noise: Vec<f64> = (0..16).map(|i| if i % 2 == 0 { 0.5 } else { -0.49 }).collect();
        let zero = score(&[0.0; 16]);
        let gain = zero.gain_on(&score(&noise)).unwrap();
        assert!(gain.value > 0.0 && !is_significant(&gain, 1));
        assert!(!score(&noise).loses_against(&zero));
        assert!(!score(&[9.0; 7]).loses_against(&score(&[0.0; 7])));
        assert!(score(&[9.0; 8]).loses_against(&score(&[0.0; 8])));
    }

    #[test]
    fn the_best_of_many_has_to_gain_more() {
        let gain = |errors| Estimate::mean(errors, Some(1.0), 64);
        assert!(is_significant(&gain(2.2), 1) && !is_significant(&gain(2.1), 1));
        assert!(is_significant(&gain(2.8), 4) && !is_significant(&gain(2.6), 4));
        assert!(!is_significant(&gain(0.0), 0));
    }

    #[test]
    fn without_sequences_any_gain_counts_and_without_a_number_there_is_none() {
        let gain = Score::from(1.0).gain_on(&Score::from(1.5)).unwrap();
        assert_eq!((gain.value, gain.stderr), (0.5, None));
        assert!(is_significant(&gain, 9) && !Score::from(1.5).loses_against(&Score::from(1.0)));
        assert_eq!(Score::from(1.0).gain_on(&Score::from(f64::NAN)), None);
        assert_eq!(Score::from(f64::INFINITY).gain_on(&Score::from(1.0)), None);
    }

    #[test]
    fn what_is_appended_counts_by_its_tokens() {
        let mut all = score(&[1.0, 3.0]);
        all.append(20, Score { fitness: 5.0, sequences: vec![5.0] }, 10);
        assert!((all.fitness - 3.0).abs() < 1e-12);
        assert_eq!(all.sequences, [1.0, 3.0, 5.0]);
    }
}
