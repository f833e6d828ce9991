//! What timing a model costs.

use super::Workload;
use super::memory::Memory;
use crate::base::Work;
use crate::model::Config;
use crate::model::cost::{Tokens, hidden, logits};
use crate::spec;

/// All rounds of one model, and its largest workload once for its memory: prompts by their operations, tokens after
/// them by the weights that are read.
pub fn work(config: &Config, bench: &spec::Bench) -> Work {
    let once = |w: &Workload| {
        let prompts =
            hidden(config, Tokens::new(w.prompt * w.batch, w.prompt)) + logits(config, w.batch as f64);
        let steps = (w.output - 1) as f64;
        let writing = hidden(config, Tokens::new(w.batch, 1)) + logits(config, w.batch as f64);
        let read = Work { weights: config.parameters().total() as f64, ..Work::default() };
        prompts + (writing + read) * steps
    };
    let all = Workload::all(bench);
    let largest = Memory::largest(config, &all).map(|(_, workload)| once(&workload)).unwrap_or_default();
    all.iter().map(once).sum::<Work>() * (bench.repeats + 1) as f64 + largest
}

/// The most memory that the workloads of a bench take with one of some models.
pub fn memory(configs: [&Config; 2], bench: &spec::Bench) -> f64 {
    let all = Workload::all(bench);
    let largest = configs.iter().filter_map(|config| Memory::largest(config, &all));
    largest.map(|(memory, _)| memory.total()).fold(0.0, f64::max)
}
