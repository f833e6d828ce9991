//! A model as a scorer of log-likelihood requests: shared prefixes are computed once.
//!
//! Requests are sorted by their tokens and cut into batches; the inputs of a batch form a tree of segments in
//! which every distinct prefix is one run of rows. Nothing is padded, and the last token of a request is not
//! run at all. So four choices of one letter after the same context cost one pass, and the shots before all
//! questions of a subject one per batch.

use std::ops::Range;

use candle_core::Tensor;

use super::request::{LanguageModel, Request, Score};
use crate::base::{Result, Watch};
use crate::data::BATCH_TOKENS;
use crate::model::Model;
use crate::tensor::attention::Segments;
use crate::tensor::loss::pair_logprobs;

/// Scores requests with a model.
pub struct Scorer<'a> {
    model: &'a Model,
    batch_tokens: usize,
    requests: usize,
    asked: usize,
    computed: usize,
}

impl<'a> Scorer<'a> {
    /// With the usual batch size.
    pub fn new(model: &'a Model) -> Self {
        Self::with_batch(model, BATCH_TOKENS)
    }

    /// With batches of about this many distinct tokens. On an x86-64 host the results are the same, bit for
    /// bit, with any.
    pub fn with_batch(model: &'a Model, batch_tokens: usize) -> Self {
        Self { model, batch_tokens, requests: 0, asked: 0, computed: 0 }
    }

    /// Requests answered so far.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Tokens that requests requested and tokens that were run.
    pub fn tokens(&self) -> (usize, usize) {
        (self.asked, self.computed)
    }
}

impl LanguageModel for Scorer<'_> {
    fn score(&mut self, requests: &[Request], watch: &dyn Watch) -> Result<Vec<Score>> {
        let mut scores = vec![Score { loglikelihood: 0.0, greedy: true }; requests.len()];
        for batch in batches(requests, self.batch_tokens) {
            watch.checkpoint()?;
            self.asked += batch.iter().map(|&i| requests[i].input_length()).sum::<usize>();
            self.computed += run(self.model, requests, &batch, &mut scores)?;
            self.requests += batch.len();
            watch.advance(batch.len() as u64);
        }
        Ok(scores)
    }

    fn context_length(&self) -> usize {
        self.model.config().context
    }
}

impl Request {
    /// Tokens that the model reads: all but the last.
    pub(crate) fn input_length(&self) -> usize {
        self.context.len() + self.continuation.len() - 1
    }

    fn token(&self, i: usize) -> u32 {
        if i < self.context.len() { self.context[i] } else { self.continuation[i - self.context.len()] }
    }

    fn input(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.input_length()).map(|i| self.token(i))
    }
}

/// Requests in token order, cut so that a batch has about `limit` distinct tokens.
pub(crate) fn batches(requests: &[Request], limit: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by(|&a, &b| requests[a].input().cmp(requests[b].input()).then(a.cmp(&b)));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for i in order {
        let new = match batches.last().and_then(|b| b.last()) {
            Some(&previous) => requests[i].input_length() - common(&requests[previous], &requests[i]),
            None => requests[i].input_length(),
        };
        match batches.last_mut() {
            Some(batch) if tokens + new <= limit => {
                batch.push(i);
                tokens += new;
            }
            _ => {
                batches.push(vec![i]);
                tokens = requests[i].input_length();
            }
        }
    }
    batches
}

/// Length of the common prefix of two inputs.
fn common(a: &Request, b: &Request) -> usize {
    a.input().zip(b.input()).take_while(|(x, y)| x == y).count()
}

/// The inputs of a batch as a tree of segments.
#[derive(Default)]
pub(crate) struct Tree {
    pub segments: Segments,
    pub tokens: Vec<u32>,
    /// Rows of every request's input, in order.
    pub rows: Vec<Vec<Range<usize>>>,
}

impl Tree {
    pub(crate) fn new(requests: &[Request], batch: &[usize]) -> Self {
        let mut tree = Tree { rows: vec![vec![]; batch.len()], ..Tree::default() };
        tree.grow(requests, batch, 0..batch.len(), 0, None);
        tree
    }

    /// Adds the sorted requests `range`, which agree on their first `depth` tokens, under `parent`.
    fn grow(
        &mut self,
        requests: &[Request],
        batch: &[usize],
        range: Range<usize>,
        depth: usize,
        parent: Option<usize>,
    ) {
        let mut start = range.start;
        while start < range.end {
            let first = &requests[batch[start]];
            if first.input_length() == depth {
                start += 1; // ends where the parent ends
                continue;
            }
            let token = first.token(depth);
            let end =
                (start..range.end).find(|&i| requests[batch[i]].token(depth) != token).unwrap_or(range.end);
            // In sorted order the first and the last of a group share what all of it shares.
            let shared = common(first, &requests[batch[end - 1]]);
            let segment = self.segments.push(shared - depth, parent);
            self.tokens.extend((depth..shared).map(|i| first.token(i)));
            let rows = self.segments.0[segment].rows.clone();
            self.rows[start..end].iter_mut().for_each(|r| r.push(rows.clone()));
            self.grow(requests, batch, start..end, shared, Some(segment));
            start = end;
        }
    }
}

/// Scores one batch; gives the number of tokens run.
fn run(model: &Model, requests: &[Request], batch: &[usize], scores: &mut [Score]) -> Result<usize> {
    let tree = Tree::new(requests, batch);
    let hidden = model.hidden(&tree.tokens, &tree.segments)?;
    let mut wanted: Vec<(usize, u32, usize)> = Vec::new();
    for (&i, rows) in batch.iter().zip(&tree.rows) {
        let predicting = rows.iter().cloned().flatten().skip(requests[i].context.len() - 1);
        wanted.extend(predicting.zip(&requests[i].continuation).map(|(row, &token)| (row, token, i)));
    }
    wanted.sort_unstable();
    let mut rows: Vec<usize> = wanted.iter().map(|w| w.0).collect();
    rows.dedup();
    let index = Tensor::from_iter(rows.iter().map(|&r| r as u32), hidden.device())?;
    let scored = model.read_logits(&hidden.index_select(&index, 0)?, |logits, start| {
        let rows = &rows[start..][..logits.dim(0)?];
        let (first, last) = (rows[0], rows[rows.len() - 1]);
        let these = &wanted[wanted.partition_point(|w| w.0 < first)..wanted.partition_point(|w| w.0 <= last)];
        let pairs: Vec<(usize, u32)> =
            these.iter().map(|&(row, token, _)| (rows.partition_point(|&r| r < row), token)).collect();
        let requests = these.iter().map(|&(_, _, request)| request);
        Ok(requests.zip(pair_logprobs(logits, &pairs)?).collect())
    })?;
    for (request, (logprob, likeliest)) in scored {
        scores[request].loglikelihood += logprob;
        scores[request].greedy &= likeliest;
    }
    Ok(tree.tokens.len())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;
    use crate::base::Silent;
    use crate::model::pico::Pico;
    use crate::tensor::loss::token_logprobs;

    fn model() -> (tempfile::TempDir, Model) {
        let dir = tempfile::tempdir().unwrap();
        let source = Pico { vocabulary: 4, ..Pico::default() }.write(dir.path(), 2).unwrap();
        (dir, Model::open(&source, &Device::Cpu).unwrap())
    }

    fn alone(model: &Model, request: &Request) -> Score {
        let tokens: Vec<u32> = request.context.iter().chain(&request.continuation).copied().collect();
        let input = &tokens[..tokens.len() - 1];
        let logits =
            model.logits(&model.hidden(input, &Segments::sequences(1, input.len())).unwrap()).unwrap();
        let each = token_logprobs(&logits, &tokens[1..]).unwrap();
        let part = &each[request.context.len() - 1..];
        Score { loglikelihood: part.iter().map(|p| p.0).sum(), greedy: part.iter().all(|p| p.1) }
    }

    fn request() -> impl Strategy<Value = Request> {
        (prop::collection::vec(0u32..3, 1..8), prop::collection::vec(0u32..3, 1..4))
            .prop_map(|(context, continuation)| Request { context, continuation })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn scores_equal_those_of_each_request_alone_at_every_batch_size(requests in prop::collection::vec(request(), 0..20), batch in 1usize..60) {
            let (_dir, model) = model();
            let mut scorer = Scorer::with_batch(&model, batch);
            let scores = scorer.score(&requests, &Silent).unwrap();
            for (request, score) in requests.iter().zip(scores) {
                let want = alone(&model, request);
                prop_assert_eq!(score, want);
            }
            let (asked, computed) = scorer.tokens();
            prop_assert!(computed <= asked);
            prop_assert_eq!(scorer.requests(), requests.len());
        }
    }

    #[test]
    fn choices_of_one_token_cost_one_pass_over_the_context() {
        let (_dir, model) = model();
        let requests: Vec<Request> =
            (0..4).map(|t| Request { context: vec![1, 2, 3, 0, 1], continuation: vec![t] }).collect();
        let mut scorer = Scorer::new(&model);
        let scores = scorer.score(&requests, &Silent).unwrap();
        assert_eq!(scorer.tokens(), (20, 5));
        assert!((scores.iter().map(|s| s.loglikelihood.exp()).sum::<f64>() - 1.0).abs() < 1e-5);
        assert_eq!(scores.iter().filter(|s| s.greedy).count(), 1);
    }
}
