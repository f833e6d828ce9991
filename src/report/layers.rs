//! The distribution view: a line per layer with what it keeps, drawn as bars of characters.

use super::grid::{Column, Grid, Role};
use crate::space::{ModuleId, ModuleKind, Shape, SparsityDistribution};

/// Characters of a full bar.
const BAR: usize = 20;

/// Whether a distribution is one over this shape.
pub fn fits(shape: &Shape, distribution: &SparsityDistribution) -> bool {
    let within = |(i, &removed): (usize, &usize)| removed <= shape.units(ModuleId::from_index(i).kind).units;
    distribution.removed.len() == shape.modules() && distribution.removed.iter().enumerate().all(within)
}

/// The view as plain text, a line per layer and one for all of them.
pub fn text(shape: &Shape, distribution: &SparsityDistribution) -> String {
    let rows = rows(shape, distribution);
    let widths: Vec<usize> =
        (0..5).map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0)).collect();
    let line = |r: &[String; 5]| {
        let [layer, heads, head_bar, neurons, neuron_bar] = r;
        let l = widths[0];
        let h = widths[1];
        let b = widths[2];
        let n = widths[3];
        format!("{layer:>l$}  {heads:>h$} {head_bar:<b$}  {neurons:>n$} {neuron_bar}").trim_end().to_string()
            + "\n"
    };
    rows.iter().map(line).collect()
}

/// The view as a Markdown table.
pub fn markdown(shape: &Shape, distribution: &SparsityDistribution) -> String {
    let heads = [
        ("layer", Role::Summary),
        ("heads", Role::Summary),
        ("", Role::Bar),
        ("neurons", Role::Summary),
        ("", Role::Bar),
    ];
    let columns = heads.into_iter().map(|(name, role)| Column { name: name.into(), role }).collect();
    Grid { columns, rows: rows(shape, distribution).into_iter().skip(1).map(Vec::from).collect() }.markdown()
}

/// Cells of every line: layer, kept heads of all, bar, kept neurons of all, bar; the first line holds the
/// heads of the columns.
fn rows(shape: &Shape, distribution: &SparsityDistribution) -> Vec<[String; 5]> {
    let head = ["layer", "heads", "", "neurons", ""].map(String::from);
    let layer = |layer: usize| {
        let kept = |kind| distribution.kept(shape, ModuleId { layer, kind });
        row(layer.to_string(), ModuleKind::ALL.map(|kind| (kept(kind), shape.units(kind).units)))
    };
    let total =
        ModuleKind::ALL.map(|kind| (shape.layers * shape.units(kind).units, distribution.total(kind)));
    let all = row("all".into(), total.map(|(units, removed)| (units - removed, units)));
    std::iter::once(head).chain((0..shape.layers).map(layer)).chain([all]).collect()
}

fn row(name: String, [heads, neurons]: [(usize, usize); 2]) -> [String; 5] {
    let of = |(kept, units): (usize, usize)| format!("{kept}/{units}");
    [name, of(heads), bar(heads), of(neurons), bar(neurons)]
}

/// Full only when all is kept, empty only when nothing is.
pub(super) fn bar((kept, units): (usize, usize)) -> String {
    let width = units.min(BAR);
    let filled = match kept {
        0 => 0,
        k if k >= units => width,
        k => ((k as f64 / units as f64 * width as f64).round() as usize).clamp(1, width - 1),
    };
    "█".repeat(filled) + "░".repeat(width - filled).as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::UnitSpec;

    fn shape(layers: usize) -> Shape {
        let attention = UnitSpec { units: 4, width: 4, parameters: 64 };
        Shape { layers, attention, mlp: UnitSpec { units: 100, width: 1, parameters: 24 } }
    }

    #[test]
    fn every_layer_has_a_line_with_bars() {
        let found = SparsityDistribution { removed: vec![0, 0, 4, 100, 1, 1] };
        let expected = "\
layer  heads               neurons
    0    4/4 ████          100/100 ████████████████████
    1    0/4 ░░░░            0/100 ░░░░░░░░░░░░░░░░░░░░
    2    3/4 ███░           99/100 ███████████████████░
  all   7/12 ███████░░░░░  199/300 █████████████░░░░░░░
";
        assert_eq!(text(&shape(3), &found), expected);
        assert!(
            markdown(&shape(3), &found)
                .contains("|     2 |   3/4 | ███░         |  99/100 | ███████████████████░ |\n")
        );
        assert_eq!(bar((1, 1000)).chars().filter(|&c| c == '█').count(), 1);
    }

    #[test]
    fn one_head_is_there_or_not() {
        assert_eq!((bar((1, 1)).as_str(), bar((0, 1)).as_str(), bar((0, 0)).as_str()), ("█", "░", ""));
    }

    #[test]
    fn a_distribution_of_another_shape_does_not_fit() {
        assert!(fits(&shape(1), &SparsityDistribution { removed: vec![4, 100] }));
        assert!(!fits(&shape(1), &SparsityDistribution { removed: vec![5, 100] }));
        assert!(!fits(&shape(2), &SparsityDistribution { removed: vec![4, 100] }));
        assert!(!fits(&shape(1), &SparsityDistribution { removed: vec![] }));
    }
}
