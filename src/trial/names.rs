//! What models, supernets and steps are called. A name prints itself as it stands in event logs, tables and
//! the store, and is parsed back from that.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use super::Evaluation;
use crate::base::{Error, Kind};
use crate::spec::Form;

/// What stands before the number of an iteration's model.
const ITERATION: &str = "iteration-";

/// A model of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelName {
    /// The one that is pruned: `dense`.
    Dense,
    /// The start of the search, out of the first supernet: `uniform`.
    Uniform,
    /// What the search of an iteration found, from 1: `iteration-1`.
    Iteration(usize),
    /// What was found last, pruned once more: `refit`.
    Refit,
}

impl Display for ModelName {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Dense => f.write_str("dense"),
            Self::Uniform => f.write_str("uniform"),
            Self::Iteration(number) => write!(f, "{ITERATION}{number}"),
            Self::Refit => f.write_str("refit"),
        }
    }
}

impl FromStr for ModelName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "dense" => Ok(Self::Dense),
            "uniform" => Ok(Self::Uniform),
            "refit" => Ok(Self::Refit),
            _ => {
                let number = text.strip_prefix(ITERATION).and_then(|number| number.parse().ok());
                number.map(Self::Iteration).ok_or_else(|| unknown("model", text))
            }
        }
    }
}

impl Serialize for ModelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A supernet of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SupernetName {
    /// Of an iteration, from 1: `1`.
    Iteration(usize),
    /// Of the one level that was found: `refit`.
    Refit,
}

impl Display for SupernetName {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Iteration(number) => write!(f, "{number}"),
            Self::Refit => f.write_str("refit"),
        }
    }
}

impl FromStr for SupernetName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "refit" => Ok(Self::Refit),
            _ => text.parse().map(Self::Iteration).map_err(|_| unknown("supernet", text)),
        }
    }
}

/// A step of a trial.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepName {
    /// Reading the texts and the model, which stores nothing: `tokenise`.
    Tokenise,
    /// Timing modules of several sizes: `latencies`.
    Latencies,
    /// Building a supernet: `supernet-1`.
    Supernet(SupernetName),
    /// Measuring what single changes cost in the supernet of an iteration: `sensitivities-1`.
    Sensitivities(usize),
    /// Searching the supernet of an iteration: `search-1`.
    Search(usize),
    /// Writing a smaller model: `compact-uniform`.
    Compact(ModelName),
    /// Measuring a model: `perplexity-wikitext2-iteration-1`.
    Evaluate(Evaluation, ModelName),
    /// Writing a model in another form: `export-gguf-refit`.
    Export(Form, ModelName),
}

impl StepName {
    /// The model that the step belongs to, where there is one.
    pub fn model(&self) -> Option<ModelName> {
        match self {
            Self::Compact(model) | Self::Evaluate(_, model) | Self::Export(_, model) => Some(*model),
            Self::Tokenise
            | Self::Latencies
            | Self::Supernet(_)
            | Self::Sensitivities(_)
            | Self::Search(_) => None,
        }
    }
}

impl Display for StepName {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Tokenise => f.write_str("tokenise"),
            Self::Latencies => f.write_str("latencies"),
            Self::Supernet(name) => write!(f, "supernet-{name}"),
            Self::Sensitivities(iteration) => write!(f, "sensitivities-{iteration}"),
            Self::Search(iteration) => write!(f, "search-{iteration}"),
            Self::Compact(model) => write!(f, "compact-{model}"),
            Self::Evaluate(evaluation, model) => write!(f, "{evaluation}-{model}"),
            Self::Export(form, model) => write!(f, "export-{form}-{model}"),
        }
    }
}

impl FromStr for StepName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(alone) = [Self::Tokenise, Self::Latencies].into_iter().find(|s| s.to_string() == text) {
            return Ok(alone);
        }
        let iteration = |number: &str| number.parse().map_err(|_| unknown("step", text));
        match text.split_once('-') {
            Some(("supernet", name)) => name.parse().map(Self::Supernet),
            Some(("sensitivities", number)) => iteration(number).map(Self::Sensitivities),
            Some(("search", number)) => iteration(number).map(Self::Search),
            Some(("compact", model)) => model.parse().map(Self::Compact),
            Some(("export", of)) => {
                let (form, model) = of.split_once('-').ok_or_else(|| unknown("step", text))?;
                Ok(Self::Export(form.parse()?, model.parse()?))
            }
            // A corpus may have dashes in its name, and so may a model.
            _ => text
                .match_indices('-')
                .find_map(|(at, _)| {
                    Some(Self::Evaluate(text[..at].parse().ok()?, text[at + 1..].parse().ok()?))
                })
                .ok_or_else(|| unknown("step", text)),
        }
    }
}

impl Serialize for StepName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Steps whose results are stored, by what the result is; an address begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// What modules take by their sizes: `latency`.
    Latency,
    /// A supernet's levels: `supernet`.
    Supernet,
    /// What single changes cost: `sensitivity`.
    Sensitivity,
    /// Generations and what they found: `search`.
    Search,
    /// A smaller model: `model`.
    Model,
    /// One measurement: `evaluate`.
    Evaluate,
    /// A model in another form: `export`.
    Export,
}

impl StepKind {
    /// All of them, in the order of a trial.
    pub const ALL: [Self; 7] = [
        Self::Latency,
        Self::Supernet,
        Self::Sensitivity,
        Self::Search,
        Self::Model,
        Self::Evaluate,
        Self::Export,
    ];

    /// As it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Supernet => "supernet",
            Self::Sensitivity => "sensitivity",
            Self::Search => "search",
            Self::Model => "model",
            Self::Evaluate => "evaluate",
            Self::Export => "export",
        }
    }
}

impl Display for StepKind {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for StepKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let named = |kind: &Self| kind.name() == text;
        Self::ALL.into_iter().find(named).ok_or_else(|| unknown("kind of step", text))
    }
}

fn unknown(what: &str, text: &str) -> Error {
    Error::new(Kind::Usage, format!("no {what} is called \"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> [ModelName; 4] {
        [ModelName::Dense, ModelName::Uniform, ModelName::Iteration(12), ModelName::Refit]
    }

    fn steps() -> Vec<StepName> {
        let supernets = [SupernetName::Iteration(3), SupernetName::Refit].map(StepName::Supernet);
        let measured = ["text", "wikitext-2", "a-dense", "c"].map(|c| Evaluation::Perplexity(c.into()));
        let evaluations = measured.into_iter().chain([
            Evaluation::Kl,
            Evaluation::Tasks,
            Evaluation::Harness,
            Evaluation::Bench,
        ]);
        let of_models = evaluations
            .flat_map(|e| models().map(|model| StepName::Evaluate(e.clone(), model)))
            .chain(models().map(StepName::Compact))
            .chain(
                Form::ALL.into_iter().flat_map(|form| models().map(|model| StepName::Export(form, model))),
            );
        [StepName::Tokenise, StepName::Latencies, StepName::Sensitivities(1), StepName::Search(2)]
            .into_iter()
            .chain(supernets)
            .chain(of_models)
            .collect()
    }

    #[test]
    fn a_name_is_parsed_back_from_what_it_prints() {
        assert!(models().iter().all(|model| model.to_string().parse::<ModelName>().unwrap() == *model));
        assert!(steps().iter().all(|step| step.to_string().parse::<StepName>().unwrap() == *step));
        assert!(StepKind::ALL.iter().all(|kind| kind.to_string().parse::<StepKind>().unwrap() == *kind));
    }

    #[test]
    fn names_are_those_of_logs_and_tables() {
        assert_eq!(models().map(|m| m.to_string()), ["dense", "uniform", "iteration-12", "refit"]);
        let on = Evaluation::Perplexity("hub/wiki".into());
        assert_eq!(
            StepName::Evaluate(on, ModelName::Iteration(1)).to_string(),
            "perplexity-hub-wiki-iteration-1"
        );
        assert_eq!(StepName::Supernet(SupernetName::Refit).to_string(), "supernet-refit");
    }

    #[test]
    fn other_words_are_no_names() {
        for text in ["", "wanda", "iteration-", "iteration-x", "densest"] {
            assert!(text.parse::<ModelName>().is_err(), "{text}");
        }
        for text in ["", "supernet", "search-", "compact-wanda", "perplexity-dense", "kl", "kl-wanda"] {
            assert!(text.parse::<StepName>().is_err(), "{text}");
        }
        assert!("evaluation".parse::<StepKind>().is_err());
    }
}
