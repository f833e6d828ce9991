//! Architectural numbers of known models, so that a plan needs no download: in the form of a config.json,
//! parsed by the same reader.

/// What is known of one architecture: its repositories on the hub, and its configuration.
struct Fact {
    /// `OWNER/NAME`, compared without regard to case.
    repositories: &'static [&'static str],
    config: &'static str,
}

macro_rules! fact {
    ($file:literal: $($repository:literal),+) => {
        Fact { repositories: &[$($repository),+], config: include_str!(concat!("../../assets/models/", $file, ".json")) }
    };
}

static FACTS: &[Fact] = &[
    fact!("llama-2-7b": "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-chat-hf", "NousResearch/Llama-2-7b-hf"),
    fact!("llama-2-13b": "meta-llama/Llama-2-13b-hf", "meta-llama/Llama-2-13b-chat-hf", "NousResearch/Llama-2-13b-hf"),
    fact!("llama-2-70b": "meta-llama/Llama-2-70b-hf", "meta-llama/Llama-2-70b-chat-hf", "NousResearch/Llama-2-70b-hf"),
    fact!("llama-3-8b": "meta-llama/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B-Instruct"),
    fact!("llama-3.1-8b": "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B"),
    fact!("llama-3.1-70b": "meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Meta-Llama-3.1-70B"),
    fact!("llama-3.2-1b": "meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct"),
    fact!("llama-3.2-3b": "meta-llama/Llama-3.2-3B", "meta-llama/Llama-3.2-3B-Instruct"),
    fact!("mistral-7b-v0.3": "mistralai/Mistral-7B-v0.3", "mistralai/Mistral-7B-Instruct-v0.3"),
    fact!("mistral-nemo-2407": "mistralai/Mistral-Nemo-Base-2407", "mistralai/Mistral-Nemo-Instruct-2407"),
    fact!("smollm2-135m": "HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    fact!("smollm2-360m": "HuggingFaceTB/SmolLM2-360M", "HuggingFaceTB/SmolLM2-360M-Instruct"),
    fact!("smollm2-1.7b": "HuggingFaceTB/SmolLM2-1.7B", "HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    fact!("tinyllama-1.1b": "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
];

/// The configuration of `OWNER/NAME[@REVISION]`, if it is known.
pub fn config(repository: &str) -> Option<&'static str> {
    let name = repository.split('@').next().unwrap_or(repository);
    FACTS
        .iter()
        .find(|fact| fact.repositories.iter().any(|r| r.eq_ignore_ascii_case(name)))
        .map(|fact| fact.config)
}

/// The repositories whose configuration is known.
pub fn known() -> impl Iterator<Item = &'static str> {
    FACTS.iter().flat_map(|fact| fact.repositories.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Config;

    #[test]
    fn every_fact_is_a_configuration_with_the_published_number_of_parameters() {
        let published = [
            ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
            ("meta-llama/Llama-2-13b-hf", 13_015_864_320),
            ("meta-llama/Llama-2-70b-hf", 68_976_648_192),
            ("meta-llama/Meta-Llama-3-8B", 8_030_261_248),
            ("meta-llama/Llama-3.1-8B", 8_030_261_248),
            ("meta-llama/Llama-3.1-70B", 70_553_706_496),
            ("meta-llama/Llama-3.2-1B", 1_235_814_400),
            ("meta-llama/Llama-3.2-3B", 3_212_749_824),
            ("mistralai/Mistral-7B-v0.3", 7_248_023_552),
            ("mistralai/Mistral-Nemo-Base-2407", 12_247_782_400),
            ("HuggingFaceTB/SmolLM2-135M", 134_515_008),
            ("HuggingFaceTB/SmolLM2-360M", 361_821_120),
            ("HuggingFaceTB/SmolLM2-1.7B", 1_711_376_384_usize),
            ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1_100_048_384),
        ];
        assert_eq!(published.len(), FACTS.len());
        for (name, parameters) in published {
            assert_eq!(
                Config::parse(config(name).unwrap()).unwrap().parameters().total(),
                parameters,
                "{name}"
            );
        }
    }

    #[test]
    fn names_are_found_with_a_revision_and_in_any_case_and_others_are_not() {
        assert!(config("meta-llama/llama-2-70b-HF@main").is_some());
        assert!(config("meta-llama/Llama-2-70b").is_none() && config("").is_none());
        assert!(known().all(|name| config(name).is_some()));
    }
}
