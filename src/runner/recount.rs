//! Counting what a smaller model really has: its file against its distribution.

use super::prepare::Prepared;
use crate::base::{Error, Kind, Result};
use crate::model::Model;
use crate::space::SparsityDistribution;

/// Counts what a smaller model's file holds against what its distribution says.
///
/// # Errors
/// [`Kind::Internal`] where they differ.
pub(crate) fn recount(model: &Model, prepared: &Prepared, distribution: &SparsityDistribution) -> Result<()> {
    let dense = prepared.model.config();
    let small = model.config();
    for (l, layer) in small.layers.iter().enumerate() {
        let lost = [
            (dense.heads - layer.heads()) * dense.head_width / prepared.shape.attention.width,
            dense.neurons - layer.intermediate_size,
        ];
        if lost != distribution.removed[2 * l..2 * l + 2] {
            let what = format!(
                "layer {l} of the smaller model lost {lost:?} units, which is not what the distribution says"
            );
            return Err(Error::new(Kind::Internal, what));
        }
    }
    if !model.unclaimed().is_empty() || model.checkpoint().parameters() != small.parameters().total() {
        let what = "the smaller model's file does not hold the parameters that its shapes say";
        return Err(Error::new(Kind::Internal, what));
    }
    Ok(())
}
