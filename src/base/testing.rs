//! For tests only: known answers that lie outside the repository.

use std::path::{Path, PathBuf};

/// The path of `path` inside the folder of shared known answers: `$TYR_SHARED`, or `shared` beside the
/// repository. Returns `None`, and reports that the test is skipped, when it is not there.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|parent| parent.join("shared"));
    let found = std::env::var_os("TYR_SHARED").map(PathBuf::from).or_else(beside)?.join(path);
    if found.exists() {
        return Some(found);
    }
    eprintln!("skipped: {} is not there (set TYR_SHARED to the folder of known answers)", found.display());
    None
}
