//! What an export says of the sizes that it writes: repeated heads, zeros, and how much larger they make it.

use super::layout::{Layout, Sources, Written};
use crate::model::{Config, LayerShape};

/// Why a layer that was removed whole is written with zeros.
pub(super) enum Dummies {
    /// Where the runtime would fail, or would leave out something else.
    WhereNeeded,
    /// Everywhere: the runtime knows no layers without heads or neurons.
    Everywhere,
}

fn zeros(sources: &Sources) -> usize {
    sources.iter().filter(|source| source.is_none()).count()
}

/// Layers, as numbers from 0.
fn numbers(layers: &[usize]) -> String {
    const NAMED: usize = 8;
    let names: Vec<String> = layers.iter().take(NAMED).map(usize::to_string).collect();
    let more = match layers.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{} {}{more}", if layers.len() == 1 { "layer" } else { "layers" }, names.join(", "))
}

/// Layers for which something holds.
fn layers(config: &Config, layout: &Layout, holds: impl Fn(&LayerShape, &Written) -> bool) -> Vec<usize> {
    let pairs = config.layers.iter().zip(&layout.layers).enumerate();
    pairs.filter(|(_, (own, written))| holds(own, written)).map(|(l, _)| l).collect()
}

/// Of groups that were made regular inside their layers.
pub(super) fn groups(config: &Config, layout: &Layout) -> Option<String> {
    let copied = |own: &LayerShape, written: &Written| {
        (written.kv_heads.len() - zeros(&written.kv_heads)) - own.kv_heads()
    };
    let filled = |own: &LayerShape, written: &Written| match own.heads() {
        0 => 0,
        _ => zeros(&written.heads),
    };
    let changed = layers(config, layout, |own, written| copied(own, written) + filled(own, written) > 0);
    let &first = changed.first()?;
    let sum = |count: &dyn Fn(&LayerShape, &Written) -> usize| -> usize {
        changed.iter().map(|&l| count(&config.layers[l], &layout.layers[l])).sum()
    };
    let shape = layout.layers[first].shape();
    let counts =
        [(sum(&copied), "key/value heads are repeated"), (sum(&filled), "query heads of zeros are added")];
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    Some(format!(
        "{}: key/value heads with different numbers of query heads are written with equal ones ({}; layer {first}: \
         {:?} as {} x {}); prune.unit.attention = \"kv_group\" or prune.align.heads avoids this",
        numbers(&changed),
        counts.collect::<Vec<_>>().join(", "),
        config.layers[first].query_heads_per_kv,
        shape.kv_heads(),
        shape.query_heads_per_kv.first().copied().unwrap_or(0),
    ))
}

/// Of sub-layers that were removed whole and are written with zeros.
pub(super) fn dummies(config: &Config, layout: &Layout, why: Dummies) -> Option<String> {
    let attention = layers(config, layout, |own, written| own.heads() == 0 && !written.heads.is_empty());
    let mlp =
        layers(config, layout, |own, written| own.intermediate_size == 0 && !written.neurons.is_empty());
    let named = [("attention", attention), ("MLP", mlp)];
    let named = named.iter().filter(|(_, layers)| !layers.is_empty());
    let named: Vec<String> = named.map(|(kind, layers)| format!("{kind} of {}", numbers(layers))).collect();
    let why = match why {
        Dummies::WhereNeeded => "the runtime fails without, or leaves out something else",
        Dummies::Everywhere => "the runtime has no layers without",
    };
    (!named.is_empty()).then(|| {
        format!(
            "{}: removed whole, written as zeros ({why}); prune.keep_at_least avoids this",
            named.join(", ")
        )
    })
}

/// Of layers that were filled up to the sizes of the largest.
pub(super) fn filled(config: &Config, layout: &Layout) -> Option<String> {
    let smaller = layers(config, layout, |own, written| *own != written.shape());
    let shape = layout.layers.first()?.shape();
    (!smaller.is_empty()).then(|| {
        format!(
            "{}: filled up with zeros to {} query heads, {} key/value heads and {} neurons, {}",
            numbers(&smaller),
            shape.heads(),
            shape.kv_heads(),
            shape.intermediate_size,
            why_filled(config)
        )
    })
}

/// Why layers do not stay as they are in a plain family, and what avoids it.
fn why_filled(config: &Config) -> String {
    let all = &config.layers;
    let first = &all[0];
    let groups = &first.query_heads_per_kv;
    if all.iter().any(|layer| layer != first) {
        "so that all layers are alike; sparsity.shape = \"uniform\" avoids this".into()
    } else if groups.is_empty() || first.intermediate_size == 0 {
        "since a plain layer has both heads and neurons; prune.keep_at_least avoids this".into()
    } else if groups.iter().any(|group| group != &groups[0]) {
        "since a plain layer has as many query heads for each key/value head; prune.align.heads = \"equal\" or \
         prune.unit.attention = \"kv_group\" avoids this"
            .into()
    } else {
        format!(
            "since plain classes that have the model's biases and window take a number of query heads that divides \
             {} channels, and layers have {}; another sparsity.target avoids this",
            config.hidden,
            first.heads()
        )
    }
}

/// Of parameters that the model does not have.
pub(super) fn larger(config: &Config, target: usize) -> Option<String> {
    let own = config.parameters().total();
    (target > own).then(|| {
        let percent = 100.0 * (target as f64 / own as f64 - 1.0);
        format!("{target} parameters are written for the model's {own}: {percent:.1}% more")
    })
}
