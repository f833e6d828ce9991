//! Tables of a bench: one of the models, one for each workload; and all of it as CSV.

use super::grid::{Column, Grid, Role};
use super::number::{bytes, count, prefixed, shortest};
use crate::base::{Kind, Result, ResultExt};
use crate::bench::spread::Spread;
use crate::bench::{Report, Speed, Workload};

/// A table with its title.
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
    std::iter::once(models(report)).chain(workloads.into_iter().map(|w| of_workload(report, w))).collect()
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

fn models(report: &Report) -> Titled {
    let row = |(name, size): &(String, crate::bench::Size)| {
        vec![
            name.clone(),
            count(size.parameters as f64),
            bytes(size.weight_bytes as f64),
            size.peak_bytes.map_or("-".into(), |peak| bytes(peak as f64)),
        ]
    };
    let rows = report.models.iter().map(row).collect();
    let Report { repeats, threads, .. } = report;
    let plural = if *threads == 1 { "" } else { "s" };
    Titled {
        title: format!("models, timed in turn {repeats} times with {threads} thread{plural}"),
        grid: grid(&["model", "parameters", "weights", "peak memory"], rows),
    }
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

fn of_workload(report: &Report, workload: Workload) -> Titled {
    let row = |speed: &Speed| {
        vec![
            report.models[speed.model].0.clone(),
            with_percent(&speed.first_token),
            spread(&speed.prefill_ratio),
            ratio(speed.expected_prefill_ratio),
            with_percent(&speed.tokens_per_second),
            spread(&speed.decode_ratio),
            ratio(speed.expected_decode_ratio),
            format!("{:.0}%", speed.read_share.median * 100.0),
            bytes(speed.cache_bytes as f64),
        ]
    };
    let rows = report.speeds.iter().filter(|s| s.workload == workload).map(row).collect();
    let Workload { prompt, output, batch } = workload;
    let texts = if batch == 1 { "text" } else { "texts at once" };
    Titled {
        title: format!("prompts of {prompt} tokens, {output} written, {batch} {texts}"),
        grid: grid(&COLUMNS, rows),
    }
}

/// A median with the larger distance of a quartile, in per cent of it.
fn with_percent(of: &Spread) -> String {
    format!("{}±{:.0}%", digits(of.median), of.width() / of.median * 100.0)
}

fn spread(of: &Spread) -> String {
    format!("{}±{}", ratio(of.median), ratio(of.width()))
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
    let measured = measured.into_iter().flat_map(|s| [s.median, s.low, s.high]);
    std::iter::once(name.clone())
        .chain(counts)
        .chain([peak, speed.cache_bytes.to_string()])
        .chain(counted.into_iter().chain(measured).map(shortest))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Size;
    use crate::bench::expect::Expected;

    fn speed(model: usize, factor: f64) -> Speed {
        let of = |value: f64| Spread { median: value, low: value * 0.9, high: value * 1.2 };
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

    fn report() -> Report {
        let size = |peak_bytes| Size { parameters: 134_515_008, weight_bytes: 269_000_000, peak_bytes };
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
}
