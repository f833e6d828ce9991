//! Rules between a spec and what it names, as far as that is known before a run: a model's sizes, and files
//! that cannot be used.

use crate::base::Error;
use crate::spec::key::KeyPath;
use crate::spec::types::{Basis, FitnessKind, Latency, Spec};

use super::{Issues, bench, keys};

/// What is known of a spec's inputs before a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Sizes of the model, where its configuration is at hand.
    pub model: Option<ModelSizes>,
    /// What could not be used, with the key that names it.
    pub faults: Vec<(KeyPath, Error)>,
}

/// The sizes of a model that a spec must agree with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelSizes {
    /// Its longest context, in tokens.
    pub context: usize,
    /// Its layers.
    pub layers: usize,
}

/// Looks at the inputs that a spec names, and whether the model can lose what is asked and be exported: `model`, the
/// tasks, `sparsity`, what `prune` says of units and their numbers, and `export`. Other keys must not matter,
/// because trials that agree in these share the answer.
pub type LookAtInputs = fn(&Spec) -> Inputs;

pub(super) fn check(spec: &Spec, inputs: &Inputs, issues: &mut Issues) {
    for (key, error) in &inputs.faults {
        let place = error.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        let hint = error.hint.clone().unwrap_or_default();
        issues.error(std::slice::from_ref(key), format!("{}{place}", error.what), hint);
    }
    let Some(model) = inputs.model else { return };
    context(spec, model, issues);
    bench::lengths(spec, model, issues);
    pass(spec, model, issues);
    layers(spec, model, issues);
}

/// A forward pass takes a whole sequence, so none may be longer than the context.
fn context(spec: &Spec, model: ModelSizes, issues: &mut Issues) {
    // Exports are compared with the model on such sequences.
    let reads = !spec.evaluate.perplexity.is_empty() || !spec.export.to.is_empty();
    let evaluated = reads.then_some(spec.evaluate.sequence_length);
    let lengths = [
        ("calibration.sequence_length", Some(spec.calibration.sequence_length)),
        ("evaluate.sequence_length", evaluated),
    ];
    for (key, length) in lengths {
        if length.is_some_and(|length| length > model.context) {
            let length = length.unwrap_or_default();
            let message = format!(
                "sequences of {length} tokens are longer than the model's context of {}",
                model.context
            );
            issues.error(&keys([key, "model.source"]), message, format!("set `{key}` to {}", model.context));
        }
    }
}

/// A pass that is timed has its tokens after those of its context.
fn pass(spec: &Spec, model: ModelSizes, issues: &mut Issues) {
    let Latency { tokens, context } = spec.sparsity.latency;
    if spec.sparsity.basis != Basis::Latency || tokens.saturating_add(context) <= model.context {
        return;
    }
    let message =
        format!("{tokens} tokens after {context} are more than the model's context of {}", model.context);
    let hint = match model.context.checked_sub(tokens) {
        Some(most) => format!("set `sparsity.latency.context` to at most {most}"),
        None => format!("set `sparsity.latency.tokens` to at most {}", model.context),
    };
    issues.error(
        &keys(["sparsity.latency.context", "sparsity.latency.tokens", "sparsity.basis"]),
        message,
        hint,
    );
}

/// Layers of the similarity, which count from either end.
fn layers(spec: &Spec, model: ModelSizes, issues: &mut Issues) {
    if spec.fitness.kind != FitnessKind::Similarity {
        return;
    }
    let count = i64::try_from(model.layers).unwrap_or(i64::MAX);
    for (i, layer) in spec.fitness.layers.iter().enumerate() {
        if layer.layer >= count || layer.layer < -count {
            let at = [KeyPath::of("fitness.layers").index(i).key("layer")];
            let message = format!("the model has {count} layers, so none is {}", layer.layer);
            issues.error(&at, message, format!("take a layer from {} to {}", -count, count - 1));
        }
    }
}
