//! Which experiment a run's folder holds: the results of two must not stand in one table, and the second must
//! not take the place of the first unasked.

use std::path::{Path, PathBuf};

use super::contents::Contents;
use crate::base::{Error, Kind, Result, hash};
use crate::report::event::{Event, Identity, Origin};
use crate::report::{folder, log};
use crate::spec::{Loaded, Spec};
use crate::trial::keys::Versioned;

/// What a run of a loaded experiment is started from: keys and values, what computes results, and what the files
/// hold. Paths count from the experiment's folder, which may move.
///
/// # Errors
/// [`Kind::Internal`] when the experiment cannot be written as JSON.
pub(crate) fn of(loaded: &Loaded) -> Result<Origin> {
    let hash = |spec: &Spec| -> Result<String> {
        let versions = Versioned::ALL.map(Versioned::version);
        let digest = hash::of_json(&(versions, spec.relative_to(&loaded.folder)))?;
        Ok(digest[..hash::SHORT].to_string())
    };
    let base = hash(&loaded.spec)?;
    let mut contents = Contents::new(&loaded.folder);
    let mut identity =
        |spec: &Spec| Ok(Identity { base: base.clone(), own: hash(spec)?, contents: contents.of(spec)? });
    let trials = loaded.trials.iter().map(|trial| identity(&trial.spec)).collect::<Result<_>>()?;
    let file = file(loaded).to_string_lossy().into_owned();
    Ok(Origin { file, profile: loaded.profile.clone(), base: base.clone(), trials })
}

/// The experiment's file, absolute and without links where it exists.
fn file(loaded: &Loaded) -> PathBuf {
    let absolute = loaded.folder.join(loaded.path.file_name().unwrap_or_default());
    absolute.canonicalize().unwrap_or(absolute)
}

/// Refuses a folder whose results are of another experiment file that is still there, or of another profile.
/// A file that was edited or moved is the same experiment, and so is a copy beside the same data.
///
/// # Errors
/// [`Kind::Spec`] with both ways out.
pub(crate) fn check(folder: &Path, loaded: &Loaded, origin: &Origin) -> Result<()> {
    let Some(before) = last(folder)? else { return Ok(()) };
    let other_profile = before.profile != origin.profile;
    let same_text =
        || std::fs::read_to_string(folder.join("spec.toml")).is_ok_and(|text| text == loaded.text);
    let same_data = || before.trials.iter().all(|old| origin.trials.iter().all(|new| old.agrees(new)));
    let copied = || same_text() && same_data();
    let other_file = before.file != origin.file && Path::new(&before.file).exists() && !copied();
    if !other_profile && !other_file {
        return Ok(());
    }
    let applied = match &before.profile {
        Some(profile) => format!(" with the profile \"{profile}\""),
        None if other_profile => " without a profile".to_string(),
        None => String::new(),
    };
    let what = format!(
        "the name \"{}\" is taken: this folder has the results of {}{applied}",
        loaded.spec.name, before.file
    );
    let name = if other_profile { "set `name` in the profile" } else { "set another `name`" };
    let hint = format!(
        "{name} or with --set name=NAME, or keep these results elsewhere with --runs DIR; to give them up, remove \
         the folder"
    );
    Err(Error::new(Kind::Spec, what).at(folder.display()).hint(hint))
}

/// What the newest session in a folder was started from.
fn last(folder: &Path) -> Result<Option<Origin>> {
    let path = folder::run_log(folder);
    if !path.exists() {
        return Ok(None);
    }
    let origin = |event| match event {
        Event::RunStarted { origin, .. } => origin,
        _ => None,
    };
    Ok(log::read(&path)?.into_iter().filter_map(origin).next_back())
}
