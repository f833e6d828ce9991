//! The generated tasks about the little world that the built-in model was trained on: `quickstart/<name>`,
//! and all of them as `quickstart`.

use crate::builtin::{self, Sample, TASKS};
use crate::eval::document::Document;

use super::{BOTH, Source, Task};

/// Name of the group.
pub const GROUP: &str = "quickstart";

/// Documents of each task.
const SIZE: usize = 400;

/// The tasks, in the order of their table.
pub fn tasks() -> Vec<Task> {
    TASKS
        .iter()
        .map(|info| Task::choice(&format!("{GROUP}/{}", info.name), Source::Quickstart(info.name), BOTH))
        .collect()
}

/// The first `limit` documents of a task, at most [`SIZE`]; none if there is no such task.
pub fn documents(name: &str, limit: usize) -> Vec<Document> {
    let samples = builtin::samples(name, limit.min(SIZE)).unwrap_or_default();
    samples
        .into_iter()
        .map(|Sample { context, choices, gold }| Document::new(context, choices, gold))
        .collect()
}
