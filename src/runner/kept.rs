//! Finding a model that a run made: the last one of a trial, or another by its name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::winner::{MODEL, RESOLVED};
use crate::base::{Error, Kind, Result, ResultExt, files};
use crate::report::{Event, folder, log};
use crate::spec::Spec;
use crate::trial::{ModelName, StepName};

/// A model that a run made.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Its folder.
    pub folder: PathBuf,
    /// The trial's last model, whose card says where all of them come from.
    pub last: PathBuf,
    /// The trial's spec, every key written.
    pub spec: Spec,
}

/// A model that a run made: the last one of its trial, or the one of a name. A run of several trials takes the
/// label of one.
///
/// # Errors
/// There is no such run, trial or model; several trials and no label; the dense model, which is no run's own.
pub fn find(run: &Path, trial: Option<&str>, model: Option<ModelName>) -> Result<Kept> {
    let labels = folder::labels(&folder::run_events(run)?);
    let label = choose(run, &labels, trial)?;
    let folder = match model {
        None => last(run, label)?,
        Some(name) => stored(run, label, name)?,
    };
    let home = run.join("trials").join(label);
    let resolved = home.join(RESOLVED);
    let spec = toml::from_str(&files::read_text(&resolved)?);
    let spec = spec
        .or_error(Kind::Disk, "the trial's spec cannot be read")
        .map_err(|e| e.at(resolved.display()).hint("run the experiment again: finished work is kept"))?;
    Ok(Kept { folder, last: home.join(MODEL), spec })
}

fn choose<'a>(run: &Path, labels: &'a [String], trial: Option<&str>) -> Result<&'a str> {
    let known = || format!("its trials: {}", labels.join(", "));
    match (trial, labels) {
        (Some(wanted), _) => labels.iter().find(|label| *label == wanted).ok_or_else(|| {
            Error::new(Kind::Usage, format!("the run has no trial \"{wanted}\""))
                .at(run.display())
                .hint(known())
        }),
        (None, [only]) => Ok(only),
        (None, _) => Err(Error::new(Kind::Usage, format!("the run has {} trials", labels.len()))
            .at(run.display())
            .hint(format!("choose one with --trial; {}", known()))),
    }
    .map(String::as_str)
}

/// The folder of the last model of a trial.
///
/// # Errors
/// There is none.
pub fn last(run: &Path, label: &str) -> Result<PathBuf> {
    let model = run.join("trials").join(label).join(MODEL);
    if model.is_dir() {
        return Ok(model);
    }
    Err(Error::new(Kind::Usage, format!("the trial \"{label}\" has left no model"))
        .at(run.display())
        .hint("run it to its end; a trial that prunes nothing leaves none"))
}

/// The folder in the store of the step that made a model last.
fn stored(run: &Path, label: &str, name: ModelName) -> Result<PathBuf> {
    if name == ModelName::Dense {
        return Err(Error::new(Kind::Usage, "the dense model is no model of the run")
            .at(run.display())
            .hint("name the dense model itself in place of the run"));
    }
    let events = log::read(&folder::trial_log(run, label))?;
    let finished = events.iter().filter_map(|event| match event {
        Event::StepFinished { step, key, .. } => Some((step.parse().ok()?, key)),
        _ => None,
    });
    let compacted: BTreeMap<ModelName, &String> = finished
        .filter_map(|(step, key)| match step {
            StepName::Compact(model) => Some((model, key)),
            _ => None,
        })
        .collect();
    let found = compacted.get(&name).map(|key| run.join("store").join(key)).filter(|folder| folder.is_dir());
    found.ok_or_else(|| {
        let made: Vec<String> = compacted.keys().map(ToString::to_string).collect();
        Error::new(Kind::Usage, format!("the trial \"{label}\" has no model \"{name}\" in its store"))
            .at(run.display())
            .hint(format!("its models: {}", made.join(", ")))
    })
}
