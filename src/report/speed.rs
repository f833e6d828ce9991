//! Tables of a bench: one of the models, one for each workload; and all of it as CSV.

mod figures;

use super::grid::{Column, Grid, Role};
use super::number::{bytes, count, prefixed, shortest};
use crate::base::{Kind, Result, ResultExt};
use crate::bench::spread::Spread;
use crate::bench::{Report, Size, Speed, Workload};

pub use figures::{figures, of_figures};

/// A table with its title.
#[derive(Debug, Clone, PartialEq)]
pub struct Titled {
    /// What it is about.
    pub title: String,
    /// Its cells.
    pub grid: Grid,
}

/// The models, then a table for each workload.
pub fn tables(report: &Report) -> Vec<Titled> {
    let mut workloads: Vec<Workload> = Vec::new();
    report.speeds.iter().filter(|s| s.model == 0).for_each(|s| workloads.push(s.workload));
    let Report { repeats, threads, .. } = report;
    let plural = if *threads == 1 { "" } else { "s" };
    let times = if *repeats == 1 { "time" } else { "times" };
    let title = format!("models, timed in turn {repeats} {times} with {threads} thread{plural}");
    let of_workload = |workload: Workload| {
        let speeds = report.speeds.iter().filter(|s| s.workload == workload);
        let rows = speeds.map(|speed| Row::of(&report.models[speed.model].0, speed));
        Titled { title: texts_of(&workload), grid: speeds_grid(rows.collect()) }
    };
    let models = Titled { title, grid: models_grid(report.models.iter().map(ModelRow::of).collect()) };
    std::iter::once(models).chain(workloads.into_iter().map(of_workload)).collect()
}

/// For a terminal.
pub fn terminal(report: &Report) -> String {
    let each = tables(report).into_iter().map(|t| format!("{}\n{}", t.title, t.grid.terminal()));
    each.collect::<Vec<_>>().join("\n")
}

/// For documents.
pub fn markdown(report: &Report) -> String {
    let each = tables(report).into_iter().map(|t| format!("### {}\n\n{}", t.title, t.grid.markdown()));
    each.collect::<Vec<_>>().join("\n")
}

fn grid(names: &[&str], rows: Vec<Vec<String>>) -> Grid {
    let column = |(i, name): (usize, &&str)| Column {
        name: name.to_string(),
        role: if i == 0 { Role::Name } else { Role::Summary },
    };
    Grid { columns: names.iter().enumerate().map(column).collect(), rows }
}

/// What is said of a model; what is not known is a dash.
#[derive(Debug, Clone, Default)]
struct ModelRow {
    model: String,
    parameters: Option<f64>,
    weights: Option<f64>,
    peak: Option<f64>,
}

impl ModelRow {
    fn of((name, size): &(String, Size)) -> Self {
        Self {
            model: name.clone(),
            parameters: Some(size.parameters as f64),
            weights: Some(size.weight_bytes as f64),
            peak: size.peak_bytes.map(|peak| peak as f64),
        }
    }
}

fn models_grid(rows: Vec<ModelRow>) -> Grid {
    let cells = |row: ModelRow| {
        vec![row.model, known(row.parameters, count), known(row.weights, bytes), known(row.peak, bytes)]
    };
    grid(&["model", "parameters", "weights", "peak memory"], rows.into_iter().map(cells).collect())
}

const COLUMNS: [&str; 9] = [
    "model",
    "first token, s",
    "prefill × faster",
    "flops × fewer",
    "tokens/s decoding",
    "decode × faster",
    "bytes × fewer",
    "of read",
    "KV cache",
];

/// What is said of a model at a workload; what is not known is a dash.
#[derive(Debug, Clone, Default)]
struct Row {
    model: String,
    first_token: Option<Spread>,
    prefill_ratio: Option<Spread>,
    flops_ratio: Option<f64>,
    tokens_per_second: Option<Spread>,
    decode_ratio: Option<Spread>,
    bytes_ratio: Option<f64>,
    read_share: Option<f64>,
    cache_bytes: Option<f64>,
}

impl Row {
    fn of(model: &str, speed: &Speed) -> Self {
        Self {
            model: model.into(),
            first_token: Some(speed.first_token),
            prefill_ratio: Some(speed.prefill_ratio),
            flops_ratio: Some(speed.expected_prefill_ratio),
            tokens_per_second: Some(speed.tokens_per_second),
            decode_ratio: Some(speed.decode_ratio),
            bytes_ratio: Some(speed.expected_decode_ratio),
            read_share: Some(speed.read_share.median),
            cache_bytes: Some(speed.cache_bytes as f64),
        }
    }

    fn cells(self) -> Vec<String> {
        vec![
            self.model,
            known(self.first_token, with_percent),
            known(self.prefill_ratio, spread),
            known(self.flops_ratio, ratio),
            known(self.tokens_per_second, with_percent),
            known(self.decode_ratio, spread),
            known(self.bytes_ratio, ratio),
            known(self.read_share, |share| format!("{:.0}%", share * 100.0)),
            known(self.cache_bytes, bytes),
        ]
    }
}

fn speeds_grid(rows: Vec<Row>) -> Grid {
    grid(&COLUMNS, rows.into_iter().map(Row::cells).collect())
}

/// A workload in words.
fn texts_of(workload: &Workload) -> String {
    let Workload { prompt, output, batch } = workload;
    let texts = if *batch == 1 { "text" } else { "texts at once" };
    format!("prompts of {prompt} tokens, {output} written, {batch} {texts}")
}

fn known<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or("-".into(), text)
}

/// A median with the larger distance of a quartile, in per cent of it.
fn with_percent(of: Spread) -> String {
    let share = known(of.width(), |width| format!("{:.0}%", width / of.median * 100.0));
    format!("{}±{share}", digits(of.median))
}

fn spread(of: Spread) -> String {
    format!("{}±{}", ratio(of.median), known(of.width(), ratio))
}

fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

/// Three digits.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => prefixed(value).trim_end().to_string(),
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// One row for each model and workload: medians and quartiles.
///
/// # Errors
/// [`Kind::Internal`] when a record cannot be written.
pub fn csv(report: &Report) -> Result<String> {
    let failed = "cannot write a bench as CSV";
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(head()).or_error(Kind::Internal, failed)?;
    for speed in &report.speeds {
        out.write_record(record(report, speed)).or_error(Kind::Internal, failed)?;
    }
    let written = out.into_inner().map_err(|e| e.into_error()).or_error(Kind::Internal, failed)?;
    String::from_utf8(written).or_error(Kind::Internal, failed)
}

/// Measured columns, each with its quartiles.
const MEASURED: [&str; 5] = ["first_token_s", "tokens_per_s", "prefill_ratio", "decode_ratio", "read_share"];

fn head() -> Vec<String> {
    let own = ["model", "prompt", "output", "batch", "parameters", "weight_bytes", "peak_bytes", "kv_bytes"];
    let counted = ["prompt_flops", "step_bytes", "flops_ratio", "bytes_ratio"];
    let measured = MEASURED.iter().flat_map(|name| ["", "_low", "_high"].map(|end| format!("{name}{end}")));
    own.into_iter().chain(counted).map(String::from).chain(measured).collect()
}

fn record(report: &Report, speed: &Speed) -> Vec<String> {
    let (name, size) = &report.models[speed.model];
    let Workload { prompt, output, batch } = speed.workload;
    let counts = [prompt, output, batch, size.parameters, size.weight_bytes].map(|count| count.to_string());
    let peak = size.peak_bytes.map_or(String::new(), |peak| peak.to_string());
    let expected = &speed.expected;
    let counted = [
        expected.prompt_flops,
        expected.step_bytes,
        speed.expected_prefill_ratio,
        speed.expected_decode_ratio,
    ];
    let measured = [
        &speed.first_token,
        &speed.tokens_per_second,
        &speed.prefill_ratio,
        &speed.decode_ratio,
        &speed.read_share,
    ];
    // What is not known is not a number, and an empty field.
    let ends = |s: &Spread| s.quartiles.unwrap_or([f64::NAN; 2]);
    let measured = measured.into_iter().flat_map(|s| [&[s.median], &ends(s)[..]].concat());
    std::iter::once(name.clone())
        .chain(counts)
        .chain([peak, speed.cache_bytes.to_string()])
        .chain(counted.into_iter().chain(measured).map(shortest))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::expect::Expected;

    pub(super) fn speed(model: usize, factor: f64) -> Speed {
        let of = |value: f64| Spread { median: value, quartiles: Some([value * 0.9, value * 1.2]) };
        Speed {
            workload: Workload { prompt: 512, output: 64, batch: 8 },
            model,
            first_token: of(2.0 / factor),
            tokens_per_second: of(40.0 * factor),
            prefill_ratio: of(factor),
            decode_ratio: of(factor),
            read_share: of(0.8),
            cache_bytes: 1_000_000,
            expected: Expected { prompt_flops: 1e9 / factor, step_bytes: 1e8 / factor },
            expected_prefill_ratio: factor,
            expected_decode_ratio: factor * 1.05,
        }
    }

    pub(super) fn report() -> Report {
        let size = |peak_bytes| Size {
            parameters: 134_515_008,
            weight_bytes: 269_000_000,
            largest: Some(Workload { prompt: 512, output: 64, batch: 8 }),
            peak_bytes,
        };
        Report {
            models: vec![("dense".into(), size(Some(900_000_000))), ("half".into(), size(None))],
            speeds: vec![speed(0, 1.0), speed(1, 2.0)],
            repeats: 5,
            threads: 2,
        }
    }

    #[test]
    fn tables_fit_a_terminal_and_say_what_was_measured_beside_what_was_expected() {
        let text = terminal(&report());
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        for words in [
            "models, timed in turn 5 times with 2 threads",
            "prompts of 512 tokens, 64 written, 8 texts at once",
            "134.5M",
            "269 MB",
            "2.00±20%",
            "80.0±20%",
            "2.00±0.40",
            "2.10",
            "80%",
            "1.00 MB",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        // Neither too wide nor split.
        assert_eq!(text.matches("│ model ").count(), 2, "{text}");
        assert!(
            markdown(&report()).starts_with("### models, timed in turn 5 times with 2 threads\n\n| model ")
        );
    }

    #[test]
    fn csv_has_a_row_for_each_model_and_workload_and_empty_cells_for_what_is_not_known() {
        let text = csv(&report()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("model,prompt,output,batch,parameters,weight_bytes,peak_bytes,kv_bytes,")
        );
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("dense,512,64,8,134515008,269000000,900000000,1000000,1000000000,"));
        assert!(
            lines[2].starts_with("half,512,64,8,134515008,269000000,,1000000,500000000,50000000,2,2.1,1,")
        );
        assert_eq!(lines[0].split(',').count(), lines[2].split(',').count());
    }

    #[test]
    fn one_round_has_no_spread() {
        let mut report = report();
        for speed in &mut report.speeds {
            let alone = |spread: &mut Spread| spread.quartiles = None;
            alone(&mut speed.first_token);
            alone(&mut speed.prefill_ratio);
        }
        let text = terminal(&report);
        assert!(
            text.contains(" 1.00±- ") && text.contains(" 2.00±- ") && text.contains(" 80.0±20% "),
            "{text}"
        );
        let csv = csv(&report).unwrap();
        let line = csv.lines().nth(2).unwrap();
        assert!(line.contains(",2,2.1,1,,,80,72,96,2,,,2,1.8,2.4,"), "{line}");
    }
}
