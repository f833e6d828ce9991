//! The plain form of a model whose layers are all alike: a class that every runtime has says its sizes in the
//! usual keys, so that no code of ours and no `per_layer_config` is needed.

use serde_json::json;

use super::config::{Config, LayerShape};
use super::families::{LLAMA, MISTRAL, QWEN2};
use super::family::{Biases, Family};
use super::remote::AUTO_MAP;

/// A class of transformers.
struct Class {
    /// Its family here.
    family: &'static Family,
    /// Its name in `architectures`.
    name: &'static str,
    /// Whether it refuses a number of query heads that does not divide the residual width, although the width
    /// of a head is a key of its own.
    divides: bool,
    /// Whether it has any biases.
    has_biases: bool,
}

/// In order of preference, after the class of the model's own family.
const CLASSES: [Class; 3] = [
    Class { family: &LLAMA, name: "LlamaForCausalLM", divides: true, has_biases: true },
    Class { family: &MISTRAL, name: "MistralForCausalLM", divides: false, has_biases: false },
    Class { family: &QWEN2, name: "Qwen2ForCausalLM", divides: false, has_biases: true },
];

/// Keys that only pruned models have.
const OF_PRUNED: [&str; 4] = ["per_layer_config", "attention_output_bias", "mlp_output_bias", AUTO_MAP];

/// The plain form of a configuration, preferably of the family `own`; `None` where its layers differ, a layer
/// lacks attention or neurons, key/value heads have groups of their own size, or no class has its biases and
/// its window.
pub fn of(config: &Config, own: &Family) -> Option<Config> {
    let layer = alike(&config.layers)?;
    let is_own = |class: &&Class| class.family.model_type == own.model_type;
    let own = CLASSES.iter().filter(is_own);
    let others = CLASSES.iter().filter(|class| !is_own(class));
    own.chain(others).find_map(|class| class.says(config, layer))
}

/// The shape of all layers, where they are alike and regular.
pub fn alike(layers: &[LayerShape]) -> Option<&LayerShape> {
    let first = layers.first()?;
    let groups = &first.query_heads_per_kv;
    let regular = !groups.is_empty() && groups.iter().all(|group| group == &groups[0]);
    (regular && first.intermediate_size > 0 && layers.iter().all(|layer| layer == first)).then_some(first)
}

impl Class {
    /// The configuration in this class's words, if it can say all of it.
    fn says(&self, config: &Config, layer: &LayerShape) -> Option<Config> {
        if (self.divides && !config.hidden.is_multiple_of(layer.heads()))
            || (!self.has_biases && config.biases != Biases::default())
        {
            return None;
        }
        let mut raw = config.raw.clone();
        OF_PRUNED.iter().for_each(|key| drop(raw.remove(*key)));
        raw.insert("model_type".into(), json!(self.family.model_type));
        raw.insert("architectures".into(), json!([self.name]));
        raw.insert("num_attention_heads".into(), json!(layer.heads()));
        raw.insert("num_key_value_heads".into(), json!(layer.kv_heads()));
        raw.insert("intermediate_size".into(), json!(layer.intermediate_size));
        self.family.biases.write(&mut raw, &config.biases).ok()?;
        let read = Config::parse_with(&[self.family], &serde_json::to_string(&raw).ok()?).ok()?;
        let said = Config {
            heads: layer.heads(),
            kv_heads: layer.kv_heads(),
            neurons: layer.intermediate_size,
            family: self.family,
            // What ends a text may stand in a file of its own.
            bos: read.bos,
            eos: read.eos.clone(),
            notes: read.notes.clone(),
            raw: read.raw.clone(),
            ..config.clone()
        };
        (read == said).then(|| Config { bos: config.bos, eos: config.eos.clone(), notes: Vec::new(), ..said })
    }
}
