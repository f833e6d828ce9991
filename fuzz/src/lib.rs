//! What the fuzz targets share: folders for the files that they write, and which panics count.
//!
//! libFuzzer's own hook aborts at every panic, also at one that `tyr` catches because a library that it calls
//! panics at bad input. So the targets take that hook away and abort where a panic comes out of `tyr`.

use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

/// Prints panics, but goes on after them: to be called once before the first input.
pub fn begin() {
    set_hook(Box::new(|info| eprintln!("{info}")));
}

/// Runs one input through `tyr`; a panic that comes out is a finding.
pub fn run(target: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(target)).is_err() {
        std::process::abort();
    }
}

/// A folder of this process, which goes with it.
pub fn folder() -> PathBuf {
    FOLDER.with(|cell| cell.get_or_init(|| found(TempDir::new())).path().to_path_buf())
}

/// Writes a file of [`folder`].
pub fn write(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    found(std::fs::write(&path, bytes));
    path
}

/// What the target needs itself; without it nothing can be tried.
pub fn found<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|e| {
        eprintln!("the target itself failed: {e}");
        std::process::exit(3)
    })
}

/// A model folder with random weights, for targets that replace one of its files.
pub fn model(folder: &Path) -> tyr::model::Source {
    found(tyr::model::pico::Pico::of_bytes(64).write(folder, 1))
}

/// Reads the rows of a file with such a name: all columns, then one. A few bytes can stand for many rows, so
/// that only the first are read.
pub fn rows(name: &str, bytes: &[u8]) {
    const ROWS: usize = 1000;
    let path = write(name, bytes);
    for columns in [None, Some(&["text"][..])] {
        let Ok(rows) = tyr::data::rows::open(&path, columns) else { continue };
        for row in rows.take(ROWS) {
            let Ok(row) = row else { break };
            let _ = (row.text("text"), row.texts("text"), row.index("id"), row.place());
        }
    }
}
