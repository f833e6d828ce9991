//! Finding a model that a run made: the last one of a trial, or another by its name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::winner::{MODEL, RESOLVED};
use crate::base::{Error, Kind, Result, ResultExt, files};
use crate::report::figure::model_key;
use crate::report::{Event, ResultRow, folder, log};
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
    run: PathBuf,
    label: String,
    /// Where it is not the last one.
    name: Option<ModelName>,
}

impl Kept {
    /// The model's name in its trial, and what the run measured of the dense model and of this one; exports of the
    /// run aside. A name and nothing else where nothing was measured.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn results(&self) -> Result<(String, Vec<ResultRow>)> {
        let tables = folder::tables(&self.run)?;
        let trials = tables.trials();
        let own = trials.iter().filter(|trial| trial.label == self.label).flat_map(|trial| trial.figures());
        let own: Vec<&ResultRow> = own.filter(|row| row.metric().form().is_none()).collect();
        let models = own.iter().filter(|row| row.model.parse::<ModelName>().is_ok());
        let last = models.map(|row| row.model.clone()).max_by_key(|model| model_key(model));
        let name = self.name.map(|name| name.to_string()).or(last).unwrap_or_default();
        let shown = [ModelName::Dense.to_string(), name.clone()];
        Ok((name, own.into_iter().filter(|row| shown.contains(&row.model)).cloned().collect()))
    }
}

/// A run's folder, or that of one of its trials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    /// The run's.
    pub run: PathBuf,
    /// The trial's label, where the folder is its own.
    pub trial: Option<String>,
}

impl RunFolder {
    /// What run a folder is of; `None` for a model's and for any other one.
    pub fn of(folder: &Path) -> Option<Self> {
        if folder.join("config.json").exists() || !folder::run_log(folder).exists() {
            return None;
        }
        let whole = std::fs::canonicalize(folder).ok()?;
        let is_trials = |above: &&Path| {
            above.ends_with(folder::TRIALS) && above.parent().is_some_and(|run| folder::run_log(run).exists())
        };
        let Some(trials) = whole.ancestors().skip(1).find(is_trials) else {
            return Some(Self { run: folder.to_path_buf(), trial: None });
        };
        let label = whole.strip_prefix(trials).ok()?;
        // As the folder was named, where that names the run too.
        let plain = folder.components().all(|part| part != std::path::Component::ParentDir);
        let named = folder.ancestors().nth(label.components().count() + 1);
        let named = named.filter(|run| plain && !run.as_os_str().is_empty());
        let run = named.or(trials.parent())?.to_path_buf();
        Some(Self { run, trial: Some(label.to_string_lossy().into_owned()) })
    }

    /// The error of one who names it where a model is asked for: the hint has the folders of its models.
    pub fn is_no_model(&self) -> Error {
        let labels = folder::run_events(&self.run).map(|events| folder::labels(&events)).unwrap_or_default();
        let own = |label: &&String| self.trial.as_ref().is_none_or(|trial| trial == *label);
        let models = labels.iter().filter(own).filter_map(|label| last(&self.run, label).ok());
        let models: Vec<String> = models.map(|model| model.display().to_string()).collect();
        let hint = match &models[..] {
            [] => "it has left no model yet: run it to its end".into(),
            [one] => format!("its model: {one}"),
            several => format!("its models: {}", several.join(", ")),
        };
        let place = self.trial.as_ref().map_or(self.run.clone(), |trial| folder::trial(&self.run, trial));
        Error::new(Kind::Usage, "this is the folder of a run, and a model's is asked for")
            .at(place.display())
            .hint(hint)
    }
}

/// A model that a run made: the last one of its trial, or the one of a name. A run of several trials takes the
/// label of one.
///
/// # Errors
/// There is no such run, trial or model; several trials and no label; the dense model, which is no run's own.
pub fn find(run: &Path, trial: Option<&str>, model: Option<ModelName>) -> Result<Kept> {
    let labels = folder::labels(&folder::run_events(run)?);
    let label = choose(("run", &run.display().to_string()), &labels, trial)?;
    let folder = match model {
        None => last(run, label)?,
        Some(name) => stored(run, label, name)?,
    };
    let home = folder::trial(run, label);
    let resolved = home.join(RESOLVED);
    let spec = toml::from_str(&files::read_text(&resolved)?);
    let spec = spec
        .or_error(Kind::Disk, "the trial's spec cannot be read")
        .map_err(|e| e.at(resolved.display()).hint("run the experiment again: finished work is kept"))?;
    Ok(Kept { folder, last: home.join(MODEL), spec, run: run.into(), label: label.into(), name: model })
}

/// The label that is asked for, or the only one, of what has these trials: a run or an experiment, at a place.
pub(super) fn choose<'a>(
    (what, place): (&str, &str),
    labels: &'a [String],
    trial: Option<&str>,
) -> Result<&'a str> {
    let known = || format!("its trials: {}", labels.join(", "));
    match (trial, labels) {
        (Some(wanted), _) => labels.iter().find(|label| *label == wanted).ok_or_else(|| {
            Error::new(Kind::Usage, format!("the {what} has no trial \"{wanted}\"")).at(place).hint(known())
        }),
        (None, [only]) => Ok(only),
        (None, _) => Err(Error::new(Kind::Usage, format!("the {what} has {} trials", labels.len()))
            .at(place)
            .hint(format!("choose one with --trial; {}", known()))),
    }
    .map(String::as_str)
}

/// The folder of the last model of a trial.
///
/// # Errors
/// There is none.
pub fn last(run: &Path, label: &str) -> Result<PathBuf> {
    let model = folder::trial(run, label).join(MODEL);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Log;

    #[test]
    fn a_run_is_known_by_its_folder_and_by_those_of_its_trials() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("tiny");
        let labels = ["main", "a=1/2"];
        let started =
            Event::RunStarted { run: "tiny".into(), trials: labels.map(String::from).into(), origin: None };
        files::create_dir(&run).unwrap();
        Log::open(&folder::run_log(&run)).unwrap().append(&started).unwrap();
        for label in labels {
            files::create_dir(&folder::trial(&run, label).join(MODEL)).unwrap();
            let begun = Event::TrialStarted { trial: label.into(), identity: None };
            Log::open(&folder::trial_log(&run, label)).unwrap().append(&begun).unwrap();
        }
        let of = |folder: &Path| RunFolder::of(folder).map(|found| (found.run, found.trial));
        assert_eq!(of(&run), Some((run.clone(), None)));
        for label in labels {
            assert_eq!(of(&folder::trial(&run, label)), Some((run.clone(), Some(label.into()))), "{label}");
            assert_eq!(of(&folder::trial(&run, label).join(MODEL)), None, "no log is there");
        }
        let roundabout = folder::trial(&run, "main").join("../main");
        let (found, trial) = of(&roundabout).unwrap();
        assert_eq!((found.file_name(), trial.as_deref()), (run.file_name(), Some("main")));
        let hint = |folder: &Path| RunFolder::of(folder).unwrap().is_no_model().hint.unwrap();
        assert!(hint(&run).contains("its models: ") && hint(&run).contains("a=1/2/model"), "{}", hint(&run));
        let model = folder::trial(&run, "main").join(MODEL);
        assert_eq!(hint(&folder::trial(&run, "main")), format!("its model: {}", model.display()));
        files::write(&run.join("config.json"), b"{}").unwrap();
        assert_eq!(of(&run), None, "a model lies there");
    }
}
