//! Runtimes that exported models are tried in, by scripts of ours that a Python with the runtime runs. All scripts
//! take the same request and give the same answer; each says which in its first lines.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{D, Device, Tensor};
use serde::Deserialize;
use serde_json::json;

use super::gguf;
use super::parity::{Parity, Sums};
use crate::base::{Error, Kind, Result, ResultExt, files};
use crate::model::Model;
use crate::spec::Form;
use crate::tensor::attention::Segments;

/// For llama.cpp, by xllamacpp.
pub const LLAMA_CPP: &str = include_str!("runtimes/llama_cpp_check.py");

/// For MLX-LM.
pub const MLX: &str = include_str!("runtimes/mlx_check.py");

/// For transformers.
pub const TRANSFORMERS: &str = include_str!("runtimes/transformers_check.py");

/// Tokens that a runtime continues a prompt with.
const GREEDY: usize = 32;

/// What a runtime makes of an export, beside what the model makes of the same tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The runtime with its version.
    pub runtime: String,
    /// The export there beside the model here. The difference is that of log-probabilities over the whole
    /// vocabulary: of logits, up to a constant that changes no probability.
    pub parity: Parity,
    /// What the runtime writes after a prompt, taking the likeliest token each time.
    pub text: String,
}

/// What a script answers.
#[derive(Deserialize)]
struct Answer {
    runtime: String,
    text: Option<String>,
}

/// A runtime of a form.
struct Runtime {
    script: &'static str,
    modules: &'static str,
    packages: &'static str,
}

impl Runtime {
    fn of(form: Form) -> Self {
        let (script, modules, packages) = match form {
            Form::Gguf => (LLAMA_CPP, "xllamacpp gguf", "xllamacpp gguf"),
            Form::Mlx => (MLX, "mlx_lm", "\"mlx[cpu]\" mlx-lm"),
            Form::Hf | Form::Stock => (TRANSFORMERS, "torch transformers", "torch transformers"),
        };
        Self { script, modules, packages }
    }
}

/// Runs an export in its own runtime, by a Python that has it: on the tokens of sequences, and on a prompt that
/// it continues. `scratch` is a folder for what both sides tell each other.
///
/// # Errors
/// The runtime is not installed or does not run the export.
pub fn verify(
    model: &Model,
    form: Form,
    folder: &Path,
    sequences: &[&[u32]],
    python: &Path,
    scratch: &Path,
) -> Result<Verified> {
    files::create_dir(scratch)?;
    let rows = scratch.join("logprobs");
    let request = json!({
        "model": exported(form, folder)?,
        "sequences": sequences,
        "logprobs": rows,
        "prompt": sequences.first(),
        "greedy": GREEDY,
        "float32": true,
    });
    let answer = ask(&Runtime::of(form), python, &request.to_string(), scratch)?;
    let theirs = std::fs::read(&rows).map_err(|e| files::io_error(&rows, "read", &e))?;
    let theirs: Vec<f32> = theirs.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let parity = compared(model, sequences, &theirs)?;
    Ok(Verified { runtime: answer.runtime, parity, text: answer.text.unwrap_or_default() })
}

/// What the runtime opens: a file for GGUF, else the folder, by its full path.
fn exported(form: Form, folder: &Path) -> Result<PathBuf> {
    let folder = std::path::absolute(folder).map_err(|e| files::io_error(folder, "find", &e))?;
    if form == Form::Gguf { gguf::only_file(&folder) } else { Ok(folder) }
}

/// What a Python says that is started with arguments.
fn python_says(python: &Path, arguments: &[&OsStr]) -> Result<Output> {
    Command::new(python).args(arguments).output().map_err(|e| {
        let hint = "name a Python that has the runtime with --python";
        Error::new(Kind::Usage, format!("cannot start Python: {e}")).at(python.display()).hint(hint)
    })
}

/// Refuses a Python that has not the runtime of a form.
///
/// # Errors
/// There is no such Python, or it lacks a module.
pub fn installed(form: Form, python: &Path) -> Result<()> {
    let Runtime { modules, packages, .. } = Runtime::of(form);
    let lacking = format!(
        "import importlib.util, sys; sys.exit(any(importlib.util.find_spec(m) is None for m in '{modules}'.split()))"
    );
    let output = python_says(python, &["-c".as_ref(), lacking.as_ref()])?;
    if output.status.success() {
        return Ok(());
    }
    let hint = format!("install it: {} -m pip install {packages}", python.display());
    let what = format!("this Python does not have what the form {form} is verified with: {modules}");
    Err(Error::new(Kind::Usage, what).at(python.display()).hint(hint))
}

fn ask(runtime: &Runtime, python: &Path, request: &str, scratch: &Path) -> Result<Answer> {
    let script = scratch.join("check.py");
    let asked = scratch.join("request.json");
    files::write(&script, runtime.script.as_bytes())?;
    files::write(&asked, request.as_bytes())?;
    let output = python_says(python, &[script.as_os_str(), asked.as_os_str()])?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    if !output.status.success() {
        let what = format!("the runtime does not run the export ({}): {last}", output.status);
        return Err(Error::new(Kind::Checkpoint, what).at(python.display()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = text.lines().rev().find(|line| line.starts_with('{')).unwrap_or_default();
    serde_json::from_str(answer)
        .or_error(Kind::Checkpoint, "the runtime's script gave no answer")
        .map_err(|e| e.at(python.display()))
}

/// A model beside log-probabilities that another runtime gives after the same tokens, row after row.
fn compared(model: &Model, sequences: &[&[u32]], theirs: &[f32]) -> Result<Parity> {
    let vocabulary = model.config().vocabulary;
    let expected: usize = sequences.iter().map(|tokens| tokens.len() * vocabulary).sum();
    if expected != theirs.len() {
        let what = format!("the runtime gave {} log-probabilities, not {expected}", theirs.len());
        return Err(Error::new(Kind::Checkpoint, what).hint("its vocabulary is not the model's"));
    }
    let mut sums = Sums::default();
    let mut rest = theirs;
    for tokens in sequences.iter().filter(|tokens| !tokens.is_empty()) {
        let hidden = model.hidden(tokens, &Segments::sequences(1, tokens.len()))?;
        let logits = model.logits(&hidden)?.to_device(&Device::Cpu)?;
        let own = logits.broadcast_sub(&logits.log_sum_exp(D::Minus1)?.unsqueeze(1)?)?;
        let (rows, after) = rest.split_at(tokens.len() * vocabulary);
        rest = after;
        let theirs = Tensor::from_slice(rows, (tokens.len(), vocabulary), &Device::Cpu)?;
        sums.add(&[own, theirs], &tokens[1..])?;
    }
    Ok(sums.parity())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::tests::subjects::{Subject, layer, random_tokens};

    #[test]
    fn log_probabilities_are_compared_token_by_token() {
        let subject = Subject::new(&[layer(&[2, 1], 9), layer(&[3], 5)], |_| {});
        let tokens = random_tokens(12, subject.model.config().vocabulary);
        let sequences: [&[u32]; 2] = [&tokens, &tokens[..1]];
        let mut theirs = Vec::new();
        for tokens in sequences {
            let segments = Segments::sequences(1, tokens.len());
            let logits = subject.model.logits(&subject.model.hidden(tokens, &segments).unwrap()).unwrap();
            for row in logits.to_vec2::<f32>().unwrap() {
                let total = row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
                theirs.extend(row.iter().map(|x| (f64::from(*x) - total) as f32));
            }
        }
        let same = compared(&subject.model, &sequences, &theirs).unwrap();
        let [own, other] = same.perplexity;
        assert!(same.tokens == 13 && same.max_logit_difference < 1e-5, "{same:?}");
        assert!((own / other - 1.0).abs() < 1e-5 && own > 1.0, "{same:?}");
        *theirs.last_mut().unwrap() += 0.5;
        let apart = compared(&subject.model, &sequences, &theirs).unwrap();
        assert!((apart.max_logit_difference - 0.5).abs() < 1e-4, "{apart:?}");
        theirs[3] = f32::NAN;
        let none = compared(&subject.model, &sequences, &theirs).unwrap();
        assert_eq!(none.max_logit_difference, f64::INFINITY);
        assert!(compared(&subject.model, &sequences, &theirs[1..]).unwrap_err().what.contains("not"));
    }
}
