//! Log-probabilities of whole prompts, many at once: what several prompts begin with is computed once.

use candle_core::Tensor;

use crate::base::{Error, Kind, Result};
use crate::data::BATCH_TOKENS;
use crate::eval::Request;
use crate::eval::score::{Tree, batches};
use crate::generate::Entry;
use crate::model::Model;
use crate::tensor::loss::{pair_logprobs, top_logprobs};

/// What a model makes of a prompt of N tokens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scored {
    /// Its tokens from the second on: N − 1 entries.
    pub prompt: Vec<Entry>,
    /// The likeliest next token; none when the prompt is one token longer than the model's context.
    pub next: Option<Entry>,
}

/// Prompts cut into batches of about one pass each, the members of a batch in the order that [`score`] wants.
pub(crate) fn plan(prompts: &[&[u32]], context: usize) -> Vec<Vec<usize>> {
    batches(&prompts.iter().map(|p| request(p, context)).collect::<Vec<_>>(), BATCH_TOKENS)
}

/// All tokens of the prompt as input; of a prompt that fills the context and one more, all but the last.
fn request(prompt: &[u32], context: usize) -> Request {
    let mut continuation = prompt[1..].to_vec();
    if prompt.len() <= context {
        continuation.push(0); // stands for the next token, which is no input
    }
    Request { context: prompt[..1].to_vec(), continuation }
}

/// Scores prompts of one batch of [`plan`], with this many likeliest tokens each. No prompt is empty or
/// longer than the context and one.
///
/// # Errors
/// Of the batch: the model failed. Of a prompt: its log-probabilities are NaN.
pub(crate) fn score(model: &Model, prompts: &[(&[u32], usize)]) -> Result<Vec<Result<Scored>>> {
    let requests: Vec<Request> = prompts.iter().map(|(p, _)| request(p, model.config().context)).collect();
    let tree = Tree::new(&requests, &(0..prompts.len()).collect::<Vec<_>>());
    let hidden = model.hidden(&tree.tokens, &tree.segments)?;
    let mut places: Vec<Place> = Vec::new();
    for (prompt, rows) in tree.rows.iter().enumerate() {
        let token = |i: usize| prompts[prompt].0.get(i + 1).copied();
        places.extend(rows.iter().cloned().flatten().enumerate().map(|(i, row)| Place {
            row,
            prompt,
            token: token(i),
        }));
    }
    places.sort_by_key(|p| p.row); // stable: the entries of a prompt stay in order
    let mut entries: Vec<Vec<Entry>> = vec![vec![]; prompts.len()];
    let tops: Vec<usize> = prompts.iter().map(|p| p.1).collect();
    for rows in model.config().logit_blocks(tree.tokens.len()) {
        let logits = model.logits(&hidden.narrow(0, rows.start, rows.len())?)?;
        let these =
            places.partition_point(|p| p.row < rows.start)..places.partition_point(|p| p.row < rows.end);
        read(&logits, rows.start, &places[these], &tops, &mut entries)?;
    }
    Ok(entries.into_iter().zip(prompts).map(|(entries, (prompt, _))| finish(entries, prompt.len())).collect())
}

/// One prediction: the row that makes it, and the token that is there, if any.
struct Place {
    row: usize,
    prompt: usize,
    token: Option<u32>,
}

fn read(
    logits: &Tensor,
    first: usize,
    places: &[Place],
    tops: &[usize],
    entries: &mut [Vec<Entry>],
) -> Result<()> {
    let most = places.iter().map(|p| tops[p.prompt]).max().unwrap_or(0).max(1);
    let best = top_logprobs(logits, most)?;
    let token = |p: &Place| p.token.or_else(|| best[p.row - first].first().map(|b| b.0)).unwrap_or(0);
    let pairs: Vec<(usize, u32)> = places.iter().map(|p| (p.row - first, token(p))).collect();
    for ((place, &(row, token)), (logprob, _)) in
        places.iter().zip(&pairs).zip(pair_logprobs(logits, &pairs)?)
    {
        let top = best[row].iter().take(tops[place.prompt]).copied().collect();
        entries[place.prompt].push(Entry { token, logprob, top }.floored());
    }
    Ok(())
}

fn finish(mut entries: Vec<Entry>, length: usize) -> Result<Scored> {
    if entries.iter().any(|e| e.logprob.is_nan()) {
        return Err(Error::new(Kind::Numeric, "the model's log-probabilities are not numbers (NaN)"));
    }
    let next = if entries.len() == length { entries.pop() } else { None };
    Ok(Scored { prompt: entries, next })
}
