//! What timing a model costs.

use super::Workload;
use crate::base::Work;
use crate::model::Config;
use crate::model::cost::{Tokens, hidden, logits};
use crate::spec;

/// All rounds of one model: prompts by their operations, tokens after them by the weights that are read.
pub fn work(config: &Config, bench: &spec::Bench) -> Work {
    let once = |w: &Workload| {
        let prompts =
            hidden(config, Tokens::new(w.prompt * w.batch, w.prompt)) + logits(config, w.batch as f64);
        let steps = (w.output - 1) as f64;
        let writing = hidden(config, Tokens::new(w.batch, 1)) + logits(config, w.batch as f64);
        let read = Work { weights: config.parameters().total() as f64, ..Work::default() };
        prompts + (writing + read) * steps
    };
    Workload::all(bench).iter().map(once).sum::<Work>() * (bench.repeats + 1) as f64
}

/// Tokens of the largest workload, in texts of their length.
pub fn largest(bench: &spec::Bench) -> Tokens {
    let all = Workload::all(bench);
    let largest = all.iter().max_by_key(|w| w.tokens());
    largest.map_or(Tokens::new(0, 1), |w| Tokens::new(w.tokens(), w.prompt + w.output))
}

/// Texts that are written at once, at most.
pub fn texts(bench: &spec::Bench) -> usize {
    bench.batch.iter().copied().max().unwrap_or(1)
}
