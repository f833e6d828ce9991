//! The coarse-to-fine schedule (paper §2.4, Algorithm 4): the spacing of each iteration's levels, in whole
//! units. Pure.

use serde::{Deserialize, Serialize};

use crate::base::{Error, Kind, Result};
use crate::space::{Bounds, ModuleKind, Shape, Space, SparsityDistribution};

/// One iteration: a supernet of its own, centred on what the iteration before found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Iteration {
    /// Number of the iteration, from 1.
    pub number: usize,
    /// Sparsity between neighbouring levels as the spec asks.
    pub interval: f64,
    /// The same in whole units: attention, MLP.
    pub spacings: [usize; 2],
    /// Notes for the user: kinds whose interval is finer than one unit.
    pub notes: Vec<String>,
}

impl Iteration {
    /// The space of at most `levels` levels per module around `centre`.
    ///
    /// # Errors
    /// As [`Space::around`].
    pub fn space(&self, shape: Shape, centre: SparsityDistribution, levels: usize) -> Result<Space> {
        Space::around(shape, centre, self.spacings, levels)
            .map_err(|e| e.at(format!("iteration {}", self.number)))
    }
}

/// The iterations that `intervals` (fractions of a module's units, one iteration each) mean for a model of
/// this shape.
///
/// A spacing is the interval rounded to whole units, or to multiples of them where `bounds` ask for these, half
/// to even, and at least one: with few heads the spacing of heads stays at one while that of neurons goes on
/// shrinking; the iteration's notes report this.
///
/// # Errors
/// `supernet.intervals` is empty or holds a value outside (0, 1].
pub fn schedule(shape: &Shape, bounds: &Bounds, intervals: &[f64]) -> Result<Vec<Iteration>> {
    if intervals.is_empty() {
        return Err(key_error(
            "the schedule has no interval",
            "give at least one interval, for example [0.125]",
        ));
    }
    intervals.iter().enumerate().map(|(i, &interval)| iteration(shape, bounds, i + 1, interval)).collect()
}

fn iteration(shape: &Shape, bounds: &Bounds, number: usize, interval: f64) -> Result<Iteration> {
    if !(interval > 0.0 && interval <= 1.0) {
        let what = format!("interval {number} is {interval}, which is not a fraction of a module");
        return Err(key_error(&what, "use fractions above 0 and up to 1, for example 0.125"));
    }
    let spacings = ModuleKind::ALL.map(|kind| spacing(shape, bounds, kind, interval));
    let notes = ModuleKind::ALL.iter().filter_map(|&kind| note(shape, bounds, kind, interval)).collect();
    Ok(Iteration { number, interval, spacings, notes })
}

fn spacing(shape: &Shape, bounds: &Bounds, kind: ModuleKind, interval: f64) -> usize {
    let multiple = bounds.multiple(kind);
    let multiples = interval * shape.units(kind).units as f64 / multiple as f64;
    (multiples.round_ties_even() as usize).max(1) * multiple
}

/// The note that the interval is finer than one unit of the kind, or the multiple that has to be kept.
fn note(shape: &Shape, bounds: &Bounds, kind: ModuleKind, interval: f64) -> Option<String> {
    let units = shape.units(kind).units;
    let (name, unit, several) = match kind {
        ModuleKind::Attention => ("attention", "head or group", "heads"),
        ModuleKind::Mlp => ("mlp", "neuron", "neurons"),
    };
    let multiple = bounds.multiple(kind);
    let finest = if multiple == 1 { format!("one {unit}") } else { format!("{multiple} {several}") };
    let asked = interval * units as f64;
    (asked < multiple as f64).then(|| {
        format!(
            "an interval of {}% is {asked:.2} of the {units} units of an {name} module; its level spacing \
             stays at {finest}",
            interval * 100.0
        )
    })
}

fn key_error(what: &str, hint: &str) -> Error {
    Error::new(Kind::Spec, what).at("supernet.intervals").hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::{Request, UnitSpec, legal_flips, uniform};

    const PAPER: [f64; 4] = [0.125, 0.0625, 0.03125, 0.015625];

    fn shape(layers: usize, heads: usize, neurons: usize) -> Shape {
        let attention = UnitSpec { units: heads, width: 4, parameters: 64 };
        Shape { layers, attention, mlp: UnitSpec { units: neurons, width: 1, parameters: 24 } }
    }

    #[test]
    fn the_papers_intervals_on_an_8b_model_shrink_to_one_head() {
        let schedule = schedule(&shape(32, 32, 14336), &Bounds::NONE, &PAPER).unwrap();
        let spacings: Vec<_> = schedule.iter().map(|i| i.spacings).collect();
        assert_eq!(spacings, [[4, 1792], [2, 896], [1, 448], [1, 224]]);
        assert!(schedule[2].notes.is_empty());
        assert_eq!(schedule[3].notes.len(), 1);
        assert!(schedule[3].notes[0].contains("0.50 of the 32 units"), "{}", schedule[3].notes[0]);
    }

    #[test]
    fn few_heads_keep_a_step_of_one_while_neurons_shrink() {
        let schedule = schedule(&shape(30, 9, 1536), &Bounds::NONE, &PAPER).unwrap();
        assert_eq!(
            schedule.iter().map(|i| i.spacings).collect::<Vec<_>>(),
            [[1, 192], [1, 96], [1, 48], [1, 24]]
        );
        assert_eq!(schedule.iter().map(|i| i.notes.len()).collect::<Vec<_>>(), [0, 1, 1, 1]);
    }

    #[test]
    fn spacings_are_multiples_of_what_has_to_be_kept() {
        let bounds = Bounds { multiples: [8, 256], at_least: [0, 0] };
        let schedule = schedule(&shape(32, 32, 14336), &bounds, &PAPER).unwrap();
        let spacings: Vec<_> = schedule.iter().map(|i| i.spacings).collect();
        assert_eq!(spacings, [[8, 1792], [8, 1024], [8, 512], [8, 256]]);
        assert_eq!(schedule.iter().map(|i| i.notes.len()).collect::<Vec<_>>(), [1, 1, 1, 2]);
        assert!(schedule[3].notes[1].ends_with("stays at 256 neurons"), "{}", schedule[3].notes[1]);
    }

    #[test]
    fn one_head_and_one_neuron_repeat_the_same_steps() {
        let schedule = schedule(&shape(2, 1, 1), &Bounds::NONE, &PAPER[..2]).unwrap();
        assert_eq!(schedule[0].spacings, schedule[1].spacings);
        assert_eq!(schedule[0].notes.len(), 2);
        assert_eq!(schedule.iter().map(|i| i.number).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn an_interval_of_one_spans_from_nothing_to_everything() {
        let shape = shape(2, 4, 8);
        let first = schedule(&shape, &Bounds::NONE, &[1.0]).unwrap().remove(0);
        assert_eq!(first.spacings, [4, 8]);
        let space = first.space(shape, SparsityDistribution { removed: vec![0, 0, 4, 8] }, 3).unwrap();
        assert_eq!(legal_flips(&space, &space.start()).len(), 2);
    }

    #[test]
    fn empty_and_impossible_intervals_name_the_key() {
        for wrong in [&[][..], &[0.0], &[-0.1], &[1.5], &[f64::NAN], &[f64::INFINITY], &[0.125, 0.0]] {
            let e = schedule(&shape(2, 4, 8), &Bounds::NONE, wrong).unwrap_err();
            assert_eq!((e.kind, e.place.as_deref()), (Kind::Spec, Some("supernet.intervals")), "{wrong:?}");
        }
    }

    #[test]
    fn a_space_that_cannot_be_names_its_iteration() {
        let shape = shape(2, 4, 8);
        let first = schedule(&shape, &Bounds::NONE, &[0.25]).unwrap().remove(0);
        let centre = uniform(&shape, Request::Total(0.5)).unwrap();
        assert!(first.space(shape, centre, 4).unwrap_err().to_string().contains("iteration 1"));
    }
}
