//! Putting a trial's last model and its distribution where users look for them.

use std::path::Path;

use crate::base::{Result, files};
use crate::space::SparsityDistribution;
use crate::trial::{COST, FOUND, KEY, MANIFEST};

/// Keeps the last distribution of a trial in its folder, and the model in the folder `model` there.
pub(crate) fn keep(home: &Path, model: Option<&Path>, distribution: &SparsityDistribution) -> Result<()> {
    files::write_json(&home.join(FOUND), distribution)?;
    model.map_or(Ok(()), |folder| link_model(folder, &home.join("model")))
}

/// The same files under another name: linked where the file system can, else copied. The configuration comes
/// last.
fn link_model(from: &Path, to: &Path) -> Result<()> {
    files::create_dir(to)?;
    let mut names: Vec<_> = std::fs::read_dir(from)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| files::io_error(from, "list", &e))?;
    names.retain(|n| ![MANIFEST, KEY, COST].contains(&n.file_name().to_string_lossy().as_ref()));
    names.sort_by_key(|n| (n.file_name() == "config.json", n.file_name()));
    for name in names {
        let target = to.join(name.file_name());
        place(&name.path(), &target).map_err(|e| files::io_error(&target, "place", &e))?;
    }
    Ok(())
}

/// Links or copies a file to a name, whole. A rename between two names of one file does nothing, so the
/// temporary name is removed both before, lest a copy write through an old link, and after.
fn place(from: &Path, to: &Path) -> std::io::Result<()> {
    let partial = to.with_extension(format!("{}.partial", std::process::id()));
    let remove = || match std::fs::remove_file(&partial) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    remove()?;
    std::fs::hard_link(from, &partial).or_else(|_| std::fs::copy(from, &partial).map(drop))?;
    std::fs::rename(&partial, to)?;
    remove()
}
