//! The tasks and groups that an experiment may name: the built-in ones, generated ones and the user's.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::{Error, Kind, Result, hash};
use crate::spec;

use super::tasks::{self, Task, mmlu, quickstart};

/// Tasks and groups by name.
#[derive(Debug, Clone)]
pub struct Catalogue {
    tasks: BTreeMap<String, Task>,
    groups: BTreeMap<String, Group>,
}

/// A group of tasks, whose metrics are pooled.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    tasks: Vec<String>,
    /// Groups reported along with this one.
    parts: Vec<String>,
}

impl Group {
    fn plain(tasks: impl Iterator<Item = String>) -> Self {
        Self { tasks: tasks.collect(), parts: Vec::new() }
    }
}

/// The four subgroups and the whole, which brings them along.
fn mmlu_groups() -> BTreeMap<String, Group> {
    let part = |(name, subjects): (&str, &[&str])| {
        (format!("mmlu_{name}"), Group::plain(subjects.iter().map(|s| format!("mmlu_{s}"))))
    };
    let mut groups: BTreeMap<String, Group> = mmlu::SUBGROUPS.into_iter().map(part).collect();
    let whole = Group {
        tasks: groups.values().flat_map(|g| g.tasks.clone()).collect(),
        parts: groups.keys().cloned().collect(),
    };
    groups.insert("mmlu".into(), whole);
    groups
}

/// What an experiment requested.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Tasks in the order they were named, each once.
    pub tasks: Vec<Task>,
    /// Groups with the names of their tasks, each once.
    pub groups: Vec<(String, Vec<String>)>,
}

impl Catalogue {
    /// The tasks read from data sets, the generated ones, and the groups of MMLU and of the generated tasks.
    pub fn builtin() -> Self {
        let generated = quickstart::tasks();
        let mut groups = mmlu_groups();
        groups.insert(quickstart::GROUP.into(), Group::plain(generated.iter().map(|t| t.name.clone())));
        let tasks =
            tasks::builtin().into_iter().chain(generated).map(|task| (task.name.clone(), task)).collect();
        Self { tasks, groups }
    }

    /// Adds the user's tasks; a name that is taken is an error.
    pub fn with_custom(self, custom: &BTreeMap<String, spec::Task>) -> Result<Self> {
        custom.iter().try_fold(self, |catalogue, (name, task)| catalogue.with(Task::custom(name, task)))
    }

    /// Adds one task; a name that is taken is an error.
    pub fn with(mut self, task: Task) -> Result<Self> {
        self.free(&task.name)?;
        self.tasks.insert(task.name.clone(), task);
        Ok(self)
    }

    /// Adds tasks and a group of them.
    pub fn with_group(self, name: &str, tasks: Vec<Task>) -> Result<Self> {
        self.free(name)?;
        let group = Group::plain(tasks.iter().map(|t| t.name.clone()));
        let mut catalogue = tasks.into_iter().try_fold(self, Self::with)?;
        catalogue.groups.insert(name.into(), group);
        Ok(catalogue)
    }

    fn free(&self, name: &str) -> Result<()> {
        if self.tasks.contains_key(name) || self.groups.contains_key(name) {
            return Err(Error::new(Kind::Spec, format!("the task name `{name}` is taken"))
                .hint("give your task another name"));
        }
        Ok(())
    }

    /// Names of all tasks and groups, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.tasks.keys().chain(self.groups.keys()).cloned().collect();
        names.sort();
        names
    }

    /// The tasks and groups of these names.
    pub fn select(&self, names: &[String]) -> Result<Selection> {
        let mut selection = Selection { tasks: Vec::new(), groups: Vec::new() };
        for name in names {
            match (self.tasks.get(name), self.groups.get(name)) {
                (Some(task), _) => selection.add(task),
                (None, Some(group)) => self.add_group(&mut selection, name, group),
                (None, None) => return Err(self.unknown(name)),
            }
        }
        Ok(selection)
    }

    fn add_group(&self, selection: &mut Selection, name: &str, group: &Group) {
        let parts = group.parts.iter().filter_map(|part| Some((part.as_str(), self.groups.get(part)?)));
        for (name, group) in [(name, group)].into_iter().chain(parts) {
            group.tasks.iter().filter_map(|task| self.tasks.get(task)).for_each(|task| selection.add(task));
            if selection.groups.iter().all(|(have, _)| have != name) {
                selection.groups.push((name.into(), group.tasks.clone()));
            }
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let names = self.names();
        let nearest = names.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
        let error = Error::new(Kind::Spec, format!("there is no task `{name}`"));
        match nearest {
            Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
            None => error,
        }
    }
}

impl Selection {
    /// What a spec names in `evaluate.tasks`, its own tasks among them.
    pub fn of(spec: &spec::Spec) -> Result<Self> {
        Catalogue::builtin().with_custom(&spec.tasks)?.select(&spec.evaluate.tasks)
    }

    /// Hash of the files that the tasks read: results of other files are other results.
    pub fn hash(&self, root: Option<&Path>) -> Result<String> {
        let of_task = |task: &Task| {
            Ok((
                task.name.clone(),
                task.files(root)?.iter().map(|f| hash::of_file(f)).collect::<Result<Vec<_>>>()?,
            ))
        };
        hash::of_json(&self.tasks.iter().map(of_task).collect::<Result<Vec<_>>>()?)
    }

    fn add(&mut self, task: &Task) {
        if self.tasks.iter().all(|have| have.name != task.name) {
            self.tasks.push(task.clone());
        }
    }
}
