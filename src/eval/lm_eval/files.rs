//! Which files the harness reads of a folder of data sets, and what they hold.

use std::path::{Path, PathBuf};

use crate::base::files::io_error;
use crate::base::{Result, hash};
use crate::eval::Catalogue;

/// Hash of the files that the harness reads for some tasks, by their places below `data`: the data sets of the
/// tasks that are known here, all splits of them, because examples come from others than the scored one; the
/// whole folder where a task is the harness's alone.
///
/// # Errors
/// A file that cannot be read.
pub fn files_hash(tasks: &[String], data: &Path) -> Result<String> {
    let mut files = Vec::new();
    match datasets(tasks) {
        Some(names) => names.iter().try_for_each(|name| add_files(&data.join(name), &mut files))?,
        None => add_files(data, &mut files)?,
    }
    files.sort();
    files.dedup();
    let place = |file: &PathBuf| file.strip_prefix(data).unwrap_or(file).to_string_lossy().into_owned();
    let of_file = |file: &PathBuf| Ok((place(file), hash::of_file(file)?));
    hash::of_json(&files.iter().map(of_file).collect::<Result<Vec<_>>>()?)
}

/// The data sets of tasks by name; none where one of the tasks is not known here.
fn datasets(tasks: &[String]) -> Option<Vec<&'static str>> {
    let selection = Catalogue::builtin().select(tasks).ok()?;
    selection.tasks.iter().map(|task| task.dataset()).collect()
}

/// Every file below a folder, where there is one; hidden ones are nobody's data.
fn add_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    for entry in entries.map_err(|e| io_error(folder, "list", &e))? {
        let path = entry.path();
        match entry.file_name().to_string_lossy().starts_with('.') {
            true => {}
            false if path.is_dir() => add_files(&path, found)?,
            false if path.is_file() => found.push(path),
            false => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::files;

    #[test]
    fn what_the_harness_reads_counts_wherever_it_lies_and_nothing_else_does() {
        let write = |root: &Path, name: &str, text: &str| {
            let file = root.join(name);
            files::create_dir(file.parent().unwrap()).unwrap();
            files::write(&file, text.as_bytes()).unwrap();
        };
        let a = tempfile::tempdir().unwrap();
        let b = tempfile::tempdir().unwrap();
        let hash = |root: &Path, tasks: &[&str]| {
            files_hash(&tasks.iter().map(ToString::to_string).collect::<Vec<_>>(), root).unwrap()
        };
        for root in [a.path(), b.path()] {
            write(root, "nyu-mll/glue/rte/validation-0.parquet", "rows");
            write(root, "nyu-mll/glue/rte/train-0.parquet", "examples");
            write(root, "baber/piqa/data/validation-0.parquet", "rows");
        }
        let both: &[&[&str]] = &[&["rte"], &["anli_r1"]];
        both.iter().for_each(|tasks| assert_eq!(hash(a.path(), tasks), hash(b.path(), tasks)));
        write(b.path(), "baber/piqa/data/validation-0.parquet", "other rows");
        assert_eq!(hash(a.path(), &["rte"]), hash(b.path(), &["rte"]), "of another data set");
        assert_ne!(
            hash(a.path(), &["anli_r1"]),
            hash(b.path(), &["anli_r1"]),
            "a task that is not known here"
        );
        let before = hash(a.path(), &["rte"]);
        write(a.path(), "nyu-mll/glue/rte/train-0.parquet", "other examples");
        assert_ne!(hash(a.path(), &["rte"]), before);
    }
}
