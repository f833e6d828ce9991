//! Builds against their definition, in f64: what each module is fitted on (accumulation, order of collection,
//! target) decides its levels' weights through their normal equations. A wrong stream, mean or target anywhere
//! before a module leaves them unsolved.

use faer::Mat;

use super::*;

/// Sequences of the calibration text that [`Fixture::build`] takes, and their length.
const SEQUENCES: usize = 16;
const LENGTH: usize = 32;
/// The damping of [`options`].
const DAMPING: f64 = 0.01;

/// The hidden states that pruned modules are fed, and those of the dense model.
#[derive(Clone)]
struct Streams {
    accumulated: Tensor,
    dense: Tensor,
}

struct Reference<'a> {
    f: &'a Fixture,
    supernet: &'a Supernet<'a>,
    accumulation: Accumulation,
    target: Target,
    /// The worst residual of the normal equations, relative to their right side.
    worst: f64,
}

fn matrix(x: &Tensor) -> Mat<f64> {
    let rows: Vec<Vec<f32>> = x.to_vec2().unwrap();
    Mat::from_fn(rows.len(), rows[0].len(), |i, j| f64::from(rows[i][j]))
}

fn tensor(x: &Mat<f64>) -> Tensor {
    let values: Vec<f32> =
        x.row_iter().flat_map(|row| row.iter().map(|v| *v as f32).collect::<Vec<_>>()).collect();
    Tensor::from_vec(values, (x.nrows(), x.ncols()), &Device::Cpu).unwrap()
}

impl Reference<'_> {
    fn inputs(&self, module: ModuleId, stream: &Tensor) -> Mat<f64> {
        let layer = self.f.model.layer(module.layer).unwrap();
        let segments = Segments::sequences(SEQUENCES, LENGTH);
        matrix(&match module.kind {
            ModuleKind::Attention => {
                self.f.model.attention_context(&layer.attention, stream, &segments).unwrap()
            }
            ModuleKind::Mlp => self.f.model.mlp_activations(&layer.mlp, stream).unwrap(),
        })
    }

    /// B = Wᵀ, [d_in, d_out].
    fn dense(&self, module: ModuleId) -> Mat<f64> {
        let layer = self.f.model.layer(module.layer).unwrap();
        matrix(store::module_weight(&layer, module.kind)).transpose().to_owned()
    }

    /// A level's weight in the dense layout, zero where units are removed.
    fn level(&self, module: ModuleId, removed: usize) -> Mat<f64> {
        matrix(&filled(self.f, self.supernet, module, removed)).transpose().to_owned()
    }

    fn removed(&self, module: ModuleId) -> Vec<usize> {
        let space = self.supernet.space();
        space.levels(module).map(|level| space.removed(module, level)).collect()
    }

    /// The normal equations of every level's kept channels on these streams.
    fn check(&mut self, module: ModuleId, streams: &Streams) {
        let x = self.inputs(module, &streams.accumulated);
        let b = self.dense(module);
        let y = match self.target {
            Target::Layer => &x * &b,
            Target::Dense => self.inputs(module, &streams.dense) * &b,
            Target::Residual => {
                self.inputs(module, &streams.dense) * &b + matrix(&streams.dense)
                    - matrix(&streams.accumulated)
            }
        };
        let gram = x.transpose() * &x;
        let d = gram.nrows();
        let lambda = DAMPING * (0..d).map(|i| gram[(i, i)]).sum::<f64>() / d as f64;
        let right = x.transpose() * y + faer::Scale(lambda) * &b;
        let width = self.supernet.space().shape.units(module.kind).width;
        for removed in self.removed(module) {
            let weight = self.level(module, removed);
            let left = &gram * &weight + faer::Scale(lambda) * &weight;
            let kept = self.supernet.kept(module, removed).unwrap();
            let channels = kept.iter().flat_map(|&unit| unit as usize * width..(unit as usize + 1) * width);
            let gap: f64 = channels.map(|c| (left.row(c) - right.row(c)).squared_norm_l2()).sum();
            self.worst = self.worst.max(gap.sqrt() / right.norm_l2());
        }
    }

    /// What is passed on in the module's place: the mean of its levels by the weights of method's definition.
    fn mean(&self, module: ModuleId) -> Mat<f64> {
        let removed = self.removed(module);
        let units = self.supernet.space().shape.units(module.kind).units as f64;
        let weights: Vec<f64> = match self.accumulation {
            Accumulation::None => return self.dense(module),
            Accumulation::Single => {
                return self.level(module, self.supernet.space().centre.removed[module.index()]);
            }
            Accumulation::Uniform => removed.iter().map(|_| 1.0).collect(),
            Accumulation::Expectation => removed.iter().map(|&r| 1.0 - r as f64 / units).collect(),
            Accumulation::Random => unreachable!("not compared"),
        };
        let total: f64 = weights.iter().sum();
        let zero = Mat::zeros(self.dense(module).nrows(), self.dense(module).ncols());
        removed
            .iter()
            .zip(weights)
            .fold(zero, |sum, (&r, w)| sum + faer::Scale(w / total) * self.level(module, r))
    }

    fn pass_on(&self, module: ModuleId, streams: &mut Streams) {
        let add = |stream: &Tensor, weight: &Mat<f64>| {
            tensor(&(matrix(stream) + self.inputs(module, stream) * weight))
        };
        streams.accumulated = add(&streams.accumulated, &self.mean(module));
        streams.dense = add(&streams.dense, &self.dense(module));
    }

    fn module_order(&mut self, streams: &mut Streams) {
        for module in (0..2 * self.f.model.config().layers.len()).map(ModuleId::from_index) {
            self.check(module, streams);
            self.pass_on(module, streams);
        }
    }

    /// Both modules of a layer are fitted with both dense in the accumulated stream, then both are passed on.
    fn layer_order(&mut self, streams: &mut Streams) {
        for layer in 0..self.f.model.config().layers.len() {
            let [attention, mlp] = ModuleKind::ALL.map(|kind| ModuleId { layer, kind });
            self.check(attention, streams);
            let mut between = streams.clone();
            let inputs = self.inputs(attention, &streams.accumulated);
            between.accumulated = tensor(&(matrix(&streams.accumulated) + inputs * self.dense(attention)));
            let inputs = self.inputs(attention, &streams.dense);
            between.dense = tensor(&(matrix(&streams.dense) + inputs * self.dense(attention)));
            self.check(mlp, &between);
            self.pass_on(attention, streams);
            self.pass_on(mlp, streams);
        }
    }
}

/// The worst residual of a build's normal equations when it is held against a definition.
fn residual(
    f: &Fixture,
    built: (Accumulation, Sequential, Target),
    held: (Accumulation, Sequential, Target),
) -> f64 {
    let options = options(|p, s| (s.accumulation, s.sequential, p.target) = built);
    let name = format!("{built:?}").replace(['(', ')', ' '], "");
    let supernet = f.build(&name, f.space(AttentionUnit::Head, 0.5), &options);
    let embedded = f.model.embed(&tokens(SEQUENCES * LENGTH, "calibration")).unwrap();
    let mut streams = Streams { accumulated: embedded.clone(), dense: embedded };
    let (accumulation, sequential, target) = held;
    let mut reference = Reference { f, supernet: &supernet, accumulation, target, worst: 0.0 };
    match sequential {
        Sequential::Module => reference.module_order(&mut streams),
        Sequential::Layer => reference.layer_order(&mut streams),
    }
    reference.worst
}

#[test]
fn levels_solve_the_normal_equations_of_their_definition() {
    use Accumulation::{Expectation, None, Single, Uniform};
    let f = fixture(Pico::default());
    for accumulation in [None, Single, Uniform, Expectation] {
        for sequential in [Sequential::Module, Sequential::Layer] {
            for target in [Target::Layer, Target::Dense, Target::Residual] {
                let setting = (accumulation, sequential, target);
                let found = residual(&f, setting, setting);
                println!("{setting:?}: {found:e}");
                assert!(found < 1e-5, "{setting:?}: {found:e}");
            }
        }
    }
}

#[test]
fn levels_do_not_solve_those_of_another_definition() {
    use Accumulation::{Expectation, None, Single, Uniform};
    let f = fixture(Pico::default());
    let right = (Expectation, Sequential::Layer, Target::Dense);
    let others = [
        (Uniform, Sequential::Layer, Target::Dense),
        (Single, Sequential::Layer, Target::Dense),
        (None, Sequential::Layer, Target::Dense),
        (Expectation, Sequential::Module, Target::Dense),
        (Expectation, Sequential::Layer, Target::Layer),
        (Expectation, Sequential::Layer, Target::Residual),
    ];
    for other in others {
        let found = residual(&f, right, other);
        println!("{other:?}: {found:e}");
        assert!(found > 1e-3, "{other:?}: {found:e}");
    }
}
