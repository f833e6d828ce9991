//! What a run's store holds: sizes, states, which trials use what according to their logs, and the removal of
//! what no trial uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lock::Lock;
use super::store::{Entry, State, Store};
use crate::base::{Result, files};
use crate::report::event::{Event, Identity, Origin};
use crate::report::folder;
use crate::report::log::{self, Stamped};
use crate::trial::StepKind;

/// An entry's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Complete, every file as it was written.
    Finished,
    /// Not complete.
    Begun,
    /// Complete, but a file is not what was written.
    Damaged,
}

/// One entry of a store.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// `<kind>-<hash>`
    pub address: String,
    /// What the first trial that used it calls the step.
    pub step: Option<String>,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes that are free again when it is removed: files with no other name.
    pub own_bytes: u64,
    /// Since it was last written.
    pub age: Duration,
    /// Its state.
    pub condition: Condition,
    /// Trials whose newest sessions used it, or would resume it.
    pub used_by: Vec<String>,
    /// Whether it may be used by a trial whose log lacks lines.
    pub unclear: bool,
}

/// A store, and files that killed writers left in the run's folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// Entries by address.
    pub items: Vec<Item>,
    /// Partial files and folders with their bytes, by path.
    pub partial: Vec<(PathBuf, u64)>,
    /// Trials whose logs lack lines, or cannot be shown to have them all: what they use is not known, so that
    /// nothing counts as unused.
    pub unclear: Vec<String>,
}

/// What to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// What no trial uses.
    Unused,
    /// What no trial uses, and what is not finished or damaged though a trial would resume it.
    Unfinished,
    /// Entries of a kind, or of an age, or both, used or not.
    Matching {
        /// The kind of step; none selects all.
        kind: Option<StepKind>,
        /// The least age; none selects all.
        older_than: Option<Duration>,
    },
}

impl Item {
    /// What kind of step it is of, unless a folder of another name was put into the store.
    pub fn kind(&self) -> Option<StepKind> {
        self.address.rsplit_once('-').and_then(|(kind, _)| kind.parse().ok())
    }

    /// Whether it is to be removed.
    pub fn selected(&self, selection: &Selection) -> bool {
        let unused = self.used_by.is_empty() && !self.unclear;
        match selection {
            Selection::Unused => unused,
            Selection::Unfinished => unused || self.condition != Condition::Finished,
            Selection::Matching { kind, older_than } => {
                kind.is_none_or(|kind| self.kind() == Some(kind))
                    && older_than.is_none_or(|age| self.age >= age)
            }
        }
    }
}

/// Lists the store of a run; every file of a finished entry is read and checked.
///
/// # Errors
/// There is no run in the folder, or something in it cannot be read.
pub fn list(run: &Path) -> Result<Listing> {
    let (uses, unclear) = uses(run)?;
    let entries = Store::at(&run.join("store")).entries()?;
    let items = entries.iter().map(|entry| Ok(Item { unclear: !unclear.is_empty(), ..item(entry, &uses)? }));
    let items = items.collect::<Result<_>>()?;
    Ok(Listing { items, partial: partial(run)?, unclear })
}

/// Files and folders that killed writers left below a folder, with their bytes, by path.
fn partial(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut all = Vec::new();
    walk(folder, &mut all)?;
    let outermost = |path: &Path| {
        let below: Vec<&Path> = path.ancestors().take_while(|path| *path != folder).collect();
        below.into_iter().rev().find(|path| files::is_partial(path)).map(Path::to_path_buf)
    };
    let mut found = BTreeMap::new();
    for (path, data) in all {
        if let Some(path) = outermost(&path) {
            *found.entry(path).or_insert(0) += data.len();
        }
    }
    Ok(found.into_iter().collect())
}

/// Removes what is selected, and partial files, and gives what was removed.
///
/// # Errors
/// A process runs the experiment, or as [`list`].
pub fn prune(run: &Path, selection: &Selection) -> Result<Listing> {
    folder::logs(run)?;
    let _lock = Lock::take(run)?;
    let Listing { items, partial, unclear } = list(run)?;
    let items: Vec<Item> = items.into_iter().filter(|item| item.selected(selection)).collect();
    for entry in Store::at(&run.join("store"))
        .entries()?
        .iter()
        .filter(|e| items.iter().any(|i| i.address == e.address))
    {
        entry.remove()?;
    }
    for (path, _) in partial.iter().filter(|(path, _)| path.exists()) {
        let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        removed.map_err(|e| files::io_error(path, "remove", &e))?;
    }
    Ok(Listing { items, partial, unclear })
}

/// An address, as trials know it.
#[derive(Default)]
struct Use {
    step: Option<String>,
    trials: Vec<String>,
}

/// Which trials use which addresses, and the trials whose logs lack lines.
fn uses(run: &Path) -> Result<(BTreeMap<String, Use>, Vec<String>)> {
    let run_log = folder::run_events(run)?;
    let mut trials: Vec<(String, Trial)> = Vec::new();
    for label in labels(run, &run_log)? {
        trials.push((label.clone(), Trial::read(&folder::trial_log(run, &label))?));
    }
    let unclear = unclear(&log::read_stamped(&folder::run_log(run))?, &trials);
    let mut uses: BTreeMap<String, Use> = BTreeMap::new();
    for (label, trial) in &trials {
        for key in trial.used.union(&trial.open) {
            uses.entry(key.clone()).or_default().trials.push(label.clone());
        }
        for (key, step) in &trial.steps {
            uses.entry(key.clone()).or_default().step.get_or_insert_with(|| step.clone());
        }
    }
    Ok((uses, unclear))
}

/// Trials whose logs do not surely tell all that they used.
fn unclear(run_events: &[Stamped], trials: &[(String, Trial)]) -> Vec<String> {
    let sessions = Session::all(run_events);
    let newest = |label: &String| sessions.iter().rev().find(|session| session.labels.contains(label));
    let is_clear = |label: &String| newest(label).is_some_and(|session| session.is_told_of(label, trials));
    let unclear = trials.iter().filter(|(label, trial)| trial.lacks || !is_clear(label));
    unclear.map(|(label, _)| label.clone()).collect()
}

/// Labels of the trials that have a folder: those that the run's log names, in its order, then others, which a
/// damaged log may not name any more.
fn labels(run: &Path, run_events: &[Event]) -> Result<Vec<String>> {
    let mut labels = folder::labels(run_events);
    let trials = run.join(folder::TRIALS);
    if trials.is_dir() {
        let found = std::fs::read_dir(&trials).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let found = found.map_err(|e| files::io_error(&trials, "list", &e))?;
        let mut names: Vec<_> = found.iter().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        labels.extend(names.into_iter().filter(|name| !labels.contains(name)).collect::<Vec<_>>());
    }
    labels.retain(|label| trials.join(label).is_dir());
    Ok(labels)
}

/// What the run's log tells of one session.
struct Session<'e> {
    /// When it began.
    at: Option<u64>,
    labels: &'e [String],
    origin: Option<&'e Origin>,
    /// Whether it came to its end, so that every trial that began has ended, too.
    over: bool,
}

impl<'e> Session<'e> {
    /// All sessions of a run, in their order.
    fn all(run_events: &'e [Stamped]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for Stamped { at, event } in run_events {
            match event {
                Event::RunStarted { trials, origin, .. } => {
                    all.push(Self { at: *at, labels: trials, origin: origin.as_ref(), over: false });
                }
                Event::RunFinished { .. } => {
                    all.last_mut().into_iter().for_each(|session| session.over = true)
                }
                _ => {}
            }
        }
        all
    }

    /// What a trial was to be in it.
    fn identity(&self, label: &str) -> Option<&'e Identity> {
        let place = self.labels.iter().position(|one| one == label)?;
        self.origin?.trials.get(place)
    }

    /// Whether the log of a trial tells that the trial began in it.
    fn has_begun(&self, label: &str, trial: &Trial) -> bool {
        let begun = |start: &Start| start.at >= self.at && start.identity.as_ref() == self.identity(label);
        trial.start.as_ref().is_some_and(begun)
    }

    /// Whether the log of a trial surely tells all that the trial used.
    fn is_told_of(&self, label: &str, trials: &[(String, Trial)]) -> bool {
        let Some((_, trial)) = trials.iter().find(|(one, _)| one == label) else { return false };
        if !self.has_begun(label, trial) {
            // The session did not come to it, or what it did there is lost: then it used what the same experiment
            // used before.
            let before = trial.start.as_ref().and_then(|start| start.identity.as_ref());
            return trial.end == Some(End::Finished) && before.is_some() && before == self.identity(label);
        }
        let later = self.labels.iter().skip_while(|one| *one != label).skip(1);
        let has_begun = |later: &String| trials.iter().any(|(one, t)| one == later && self.has_begun(one, t));
        trial.end.is_some() || !self.over && !later.into_iter().any(has_begun)
    }
}

/// How a session of a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Finished,
    Failed,
}

/// The begin of a session of a trial.
struct Start {
    at: Option<u64>,
    identity: Option<Identity>,
}

/// The uses of the store in one trial's log.
#[derive(Default)]
struct Trial {
    /// Results of the session that finished the trial last and of those after it; of all sessions when none
    /// did.
    used: BTreeSet<String>,
    /// Results of the newest session.
    session: BTreeSet<String>,
    /// Steps that were begun and not ended.
    open: BTreeSet<String>,
    /// The step of every address.
    steps: BTreeMap<String, String>,
    /// The begin of the newest session.
    start: Option<Start>,
    /// The end of the newest session, if it ended.
    end: Option<End>,
    /// Whether lines are lost that may have told of uses.
    lacks: bool,
    /// Whether lines of the newest session are lost.
    session_lacks: bool,
}

impl Trial {
    /// What the log of a trial, whose folder is there, tells.
    fn read(path: &Path) -> Result<Self> {
        let mut trial = Self::default();
        if path.exists() {
            log::read_stamped(path)?.into_iter().for_each(|stamped| trial.add(stamped));
        }
        trial.lacks |= !path.exists() || !log::ends_whole(path)?;
        Ok(trial)
    }

    fn add(&mut self, Stamped { at, event }: Stamped) {
        match event {
            Event::TrialStarted { identity, .. } => {
                self.start = Some(Start { at, identity });
                self.session.clear();
                self.session_lacks = false;
                self.end = None;
            }
            Event::LineDamaged { .. } => {
                self.lacks = true;
                self.session_lacks = true;
            }
            Event::TrialFailed { .. } => self.end = Some(End::Failed),
            Event::StepStarted { key, step, .. } => {
                self.open.insert(key.clone());
                self.steps.insert(key, step);
            }
            Event::StepFinished { key, step, .. } => {
                self.open.remove(&key);
                self.session.insert(key.clone());
                self.used.insert(key.clone());
                self.steps.insert(key, step);
            }
            Event::TrialFinished { .. } => {
                self.used.clone_from(&self.session);
                self.open.clear();
                self.end = Some(End::Finished);
                self.lacks = self.session_lacks;
            }
            _ => {}
        }
    }
}

fn item(entry: &Entry, uses: &BTreeMap<String, Use>) -> Result<Item> {
    let mut files = Vec::new();
    walk(&entry.folder, &mut files)?;
    let condition = match entry.state() {
        State::Finished => Condition::Finished,
        State::Unfinished => Condition::Begun,
        State::Damaged(_) => Condition::Damaged,
    };
    let written = files.iter().filter_map(|(_, data)| data.modified().ok()).max();
    let known = uses.get(&entry.address);
    Ok(Item {
        address: entry.address.clone(),
        step: known.and_then(|u| u.step.clone()),
        bytes: files.iter().map(|(_, data)| data.len()).sum(),
        own_bytes: files.iter().filter(|(_, data)| data.nlink() < 2).map(|(_, data)| data.len()).sum(),
        age: written.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default(),
        condition,
        used_by: known.map(|u| u.trials.clone()).unwrap_or_default(),
        unclear: false,
    })
}

/// All files below a folder; what vanishes meanwhile is left out.
fn walk(folder: &Path, found: &mut Vec<(PathBuf, Metadata)>) -> Result<()> {
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    for path in entries.map_err(|e| files::io_error(folder, "list", &e))?.into_iter().map(|e| e.path()) {
        match path.symlink_metadata() {
            Ok(data) if data.is_dir() => walk(&path, found)?,
            Ok(data) => found.push((path, data)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(files::io_error(&path, "look at", &e)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
