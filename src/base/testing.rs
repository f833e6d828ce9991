//! For tests only: finding the reference data that is not part of the project.

use std::path::PathBuf;

/// A path in the folder of reference data (`$TYR_SHARED`, else `../shared` beside the project); says so and gives none when it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TYR_SHARED").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let found = root.join(path);
    if !found.exists() {
        eprintln!("skipped: {path} of the reference data is not here");
        return None;
    }
    Some(found)
}
