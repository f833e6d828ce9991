//! Optimal Brain Surgeon on blocks of channels with an exact refit (paper §2.2, Algorithm 1).
//!
//! Everything is f64 on Gram matrices; no activation is needed here. One pass removes units up to the largest
//! request and visits every smaller one on its way, so all levels cost one pass and are nested.
//!
//! The weights of a level are the ridge solution towards the dense weight, B̂_K = H_KK⁻¹ G_K with H = X̃ᵀX̃ +
//! λI and G = X̃ᵀY + λB. With the layer target, the level that removes nothing is B itself. Channels that are
//! always zero (zero diagonal of X̃ᵀX̃) are dead: units made of them are removed first, and their weights
//! become zero. Where all channels are, as in a module that another program has switched off, the diagonal
//! counts as 1, as in GPTQ and SparseGPT, and removing units costs nothing. Ties go to the lower unit. When H is numerically singular, λ is raised tenfold, at most six
//! times, and the notes report it.
//!
//! With d input channels, o outputs, r removed channels, k removed per step and K kept at the smallest level
//! (flops, f64):
//!
//! | part | flops | bytes |
//! |---|---|---|
//! | H⁻¹ by Cholesky | d³ | 16 d², in cache blocks |
//! | rank-k updates of H⁻¹ in panels | below d²r | 8 d² per panel |
//! | rank-k updates of B, fused with the saliency that reads it | 2dor | 16 do per step |
//! | refit by one Cholesky in keep order | K³/3 + K²o (1 + levels) | 8 K² + 8 Ko per level |
//!
//! Updates of H⁻¹ are delayed to panels of 128 columns, and touch the live rows of the lower triangle only.
//! The Cholesky factor of the refit holds that of every level as its leading block.
//!
//! Memory beside the problem: two d x d and four d x o matrices of f64, five with the first-order term.

mod check;
mod cost;
mod factor;
mod refit;
mod removal;
pub mod shrinkage;

use faer::Mat;

use super::collect::Halves;
use super::cost::{Cost, Size};
use super::{Gram, Method, Module, Needs, PrunedModule, Units, keep_order};
use crate::base::{Error, Kind, Result};
use crate::space::ModuleKind;
use crate::spec::{self, DampingMean, Ranking, Saliency, Step, Target, TargetShrinkage};
use factor::{Failure, System, Undamped};

/// The method with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Obs {
    /// Units removed between two rankings.
    pub step: Step,
    /// Terms of the saliency (paper Eq. 4).
    pub saliency: Saliency,
    /// Whether units are ranked again after each step.
    pub ranking: Ranking,
    /// What is added to the diagonal of X̃ᵀX̃.
    pub damping: Damping,
    /// What the kept weights are fitted to.
    pub target: Target,
    /// How far to go from the layer's own output (0) to the target (1).
    pub target_interpolation: f64,
    /// Whether the interpolation is lowered to what two halves of the text agree on.
    pub target_shrinkage: TargetShrinkage,
}

impl Obs {
    /// Both terms of the saliency and the layer target, as benches and rates time it.
    pub fn to_layer(step: Step, damping: Damping) -> Self {
        Self {
            step,
            saliency: Saliency { first_order: true, second_order: true },
            ranking: Ranking::Progressive,
            damping,
            target: Target::Layer,
            target_interpolation: 1.0,
            target_shrinkage: TargetShrinkage::None,
        }
    }
}

impl From<&spec::Prune> for Obs {
    fn from(prune: &spec::Prune) -> Self {
        Self {
            step: prune.step,
            saliency: prune.saliency,
            ranking: prune.ranking,
            damping: Damping { coefficient: prune.damping, mean: prune.damping_mean },
            target: prune.target,
            target_interpolation: prune.target_interpolation,
            target_shrinkage: prune.target_shrinkage,
        }
    }
}

/// The λ that keeps H = X̃ᵀX̃ + λI well-conditioned: a coefficient times a mean of diag X̃ᵀX̃.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Damping {
    /// The coefficient.
    pub coefficient: f64,
    /// Which mean.
    pub mean: DampingMean,
}

/// The reconstruction problem of a module, from the rows X̃ \[tokens, d_in\] that enter it.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Attention or MLP.
    pub kind: ModuleKind,
    /// The module's units.
    pub units: Units,
    /// Groups of neighbouring units, equal in size, that have to lose equally many at every level; 1 where any
    /// units may go.
    pub groups: usize,
    /// X̃ᵀX̃, \[d_in, d_in\], symmetric, without damping.
    pub gram: Mat<f64>,
    /// X̃ᵀY, \[d_in, d_out\], for a target Y; `None` is the layer target Y = X̃B.
    pub correlation: Option<Mat<f64>>,
    /// The dense weight B = Wᵀ, \[d_in, d_out\].
    pub weight: Mat<f64>,
}

impl Method for Obs {
    fn needs(&self) -> Needs {
        let target = if self.goes_beyond_the_layer() { self.target } else { Target::Layer };
        Needs { gram: Some(Gram { target, halves: self.halves() }), ..Needs::default() }
    }

    fn prune(&self, module: Module, removed: &[usize]) -> Result<PrunedModule> {
        let (problem, mut notes) = self.problem(module)?;
        let pruned = self.solve(&problem, removed)?;
        notes.extend(pruned.notes);
        Ok(PrunedModule { notes, ..pruned })
    }

    fn cost(&self, size: &Size) -> Cost {
        self.costs(size)
    }
}

impl Obs {
    /// Whether the weights are fitted to more than the layer's own output.
    fn goes_beyond_the_layer(&self) -> bool {
        self.target != Target::Layer && self.target_interpolation > 0.0
    }

    /// Units of a module removed between two rankings.
    fn step(&self, kind: ModuleKind) -> usize {
        match kind {
            ModuleKind::Attention => self.step.heads,
            ModuleKind::Mlp => self.step.neurons,
        }
    }

    /// The reconstruction problem of a module from the sums over the text, or over each half of it, and what
    /// the user should know of it.
    fn problem(&self, module: Module) -> Result<(Problem, Vec<String>)> {
        let Module { kind, units, groups, weight, collected, .. } = module;
        let Halves { first, second } = collected.into_sums()?;
        let mut notes = Vec::new();
        let (sums, coefficients) = match second {
            None => (first, vec![self.target_interpolation; weight.ncols()]),
            Some(second) => {
                let agreed = shrinkage::agreed([&first, &second], &weight, self.damping)?;
                if agreed.is_none() {
                    notes.push(
                        "one sequence of text has no two halves to compare; the target is not shrunk".into(),
                    );
                }
                let agreed = agreed.unwrap_or_else(|| vec![1.0; weight.ncols()]);
                (
                    first.with(&second),
                    agreed.into_iter().map(|coefficient| self.target_interpolation * coefficient).collect(),
                )
            }
        };
        check::tokens_seen(&sums)?;
        let correlation = shrinkage::interpolated(&sums, &weight, &coefficients);
        Ok((Problem { kind, units, groups, gram: sums.gram, correlation, weight }, notes))
    }

    /// Prunes a module to every count in `removed` (ascending units, 0 and all included).
    ///
    /// # Errors
    /// [`Kind::Spec`] when no saliency term is on, [`Kind::Numeric`] when an input is not finite, when no
    /// token was seen or when no damping saves the factorisation, [`Kind::Internal`] when shapes or counts do
    /// not fit.
    pub fn solve(&self, problem: &Problem, removed: &[usize]) -> Result<PrunedModule> {
        check::inputs(problem, self, removed)?;
        let undamped = Undamped::new(problem, self.damping.mean)?;
        let mut notes = Vec::new();
        for coefficient in factor::coefficients(self.damping.coefficient) {
            match self.attempt(&System::new(problem, &undamped, coefficient), removed) {
                Ok(pruned) => return Ok(PrunedModule { notes, ..pruned }),
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::Singular) => notes.push(format!(
                    "the Gram matrix is singular with a damping of {coefficient:e}: it is raised"
                )),
            }
        }
        Err(Error::new(Kind::Numeric, "the Gram matrix stays singular whatever the damping")
            .hint("calibrate on more tokens"))
    }

    fn attempt(&self, system: &System, removed: &[usize]) -> Result<PrunedModule, Failure> {
        let (removed_units, saliency) = removal::removal(system, self, removed)?;
        let keep_order = keep_order(system.units().count, &removed_units);
        let levels = refit::levels(system, &keep_order, removed)?;
        Ok(PrunedModule { keep_order, levels, saliency, notes: Vec::new() })
    }
}
