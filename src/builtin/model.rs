//! The built-in model: its name in a spec and its files, in the Hugging Face layout, as part of the program.

/// The built-in model's name in a spec.
pub const NAME: &str = "builtin:quickstart";

/// The built-in model's files: name and content.
pub static FILES: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../../assets/quickstart/config.json")),
    ("generation_config.json", include_bytes!("../../assets/quickstart/generation_config.json")),
    ("tokenizer.json", include_bytes!("../../assets/quickstart/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../assets/quickstart/tokenizer_config.json")),
    ("model.safetensors", include_bytes!("../../assets/quickstart/model.safetensors")),
];
