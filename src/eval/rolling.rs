//! Windows over a text longer than the model's context, so that every token is predicted once with as much
//! before it as fits.

use crate::base::Result;

use super::request::{Encoder, Request};

/// The requests whose log-likelihoods sum to that of `text` given the prefix token, each of at most
/// `context_length` + 1 ids. A text without tokens has none. With BOS on, the BOS is predicted too, as in the
/// harness.
pub fn windows(encoder: &Encoder, text: &str, context_length: usize) -> Result<Vec<Request>> {
    let ids = encoder.encode(text)?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    Ok(disjoint(&ids, encoder.prefix()?, context_length))
}

/// The first window predicts as many tokens as fit; each next one predicts as many more, and the last reaches
/// back for context.
fn disjoint(ids: &[u32], prefix: u32, context_length: usize) -> Vec<Request> {
    let width = context_length.max(1);
    let first = width.min(ids.len());
    let mut windows = vec![Request { context: vec![prefix], continuation: ids[..first].to_vec() }];
    for start in (first..ids.len()).step_by(width) {
        let end = (start + width).min(ids.len());
        windows.push(Request {
            context: ids[end - width - 1..start].to_vec(),
            continuation: ids[start..end].to_vec(),
        });
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(ids: &[u32], length: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
        disjoint(ids, 99, length).into_iter().map(|r| (r.context, r.continuation)).collect()
    }

    #[test]
    fn a_short_text_is_one_window() {
        assert_eq!(pairs(&[1, 2, 3], 5), [(vec![99], vec![1, 2, 3])]);
        assert_eq!(pairs(&[1, 2, 3], 3), [(vec![99], vec![1, 2, 3])]);
    }

    #[test]
    fn the_last_window_reaches_back_for_context() {
        let expected = [(vec![99], vec![1, 2, 3]), (vec![3], vec![4, 5, 6]), (vec![4, 5, 6], vec![7])];
        assert_eq!(pairs(&[1, 2, 3, 4, 5, 6, 7], 3), expected);
    }

    #[test]
    fn every_token_is_predicted_once_and_no_window_is_too_long() {
        for count in 1..40u32 {
            for length in 1..12 {
                let ids: Vec<u32> = (0..count).collect();
                let windows = pairs(&ids, length);
                let predicted: Vec<u32> = windows.iter().flat_map(|(_, c)| c.clone()).collect();
                assert_eq!(predicted, ids);
                assert!(windows.iter().all(|(a, b)| !a.is_empty() && a.len() + b.len() <= length + 1));
            }
        }
    }
}
