//! What evaluations of a planned model take.

use super::estimator::{Cost, Estimator, PlannedModel};
use crate::base::Work;
use crate::bench::cost as timing;
use crate::eval::cost as evaluating;
use crate::model::Config;
use crate::model::cost::Tokens;
use crate::trial::{Evaluation, ModelName, kl_sequences};

impl Estimator<'_, '_> {
    /// What one evaluation of a model costs.
    pub(super) fn evaluation(&self, of: &PlannedModel, evaluation: &Evaluation) -> Cost {
        let spec = self.spec;
        let length = spec.evaluate.sequence_length;
        let rows = of.config.logit_rows();
        let read = evaluation.corpus(spec).and_then(|corpus| self.texts.evaluation.get(corpus));
        let read = read.map_or(0, |(_, tokens)| *tokens);
        match evaluation {
            Evaluation::Perplexity(_) => {
                let tokens = Tokens::new(read, length);
                let work = evaluating::perplexity(&of.config, tokens);
                self.forward(of, work, tokens, rows.min(length))
            }
            Evaluation::Kl => {
                let sequences = kl_sequences(spec.evaluate.kl_tokens, length, read / length);
                let tokens = Tokens::new(sequences * length, length);
                let work = evaluating::divergence(&of.config, &self.model.config, tokens);
                self.forward(of, work, tokens, 3 * rows.min(length))
            }
            Evaluation::Tasks => {
                let tokens = self.tasks.tokens;
                let sequences = tokens.sequences();
                let work = evaluating::tasks(&of.config, tokens);
                let rows = rows.min(evaluating::batch(sequences));
                Cost { disk: tokens.record(), ..self.forward(of, work, sequences, rows) }
            }
            Evaluation::Harness => {
                let sequences = self.tasks.tokens.sequences();
                self.forward(of, self.harness(&of.config), sequences, rows.min(length))
            }
            Evaluation::Bench => {
                let bench = spec.evaluate.bench.clone().unwrap_or_default();
                let both = [&self.model.config, &of.config];
                let work = both.map(|c| timing::work(c, &bench)).into_iter().sum();
                let memory = self.resident() + timing::memory(both, &bench);
                // The dense model is opened once more, to see what it takes alone.
                Cost { work, memory, mapped: self.checkpoint() * 2.0, ..Cost::default() }
            }
        }
    }

    /// What running this many tokens costs, the logits of `rows` at once.
    pub(super) fn forward(&self, of: &PlannedModel, work: Work, tokens: Tokens, rows: usize) -> Cost {
        let beside = if of.name == ModelName::Dense { 0.0 } else { self.resident() };
        let memory = beside + evaluating::memory(&of.config, tokens, rows);
        Cost { work, memory, mapped: self.checkpoint() + of.file, ..Cost::default() }
    }

    /// The harness's tasks as far as they are those that are built in.
    fn harness(&self, config: &Config) -> Work {
        let names = self.spec.evaluate.lm_eval.iter().flat_map(|settings| &settings.tasks);
        let sized = names.filter_map(|name| evaluating::task_tokens(name, self.spec.evaluate.limit));
        sized.map(|tokens| evaluating::tasks(config, tokens)).sum()
    }
}
