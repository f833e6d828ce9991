//! What evaluation costs: perplexity, divergence, tasks, and the memory that they take.

use crate::base::Work;
use crate::data::{self, BATCH_TOKENS};
use crate::model::Config;
use crate::model::cost::{self, Tokens, layer_parameters};

const SINGLE: f64 = 4.0;

/// Sizes of tasks: documents, tokens that run for each (shared beginnings once), and tokens that are scored
/// of each, about, with the tokenizer of Llama.
const TASKS: [(&str, f64, f64, f64); 10] = [
    ("arc_challenge", 1172.0, 56.0, 26.0),
    ("arc_easy", 2376.0, 44.0, 18.0),
    ("boolq", 3270.0, 150.0, 2.0),
    ("hellaswag", 10042.0, 160.0, 108.0),
    ("openbookqa", 500.0, 30.0, 16.0),
    ("piqa", 1838.0, 66.0, 50.0),
    ("rte", 277.0, 85.0, 2.0),
    ("winogrande", 1267.0, 50.0, 14.0),
    ("wikitext", 62.0, 4800.0, 4800.0),
    ("quickstart", 400.0, 48.0, 10.0),
];

/// One subject of MMLU on average, its five examples shared within a batch.
const MMLU: (f64, f64, f64) = (246.0, 117.0, 4.0);

/// Tokens that some tasks take.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TaskTokens {
    /// Run through the layers.
    pub run: f64,
    /// Scored by the output projection.
    pub scored: f64,
}

impl TaskTokens {
    /// As sequences of a request's length, about.
    pub fn sequences(self) -> Tokens {
        Tokens { count: self.run, length: 64 }
    }

    /// Bytes of the record of all documents.
    pub fn record(self) -> f64 {
        8.0 * self.run
    }
}

/// Tokens of a task by its name, for at most `limit` documents (0: all); `None` where its size is not known.
pub fn task_tokens(name: &str, limit: usize) -> Option<TaskTokens> {
    let family = name.split('/').next().unwrap_or(name);
    let known = TASKS
        .iter()
        .find(|(task, ..)| *task == family)
        .map(|&(_, documents, run, scored)| (documents, run, scored));
    let (documents, run, scored) = known.or_else(|| name.starts_with("mmlu_").then_some(MMLU))?;
    let documents = if limit == 0 { documents } else { documents.min(limit as f64) };
    Some(TaskTokens { run: documents * run, scored: documents * scored })
}

/// Perplexity of a model.
pub fn perplexity(config: &Config, tokens: Tokens) -> Work {
    let read = tokens.count * config.vocabulary as f64;
    let batches = (tokens.count / BATCH_TOKENS as f64).ceil();
    cost::hidden(config, tokens)
        + cost::logits(config, tokens.count)
        + cost::conversions(config, batches)
        + Work { logits: read, ..Work::default() }
}

/// Divergence of a model from the dense one.
pub fn divergence(config: &Config, dense: &Config, tokens: Tokens) -> Work {
    let sequences = tokens.count / tokens.length.max(1) as f64;
    let of_dense =
        cost::hidden(dense, tokens) + cost::logits(dense, tokens.count) + cost::conversions(dense, sequences);
    perplexity(config, tokens)
        + of_dense
        + Work { logits: tokens.count * dense.vocabulary as f64, ..Work::default() }
}

/// Tasks of this many tokens.
pub fn tasks(config: &Config, tokens: TaskTokens) -> Work {
    let run = tokens.sequences();
    let batches = (tokens.run / BATCH_TOKENS as f64).ceil();
    let read = Work { logits: tokens.scored * config.vocabulary as f64, ..Work::default() };
    cost::hidden(config, run)
        + cost::logits(config, tokens.scored)
        + cost::conversions(config, batches)
        + read
}

/// Memory of running a model, bytes: weights in f32, one batch, this many rows of logits.
pub fn memory(config: &Config, tokens: Tokens, logit_rows: usize) -> f64 {
    let rows = batch(tokens) as f64;
    let activations = rows * (3.0 * config.hidden as f64 + 3.0 * config.neurons as f64);
    weights(config) + SINGLE * (activations + (logit_rows * config.vocabulary) as f64)
}

/// Rows of one batch.
pub fn batch(tokens: Tokens) -> usize {
    data::batch(BATCH_TOKENS, tokens.length.max(1)).min(tokens.count as usize)
}

/// Weights in f32 that stay in memory, and the output projection's.
pub fn weights(config: &Config) -> f64 {
    let layers = if cost::is_resident(config) { config.layers.len() as f64 } else { 1.0 };
    SINGLE * (layers * layer_parameters(config) + (config.vocabulary * config.hidden) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Catalogue;

    #[test]
    fn every_built_in_task_has_a_size() {
        let all = Catalogue::builtin();
        let names = all.names();
        let selection = all.select(&names).unwrap();
        let unsized_tasks: Vec<_> =
            selection.tasks.iter().filter(|t| task_tokens(&t.name, 0).is_none()).map(|t| &t.name).collect();
        assert!(unsized_tasks.is_empty(), "{unsized_tasks:?}");
        assert_eq!(task_tokens("nothing", 0), None);
    }

    #[test]
    fn a_limit_cuts_documents_and_a_larger_one_does_not() {
        assert_eq!(task_tokens("rte", 10).unwrap().run, 850.0);
        assert_eq!(task_tokens("rte", 10_000), task_tokens("rte", 0));
    }
}
