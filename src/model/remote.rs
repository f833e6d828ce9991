//! The code that transformers runs a pruned model with: one file beside its weights, whose classes config.json
//! names (`auto_map`).

use serde_json::{Map, Value, json};

/// The file's name; without its ending it is the module's.
pub const FILE: &str = "modeling_pruned_llama.py";

/// What is in it.
pub const CODE: &str = include_str!("../../assets/modeling_pruned_llama.py");

/// Key of config.json that says which classes of the file transformers takes for what.
pub(super) const AUTO_MAP: &str = "auto_map";

/// Makes a config.json name the file's classes: those with a sliding window are Mistral's, the others Llama's.
pub(super) fn name_classes(raw: &mut Map<String, Value>, windowed: bool) {
    let module = FILE.trim_end_matches(".py");
    let base = if windowed { "PrunedMistral" } else { "PrunedLlama" };
    raw.insert("architectures".into(), json!([format!("{base}ForCausalLM")]));
    let classes = json!({
        "AutoConfig": format!("{module}.{base}Config"),
        "AutoModel": format!("{module}.{base}Model"),
        "AutoModelForCausalLM": format!("{module}.{base}ForCausalLM"),
    });
    raw.insert(AUTO_MAP.into(), classes);
}
