//! Native scores against the lm-evaluation-harness itself, through the adapter service and the completions server: the same documents,
//! the same tokenizer, a tiny random model. Runs when TYR_LM_EVAL_PYTHON names a Python interpreter that has lm_eval[api]==0.4.13.

mod lm_eval_support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::Device;
use lm_eval_support::{Mirror, SUBJECT_ROWS};
use tyr::base::{Kind, Result, Silent, Watch};
use tyr::data::Tokenizer;
use tyr::eval::lm_eval::{Outcome, SampleLine, Values};
use tyr::eval::{Bos, Catalogue, Encoder, Estimates, Options, Report, Samples, Scorer, evaluate};
use tyr::generate::pico;
use tyr::model::{Model, Source};
use tyr::serve::lm_eval::Extent;
use tyr::spec::LmEval;

const PLAIN: [&str; 8] = ["arc_challenge", "arc_easy", "boolq", "hellaswag", "openbookqa", "piqa", "rte", "winogrande"];

/// One harness at a time: it takes a core, and what it leaves behind can be told apart.
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
    /// None, and a word about it, where there is no harness.
    fn new(context: usize) -> Option<Self> {
        let Ok(python) = std::env::var("TYR_LM_EVAL_PYTHON") else {
            eprintln!("skipped: TYR_LM_EVAL_PYTHON names no Python that has lm_eval[api]==0.4.13");
            return None;
        };
        let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let folder = tempfile::tempdir().unwrap();
        let source = pico::write(&folder.path().join("model"), 21, context).unwrap();
        let model = Arc::new(Model::open(&source, &Device::Cpu).unwrap());
        Some(Self { _turn, tokenizer: Tokenizer::open(&source).unwrap(), model, source, folder, python })
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
        let extent = Extent { data: Some(&self.data()), samples: true, ..Extent::default() };
        tyr::serve::lm_eval::evaluate(&self.source, self.model.clone(), &settings, extent, watch)
    }

    fn native(&self, tasks: &[&str]) -> Report {
        let names: Vec<String> = tasks.iter().map(|t| t.to_string()).collect();
        let selection = Catalogue::builtin().select(&names).unwrap();
        let options = Options { data: Some(self.data()), limit: 0 };
        let encoder = Encoder::new(self.tokenizer.inner(), Bos::Absent, self.model.config().bos);
        evaluate(&selection, &options, &mut Scorer::new(&self.model), &encoder, &Silent).unwrap()
    }
}

#[track_caller]
fn same_metrics(name: &str, native: &Estimates, harness: &Values) {
    for (metric, ours) in native {
        let theirs = harness.get(metric.name()).unwrap_or_else(|| panic!("{name}: the harness has no {}", metric.name()));
        assert!((ours.value - theirs.value).abs() < 1e-12, "{name} {}: {ours:?} for {theirs:?}", metric.name());
        assert_eq!((ours.n, ours.stderr.is_some()), (theirs.n, theirs.stderr.is_some()), "{name} {}", metric.name());
        let errors = ours.stderr.zip(theirs.stderr);
        assert!(errors.is_none_or(|(a, b)| (a - b).abs() < 1e-12), "{name} {}: {ours:?} for {theirs:?}", metric.name());
    }
}

/// Largest difference of log-likelihoods.
fn distance(native: &Samples, harness: &[SampleLine]) -> f64 {
    let Samples::Choices(native) = native else { panic!("a task of choices") };
    assert_eq!(native.len(), harness.len());
    let mut lines: Vec<&SampleLine> = harness.iter().collect();
    lines.sort_by_key(|l| l.doc_id);
    let pairs = native.iter().zip(lines).flat_map(|(ours, theirs)| {
        assert_eq!(ours.loglikelihoods.len(), theirs.requests.len());
        ours.loglikelihoods.iter().zip(theirs.requests.iter().map(|r| r.loglikelihood.unwrap())).map(|(a, b)| (a - b).abs())
    });
    pairs.fold(0.0, f64::max)
}

fn compare(fixture: &Fixture, tasks: &[&str], num_fewshot: Option<usize>) {
    let (native, harness) = (fixture.native(tasks), fixture.harness(tasks, num_fewshot).unwrap());
    for task in &native.tasks {
        same_metrics(&task.task, &task.metrics, &harness.tasks[&task.task]);
        let distance = distance(&task.samples, &harness.samples[&task.task]);
        println!("{}: {} documents, log-likelihoods differ by at most {distance:e}", task.task, harness.samples[&task.task].len());
        assert!(distance <= 1e-5, "{}: {distance}", task.task);
    }
    for group in &native.groups {
        same_metrics(&group.group, &group.metrics, &harness.groups[&group.group]);
    }
}

#[test]
fn tasks_without_examples_equal_the_harness() {
    let Some(fixture) = Fixture::new(1024) else { return };
    Mirror::at(&fixture.data()).plain();
    compare(&fixture, &PLAIN, None);
}

#[test]
fn mmlu_and_its_groups_equal_the_harness() {
    let Some(fixture) = Fixture::new(2048) else { return };
    Mirror::at(&fixture.data()).mmlu(SUBJECT_ROWS);
    compare(&fixture, &["mmlu"], Some(5));
}

#[test]
fn prompts_that_are_cut_from_the_left_equal_the_harness() {
    let Some(fixture) = Fixture::new(48) else { return };
    Mirror::at(&fixture.data()).plain();
    compare(&fixture, &["arc_easy", "boolq", "winogrande"], None);
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
    let lines = all.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok()).map(|line| String::from_utf8_lossy(&line).into_owned());
    lines.filter(|line| line.contains(&mark)).collect()
}

/// Folders of this process's services.
fn left_behind(folder: &Path) -> Vec<String> {
    let prefix = format!("tyr-lm-eval-{}-", std::process::id());
    let names = std::fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&prefix)).collect()
}
