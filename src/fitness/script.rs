//! A fitness written in Rhai: `fn fitness(m)` over the metrics of a candidate, run without files, modules or
//! clock and under limits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicFnPackage, BasicIteratorPackage, BasicMapPackage,
    BasicMathPackage, BasicStringPackage, LogicPackage, MoreStringPackage, Package as _,
};
use rhai::{AST, Dynamic, Engine, EvalAltResult, Position, Scope};

use super::metric::Metric;
use super::reads::{self, Reads, Word};
use crate::base::{Error, Kind, Result, ResultExt as _};

/// Operations of one call, about a second's worth.
pub(crate) const OPERATIONS: u64 = 1_000_000;
/// Functions that call each other.
pub(crate) const CALL_DEPTH: usize = 32;
/// Nesting of expressions.
pub(crate) const EXPRESSION_DEPTH: usize = 64;
/// Variables at a time.
pub(crate) const VARIABLES: usize = 256;
/// Bytes of a string.
pub(crate) const STRING: usize = 4096;
/// Functions of a script.
pub(crate) const FUNCTIONS: usize = 256;
/// Bytes of a script.
pub(crate) const TEXT: usize = 65_536;
/// Time of one call, in seconds: an operation on a large array takes long, and those inside callbacks are not
/// counted with the others.
pub(crate) const SECONDS: u64 = 10;
/// Elements of an array, or entries of a map, those inside them included.
pub(crate) const ELEMENTS: usize = 10_000;

/// One candidate's metrics: those that the script reads.
#[derive(Clone)]
pub struct Metrics(Arc<BTreeMap<Metric, Dynamic>>);

impl Metrics {
    pub(super) fn new(values: BTreeMap<Metric, Dynamic>) -> Self {
        Self(Arc::new(values))
    }

    fn get(&self, metric: Metric) -> Result<Dynamic, Box<EvalAltResult>> {
        self.0.get(&metric).cloned().ok_or_else(|| {
            format!("`m.{}` was not measured: read it as a property of `m`", metric.name()).into()
        })
    }

    fn by_name(&mut self, name: &str) -> Result<Dynamic, Box<EvalAltResult>> {
        let unknown = || format!("there is no metric `{name}`: {}", Metric::hint(name));
        self.get(Metric::from_name(name).ok_or_else(unknown)?)
    }
}

/// A compiled script.
pub struct Script {
    engine: Engine,
    ast: AST,
    name: String,
    declared: Position,
    reads: Reads,
    deadline: Deadline,
    /// Time of one call.
    pub(super) patience: Duration,
}

/// When the call that runs has to end, for all threads that run one.
#[derive(Clone, Default)]
struct Deadline(Arc<Mutex<Option<Instant>>>);

impl Deadline {
    fn set(&self, patience: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(patience);
    }

    fn passed(&self) -> bool {
        let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        end.is_some_and(|end| Instant::now() > end)
    }
}

impl Script {
    /// Reads and compiles a file.
    ///
    /// # Errors
    /// The file cannot be read, or as [`Script::compile`].
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .or_error(Kind::Spec, "the fitness script cannot be read")
            .map_err(|e| e.at(path.display()))?;
        Self::compile(&path.display().to_string(), &text)
    }

    /// Compiles `text`; `name` stands for it in errors, which have line and column.
    ///
    /// # Errors
    /// A syntax error, no `fn fitness(m)` with one parameter, or a metric that does not exist.
    pub fn compile(name: &str, text: &str) -> Result<Self> {
        if text.len() > TEXT {
            let what = format!("the script has {} bytes", text.len());
            return Err(error(name, Position::NONE, what).hint(format!("a script may have {TEXT} bytes")));
        }
        let mut engine = engine();
        let deadline = Deadline::default();
        let clock = deadline.clone();
        engine.on_progress(move |_| clock.passed().then_some(Dynamic::UNIT));
        let words = record_words(&mut engine);
        let ast = engine.compile(text).map_err(|e| error(name, e.position(), e.err_type().to_string()))?;
        let words = std::mem::take(&mut *words.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        let (parameter, declared) = signature(name, &ast, &words)?;
        let reads = reads::reads(&words, &parameter).map_err(|u| {
            error(name, u.at, format!("there is no metric `{}`", u.name)).hint(Metric::hint(&u.name))
        })?;
        let patience = Duration::from_secs(SECONDS);
        Ok(Self { engine, ast, name: name.into(), declared, reads, deadline, patience })
    }

    /// Its name in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it reads.
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// The script's value for one candidate; infinities are allowed.
    ///
    /// # Errors
    /// The script fails, exceeds a limit, or returns NaN or no number.
    pub fn call(&self, metrics: Metrics) -> Result<f64> {
        self.deadline.set(self.patience);
        let value: Dynamic = self
            .engine
            .call_fn(&mut Scope::new(), &self.ast, "fitness", (metrics,))
            .map_err(|e| self.failure(*e))?;
        let wrong = |what: &str| error(&self.name, self.declared, format!("`fitness` returned {what}"));
        match value.as_float().or_else(|_| value.as_int().map(|n| n as f64)) {
            Ok(number) if number.is_nan() => {
                Err(wrong("NaN").hint("look for a division of 0 by 0 or the logarithm of a negative number"))
            }
            Ok(number) => Ok(number),
            Err("()") => Err(wrong("nothing").hint("end the function with the value, or `return` it")),
            Err(kind) => {
                Err(wrong(&format!("a value of type {kind}")).hint("return a number: lower is better"))
            }
        }
    }

    /// The innermost cause, at its own place or that of the nearest call around it.
    fn failure(&self, mut cause: EvalAltResult) -> Error {
        let mut around = self.declared;
        while let EvalAltResult::ErrorInFunctionCall(_, _, inner, call) = cause {
            around = call.or_else(around);
            cause = *inner;
        }
        let position = cause.take_position().or_else(around);
        let hint = limit(&cause);
        let what = match cause {
            EvalAltResult::ErrorTerminated(..) => "the script takes too long".into(),
            cause => cause.to_string(),
        };
        let failed = error(&self.name, position, what);
        hint.into_iter().fold(failed, Error::hint)
    }
}

/// The hint for a script that a limit ended.
fn limit(cause: &EvalAltResult) -> Option<String> {
    match cause {
        EvalAltResult::ErrorTooManyOperations(_) => {
            Some(format!("a call may take {OPERATIONS} operations: is there a loop without an end?"))
        }
        EvalAltResult::ErrorTerminated(..) => {
            Some(format!("a call may take {SECONDS} seconds: is there a loop over a large array?"))
        }
        EvalAltResult::ErrorStackOverflow(_) => {
            Some(format!("functions may call each other {CALL_DEPTH} deep"))
        }
        EvalAltResult::ErrorDataTooLarge(..) => {
            Some(format!("strings may have {STRING} bytes, arrays and maps {ELEMENTS} elements"))
        }
        _ => None,
    }
}

/// The language without files, modules, `eval`, clock, sleep and output, under limits.
fn engine() -> Engine {
    let mut engine = Engine::new_raw();
    ArithmeticPackage::new().register_into_engine(&mut engine);
    LogicPackage::new().register_into_engine(&mut engine);
    BasicMathPackage::new().register_into_engine(&mut engine);
    BasicArrayPackage::new().register_into_engine(&mut engine);
    BasicMapPackage::new().register_into_engine(&mut engine);
    BasicIteratorPackage::new().register_into_engine(&mut engine);
    BasicFnPackage::new().register_into_engine(&mut engine);
    BasicStringPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    engine
        .set_max_operations(OPERATIONS)
        .set_max_call_levels(CALL_DEPTH)
        .set_max_variables(VARIABLES)
        .set_max_functions(FUNCTIONS)
        .set_max_modules(0);
    engine.set_max_expr_depths(EXPRESSION_DEPTH, EXPRESSION_DEPTH);
    engine.set_max_string_size(STRING).set_max_array_size(ELEMENTS).set_max_map_size(ELEMENTS);
    engine.set_strict_variables(true).set_fail_on_invalid_map_property(true);
    engine.disable_symbol("eval").disable_symbol("import").disable_symbol("export");
    engine.on_print(|_| {}).on_debug(|_, _, _| {});
    register_metrics(&mut engine);
    engine
}

fn register_metrics(engine: &mut Engine) {
    engine.register_type_with_name::<Metrics>("metrics");
    for metric in Metric::all() {
        engine.register_get(metric.name(), move |m: &mut Metrics| m.get(metric));
    }
    engine.register_indexer_get(Metrics::by_name);
}

type Words = Vec<(Word, Position)>;

/// Keeps what the engine's own tokenizer finds, for [`reads`].
fn record_words(engine: &mut Engine) -> Arc<Mutex<Words>> {
    let words = Arc::new(Mutex::new(Words::new()));
    let sink = words.clone();
    #[allow(deprecated)] // marked so because it may change, not because it will go
    engine.on_parse_token(move |token, at, _| {
        sink.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((Word::from(&token), at));
        token
    });
    words
}

/// The parameter's name, and where the function is declared.
fn signature(name: &str, ast: &AST, words: &Words) -> Result<(String, Position)> {
    let declared = reads::declaration(words).map_or(Position::NONE, |i| words[i].1);
    let found: Vec<Vec<&str>> =
        ast.iter_functions().filter(|f| f.name == "fitness").map(|f| f.params).collect();
    match found.iter().find(|p| p.len() == 1) {
        Some(parameters) => Ok((parameters[0].to_owned(), declared)),
        None if found.is_empty() => Err(error(name, Position::NONE, "the script has no function `fitness`")
            .hint("write `fn fitness(m) { m.kl }`, for example")),
        None => {
            let what = format!("`fitness` takes {} parameters instead of one", found[0].len());
            Err(error(name, declared, what).hint("write `fn fitness(m)`: `m` has all metrics"))
        }
    }
}

fn error(name: &str, at: Position, what: impl Into<String>) -> Error {
    let place = match (at.line(), at.position()) {
        (Some(line), Some(column)) => format!("{name}:{line}:{column}"),
        (Some(line), None) => format!("{name}:{line}"),
        _ => name.to_owned(),
    };
    Error::new(Kind::Spec, what).at(place)
}
