//! A bench in a trial: its figures, and the tables that they give again.

use std::collections::BTreeMap;

use super::super::figure::{Figure, ResultRow};
use super::super::metric::Metric;
use super::{ModelRow, Row, Titled, models_grid, speeds_grid, texts_of};
use crate::base::Estimate;
use crate::bench::quantity::{Measure, Point, Quantity, Subject};
use crate::bench::spread::Spread;
use crate::bench::{Report, Speed, Workload};
use crate::trial::ModelName;

/// The figures of a bench of two models, the dense one first: those of the other one, and the dense one's beside them.
pub fn figures(report: &Report) -> Vec<Figure> {
    report.speeds.iter().flat_map(|speed| of_speed(report, speed)).collect()
}

fn of_speed(report: &Report, speed: &Speed) -> Vec<Figure> {
    let subject = if speed.model == 0 { Subject::Dense } else { Subject::Own };
    let mut measured = vec![
        (Measure::FirstToken, speed.first_token),
        (Measure::TokensPerSecond, speed.tokens_per_second),
        (Measure::ReadShare, speed.read_share),
    ];
    let mut counted = vec![(Measure::CacheBytes, speed.cache_bytes as f64)];
    if subject == Subject::Own {
        measured.push((Measure::PrefillRatio, speed.prefill_ratio));
        measured.push((Measure::DecodeRatio, speed.decode_ratio));
        counted.push((Measure::FlopsRatio, speed.expected_prefill_ratio));
        counted.push((Measure::BytesRatio, speed.expected_decode_ratio));
    }
    let (_, size) = &report.models[speed.model];
    if size.largest == Some(speed.workload) {
        counted.push((Measure::WeightBytes, size.weight_bytes as f64));
        counted.extend(size.peak_bytes.map(|peak| (Measure::PeakBytes, peak as f64)));
    }
    let figure = |measure: Measure, point: Point, estimate: Estimate| {
        Figure::new(Metric::Bench(Quantity { subject, measure, point }, speed.workload), estimate)
    };
    let of_rounds = |(measure, spread): (Measure, Spread)| {
        let ends =
            spread.quartiles.into_iter().flat_map(|[low, high]| [(Point::Low, low), (Point::High, high)]);
        let points = std::iter::once((Point::Median, spread.median)).chain(ends);
        points
            .map(|(point, value)| figure(measure, point, Estimate::mean(value, None, report.repeats)))
            .collect::<Vec<_>>()
    };
    let counted = counted.into_iter().map(|(m, value)| figure(m, Point::Median, Estimate::exact(value)));
    measured.into_iter().flat_map(of_rounds).chain(counted).collect()
}

/// What was timed of one model at a workload.
#[derive(Debug, Clone, Default)]
struct Values(BTreeMap<Quantity, f64>);

impl Values {
    fn get(&self, subject: Subject, measure: Measure, point: Point) -> Option<f64> {
        self.0.get(&Quantity { subject, measure, point }).copied()
    }

    fn counted(&self, subject: Subject, measure: Measure) -> Option<f64> {
        self.get(subject, measure, Point::Median)
    }

    fn spread(&self, subject: Subject, measure: Measure) -> Option<Spread> {
        let end = |point| self.get(subject, measure, point);
        let quartiles = end(Point::Low).zip(end(Point::High)).map(|(low, high)| [low, high]);
        Some(Spread { median: self.counted(subject, measure)?, quartiles })
    }

    fn row(&self, model: &str, subject: Subject) -> Row {
        let ratio = |of: Measure, measured: Option<Spread>| match subject {
            Subject::Own => self.spread(subject, of),
            // To itself, in every round.
            Subject::Dense => {
                measured.map(|spread| Spread { median: 1.0, quartiles: spread.quartiles.map(|_| [1.0; 2]) })
            }
        };
        let expected = |of: Measure| match subject {
            Subject::Own => self.counted(subject, of),
            Subject::Dense => Some(1.0),
        };
        let first_token = self.spread(subject, Measure::FirstToken);
        let tokens_per_second = self.spread(subject, Measure::TokensPerSecond);
        Row {
            model: model.into(),
            first_token,
            prefill_ratio: ratio(Measure::PrefillRatio, first_token),
            flops_ratio: expected(Measure::FlopsRatio),
            tokens_per_second,
            decode_ratio: ratio(Measure::DecodeRatio, tokens_per_second),
            bytes_ratio: expected(Measure::BytesRatio),
            read_share: self.counted(subject, Measure::ReadShare),
            cache_bytes: self.counted(subject, Measure::CacheBytes),
        }
    }
}

/// The tables of a trial's figures: the models, then one for each workload; none without a bench.
pub fn of_figures<'a>(rows: impl Iterator<Item = &'a ResultRow> + Clone) -> Vec<Titled> {
    let dense = ModelName::Dense.to_string();
    let mut timed: BTreeMap<Workload, BTreeMap<&str, Values>> = BTreeMap::new();
    let mut parameters: BTreeMap<&str, f64> = BTreeMap::new();
    let mut rounds = 0;
    for row in rows.filter(|row| row.value().is_finite()) {
        match row.metric() {
            Metric::Parameters => drop(parameters.insert(&row.model, row.value())),
            Metric::Bench(quantity, workload) => {
                let values = timed.entry(*workload).or_default().entry(&row.model).or_default();
                values.0.insert(*quantity, row.value());
                rounds = rounds.max(row.figure.estimate.n.unwrap_or(0));
            }
            _ => {}
        }
    }
    let with_dense = |models: &BTreeMap<&str, Values>| {
        let first = models.values().next().map(|values| values.row(&dense, Subject::Dense));
        let own = models.iter().map(|(model, values)| values.row(model, Subject::Own));
        speeds_grid(first.into_iter().chain(own).collect())
    };
    let speeds = timed.iter().map(|(workload, models)| Titled {
        title: format!("speed with {}", texts_of(workload)),
        grid: with_dense(models),
    });
    let title = format!("speed of models timed in turn {rounds} time{}", if rounds == 1 { "" } else { "s" });
    let models = (!timed.is_empty()).then(|| Titled { title, grid: models_grid(sizes(&timed, &parameters)) });
    models.into_iter().chain(speeds).collect()
}

/// The dense model and those that were timed beside it.
fn sizes(
    timed: &BTreeMap<Workload, BTreeMap<&str, Values>>,
    parameters: &BTreeMap<&str, f64>,
) -> Vec<ModelRow> {
    let dense = ModelName::Dense.to_string();
    let mut rows: BTreeMap<(Subject, &str), ModelRow> = BTreeMap::new();
    for (&model, values) in timed.values().flatten() {
        for (subject, name) in [(Subject::Dense, dense.as_str()), (Subject::Own, model)] {
            let row = rows.entry((subject, if subject == Subject::Dense { "" } else { model })).or_default();
            row.model = name.into();
            row.parameters = parameters.get(name).copied();
            row.weights = row.weights.or(values.counted(subject, Measure::WeightBytes));
            row.peak = row.peak.or(values.counted(subject, Measure::PeakBytes));
        }
    }
    let (first, own): (Vec<_>, Vec<_>) = rows.into_iter().partition(|((s, _), _)| *s == Subject::Dense);
    first.into_iter().chain(own).map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::super::{tables, terminal};
    use super::*;

    fn rows(report: &Report) -> Vec<ResultRow> {
        let parameters = |model: &str, of: usize| {
            let value = report.models[of].1.parameters as f64;
            Figure::exact(Metric::Parameters, value).of("t", model)
        };
        let timed = figures(report).into_iter().map(|figure| figure.of("t", "half"));
        [parameters("dense", 0), parameters("half", 1)].into_iter().chain(timed).collect()
    }

    #[test]
    fn figures_give_the_tables_of_the_bench_again() {
        let mut report = report();
        let to_itself = Spread { median: 1.0, quartiles: Some([1.0; 2]) };
        let dense = &mut report.speeds[0];
        (dense.prefill_ratio, dense.decode_ratio, dense.expected_decode_ratio) = (to_itself, to_itself, 1.0);
        let again = |report: &Report| of_figures(rows(report).iter());
        let grids = |tables: Vec<Titled>| tables.into_iter().map(|t| t.grid).collect::<Vec<_>>();
        assert_eq!(grids(again(&report)), grids(tables(&report)), "{}", terminal(&report));
        let titles: Vec<String> = again(&report).into_iter().map(|table| table.title).collect();
        let with = "speed with prompts of 512 tokens, 64 written, 8 texts at once";
        assert_eq!(titles, ["speed of models timed in turn 5 times", with]);
        // One round alone.
        report.repeats = 1;
        for speed in &mut report.speeds {
            let Speed { first_token, tokens_per_second, prefill_ratio, decode_ratio, read_share, .. } = speed;
            for spread in [first_token, tokens_per_second, prefill_ratio, decode_ratio, read_share] {
                spread.quartiles = None;
            }
        }
        assert_eq!(grids(again(&report)), grids(tables(&report)));
        assert!(figures(&report).iter().all(|figure| !figure.metric.to_string().contains("_low")));
        assert_eq!(of_figures(rows(&report)[..2].iter()), []);
    }

    #[test]
    fn figures_have_a_spread_and_the_memory_of_the_largest_workload() {
        let rows = rows(&report());
        let value = |metric: &str| {
            let found = rows.iter().find(|row| row.metric().to_string() == metric);
            found.map(|row| (row.value(), row.figure.estimate.n))
        };
        assert_eq!(value("bench_tokens_per_s/512+64x8"), Some((80.0, Some(5))));
        assert_eq!(value("bench_tokens_per_s_low/512+64x8"), Some((72.0, Some(5))));
        assert_eq!(value("bench_dense_tokens_per_s_high/512+64x8"), Some((48.0, Some(5))));
        assert_eq!(value("bench_dense_peak_bytes/512+64x8"), Some((9e8, None)));
        assert_eq!(value("bench_weight_bytes/512+64x8"), Some((269e6, None)));
        assert_eq!(value("bench_peak_bytes/512+64x8"), None, "not known of the second model");
        assert_eq!(value("bench_dense_prefill_ratio/512+64x8"), None);
    }
}
