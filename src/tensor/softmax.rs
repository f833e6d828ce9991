//! Softmax over the part of each row of scores that its query sees.

use std::ops::Range;

use super::math::{LANES, exp, max, vectorised};

/// Elements that scores have after their last row: a row's last elements are taken together with what follows them,
/// which is left as it is.
pub(super) const SPARE: usize = LANES;

/// Partial sums of the rows of a group.
type Partial = [[f32; LANES]; LANES];

/// Columns of row `i` that its query sees: those up to `start + i`, the last `window` of them.
#[inline(always)]
fn seen(i: usize, n: usize, start: usize, window: Option<usize>) -> Range<usize> {
    let end = if start + i + 1 < n { start + i + 1 } else { n };
    match window {
        Some(w) => end.saturating_sub(w)..end,
        None => 0..end,
    }
}

/// Softmax of each row of scores [t, n], and [`SPARE`] elements more, over the columns that its query sees: those up
/// to `start` and the row's number, the last `window` of them. The other columns become 0.
pub(super) fn softmax_rows(scores: &mut [f32], n: usize, start: usize, window: Option<usize>) {
    exponentials(scores, n, start, window);
    let end = scores.len() - SPARE;
    for (i, row) in scores[..end].chunks_exact_mut(n).enumerate() {
        let seen = seen(i, n, start, window);
        row[..seen.start].fill(0.0);
        row[seen.end..].fill(0.0);
    }
}

vectorised! {
    /// The softmax of what is seen. Rows are taken in groups, so that sums of several rows, each of which has to wait
    /// for the one before, run beside each other.
    fn exponentials(scores: &mut [f32], n: usize, start: usize, window: Option<usize>) {
        let t = (scores.len() - SPARE) / n;
        for first in (0..t).step_by(LANES) {
            let last = if first + LANES < t { first + LANES } else { t };
            let mut shifts = [0.0; LANES];
            for i in first..last {
                let seen = seen(i, n, start, window);
                shifts[i - first] = largest(&scores[i * n + seen.start..], seen.len());
            }
            let mut whole = [[0.0; LANES]; LANES];
            let mut rest = [[0.0; LANES]; LANES];
            for i in first..last {
                let seen = seen(i, n, start, window);
                let row = &mut scores[i * n + seen.start..];
                (whole[i - first], rest[i - first]) = exp_in_place(row, seen.len(), shifts[i - first]);
            }
            let totals = totals(&whole, &rest);
            for i in first..last {
                let seen = seen(i, n, start, window);
                scale(&mut scores[i * n + seen.start..], seen.len(), 1.0 / totals[i - first]);
            }
        }
    }
}

/// The largest of the first `count` elements.
#[inline(always)]
fn largest(xs: &[f32], count: usize) -> f32 {
    let (whole, rest) = xs.split_at(count / LANES * LANES);
    let rest = &rest[..LANES];
    let mut last = [f32::NEG_INFINITY; LANES];
    for i in 0..LANES {
        last[i] = if i < count % LANES { rest[i] } else { f32::NEG_INFINITY };
    }
    let (a, b) = (max(whole), max(&last));
    if a > b { a } else { b }
}

/// Replaces each x of the first `count` elements by exp(x − shift). Gives their sums in 16 partial ones, and those
/// that have no full 16, followed by zeros.
#[inline(always)]
fn exp_in_place(xs: &mut [f32], count: usize, shift: f32) -> ([f32; LANES], [f32; LANES]) {
    let (whole, rest) = xs.split_at_mut(count / LANES * LANES);
    let mut sums = [0.0; LANES];
    for chunk in whole.as_chunks_mut::<LANES>().0 {
        for i in 0..LANES {
            chunk[i] = exp(chunk[i] - shift);
            sums[i] += chunk[i];
        }
    }
    let rest = &mut rest[..LANES];
    let mut last = [0.0; LANES];
    for i in 0..LANES {
        let power = exp(rest[i] - shift);
        last[i] = if i < count % LANES { power } else { 0.0 };
        rest[i] = if i < count % LANES { power } else { rest[i] };
    }
    (sums, last)
}

/// Each row's sum: its partial ones, one after the other, then its last elements.
#[inline(always)]
fn totals(whole: &Partial, rest: &Partial) -> [f32; LANES] {
    let mut totals = [0.0; LANES];
    for part in [whole, rest] {
        for lane in 0..LANES {
            for (total, row) in totals.iter_mut().zip(part) {
                *total += row[lane];
            }
        }
    }
    totals
}

/// Multiplies the first `count` elements.
#[inline(always)]
fn scale(xs: &mut [f32], count: usize, by: f32) {
    let (whole, rest) = xs.split_at_mut(count / LANES * LANES);
    for x in whole {
        *x *= by;
    }
    for (i, x) in rest[..LANES].iter_mut().enumerate() {
        *x = if i < count % LANES { *x * by } else { *x };
    }
}

#[cfg(test)]
mod tests {
    use super::super::math::with_each;
    use super::*;

    /// Row by row, one element after the other.
    fn plain(scores: &mut [f32], n: usize, start: usize, window: Option<usize>) {
        for (i, row) in scores.chunks_exact_mut(n).enumerate() {
            let seen = seen(i, n, start, window);
            let live = row[seen.clone()].to_vec();
            let shift = max(&live);
            let powers: Vec<f32> = live.iter().map(|x| exp(x - shift)).collect();
            let (whole, rest) = powers.as_chunks::<LANES>();
            let lane = |i: usize| whole.iter().map(|chunk| chunk[i]).sum::<f32>();
            let sums = (0..LANES).map(lane).sum::<f32>();
            let scale = 1.0 / rest.iter().fold(sums, |sum, power| sum + power);
            row.fill(0.0);
            row[seen].iter_mut().zip(powers).for_each(|(x, power)| *x = power * scale);
        }
    }

    #[test]
    fn groups_of_rows_have_the_bits_of_single_rows_with_any_vectors() {
        for (t, n, start, window) in [
            (64, 128, 64, None),
            (64, 64, 0, None),
            (21, 37, 16, None),
            (4, 16, 3, None),
            (64, 100, 36, Some(20)),
            (40, 56, 16, Some(1)),
            (5, 40, 35, Some(33)),
        ] {
            let scores: Vec<f32> = (0..t * n + SPARE).map(|i| (i as f32 * 0.7).sin() * 9.0).collect();
            let mut want = scores.clone();
            plain(&mut want[..t * n], n, start, window);
            for found in with_each(|| {
                let mut found = scores.clone();
                softmax_rows(&mut found, n, start, window);
                found
            }) {
                assert!(found == want, "{t} rows of {n} from {start} with window {window:?}");
            }
        }
    }
}
