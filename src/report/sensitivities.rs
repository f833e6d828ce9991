//! What single changes of a distribution cost, as tables: a row for every layer, a column for every level.

use serde::Serialize;

use super::grid::{Column, Grid, Role};
use super::layers;
use super::number::{divergence, percent};
use crate::base::Estimate;
use crate::search::Round;
use crate::space::{ModuleId, ModuleKind, Space};

/// One round of sensitivities in its space.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The levels of every module.
    pub space: &'a Space,
    /// What was measured.
    pub round: &'a Round,
}

/// One level of one module, for programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Layer, from 0.
    pub layer: usize,
    /// Which of its modules.
    pub kind: ModuleKind,
    /// Units that the module loses at this level.
    pub removed: usize,
    /// Of so many.
    pub units: usize,
    /// What this adds to the fitness; absent when it is not a finite number.
    pub increase: Option<f64>,
}

impl View<'_> {
    /// Every level of every module that was measured.
    pub fn changes(&self) -> Vec<Change> {
        let of_module = |(i, levels): (usize, &Vec<Option<f64>>)| {
            let ModuleId { layer, kind } = ModuleId::from_index(i);
            let units = self.space.shape.units(kind).units;
            let low = self.space.range[i].0;
            let change = |(level, &increase): (i32, &Option<f64>)| {
                let removed = self.space.removed(ModuleId { layer, kind }, level);
                Change { layer, kind, removed, units, increase }
            };
            (low..).zip(levels).map(change).collect::<Vec<_>>()
        };
        self.round.increases.iter().enumerate().flat_map(of_module).collect()
    }

    /// Both tables, and what follows from them.
    pub fn text(&self) -> String {
        let tables = ModuleKind::ALL.map(|kind| format!("{}\n{}", title(kind), self.grid(kind).terminal()));
        format!("{}\n{}", tables.join("\n"), self.outcome())
    }

    /// Rows are layers, columns the fractions of units that a module loses. The level that a module has in the
    /// distribution which is changed adds 0.
    fn grid(&self, kind: ModuleKind) -> Grid {
        let units = self.space.shape.units(kind).units;
        let changes: Vec<Change> = self.changes().into_iter().filter(|c| c.kind == kind).collect();
        let mut levels: Vec<usize> = changes.iter().map(|c| c.removed).collect();
        levels.sort_unstable();
        levels.dedup();
        let named = |removed: &usize| Column {
            name: format!("{removed}/{units} {}%", percent(*removed as f64 / units as f64, 1)),
            role: Role::Detail,
        };
        let layer = Column { name: "layer".into(), role: Role::Name };
        let cell = |layer: usize, removed: usize| {
            let at = changes.iter().find(|c| c.layer == layer && c.removed == removed);
            at.map_or(String::new(), |c| c.increase.map_or("-".into(), signed))
        };
        let row = |layer: usize| {
            std::iter::once(layer.to_string()).chain(levels.iter().map(|&r| cell(layer, r))).collect()
        };
        Grid {
            columns: std::iter::once(layer).chain(levels.iter().map(named)).collect(),
            rows: (0..self.space.shape.layers).map(row).collect(),
        }
    }

    /// The distribution whose sum is least, with what the sum predicts and what it has.
    fn outcome(&self) -> String {
        let Some(outcome) = &self.round.outcome else { return String::new() };
        let shown = |value: Option<f64>| value.map_or("-".into(), divergence);
        let distribution = self.space.distribution(&outcome.optimum);
        format!(
            "fitness {} before, {} as the sum of single changes predicts, {} measured, on {} tokens\n\
             on {} {}tokens {}\n\
             the least sum, what each layer keeps:\n{}",
            shown(self.round.fitness),
            shown(outcome.predicted),
            shown(outcome.fitness),
            self.round.tokens,
            outcome.checked,
            if outcome.checked == self.round.tokens { "" } else { "other " },
            gained(outcome.gain),
            layers::text(&self.space.shape, &distribution)
        )
    }
}

fn title(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Attention => "what attention modules add to the fitness when they alone lose other heads",
        ModuleKind::Mlp => "what MLPs add to the fitness when they alone lose other neurons",
    }
}

/// What a round gained, in words.
fn gained(gain: Option<Estimate>) -> String {
    let Some(gain) = gain else { return "neither has a number".into() };
    let spread = gain.stderr.map_or(String::new(), |stderr| format!(" ± {}", divergence(stderr)));
    let (word, what) = if gain.value > 0.0 { ("lower", "taken") } else { ("higher", "not taken") };
    format!("it is {word} by {}{spread}: {what}", divergence(gain.value.abs()))
}

fn signed(value: f64) -> String {
    if value == 0.0 {
        "0".into()
    } else {
        format!("{}{}", if value > 0.0 { "+" } else { "" }, divergence(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::RoundOutcome;
    use crate::space::{Request, Shape, UnitSpec, uniform};

    #[test]
    fn every_measured_level_has_a_cell_in_the_table_of_its_kind() {
        let attention = UnitSpec { units: 4, width: 4, parameters: 64 };
        let shape = Shape { layers: 2, attention, mlp: UnitSpec { units: 16, width: 1, parameters: 24 } };
        let centre = uniform(&shape, Request::Total(0.5)).unwrap();
        let space = Space::around(shape, centre, [1, 4], 3).unwrap();
        let increases = vec![
            vec![Some(-0.0125), Some(0.0), Some(0.5)],
            vec![Some(-0.25), Some(0.0), None],
            vec![Some(-0.00001), Some(0.0), Some(0.75)],
            vec![Some(-1.0), Some(0.0), Some(2.0)],
        ];
        let optimum = vec![1, 0, -1, 0];
        let outcome = RoundOutcome {
            optimum,
            predicted: Some(0.25),
            fitness: Some(0.26),
            gain: Some(Estimate::mean(0.2, Some(0.01), 16)),
            checked: 512,
        };
        let round =
            Round { around: vec![0; 4], fitness: Some(0.5), tokens: 64, increases, outcome: Some(outcome) };
        let view = View { space: &space, round: &round };
        let text = view.text();
        for cell in ["25.0%", "1/4", "8/16", "-0.0125", "+0.5000", "-1.0e-5", "-0.2500", "-1.0000", "+2.0000"]
        {
            assert!(text.contains(cell), "{cell}\n{text}");
        }
        assert!(text.contains(
            "fitness 0.5000 before, 0.2500 as the sum of single changes predicts, 0.2600 measured"
        ));
        assert!(text.contains("on 512 other tokens it is lower by 0.2000 ± 0.0100: taken"), "{text}");
        assert!(text.contains("    0    1/4") && text.contains("    1    3/4"), "{text}");
        let changes = view.changes();
        assert_eq!(changes.len(), 12);
        let last = Change { layer: 0, kind: ModuleKind::Mlp, removed: 12, units: 16, increase: None };
        assert_eq!(changes[5], last);
    }
}
