//! What a model's own card (README.md) says of where it comes from: its licence and the model that it was made
//! of, as the card's front matter has them.

use std::ffi::OsStr;
use std::path::Path;

use super::source::Source;
use crate::base::Result;
use crate::builtin::model::NAME as BUILTIN;

/// A model's card.
pub const CARD: &str = "README.md";

/// Keys of the front matter that are handed on.
const LICENCE: [&str; 3] = ["license", "license_name", "license_link"];

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance {
    /// Names on the hub of the models that one made of it is based on.
    pub base: Vec<String>,
    /// `license`, `license_name` and `license_link`, those that are known.
    pub licence: Vec<(&'static str, String)>,
}

impl Provenance {
    /// Of a model whose files are `source` and whose name in a spec is `name`. One on the hub is itself the base
    /// of what is made of it; one in a folder has a base where its card names one.
    ///
    /// # Errors
    /// A card that cannot be read.
    pub fn of(source: &Source, name: &str) -> Result<Self> {
        if let Source::Builtin(_) = source {
            return Ok(Self { base: vec![], licence: vec![("license", "apache-2.0".into())] });
        }
        let card = source.optional(CARD)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let front = card.as_deref().map(front_matter).unwrap_or_default();
        let on_hub = name.strip_prefix("hf:").map(|name| name.split('@').next().unwrap_or(name).to_string());
        let licence = LICENCE.iter().filter_map(|key| Some((*key, values(front, key).into_iter().next()?)));
        Ok(Self {
            base: on_hub.map_or_else(|| values(front, "base_model"), |name| vec![name]),
            licence: licence.collect(),
        })
    }

    /// The name of the dense model for readers: that on the hub, else the one in the spec, of a folder the last
    /// part.
    pub fn title<'a>(&'a self, name: &'a str) -> &'a str {
        match self.base.first() {
            _ if name == BUILTIN => name,
            Some(base) => base,
            None => Path::new(name).file_name().and_then(OsStr::to_str).unwrap_or(name),
        }
    }
}

/// The lines between the first two `---` of a card; none without them.
fn front_matter(card: &str) -> &str {
    let text = card.trim_start_matches('\u{feff}');
    let Some(rest) = text.strip_prefix("---").and_then(|rest| rest.split_once('\n')) else { return "" };
    rest.1.split_once("\n---").map(|(front, _)| front).unwrap_or_default()
}

/// The values of a key that stands at the beginning of a line: one behind the colon, or a list below or behind
/// it.
fn values(front: &str, key: &str) -> Vec<String> {
    let is_key = |line: &&str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'));
    let mut lines = front.lines().map(str::trim_end).skip_while(|line| !is_key(line));
    let Some((_, behind)) = lines.next().and_then(|line| line.split_once(':')) else { return vec![] };
    let behind = behind.split(" #").next().unwrap_or(behind).trim();
    let items: Vec<&str> = match behind.strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
        Some(list) => list.split(',').collect(),
        None if behind.is_empty() => lines.map_while(|line| line.trim_start().strip_prefix("- ")).collect(),
        None => vec![behind],
    };
    let bare = items.into_iter().map(|item| item.trim().trim_matches(['"', '\'']));
    bare.filter(|item| !item.is_empty()).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(card: Option<&str>, name: &str) -> Provenance {
        let dir = tempfile::tempdir().unwrap();
        card.iter().for_each(|card| std::fs::write(dir.path().join(CARD), card).unwrap());
        Provenance::of(&Source::folder(dir.path()).unwrap(), name).unwrap()
    }

    #[test]
    fn a_card_says_licence_and_base_in_every_form_of_its_front_matter() {
        let llama = "---\r\nlanguage:\r\n- en\r\nlicense: other # theirs\r\nlicense_name: \"llama3.1\"\r\n\
                     base_model:\r\n  - a/b\r\n  - 'c/d'\r\ntags: []\r\n---\r\n# Title\r\nlicense: mit\r\n";
        let found = read(Some(llama), "folder");
        assert_eq!(found.base, ["a/b", "c/d"]);
        assert_eq!(found.licence, [("license", "other".to_string()), ("license_name", "llama3.1".into())]);
        assert_eq!(read(Some("---\nbase_model: [x/y]\n---\n"), "folder").base, ["x/y"]);
        assert_eq!(read(Some("---\nbase_model: x/y\n---\n"), "folder").title("folder"), "x/y");
    }

    #[test]
    fn a_model_on_the_hub_is_the_base_itself_and_one_without_a_card_says_nothing() {
        let found = read(Some("---\nbase_model: x/y\nlicense: mit\n---\n"), "hf:o/n@main");
        assert_eq!((found.base, found.licence), (vec!["o/n".into()], vec![("license", "mit".into())]));
        for card in [None, Some(""), Some("# no front matter\nlicense: mit\n"), Some("---\nlicense: mit\n")] {
            assert_eq!(read(card, "folder"), Provenance::default(), "{card:?}");
        }
        assert_eq!(Provenance::default().title("models/tiny"), "tiny");
    }
}
