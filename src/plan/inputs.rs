//! What a spec names, looked at before a run: the model's configuration and files, the device, the files of
//! tasks. No weight is read and nothing is fetched.

use super::facts;
use super::known_model::KnownModel;
use super::trial::{Spread, pruned};
use crate::base::{Error, Result};
use crate::bench::Latencies;
use crate::data::Tokenizer;
use crate::eval::Selection;
use crate::export;
use crate::model::{Model, hub};
use crate::space::SparsityDistribution;
use crate::spec::{Basis, Form, Inputs, KeyPath, ModelSizes, Spec, model_folder};
use crate::tensor;
use crate::trial::Sizing;

/// The sizes of the model. What is wrong with it is left for those who open it, to be told in full.
pub fn sizes(spec: &Spec) -> Inputs {
    let sizes = find(&spec.model.source).ok().flatten().map(|model| sizes_of(&model));
    Inputs { model: sizes, faults: vec![] }
}

/// The sizes of the model, and all that a run would stumble over when it opens what the spec names.
pub fn opened(spec: &Spec) -> Inputs {
    let mut inputs = Inputs::default();
    let mut fault = |key: &str, error: Error| inputs.faults.push((KeyPath::of(key), error));
    match find(&spec.model.source).and_then(|model| open(&spec.model.source, model)) {
        Ok(None) => {}
        Ok(Some(model)) => {
            inputs.model = Some(sizes_of(&model));
            // Nothing is timed for a check.
            let (unit, pass) = (spec.prune.unit.attention, spec.sparsity.latency);
            let estimated = Latencies::estimated(&model.config, unit, pass);
            match Sizing::new(spec, &model.config, Some(&estimated)).uniform() {
                Ok(start) => exports(spec, &model, &start).into_iter().for_each(|(key, e)| fault(key, e)),
                Err(e) => {
                    // Bounds that cannot be kept to have keys of their own.
                    let bound = e.place.clone().filter(|place| place.starts_with("prune."));
                    let is_guess = bound.is_none() && spec.sparsity.basis == Basis::Latency;
                    if !is_guess {
                        fault(bound.as_deref().unwrap_or("sparsity.target"), e);
                    }
                }
            }
        }
        Err(e) => fault("model.source", e),
    }
    if let Err(e) = tensor::device(spec.model.device) {
        fault("model.device", e);
    }
    if let Err(e) = task_files(spec) {
        fault("evaluate.tasks", e);
    }
    inputs
}

/// What forms cannot carry of the uniform model, or of the tokenizer where it is at hand, with the key that decides
/// it.
fn exports(spec: &Spec, model: &KnownModel, start: &SparsityDistribution) -> Vec<(&'static str, Error)> {
    let uniform = pruned(&model.config, spec.prune.unit.attention, start, Spread::Wide);
    let options = export::Options::of(spec);
    let checked = spec.export.to.iter().map(|&form| {
        export::look(&uniform, form, &options).map_err(|e| ("export.to", e))?;
        let Some(source) = &model.source else { return Ok(()) };
        let tokenizer = match &spec.export.gguf_base {
            // It has a finding of its own.
            Some(base) if form == Form::Gguf && !base.is_file() => return Ok(()),
            Some(_) if form == Form::Gguf => "export.gguf_base",
            _ => "export.to",
        };
        export::check(&uniform, source, form, &options).map_err(|e| (tokenizer, e))
    });
    checked.filter_map(Result::err).collect()
}

fn sizes_of(model: &KnownModel) -> ModelSizes {
    ModelSizes { context: model.config.context, layers: model.config.layers.len() }
}

/// The model as far as it is at hand; none where a folder is not there (which has a finding of its own) or a
/// hub model is neither cached nor known.
fn find(source: &str) -> Result<Option<KnownModel>> {
    let at_hand = match source.strip_prefix("hf:") {
        Some(repository) => hub::cached(repository).is_some() || facts::config(repository).is_some(),
        None => model_folder(source).is_none_or(|folder| folder.is_dir()),
    };
    at_hand.then(|| KnownModel::find(source)).transpose()
}

/// Opens weights and tokenizer as a run does. A hub model's missing files would be fetched, so they are no
/// fault.
fn open(source: &str, model: Option<KnownModel>) -> Result<Option<KnownModel>> {
    let Some(model) = model else { return Ok(None) };
    let files = match (&model.source, model_folder(source)) {
        (Some(files), _) => Some(files.clone()),
        (None, Some(folder)) => Some(crate::model::Source::folder(folder)?),
        (None, None) => None,
    };
    if let Some(files) = files {
        Model::open(&files, &candle_core::Device::Cpu)?;
        Tokenizer::open(&files)?;
    }
    Ok(Some(model))
}

/// Files of built-in tasks; those of the spec's own tasks have findings of their own.
fn task_files(spec: &Spec) -> Result<()> {
    let data = spec.evaluate.data.as_deref();
    if data.is_some_and(|folder| !folder.is_dir()) {
        return Ok(()); // has a finding of its own
    }
    // A name that is unknown or taken has a finding of its own, too.
    let Ok(selection) = Selection::of(spec) else { return Ok(()) };
    let builtin = selection.tasks.iter().filter(|task| !spec.tasks.contains_key(&task.name));
    builtin.into_iter().try_for_each(|task| task.check(data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pico::Pico;
    use crate::spec::{self, AttentionUnit, SparsityShape};

    fn spec_of(source: &str) -> Spec {
        let mut spec: Spec = toml::from_str(crate::spec::defaults_toml()).unwrap();
        spec.model.source = source.into();
        spec
    }

    #[test]
    fn what_a_run_would_stumble_over_is_found_and_only_sizes_are_looked_up_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        Pico { layers: 2, ..Pico::default() }.write(dir.path(), 1).unwrap();
        let spec = spec_of(dir.path().to_str().unwrap());
        let sound = opened(&spec);
        assert_eq!((sound.model.unwrap().layers, sound.faults.len()), (2, 0));
        assert_eq!(sizes(&spec), sound);
        for name in ["tokenizer.json", "model.safetensors", "config.json"] {
            let path = dir.path().join(name);
            let kept = std::fs::read(&path).unwrap();
            for damaged in [&kept[..kept.len() / 2], b"\xff"] {
                std::fs::write(&path, damaged).unwrap();
                let found = opened(&spec);
                assert_eq!(found.faults.len(), 1, "{name}");
                assert_eq!(found.faults[0].0.to_string(), "model.source");
                assert_eq!(sizes(&spec).faults, []);
            }
            std::fs::remove_file(&path).unwrap();
            assert_eq!(opened(&spec).faults.len(), 1, "{name} is missing");
            std::fs::write(&path, kept).unwrap();
        }
        assert_eq!(opened(&spec_of("/nowhere")), Inputs::default());
        assert_eq!(opened(&spec_of("hf:nobody/nothing")), Inputs::default());
        assert!(sizes(&spec_of("hf:meta-llama/Llama-2-70b-hf")).model.is_some());
    }

    #[test]
    fn a_sparsity_that_the_model_cannot_reach_is_found() {
        for (target, words) in [(0.000001, "less than one unit"), (0.95, "cannot be removed")] {
            let mut spec = spec_of("builtin:quickstart");
            spec.sparsity.target = target;
            spec.sparsity.basis = crate::spec::Basis::Total;
            let found = opened(&spec).faults;
            assert_eq!((found.len(), found[0].0.to_string().as_str()), (1, "sparsity.target"));
            assert!(found[0].1.to_string().contains(words), "{}", found[0].1);
        }
    }

    #[test]
    fn bounds_that_the_model_cannot_keep_to_are_found_under_their_key() {
        let found = |change: fn(&mut Spec)| {
            let mut spec = spec_of("builtin:quickstart");
            change(&mut spec);
            opened(&spec).faults.into_iter().map(|(key, e)| format!("{key} {e}")).collect::<Vec<_>>()
        };
        assert_eq!(found(|spec| spec.prune.align.neurons = 8), [""; 0]);
        let wide = found(|spec| spec.prune.align.neurons = 1 << 20);
        assert!(wide.len() == 1 && wide[0].starts_with("prune.align.neurons "), "{wide:?}");
        let kept = found(|spec| spec.prune.keep_at_least.neurons = 1 << 20);
        assert!(kept.len() == 1 && kept[0].starts_with("prune.keep_at_least.neurons "), "{kept:?}");
        let kept = found(|spec| spec.prune.keep_at_least.heads = 7);
        assert!(kept.len() == 1 && kept[0].starts_with("prune.keep_at_least.heads "), "{kept:?}");
    }

    #[test]
    fn layers_that_are_alike_and_keep_no_heads_or_neurons_are_refused() {
        let found = |change: fn(&mut Spec)| {
            let mut spec = spec_of("builtin:quickstart");
            spec.sparsity.shape = SparsityShape::Uniform;
            change(&mut spec);
            opened(&spec).faults.into_iter().map(|(key, e)| format!("{key} {e}")).collect::<Vec<_>>()
        };
        // 8 query heads, removed in steps of one for each of 4 key/value heads; 704 neurons.
        let heads = found(|spec| spec.sparsity.target = 0.8);
        assert!(
            heads.len() == 1 && heads[0].starts_with("sparsity.target every layer would lose all"),
            "{heads:?}"
        );
        assert!(heads[0].contains("8 query heads") && heads[0].contains("at most 0.749"), "{heads:?}");
        assert_eq!(found(|spec| spec.sparsity.target = 0.749), [""; 0]);
        let groups = found(|spec| {
            spec.sparsity.target = 0.9;
            spec.prune.unit.attention = AttentionUnit::KvGroup;
        });
        assert!(groups.len() == 1 && groups[0].contains("4 key/value heads"), "{groups:?}");
        let neurons = found(|spec| {
            spec.sparsity.target = 0.7;
            spec.prune.align.neurons = 704;
        });
        assert!(neurons.len() == 1 && neurons[0].contains("704 neurons"), "{neurons:?}");
        let kept = found(|spec| {
            spec.sparsity.target = 0.8;
            spec.prune.keep_at_least.heads = 1;
        });
        assert!(kept.len() == 1 && kept[0].starts_with("prune.keep_at_least.heads"), "{kept:?}");
        assert_eq!(
            found(|spec| (spec.sparsity.target, spec.sparsity.shape) = (0.8, SparsityShape::Free)),
            [""; 0]
        );
    }

    #[test]
    fn a_base_file_of_another_model_is_found_under_its_own_key() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base.gguf");
        std::fs::write(&base, b"GGUF").unwrap();
        let mut spec = spec_of("builtin:quickstart");
        spec.export.to = vec![Form::Mlx, Form::Gguf];
        assert_eq!(opened(&spec).faults, []);
        spec.export.gguf_base = Some(base.clone());
        let found = opened(&spec).faults;
        assert_eq!((found.len(), found[0].0.to_string().as_str()), (1, "export.gguf_base"));
        assert_eq!(found[0].1.what.lines().count(), 1, "{}", found[0].1);
        std::fs::remove_file(&base).unwrap();
        assert_eq!(opened(&spec).faults, [], "it has a finding of its own");
    }

    #[test]
    fn trials_that_differ_in_sparsity_do_not_share_the_answer() {
        for values in ["[0.000001, 0.5]", "[0.5, 0.000001]"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("spec.toml");
            let text = format!(
                "model.source = \"builtin:quickstart\"\n[[sweep]]\nkey = \"sparsity.target\"\nvalues = {values}\n"
            );
            std::fs::write(&path, text).unwrap();
            let known =
                spec::Known { corpora: &["quickstart"], tasks: &[], script: |_, _| Ok(()), inputs: opened };
            let checked = spec::inspect(&spec::Source { path, ..Default::default() }, &known).unwrap();
            let found: Vec<&str> = checked.findings.iter().map(|f| f.message.as_str()).collect();
            let told = found.iter().filter(|message| message.contains("less than one unit")).count();
            assert_eq!(told, 1, "{found:?}");
            assert!(found.iter().any(|message| message.contains("(trial target=1e-6)")), "{found:?}");
        }
    }

    #[test]
    fn task_files_that_are_not_there_are_found() {
        let mut spec = spec_of("builtin:quickstart");
        assert_eq!(opened(&spec).faults, []);
        let dir = tempfile::tempdir().unwrap();
        spec.evaluate.data = Some(dir.path().into());
        spec.evaluate.tasks = vec!["quickstart".into(), "boolq".into()];
        let found = opened(&spec).faults;
        assert_eq!((found.len(), found[0].0.to_string().as_str()), (1, "evaluate.tasks"));
    }
}
