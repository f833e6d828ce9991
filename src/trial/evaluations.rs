//! What a model is evaluated on. Running, planning and `tyr eval` take the list from here.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use super::ModelName;
use crate::base::{Error, Kind};
use crate::spec::Spec;

/// What stands before the corpus of a perplexity.
const PERPLEXITY: &str = "perplexity-";

/// One measurement of a model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evaluation {
    /// Token-level perplexity on the held-out text of a corpus.
    Perplexity(String),
    /// Divergence from the dense model, on the first corpus whose perplexity is measured.
    Kl,
    /// The native tasks, all in one.
    Tasks,
    /// Tasks through the lm-evaluation-harness.
    Harness,
    /// How fast it writes, beside the dense model.
    Bench,
}

impl Evaluation {
    /// The corpus whose held-out text is read.
    pub fn corpus<'a>(&'a self, spec: &'a Spec) -> Option<&'a String> {
        match self {
            Self::Perplexity(corpus) => Some(corpus),
            Self::Kl => spec.evaluate.perplexity.first(),
            Self::Tasks | Self::Harness | Self::Bench => None,
        }
    }
}

/// The first part of a step's name, in which a corpus has no slashes.
impl Display for Evaluation {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Perplexity(corpus) => write!(f, "{PERPLEXITY}{}", corpus.replace('/', "-")),
            Self::Kl => f.write_str("kl"),
            Self::Tasks => f.write_str("tasks"),
            Self::Harness => f.write_str("lm_eval"),
            Self::Bench => f.write_str("bench"),
        }
    }
}

/// A corpus comes back with dashes where it had slashes.
impl FromStr for Evaluation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let corpus = text.strip_prefix(PERPLEXITY).filter(|corpus| !corpus.is_empty());
        match text {
            "kl" => Ok(Self::Kl),
            "tasks" => Ok(Self::Tasks),
            "lm_eval" => Ok(Self::Harness),
            "bench" => Ok(Self::Bench),
            _ => corpus
                .map(|corpus| Self::Perplexity(corpus.into()))
                .ok_or_else(|| Error::new(Kind::Usage, format!("no measurement is called \"{text}\""))),
        }
    }
}

/// What a spec has each model evaluated on, in order. The dense model is not compared with itself.
pub fn evaluations(spec: &Spec, model: ModelName) -> Vec<Evaluation> {
    let e = &spec.evaluate;
    let corpora: BTreeSet<&String> = e.perplexity.iter().collect();
    let kl = model != ModelName::Dense && e.kl_tokens > 0 && !corpora.is_empty();
    let others = [
        (kl, Evaluation::Kl),
        (!e.tasks.is_empty(), Evaluation::Tasks),
        (e.lm_eval.is_some(), Evaluation::Harness),
    ];
    let asked = others.into_iter().filter(|(asked, _)| *asked).map(|(_, evaluation)| evaluation);
    corpora.into_iter().cloned().map(Evaluation::Perplexity).chain(asked).collect()
}

/// Sequences of `length` tokens, of the `there` that an evaluation set has, which the divergence from the dense
/// model is measured on: whole ones of the first `tokens` tokens, and at least one.
pub fn kl_sequences(tokens: usize, length: usize, there: usize) -> usize {
    (tokens / length).clamp(1, there.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{self, Known};

    const KNOWN: Known = Known {
        corpora: &["quickstart", "b", "a"],
        tasks: &["rte"],
        script: |_, _| Ok(()),
        inputs: |_| crate::spec::Inputs::default(),
    };

    fn asked(text: &str, model: ModelName) -> Vec<String> {
        let spec = spec::parse(text, "spec.toml", &KNOWN).unwrap().spec;
        evaluations(&spec, model).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_a_pruned_model_diverges_from_the_dense_one() {
        let text = "[evaluate]\nperplexity = [\"b\", \"a\"]\nkl_tokens = 512\ntasks = [\"rte\"]\n\
            lm_eval = { python = \"python\", tasks = [\"rte\"] }";
        assert_eq!(
            asked(text, ModelName::Uniform),
            ["perplexity-a", "perplexity-b", "kl", "tasks", "lm_eval"]
        );
        assert_eq!(asked(text, ModelName::Dense), ["perplexity-a", "perplexity-b", "tasks", "lm_eval"]);
    }

    #[test]
    fn the_divergence_is_measured_on_whole_sequences_of_those_that_are_there() {
        assert_eq!([0, 99, 100, 350, 1000].map(|tokens| kl_sequences(tokens, 100, 4)), [1, 1, 1, 3, 4]);
        assert_eq!(kl_sequences(1000, 100, 0), 1);
    }

    #[test]
    fn what_is_not_asked_for_is_left_out() {
        let with = |evaluate: &str| asked(&format!("[evaluate]\n{evaluate}"), ModelName::Refit);
        assert_eq!(with("perplexity = []\nkl_tokens = 512\ntasks = []"), Vec::<String>::new());
        assert_eq!(with("perplexity = [\"a\"]\nkl_tokens = 0\ntasks = []"), ["perplexity-a"]);
    }
}
