//! Workloads of a bench: each is timed once, and the model has a context for it.

use super::{Issues, ModelSizes, keys};
use crate::spec::key::KeyPath;
use crate::spec::types::Spec;

const TABLE: &str = "evaluate.bench";

pub(super) fn check(spec: &Spec, issues: &mut Issues) {
    for (key, i, number) in spec.evaluate.bench.iter().flat_map(|bench| bench.repeated()) {
        let at = [KeyPath::of(TABLE).key(key).index(i)];
        issues.error(&at, format!("{number} is listed twice"), "keep one of them");
    }
}

/// What is written after a prompt has to fit behind it.
pub(super) fn lengths(spec: &Spec, model: ModelSizes, issues: &mut Issues) {
    let Some(bench) = &spec.evaluate.bench else { return };
    let longest = bench.prompt.iter().max().zip(bench.output.iter().max());
    let Some((prompt, output)) = longest.filter(|(p, o)| p.saturating_add(**o) > model.context) else {
        return;
    };
    let message = format!(
        "a prompt of {prompt} tokens with {output} written after it is longer than the model's context of {}",
        model.context
    );
    let at = keys(["evaluate.bench.prompt", "evaluate.bench.output", "model.source"]);
    issues.error(&at, message, "lower `evaluate.bench.prompt` or `evaluate.bench.output`");
}
