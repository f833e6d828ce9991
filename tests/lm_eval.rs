//! Native scores against the lm-evaluation-harness itself, through the adapter service and the completions
//! server: the same documents, the same tokenizer, the built-in model or a tiny random one. Runs when
//! TYR_LM_EVAL_PYTHON names a Python interpreter that has lm_eval[api]==0.4.13.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod lm_eval_support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::Device;
use lm_eval_support::chain::Harness;
use lm_eval_support::proxy::{Defect, Proxy};
use lm_eval_support::{Mirror, SUBJECT_ROWS};
use tyr::base::{Kind, Result, Silent, Watch};
use tyr::data::Tokenizer;
use tyr::eval::lm_eval::wire::TokenizerChoice;
use tyr::eval::lm_eval::{Outcome, SampleLine, Values};
use tyr::eval::tasks::{Form, wikitext};
use tyr::eval::{
    Bos, Catalogue, Context, Encoder, Estimates, Metric, Options, Report, Samples, Scorer, Task, Tokenize,
    evaluate,
};
use tyr::model::pico::{self, Pico};
use tyr::model::{Model, Source};
use tyr::serve::lm_eval::HarnessOptions;
use tyr::spec::LmEval;

/// All tasks but MMLU, which takes examples.
const PLAIN: [&str; 9] = [
    "arc_challenge",
    "arc_easy",
    "boolq",
    "hellaswag",
    "openbookqa",
    "piqa",
    "rte",
    "wikitext",
    "winogrande",
];

/// How far a log-likelihood may be from the harness's, nats.
const NEAR: f64 = 1e-5;

/// One harness at a time: it takes a core, and what it leaves behind can be distinguished.
static TURN: Mutex<()> = Mutex::new(());

struct Fixture {
    _turn: MutexGuard<'static, ()>,
    source: Source,
    model: Arc<Model>,
    tokenizer: Tokenizer,
    folder: tempfile::TempDir,
    python: String,
}

impl Fixture {
    /// A tiny random model of this context. None, and a word about it, where there is no harness.
    fn new(context: usize) -> Option<Self> {
        Self::of(|folder| Pico::of_bytes(context).write(folder, 21).unwrap())
    }

    /// The built-in model.
    fn builtin() -> Option<Self> {
        Self::of(|_| Source::resolve("builtin:quickstart").unwrap())
    }

    fn of(source: impl FnOnce(&Path) -> Source) -> Option<Self> {
        let Ok(python) = std::env::var("TYR_LM_EVAL_PYTHON") else {
            eprintln!("skipped: TYR_LM_EVAL_PYTHON names no Python that has lm_eval[api]==0.4.13");
            return None;
        };
        Some(Self::with(python, source))
    }

    fn with(python: String, source: impl FnOnce(&Path) -> Source) -> Self {
        let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let folder = tempfile::tempdir().unwrap();
        let source = source(&folder.path().join("model"));
        let model = Arc::new(Model::open(&source, &Device::Cpu).unwrap());
        Self { _turn, tokenizer: Tokenizer::open(&source).unwrap(), model, source, folder, python }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("hub")
    }

    fn harness(&self, tasks: &[&str], num_fewshot: Option<usize>) -> Result<Outcome> {
        self.watched(tasks, num_fewshot, &Silent)
    }

    fn watched(&self, tasks: &[&str], num_fewshot: Option<usize>, watch: &dyn Watch) -> Result<Outcome> {
        let tasks = tasks.iter().map(|t| t.to_string()).collect();
        let settings = LmEval { url: None, python: self.python.clone(), tasks, num_fewshot };
        let options = HarnessOptions { data: Some(&self.data()), samples: true, ..HarnessOptions::default() };
        tyr::serve::lm_eval::evaluate(&self.source, self.model.clone(), &settings, options, watch)
    }

    fn native(&self, tasks: &[&str]) -> Report {
        self.native_with(tasks, self.tokenizer.inner(), Bos::Absent)
    }

    fn native_with(&self, tasks: &[&str], tokenizer: &dyn Tokenize, bos: Bos) -> Report {
        let options = Options { data: Some(self.data()), limit: 0 };
        let encoder = Encoder::new(tokenizer, bos, self.model.config().bos);
        evaluate(&select(tasks), &options, &mut Scorer::new(&self.model), &encoder, &Silent).unwrap()
    }

    /// What native scoring asks of every document of a task: contexts with their continuations; of a page,
    /// its text alone.
    fn asked(&self, task: &Task) -> Vec<Vec<(String, Option<String>)>> {
        let data = self.data();
        match &task.form {
            Form::Pages => wikitext::pages(Some(&data), usize::MAX)
                .unwrap()
                .iter()
                .map(|p| vec![(wikitext::detokenise(p), None)])
                .collect(),
            Form::Choice { source, .. } => {
                let documents = source.documents(Some(&data), usize::MAX).unwrap();
                let of = |d: &tyr::eval::Document| {
                    let context = |i: usize| match &d.context {
                        Context::Shared(context) => context.clone(),
                        Context::PerChoice(contexts) => contexts[i].clone(),
                    };
                    d.choices
                        .iter()
                        .enumerate()
                        .map(|(i, choice)| (context(i), Some(format!(" {choice}"))))
                        .collect()
                };
                documents.iter().map(of).collect()
            }
        }
    }
}

fn select(tasks: &[&str]) -> tyr::eval::Selection {
    Catalogue::builtin().select(&tasks.iter().map(|t| t.to_string()).collect::<Vec<_>>()).unwrap()
}

/// Accuracies are equal; perplexities are as near as the log-likelihoods.
#[track_caller]
fn same_metrics(name: &str, native: &Estimates, harness: &Values) {
    for (metric, ours) in native {
        let theirs = harness
            .get(metric.name())
            .unwrap_or_else(|| panic!("{name}: the harness has no {}", metric.name()));
        let tolerance =
            if matches!(metric, Metric::Acc | Metric::AccNorm) { 1e-12 } else { 1e-6 * theirs.value };
        assert!(
            (ours.value - theirs.value).abs() < tolerance,
            "{name} {}: {ours:?} for {theirs:?}",
            metric.name()
        );
        assert_eq!(
            (ours.n, ours.stderr.is_some()),
            (theirs.n, theirs.stderr.is_some()),
            "{name} {}",
            metric.name()
        );
        let errors = ours.stderr.zip(theirs.stderr);
        assert!(
            errors.is_none_or(|(a, b)| (a - b).abs() < 1e-12),
            "{name} {}: {ours:?} for {theirs:?}",
            metric.name()
        );
    }
}

/// The harness's records in the order of the documents.
fn in_order(harness: &[SampleLine]) -> Vec<&SampleLine> {
    let mut lines: Vec<&SampleLine> = harness.iter().collect();
    lines.sort_by_key(|l| l.doc_id);
    lines
}

/// Largest difference of log-likelihoods, nats.
fn distance(native: &Samples, harness: &[SampleLine]) -> f64 {
    let ours: Vec<Vec<f64>> = match native {
        Samples::Choices(samples) => samples.iter().map(|s| s.loglikelihoods.clone()).collect(),
        Samples::Pages(pages) => pages.iter().map(|p| vec![p.loglikelihood]).collect(),
    };
    assert_eq!(ours.len(), harness.len());
    let pairs = ours.iter().zip(in_order(harness)).flat_map(|(ours, theirs)| {
        assert_eq!(ours.len(), theirs.requests.len());
        ours.iter().zip(theirs.requests.iter().map(|r| r.loglikelihood.unwrap())).map(|(a, b)| (a - b).abs())
    });
    pairs.fold(0.0, f64::max)
}

/// The largest over all tasks.
fn farthest(native: &Report, harness: &Outcome) -> f64 {
    native.tasks.iter().map(|t| distance(&t.samples, &harness.samples[&t.task])).fold(0.0, f64::max)
}

#[track_caller]
fn same_strings(fixture: &Fixture, task: &Task, harness: &[SampleLine]) {
    let ours = fixture.asked(task);
    assert_eq!(ours.len(), harness.len(), "{}", task.name);
    for (ours, theirs) in ours.iter().zip(in_order(harness)) {
        let theirs: Vec<_> =
            theirs.requests.iter().map(|r| (r.context.clone(), r.continuation.clone())).collect();
        assert_eq!(*ours, theirs, "{}", task.name);
    }
}

fn compare(fixture: &Fixture, tasks: &[&str], num_fewshot: Option<usize>) {
    let native = fixture.native(tasks);
    let harness = fixture.harness(tasks, num_fewshot).unwrap();
    let selection = select(tasks);
    for (task, of) in native.tasks.iter().zip(&selection.tasks) {
        let lines = &harness.samples[&task.task];
        same_strings(fixture, of, lines);
        let most = distance(&task.samples, lines);
        println!(
            "{}: {} documents, log-likelihoods differ by at most {most:.1e} nats",
            task.task,
            lines.len()
        );
        assert!(most <= NEAR, "{}: {most}", task.task);
        same_metrics(&task.task, &task.metrics, &harness.tasks[&task.task]);
    }
    for group in &native.groups {
        same_metrics(&group.group, &group.metrics, &harness.groups[&group.group]);
    }
    println!("{} prompts", harness.prompts);
}

#[test]
fn tasks_without_examples_equal_the_harness() {
    let Some(fixture) = Fixture::new(1024) else { return };
    let mirror = Mirror::at(&fixture.data());
    mirror.plain();
    mirror.wikitext();
    compare(&fixture, &PLAIN, None);
}

#[test]
fn mmlu_and_its_groups_equal_the_harness() {
    let Some(fixture) = Fixture::new(2048) else { return };
    Mirror::at(&fixture.data()).mmlu(SUBJECT_ROWS);
    compare(&fixture, &["mmlu"], Some(5));
}

#[test]
fn all_tasks_equal_the_harness_on_the_built_in_model_and_parquet_files() {
    let Some(fixture) = Fixture::builtin() else { return };
    let mirror = Mirror::of_the_built_in_world(&fixture.data());
    mirror.plain();
    mirror.wikitext();
    mirror.mmlu(SUBJECT_ROWS);
    mirror.to_parquet(&fixture.python);
    compare(&fixture, &PLAIN, None);
    compare(&fixture, &["mmlu"], Some(5));
}

#[test]
fn prompts_that_are_cut_from_the_left_equal_the_harness() {
    let Some(fixture) = Fixture::new(48) else { return };
    let mirror = Mirror::at(&fixture.data());
    mirror.plain();
    mirror.wikitext();
    compare(&fixture, &["arc_easy", "boolq", "wikitext", "winogrande"], None);
}

/// The tokens before the continuation are one off.
fn shifted(entries: &mut Vec<serde_json::Value>) {
    entries.insert(1, entries[1].clone());
}

/// `max_tokens = 0`: nothing was generated.
fn without_generated_token(entries: &mut Vec<serde_json::Value>) {
    entries.pop();
}

#[test]
fn a_wrong_link_in_the_chain_is_seen() {
    // Short enough that BoolQ's prompts are cut, and that OpenBookQA's are not.
    let Some(fixture) = Fixture::new(96) else { return };
    let data = fixture.data();
    let tasks = ["boolq", "openbookqa", "wikitext"];
    let mirror = Mirror::at(&data);
    mirror.plain();
    mirror.wikitext();
    let chain = Harness::new(&fixture.source, &fixture.model, &fixture.python);
    let native = fixture.native(&tasks);
    let right = chain.run(&data, &tasks, |_| {}).unwrap();
    assert!(farthest(&native, &right) <= NEAR);

    for defect in [without_generated_token as Defect, shifted] {
        let proxy = Proxy::before(chain.address(), defect);
        let wrong =
            chain.run(&data, &["boolq"], |job| job.model.completions_url = proxy.completions_url()).unwrap();
        assert!(distance(&native.tasks[0].samples, &wrong.samples["boolq"]) > 100.0 * NEAR);
    }
    let shorter = chain.run(&data, &tasks, |job| job.model.context_len -= 1).unwrap();
    let cut = [0, 2].map(|i| distance(&native.tasks[i].samples, &shorter.samples[&native.tasks[i].task]));
    assert!(cut.iter().all(|&d| d > 100.0 * NEAR), "prompts cut one token early: {cut:?}");
    let longer = chain.run(&data, &["boolq"], |job| job.model.context_len += 1).unwrap_err();
    assert_eq!(longer.kind, Kind::Network, "prompts cut one token late are refused: {longer}");
    let eos = fixture.model.config().eos[0];
    let prefix = |id| {
        move |job: &mut tyr::eval::lm_eval::Job| {
            job.tokenizer = TokenizerChoice::Remote { prefix_token_id: Some(id) }
        }
    };
    let wrong = chain.run(&data, &["wikitext"], prefix(eos)).unwrap();
    assert!(distance(&native.tasks[2].samples, &wrong.samples["wikitext"]) > 100.0 * NEAR, "another prefix");

    // Deviations of native scoring from the same answers of the harness.
    let bos = fixture.native_with(&["openbookqa"], fixture.tokenizer.inner(), Bos::Before(0));
    assert!(distance(&bos.tasks[0].samples, &right.samples["openbookqa"]) > 100.0 * NEAR, "BOS");
    let unmerged = unmerged();
    let bytes = fixture.native_with(&["openbookqa"], &unmerged, Bos::Absent);
    assert!(
        distance(&bytes.tasks[0].samples, &right.samples["openbookqa"]) > 100.0 * NEAR,
        "another tokenizer"
    );
}

/// The tiny tokenizer without its merges: the same ids for bytes, other tokens for texts.
fn unmerged() -> tokenizers::Tokenizer {
    let mut json: serde_json::Value = pico::bytes::tokenizer();
    json["model"]["merges"] = serde_json::json!([]);
    json.to_string().parse().unwrap()
}

#[test]
fn the_generated_files_tell_ways_of_normalising_apart() {
    let fixture = Fixture::with(String::new(), |folder| Pico::of_bytes(1024).write(folder, 21).unwrap());
    Mirror::at(&fixture.data()).plain();
    let tasks = ["arc_challenge", "arc_easy", "hellaswag", "openbookqa"];
    let native = fixture.native(&tasks);
    let selection = select(&tasks);
    // Documents that are right by one way of normalising and wrong by another, over all tasks.
    let differ = |length: fn(&str) -> usize| {
        let task = |(report, task): (&tyr::eval::TaskResult, &Task)| {
            let Samples::Choices(samples) = &report.samples else { panic!("choices are expected") };
            let asked = fixture.asked(task);
            let lengths = |i: usize| {
                asked[i].iter().map(|(_, c)| length(&c.as_ref().unwrap()[1..]) as f64).collect::<Vec<_>>()
            };
            let right = |s: &&tyr::eval::document::Sample| {
                let scores: Vec<f64> =
                    s.loglikelihoods.iter().zip(lengths(s.index)).map(|(l, n)| l / n).collect();
                u8::from(tyr::eval::metric::argmax(&scores) == Some(s.gold)) != s.acc_norm
            };
            samples.iter().filter(right).count()
        };
        native.tasks.iter().zip(&selection.tasks).map(task).sum::<usize>()
    };
    assert_eq!(differ(|choice| choice.chars().count()), 0);
    assert!(differ(str::len) > 0, "by bytes");
    assert!(differ(|_| 1) > 0, "not at all");
    assert!(differ(|choice| choice.chars().count() + 1) > 0, "with the delimiter");
}

#[test]
fn tasks_and_data_that_are_not_there_fail_and_leave_nothing_behind() {
    let Some(fixture) = Fixture::new(256) else { return };
    Mirror::at(&fixture.data()).plain();
    let error = fixture.harness(&["no_such_task"], None).unwrap_err();
    assert_eq!(error.kind, Kind::Spec, "{error}");
    let error = fixture.harness(&["mmlu_anatomy"], None).unwrap_err();
    assert_eq!(error.kind, Kind::Data, "{error}");
    assert!(left_behind(&std::env::temp_dir()).is_empty());
}

/// The user presses Ctrl-C once the harness has begun to ask.
struct Interrupting(AtomicBool);

impl Watch for Interrupting {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, prompts: u64) {
        self.0.fetch_or(prompts > 0, Ordering::Relaxed);
    }
    fn end(&self) {}
    fn note(&self, _: &str) {}
    fn stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn an_interrupt_in_the_middle_leaves_no_process_behind() {
    let Some(fixture) = Fixture::new(2048) else { return };
    Mirror::at(&fixture.data()).mmlu(SUBJECT_ROWS);
    let watch = Interrupting(AtomicBool::new(false));
    let error = fixture.watched(&["mmlu"], Some(5), &watch).unwrap_err();
    assert_eq!(error.kind, Kind::Interrupted, "{error}");
    assert_eq!(processes(), Vec::<String>::new());
    assert!(left_behind(&std::env::temp_dir()).is_empty());
}

/// Command lines of this process's services and their workers.
fn processes() -> Vec<String> {
    let mark = format!("tyr-lm-eval-{}-", std::process::id());
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = all
        .filter_map(|e| std::fs::read(e.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned());
    lines.filter(|line| line.contains(&mark)).collect()
}

/// Folders of this process's services.
fn left_behind(folder: &Path) -> Vec<String> {
    let prefix = format!("tyr-lm-eval-{}-", std::process::id());
    let names =
        std::fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&prefix)).collect()
}
