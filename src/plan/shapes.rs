//! What the sizes cost that every module has to have: the fraction of units that is asked and what whole multiples
//! make of it.

use crate::base::Result;
use crate::model::Config;
use crate::report::number::percent;
use crate::space::{ModuleId, ModuleKind, Shape, SparsityDistribution};
use crate::spec::{AttentionUnit, Basis, SparsityShape, Spec};
use crate::trial::{Sizing, bounds};

/// Notes on the shapes that a spec asks for; none where all are free.
///
/// # Errors
/// As [`Sizing::uniform`].
pub(super) fn notes(spec: &Spec, config: &Config, sizing: &Sizing) -> Result<Vec<String>> {
    let start = sizing.uniform()?;
    let shape = config.shape(spec.prune.unit.attention);
    let bounds = bounds(spec, config);
    let [heads, neurons] = bounds.multiples;
    let fractions = sizing.fractions()?;
    let becomes = |kind| change(fractions[kind as usize], &shape, &start, kind);
    let mut notes: Vec<String> = by_kind(spec, &shape, &start).into_iter().collect();
    if spec.sparsity.shape == SparsityShape::Uniform {
        notes.push(alike(spec, &shape, &start));
    }
    if heads > 1 {
        let what =
            format!("every key/value head of a layer keeps as many query heads: {heads} leave at a time");
        notes.push(format!("{what}; {} of them", becomes(ModuleKind::Attention)));
    }
    if neurons > 1 {
        let what = format!("kept neurons are multiples of {neurons}");
        notes.push(format!("{what}; {} of them", becomes(ModuleKind::Mlp)));
        let over = shape.mlp.units % neurons;
        if over > 0 {
            notes.push(format!(
                "{} neurons are no multiple of {neurons}: every module loses {over} at least",
                shape.mlp.units
            ));
        }
    }
    let keep = &spec.prune.keep_at_least;
    let (heads, neurons) = (keep.heads, keep.neurons);
    if (heads, neurons) != (0, 0) {
        notes.push(format!("every layer keeps at least {heads} {} and {neurons} neurons", units(spec)));
    }
    Ok(notes)
}

/// What each kind loses, where that is not the asked fraction of its parameters.
fn by_kind(spec: &Spec, shape: &Shape, start: &SparsityDistribution) -> Option<String> {
    let why = match spec.sparsity.basis {
        Basis::Prunable | Basis::Total | Basis::Flops => return None,
        Basis::KvBytes => "only attention takes room in the key/value cache",
        Basis::Latency => "time is left for as many units as the uniform distribution keeps",
    };
    let of = |kind| (start.total(kind), shape.units(kind).units * shape.layers);
    let [(heads, all_heads), (neurons, all_neurons)] = ModuleKind::ALL.map(of);
    Some(format!(
        "{why}: {heads} of {all_heads} {} and {neurons} of {all_neurons} neurons go at first",
        units(spec)
    ))
}

/// What all layers keep.
fn alike(spec: &Spec, shape: &Shape, start: &SparsityDistribution) -> String {
    let [heads, neurons] = ModuleKind::ALL.map(|kind| start.kept(shape, ModuleId { layer: 0, kind }));
    let [all_heads, all_neurons] = ModuleKind::ALL.map(|kind| shape.units(kind).units);
    format!(
        "all layers are alike and nothing is searched: each keeps {heads} of {all_heads} {} and {neurons} of \
         {all_neurons} neurons",
        units(spec)
    )
}

fn units(spec: &Spec) -> &'static str {
    match spec.prune.unit.attention {
        AttentionUnit::Head => "heads",
        AttentionUnit::KvGroup => "key/value groups",
    }
}

/// The fraction of a kind's units that is asked, and the one that goes.
fn change(asked: f64, shape: &Shape, start: &SparsityDistribution, kind: ModuleKind) -> String {
    let removed = start.total(kind) as f64 / (shape.units(kind).units * shape.layers) as f64;
    format!("{}% becomes {}%", percent(asked, 2), percent(removed, 2))
}
