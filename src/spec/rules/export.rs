//! Exports that shapes of a spec make larger or coarser than they need be.

use super::{Issues, keys};
use crate::spec::key::KeyPath;
use crate::spec::repeated::repeated;
use crate::spec::types::{Form, Quantisation, Spec};

pub(super) fn check(spec: &Spec, issues: &mut Issues) {
    repeated_forms(spec, issues);
    padded(spec, issues);
    blocks(spec, issues);
}

fn repeated_forms(spec: &Spec, issues: &mut Issues) {
    let forms = &spec.export.to;
    for i in repeated(forms) {
        let at = [KeyPath::of("export.to").index(i)];
        issues.error(&at, format!("form \"{}\" is listed twice", forms[i]), "keep one of them");
    }
}

/// The plain family has one size for all layers.
fn padded(spec: &Spec, issues: &mut Issues) {
    if spec.export.to.contains(&Form::Stock) && spec.searches() {
        let message =
            "the form \"stock\" fills every layer up to the largest one, and a search leaves them different";
        let hint = "set `sparsity.shape` to \"uniform\" for a plain model that is smaller, or export to another form";
        issues.warning(&keys(["export.to", "sparsity.shape"]), message, hint);
    }
}

/// Blocks of numbers lie along the neurons.
fn blocks(spec: &Spec, issues: &mut Issues) {
    let (name, block) = match spec.export.gguf {
        Quantisation::Q8_0 => ("q8_0", 32),
        Quantisation::Q4_0 => ("q4_0", 32),
        Quantisation::Q4K => ("q4_k", 256),
        Quantisation::Q6K => ("q6_k", 256),
        Quantisation::Auto | Quantisation::F32 | Quantisation::F16 | Quantisation::Bf16 => return,
    };
    let aligned = spec.prune.align.neurons.is_multiple_of(block);
    if spec.export.to.contains(&Form::Gguf) && !aligned {
        let message = format!(
            "blocks of {name} are {block} wide: `down_proj` falls back to other numbers where a layer keeps no \
             multiple of {block} neurons"
        );
        let hint = format!("set `prune.align.neurons` to {block}");
        issues.warning(&keys(["export.gguf", "prune.align.neurons"]), message, hint);
    }
}
