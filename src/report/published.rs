//! Published figures of well-known dense checkpoints, and a warning where ours are far from them: a wrong
//! split, sequence length or tokenizer should be found before anything is pruned.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::figure::Figure;
use super::metric::Metric;
use crate::base::{Estimate, Kind, Result, ResultExt};
use crate::model::Config;
use crate::spec;

/// The figures, their sources beside them.
const PUBLISHED: &str = include_str!("../../assets/published.toml");

/// A perplexity may differ from the published one by this fraction of it: precision and kernels change it by
/// less.
pub const PERPLEXITY_TOLERANCE: f64 = 0.03;

/// An accuracy may differ by this much, as a fraction: a few documents of a small task.
pub const ACCURACY_TOLERANCE: f64 = 0.015;

/// Where only a part of the corpus or of the documents is scored, this many standard errors are allowed on
/// top.
pub const STANDARD_ERRORS: f64 = 3.0;

const OF_PERPLEXITY: &str = "usual causes: another split than the test split, lines joined \
    otherwise than with blank lines between paragraphs, a BOS in every sequence, \
    another sequence length, another corpus under this name, another tokenizer, weights quantised or of another revision";
const OF_ACCURACY: &str = "usual causes: another split, BOS put in or left out, acc taken for \
    acc_norm, another number of shots, prompts cut to a short context, another \
    tokenizer, weights quantised, instruction-tuned or of another revision";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishedFigures {
    mean_of: BTreeSet<String>,
    checkpoint: Vec<Checkpoint>,
}

/// A checkpoint that others have measured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    name: String,
    hub: Vec<String>,
    shape: Shape,
    figures: Vec<Known>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    layers: usize,
    hidden: usize,
    heads: usize,
    vocabulary: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    metric: Metric,
    value: f64,
    /// Tokens of a sequence, of a token-level perplexity.
    sequence_length: Option<usize>,
    source: String,
}

/// A sentence for every figure that is far from the published one of the same checkpoint, measured in the
/// same way. Checkpoints that are not in the table, pruned ones, and sequence lengths and sets of tasks
/// without published figures are not compared.
///
/// `source` is the spec's `model.source` or a folder.
pub fn warnings(source: &str, config: &Config, how: &spec::Evaluate, ours: &[Figure]) -> Result<Vec<String>> {
    let published_figures: PublishedFigures =
        toml::from_str(PUBLISHED).or_error(Kind::Internal, "the published figures cannot be read")?;
    let Some(checkpoint) = published_figures.checkpoint.iter().find(|c| c.is(source, config)) else {
        return Ok(Vec::new());
    };
    let same_tasks = how.tasks.iter().cloned().collect::<BTreeSet<_>>() == published_figures.mean_of;
    let comparable = |known: &Known| match known.metric {
        Metric::Perplexity(_) => known.sequence_length == Some(how.sequence_length),
        Metric::MeanAccuracy => same_tasks,
        _ => true,
    };
    let known: Vec<&Known> = checkpoint.figures.iter().filter(|known| comparable(known)).collect();
    let of = |ours: &Figure| {
        known
            .iter()
            .find(|known| known.is(&ours.metric))
            .and_then(|known| known.warning(&checkpoint.name, how, ours))
    };
    Ok(ours.iter().filter_map(of).collect())
}

impl Checkpoint {
    /// By the shape, every layer of it whole, and by the name.
    fn is(&self, source: &str, config: &Config) -> bool {
        let Shape { layers, hidden, heads, vocabulary } = self.shape;
        let whole =
            config.layers.iter().all(|l| l.heads() == config.heads && l.intermediate_size == config.neurons);
        let found = (config.layers.len(), config.hidden, config.heads, config.vocabulary);
        whole
            && found == (layers, hidden, heads, vocabulary)
            && names(source, config).iter().any(|name| self.is_called(name))
    }

    fn is_called(&self, name: &str) -> bool {
        let without_owner =
            |hub: &str| hub.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(name));
        self.name.eq_ignore_ascii_case(name)
            || self.hub.iter().any(|hub| hub.eq_ignore_ascii_case(name) || without_owner(hub))
    }
}

/// What a model may be called: its name on the hub, the parts of its folder's path (in the hub's cache one is
/// `models--OWNER--NAME`), the name that its configuration keeps.
fn names(source: &str, config: &Config) -> Vec<String> {
    let kept = config.raw.get("_name_or_path").and_then(|v| v.as_str()).map(String::from);
    let of_source = match source.strip_prefix("hf:") {
        Some(hub) => vec![hub.split('@').next().unwrap_or(hub).to_string()],
        None => Path::new(source)
            .iter()
            .map(|part| part.to_string_lossy().replace("models--", "").replace("--", "/"))
            .collect(),
    };
    of_source.into_iter().chain(kept).collect()
}

impl Known {
    /// Corpora are named by users: `wikitext2`, `WikiText-2`, `wikitext_2_raw`.
    fn is(&self, metric: &Metric) -> bool {
        match (&self.metric, metric) {
            (Metric::Perplexity(known), Metric::Perplexity(corpus)) => {
                let plain: String =
                    corpus.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
                plain
                    .strip_prefix(known.as_str())
                    .is_some_and(|rest| ["", "raw", "test", "rawtest"].contains(&rest))
            }
            _ => self.metric == *metric,
        }
    }

    /// How far ours may be from it; wider where only a part of the text or of the documents was scored.
    fn tolerance(&self, how: &spec::Evaluate, ours: Estimate) -> f64 {
        let (base, partial) = match self.metric.is_accuracy() {
            true => (ACCURACY_TOLERANCE, how.limit > 0),
            false => (PERPLEXITY_TOLERANCE * self.value, how.tokens > 0),
        };
        base + if partial { STANDARD_ERRORS * ours.stderr.unwrap_or(0.0) } else { 0.0 }
    }

    fn warning(&self, checkpoint: &str, how: &spec::Evaluate, ours: &Figure) -> Option<String> {
        let tolerance = self.tolerance(how, ours.estimate);
        let near = (ours.estimate.value - self.value).abs() <= tolerance; // NaN is not near
        (!near).then(|| self.sentence(checkpoint, ours, tolerance))
    }

    fn sentence(&self, checkpoint: &str, ours: &Figure, tolerance: f64) -> String {
        let (number, causes): (fn(f64) -> String, _) = match self.metric.is_accuracy() {
            true => (|fraction| format!("{:.2}%", fraction * 100.0), OF_ACCURACY),
            false => (|perplexity| format!("{perplexity:.2}"), OF_PERPLEXITY),
        };
        let found = number(ours.estimate.value);
        let published = number(self.value);
        let allowed = number(tolerance);
        let sequence_length =
            self.sequence_length.map(|length| format!(", sequences of {length} tokens")).unwrap_or_default();
        format!(
            "{} of the dense {checkpoint} is {found}, published is {published} ({}{sequence_length}): they are \
             more than {allowed} apart; {causes}",
            ours.metric, self.source
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(layers: usize, neurons_of_last: usize) -> Config {
        let raw = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": layers, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096,
        });
        let mut config = Config::parse(&raw.to_string()).unwrap();
        config.layers.last_mut().unwrap().intermediate_size = neurons_of_last;
        config
    }

    fn llama() -> Config {
        config(32, 11008)
    }

    fn how(change: impl FnOnce(&mut spec::Evaluate)) -> spec::Evaluate {
        let known = spec::Known {
            corpora: &["quickstart"],
            tasks: &[],
            script: |_, _| Ok(()),
            inputs: |_| crate::spec::Inputs::default(),
        };
        let mut evaluate = spec::parse("", "test", &known).unwrap().spec.evaluate;
        evaluate.sequence_length = 4096;
        change(&mut evaluate);
        evaluate
    }

    fn ours(metric: &str, value: f64, stderr: f64) -> Figure {
        Figure::new(metric.into(), Estimate { stderr: Some(stderr), ..Estimate::exact(value) })
    }

    fn perplexity(value: f64) -> Figure {
        ours("perplexity/WikiText-2", value, 0.1)
    }

    fn warned(source: &str, config: &Config, how: &spec::Evaluate, ours: Figure) -> Vec<String> {
        warnings(source, config, how, &[ours]).unwrap()
    }

    #[test]
    fn near_figures_are_silent_and_far_ones_name_model_corpus_both_values_and_causes() {
        let how = how(|_| {});
        let source = "hf:meta-llama/Llama-2-7b-hf@main";
        assert_eq!(warned(source, &llama(), &how, perplexity(5.13)), Vec::<String>::new());
        assert_eq!(warned(source, &llama(), &how, perplexity(5.12 * 1.0299)), Vec::<String>::new());
        for far in [5.12 * 1.031, 5.12 * 0.969, f64::NAN, f64::INFINITY] {
            assert_eq!(warned(source, &llama(), &how, perplexity(far)).len(), 1, "{far}");
        }
        let text = warned(source, &llama(), &how, perplexity(6.9)).remove(0);
        for word in [
            "Llama-2-7B",
            "perplexity/WikiText-2",
            "6.90",
            "5.12",
            "Table 1",
            "4096",
            "0.15",
            "split",
            "BOS",
            "sequence length",
            "tokenizer",
        ] {
            assert!(text.contains(word), "{word} is missing in: {text}");
        }
    }

    #[test]
    fn each_window_has_its_own_figure_and_others_none() {
        let at = |sequence_length, value| {
            warned(
                "Llama-2-7b-hf",
                &llama(),
                &how(|e| e.sequence_length = sequence_length),
                perplexity(value),
            )
            .len()
        };
        assert_eq!((at(2048, 5.47), at(2048, 5.12), at(4096, 5.47), at(1024, 99.0)), (0, 1, 1, 0));
    }

    #[test]
    fn accuracies_have_room_for_a_limit() {
        let ours = |metric: &str, value| ours(metric, value, 0.03);
        let whole = how(|_| {});
        let part = how(|e| e.limit = 200);
        let seventy = {
            let raw = json!({
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
                "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 32000, "rms_norm_eps": 1e-5,
                "max_position_embeddings": 4096,
            });
            Config::parse(&raw.to_string()).unwrap()
        };
        let at = |how: &spec::Evaluate, metric: &str, value| {
            warned("/models/Llama-2-70b-hf", &seventy, how, ours(metric, value)).len()
        };
        assert_eq!(
            (at(&whole, "acc/boolq", 0.83), at(&whole, "acc/boolq", 0.80), at(&part, "acc/boolq", 0.80)),
            (0, 1, 0)
        );
        assert_eq!(
            (at(&part, "acc/boolq", 0.70), at(&whole, "acc_norm/boolq", 0.1), at(&whole, "acc_mean", 0.1)),
            (1, 0, 0)
        );
        let all = how(|e| {
            e.tasks = "mmlu rte boolq arc_easy arc_challenge hellaswag openbookqa winogrande"
                .split(' ')
                .map(String::from)
                .collect()
        });
        assert_eq!((at(&all, "acc_mean", 0.67), at(&all, "acc_mean", 0.60)), (0, 1));
        assert!(
            warned("/models/Llama-2-70b-hf", &seventy, &whole, ours("acc/rte", 0.5))[0].contains("acc_norm")
        );
    }

    #[test]
    fn only_the_whole_checkpoint_of_that_name_is_compared() {
        let how = how(|_| {});
        let far = perplexity(50.0);
        for known in [
            "hf:NousResearch/Llama-2-7b-hf",
            "/m/llama-2-7B-HF/",
            "/hub/models--meta-llama--Llama-2-7b-hf/snapshots/0123abc",
        ] {
            assert_eq!(warned(known, &llama(), &how, far.clone()).len(), 1, "{known}");
        }
        for other in ["hf:meta-llama/Llama-2-7b-chat-hf", "/models/mine", "builtin:quickstart", ""] {
            assert_eq!(warned(other, &llama(), &how, far.clone()).len(), 0, "{other}");
        }
        assert_eq!(warned("Llama-2-7b-hf", &config(31, 11008), &how, far.clone()).len(), 0, "another depth");
        assert_eq!(warned("Llama-2-7b-hf", &config(32, 5504), &how, far.clone()).len(), 0, "pruned");
        let mut named = llama();
        named.raw.insert("_name_or_path".into(), json!("meta-llama/Llama-2-7b-hf"));
        assert_eq!(warned("/models/mine", &named, &how, far).len(), 1);
    }

    #[test]
    fn corpora_of_other_names_are_not_compared() {
        let known = ["wikitext2", "wikitext-2-raw", "WikiText_2"];
        let how = how(|_| {});
        let at = |corpus: &str| {
            let metric = Metric::Perplexity(corpus.into());
            warned("Llama-2-7b-hf", &llama(), &how, Figure::exact(metric, 50.0)).len()
        };
        assert!(known.iter().all(|corpus| at(corpus) == 1));
        assert!(["wikitext", "wikitext103", "wikitext2-train", "c4"].iter().all(|corpus| at(corpus) == 0));
    }

    #[test]
    fn every_published_figure_is_plausible_and_of_a_known_metric() {
        let published_figures: PublishedFigures = toml::from_str(PUBLISHED).unwrap();
        let tasks = crate::eval::known();
        assert!(published_figures.mean_of.iter().all(|task| tasks.contains(task)));
        for known in published_figures.checkpoint.iter().flat_map(|c| &c.figures) {
            let range = if known.metric.is_accuracy() { 0.2..1.0 } else { 2.0..20.0 };
            assert!(range.contains(&known.value) && !known.source.is_empty(), "{known:?}");
            let is_known = match &known.metric {
                Metric::Perplexity(_) | Metric::MeanAccuracy => true,
                Metric::Task(_, task) => tasks.contains(task),
                _ => false,
            };
            assert!(is_known, "{known:?}");
            assert_eq!(
                known.sequence_length.is_some(),
                matches!(known.metric, Metric::Perplexity(_)),
                "{known:?}"
            );
        }
    }
}
