//! `[prune]`: the pruning method and its settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::types::MOST_OF_A_MODEL;

/// `[prune]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prune {
    /// How units are ranked, and what becomes of the others.
    pub method: Method,
    /// The units that are removed.
    pub unit: Units,
    /// Sizes that what is left must have, so that other programs run it well.
    pub align: Align,
    /// What every module keeps at least.
    pub keep_at_least: KeepAtLeast,
    /// Terms of the saliency (paper Eq. 4).
    pub saliency: Saliency,
    /// Units removed between two rankings.
    pub step: Step,
    /// `progressive` ranks again after every step; `one_shot` ranks once (ablation of the paper's Table 4).
    #[schemars(extend("x-paper" = "progressive pruning"))]
    pub ranking: Ranking,
    /// Damping coefficient: λ divided by the mean diagonal of XᵀX.
    #[schemars(range(min = 0.0), extend("x-unit" = "multiple of mean diag(XᵀX)", "x-paper" = "λ"))]
    pub damping: f64,
    /// Which mean of the diagonal that is.
    pub damping_mean: DampingMean,
    /// What the kept weights are fitted to.
    pub target: Target,
    /// Interpolation coefficient t between the `layer` target (0) and `target` (1): G = (1 − t)·G_layer +
    /// t·G_target.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "coefficient"))]
    pub target_interpolation: f64,
    /// How the interpolation coefficient is shrunk, for every output channel of every module.
    pub target_shrinkage: TargetShrinkage,
}

/// A pruning method. The keys of another method than the one chosen have no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Optimal Brain Surgeon on the Gram matrices of the calibration text, what stays refitted (the paper's).
    Obs,
    /// By the norm of the weights that a unit owns, nothing refitted: neither calibration text nor error
    /// accumulation matters.
    Magnitude,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Obs, Self::Magnitude];

    /// Its name in a spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::Obs => "obs",
            Self::Magnitude => "magnitude",
        }
    }

    /// The keys of `[prune]` that it reads, beside `method` and `unit`, which every method reads, and `align` and
    /// `keep_at_least`, which decide what it is asked for. A supernet is stored under these and no others, so
    /// none may be missing.
    pub fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Obs => &[
                "saliency",
                "step",
                "ranking",
                "damping",
                "damping_mean",
                "target",
                "target_interpolation",
                "target_shrinkage",
            ],
            Self::Magnitude => &[],
        }
    }
}

/// The mean that the damping coefficient multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DampingMean {
    /// The arithmetic mean (the paper's): a few channels with massive activations make it huge for all others
    /// too.
    Arithmetic,
    /// The geometric mean over the channels that are not always zero: close to that of a typical channel.
    Geometric,
}

/// Shrinkage of the target towards the layer's own output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TargetShrinkage {
    /// None.
    None,
    /// By the coefficient with which weights fitted on one half of the calibration text predict the other
    /// half best: few tokens fit noise.
    #[serde(rename = "split_half")]
    SplitHalf,
}

/// `prune.unit`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Units {
    /// Query heads one by one, or whole key/value groups.
    pub attention: AttentionUnit,
    /// Neurons of the MLP.
    pub mlp: MlpUnit,
}

/// What is removed from attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttentionUnit {
    /// One query head; a key/value head is removed with the last of its query heads.
    Head,
    /// A key/value head with all its query heads.
    KvGroup,
}

/// What is removed from an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MlpUnit {
    /// One row of gate and up with its column of down.
    Neuron,
}

/// `prune.align`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Align {
    /// The kept neurons of every MLP module are a multiple of this: kernels and block formats like 32, 128 or
    /// 256. Of a width that is no multiple, what is over goes first.
    #[schemars(range(min = 1, max = MOST_OF_A_MODEL), extend("x-unit" = "neurons"))]
    pub neurons: usize,
    /// How the kept query heads of a layer lie over its key/value heads, where several share one.
    pub heads: HeadsPerGroup,
}

/// How query heads lie over key/value heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeadsPerGroup {
    /// As their saliencies leave them.
    Free,
    /// Equally many for every key/value head of a layer: query heads leave in rounds of one per key/value head.
    /// Whole groups (`prune.unit`) are so anyway.
    Equal,
}

/// `prune.keep_at_least`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepAtLeast {
    /// Heads (or key/value groups) that every attention module keeps at least.
    #[schemars(range(max = MOST_OF_A_MODEL), extend("x-unit" = "heads"))]
    pub heads: usize,
    /// Neurons that every MLP module keeps at least.
    #[schemars(range(max = MOST_OF_A_MODEL), extend("x-unit" = "neurons"))]
    pub neurons: usize,
}

/// `prune.saliency`: at least one term must be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Saliency {
    /// |G_p·B_pᵀ|
    #[schemars(extend("x-paper" = "first term of Eq. 4"))]
    pub first_order: bool,
    /// ‖B_p‖² / (2 [H⁻¹]_pp), for heads ½ tr(B_gᵀ [H⁻¹]_gg⁻¹ B_g)
    #[schemars(extend("x-paper" = "second term of Eq. 4"))]
    pub second_order: bool,
}

/// `prune.step`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Heads (or key/value groups) removed at a time.
    #[schemars(range(min = 1, max = MOST_OF_A_MODEL), extend("x-unit" = "heads", "x-paper" = "pruning granularity"))]
    pub heads: usize,
    /// Neurons removed at a time.
    #[schemars(range(min = 1, max = MOST_OF_A_MODEL), extend("x-unit" = "neurons", "x-paper" = "pruning granularity"))]
    pub neurons: usize,
}

/// When units are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ranking {
    /// Again after every step, on the updated weights.
    Progressive,
    /// Once, on the dense weights.
    OneShot,
}

/// Reconstruction target of local pruning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// X̃B: the module's dense weights on the accumulated input (the paper's).
    Layer,
    /// XB: the dense model's output of the module.
    Dense,
    /// R + XB − R̃: what brings the accumulated residual stream back to the dense one.
    Residual,
}
