//! Plots as SVG: what single changes of a distribution cost, a line for every layer.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::number::shortest;
use super::sensitivities::{Change, View};
use crate::base::{Error, Kind, Result};
use crate::space::ModuleKind;

/// Pixels.
const SIZE: (u32, u32) = (1080, 460);

/// The area that one kind of module is drawn in.
type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// One layer's line: its number, the removed share of its units, and the fitness at each.
struct Line {
    layer: usize,
    points: Vec<(f64, f64)>,
}

/// The fitness when one module alone loses more or fewer units, attention on the left, MLPs on the right. The vertical
/// axis is logarithmic where all values are positive.
///
/// # Errors
/// The drawing fails.
pub fn sensitivities(view: &View) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, view).map_err(|e| Error::new(Kind::Internal, format!("the plot cannot be drawn: {e}")))?;
    Ok(svg)
}

fn draw(svg: &mut String, view: &View) -> Drawn {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let base = view.round.fitness.unwrap_or(0.0);
    let changes = view.changes();
    let of_kind = |kind| lines(&changes, kind, base);
    for (kind, part) in ModuleKind::ALL.into_iter().zip(area.split_evenly((1, 2))) {
        panel(&part, title(kind), &of_kind(kind), base)?;
    }
    area.present()?;
    Ok(())
}

fn title(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Attention => "attention: fitness when one layer alone loses other heads",
        ModuleKind::Mlp => "MLP: fitness when one layer alone loses other neurons",
    }
}

/// The lines of one kind, layers in order; levels without a number are left out.
fn lines(changes: &[Change], kind: ModuleKind, base: f64) -> Vec<Line> {
    let mut lines: Vec<Line> = vec![];
    for change in changes.iter().filter(|change| change.kind == kind) {
        if lines.last().is_none_or(|line| line.layer != change.layer) {
            lines.push(Line { layer: change.layer, points: vec![] });
        }
        let share = 100.0 * change.removed as f64 / change.units as f64;
        if let (Some(line), Some(increase)) = (lines.last_mut(), change.increase) {
            line.points.push((share, base + increase));
        }
    }
    lines
}

/// A range with some room around it.
fn range(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return (0.0, 1.0);
    }
    let room = if high > low { 0.04 * (high - low) } else { 0.5 };
    (low - room, high + room)
}

fn panel(area: &Panel, title: &str, lines: &[Line], base: f64) -> Drawn {
    let points = lines.iter().flat_map(|line| &line.points);
    let logarithmic = base > 0.0 && points.clone().all(|(_, value)| *value > 0.0);
    let scale = |value: f64| if logarithmic { value.log10() } else { value };
    let (low, high) = range(points.clone().map(|(_, value)| scale(*value)));
    let (left, right) = range(points.map(|(share, _)| *share));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .margin_right(34)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(left..right, low..high)?;
    let value = |at: &f64| significant(if logarithmic { 10f64.powf(*at) } else { *at });
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("removed of the layer's units, %")
        .y_desc("fitness")
        .x_label_formatter(&|share| format!("{share:.0}"))
        .y_label_formatter(&value)
        .label_style(("sans-serif", 13))
        .draw()?;
    let dashed =
        DashedLineSeries::new([(left, scale(base)), (right, scale(base))], 5, 4, BLACK.mix(0.6).into());
    chart.draw_series(dashed)?;
    let last = lines.iter().map(|line| line.layer).max().unwrap_or(0).max(1);
    for line in lines {
        let colour = colour(line.layer as f64 / last as f64);
        let points: Vec<(f64, f64)> =
            line.points.iter().map(|(share, value)| (*share, scale(*value))).collect();
        chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|&at| Circle::new(at, 2, colour.filled())))?;
        let style = ("sans-serif", 12).into_font().color(&colour).pos(Pos::new(HPos::Left, VPos::Center));
        let label = |at: &(f64, f64)| {
            EmptyElement::at(*at) + Text::new(line.layer.to_string(), (5, 0), style.clone())
        };
        chart.draw_series(points.last().map(label))?;
    }
    Ok(())
}

/// Three significant digits.
fn significant(value: f64) -> String {
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    shortest(rounded)
}

/// First layers blue, last ones red.
fn colour(part: f64) -> RGBColor {
    let (red, green, blue) = HSLColor(0.62 * (1.0 - part), 0.75, 0.42).rgb();
    RGBColor(red, green, blue)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Round;
    use crate::space::{Request, Shape, Space, UnitSpec, uniform};

    fn plot(fitness: Option<f64>, increase: impl Fn(usize) -> Option<f64>) -> String {
        let attention = UnitSpec { units: 4, width: 4, parameters: 64 };
        let shape = Shape { layers: 3, attention, mlp: UnitSpec { units: 16, width: 1, parameters: 24 } };
        let centre = uniform(&shape, Request::Total(0.5)).unwrap();
        let space = Space::around(shape, centre, [1, 4], 3).unwrap();
        let increases = (0..6).map(|i| vec![increase(i), Some(0.0), increase(i + 1)]).collect();
        let round = Round { around: vec![0; 6], fitness, tokens: 64, increases, outcome: None };
        sensitivities(&View { space: &space, round: &round }).unwrap()
    }

    #[test]
    fn every_layer_has_a_line_in_the_panel_of_each_kind() {
        let svg = plot(Some(0.5), |i| Some(i as f64 * 0.1));
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 18);
        for title in ModuleKind::ALL.map(title) {
            assert!(svg.contains(title));
        }
    }

    #[test]
    fn what_has_no_number_is_left_out_and_negative_or_equal_values_are_drawn() {
        assert_eq!(plot(Some(0.5), |_| None).matches("<circle").count(), 6);
        assert_eq!(plot(Some(-2.0), |_| Some(-0.5)).matches("<circle").count(), 18);
        assert_eq!(plot(None, |_| Some(0.0)).matches("<circle").count(), 18);
        assert!(!plot(Some(1e-9), |_| Some(1e30)).contains("NaN"));
    }
}
