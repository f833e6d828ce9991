//! `builtin:quickstart`: a small model that is part of the program, and the little world that it knows: texts
//! made from a seed, and questions about them.
//!
//! This module owns the model's files, and the text that it was trained on, is calibrated with and measured
//! on. Nothing is read or written; the same call gives the same answer everywhere. Texts of different splits
//! are different by construction: each split has its own cast of full names, every document begins with one,
//! and the tasks have a cast of their own.

pub mod model;

mod dice;
mod genres;
mod phrases;
mod puzzles;
mod scene;
mod words;
mod world;

#[cfg(test)]
mod tests;

use dice::Dice;
use puzzles::Kind;
use scene::Cast;

/// What a text is for. No document is in two splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// For training the model itself.
    Train,
    /// For the Hessians of pruning and for finetuning.
    Calibration,
    /// For the fitness of offspring.
    Search,
    /// For the reported perplexity.
    Evaluation,
}

impl Split {
    fn cast(self) -> Cast {
        match self {
            Split::Train => Cast::Train,
            Split::Calibration => Cast::Calibration,
            Split::Search => Cast::Search,
            Split::Evaluation => Cast::Evaluation,
        }
    }
}

/// One multiple-choice question: which of `choices` goes on after `context` and a space?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What comes before the choice; it does not end with a space.
    pub context: String,
    /// The choices, all different.
    pub choices: Vec<String>,
    /// The index of the right choice.
    pub gold: usize,
}

/// A task: a name and what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskInfo {
    /// The name that [`samples`] takes.
    pub name: &'static str,
    /// What the task asks, in a sentence.
    pub about: &'static str,
    /// How many choices each sample has.
    pub choices: usize,
}

/// All tasks.
pub const TASKS: &[TaskInfo] = &[
    task("agreement", "Which verb agrees with the subject, past a noun of the other number?", 2),
    task("completion", "What is done with the tool that was taken?", 4),
    task("passage", "What does the passage say of a day, a place or a person?", 4),
    task("yesno", "Were there as many as were needed?", 2),
    task("reference", "Whom of two people does the pronoun mean?", 2),
    task("counting", "How many are there after some came or went?", 4),
    task("facts", "What is true of a place in every text?", 4),
];

const fn task(name: &'static str, about: &'static str, choices: usize) -> TaskInfo {
    TaskInfo { name, about, choices }
}

/// The documents of `split`, without end: about 450 to 800 bytes each, with no blank line in them.
pub fn documents(split: Split) -> impl Iterator<Item = String> {
    let cast = split.cast();
    let mut dice = Dice::new(1 + cast as u64);
    std::iter::from_fn(move || Some(genres::document(&mut dice, cast)))
}

/// At least `bytes` bytes of `split`: whole documents, each followed by a blank line.
///
/// More bytes give the same text continued.
pub fn text(split: Split, bytes: usize) -> String {
    let mut text = String::new();
    let mut documents = documents(split);
    while text.len() < bytes {
        text.extend(documents.next());
        text += "\n\n";
    }
    text
}

/// The first `n` samples of a task of [`TASKS`]; `None` when there is no such task.
///
/// More samples give the same samples continued.
pub fn samples(task: &str, n: usize) -> Option<Vec<Sample>> {
    let index = TASKS.iter().position(|info| info.name == task)?;
    let kind = Kind::ALL[index];
    let mut dice = Dice::new(100 + index as u64);
    Some((0..n).map(|_| sample(&mut dice, kind)).collect())
}

fn sample(dice: &mut Dice, kind: Kind) -> Sample {
    let (context, question) = genres::asked(dice, kind);
    let choices = question.choices;
    let gold = question.gold;
    Sample { context, choices, gold }
}
