//! The tokens at which texts begin and end, as the harness's Hugging Face tokenizer has them: by
//! tokenizer_config.json and special_tokens_map.json, else by the model's configuration.

use super::tokenizer::Tokenizer;
use crate::base::{Error, Kind, Result};
use crate::model::companions::{Companions, Named, Special};
use crate::model::{Config, Source};

/// First and last token of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends one.
    pub eos: Option<u32>,
}

impl SpecialTokens {
    /// Those of a model.
    ///
    /// # Errors
    /// A settings file that cannot be read, or one that names a token that the tokenizer does not have.
    pub fn of(source: &Source, config: &Config, tokenizer: &Tokenizer) -> Result<Self> {
        let settings = Companions::open(source)?;
        let token = |special: Special, otherwise: Option<u32>| match settings.special(special) {
            Named::Unsaid => Ok(otherwise),
            Named::Absent => Ok(None),
            Named::As(text) => tokenizer.inner().token_to_id(&text).map(Some).ok_or_else(|| {
                let what =
                    format!("the settings name the special token `{text}`, which tokenizer.json lacks");
                Error::new(Kind::Data, what)
                    .at(source.place())
                    .hint("tokenizer.json and tokenizer_config.json must belong to the same model")
            }),
        };
        Ok(Self {
            bos: token(Special::Bos, config.bos)?,
            eos: token(Special::Eos, config.eos.first().copied())?,
        })
    }

    /// What an empty context is replaced by.
    pub fn prefix(&self) -> Option<u32> {
        self.bos.or(self.eos)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::pico::Pico;

    /// Tokens of a model whose config.json says 0 and 1, with these settings.
    fn tokens(settings: &[(&str, Value)]) -> Result<SpecialTokens> {
        let dir = tempfile::tempdir().unwrap();
        let pico = Pico::default();
        let source = pico.write(dir.path(), 1)?;
        for (name, value) in settings {
            std::fs::write(dir.path().join(name), value.to_string()).unwrap();
        }
        SpecialTokens::of(&source, &pico.config()?, &Tokenizer::open(&source)?)
    }

    #[test]
    fn the_tokenizers_settings_go_before_the_configuration() {
        let both = |bos, eos| SpecialTokens { bos, eos };
        assert_eq!(tokens(&[]).unwrap(), both(Some(0), Some(1)));
        let config = "tokenizer_config.json";
        let map = "special_tokens_map.json";
        assert_eq!(
            tokens(&[(config, json!({"bos_token": {"content": "a"}, "eos_token": "e"}))]).unwrap(),
            both(Some(4), Some(2))
        );
        // Qwen 2: no token begins a text, whatever config.json says.
        let absent =
            tokens(&[(config, json!({"bos_token": null})), (map, json!({"eos_token": "t"}))]).unwrap();
        assert_eq!((absent, absent.prefix()), (both(None, Some(3)), Some(3)));
        assert_eq!(tokens(&[(map, json!({"bos_token": "a"}))]).unwrap(), both(Some(4), Some(1)));
    }

    #[test]
    fn a_token_that_the_tokenizer_lacks_and_settings_that_are_no_object_are_errors() {
        let e = tokens(&[("tokenizer_config.json", json!({"bos_token": "<s>"}))]).unwrap_err();
        assert!(e.kind == Kind::Data && e.to_string().contains("<s>"), "{e}");
        let e = tokens(&[("tokenizer_config.json", json!([1]))]).unwrap_err();
        assert!(e.kind == Kind::Checkpoint && e.to_string().contains("tokenizer_config.json"), "{e}");
    }
}
