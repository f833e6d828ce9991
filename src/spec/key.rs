//! Paths of keys: `search.stages[1].survivors`.

use std::fmt;

use toml::de::{DeTable, DeValue};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A key of a table.
    Key(String),
    /// An index of an array.
    Index(usize),
}

/// The path of a key in the merged experiment; the root is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath(Vec<Step>);

impl KeyPath {
    /// A path of plain dotted keys, as rules write it: `search.tokens`.
    pub fn of(dotted: &str) -> Self {
        Self(dotted.split('.').filter(|k| !k.is_empty()).map(|k| Step::Key(k.to_owned())).collect())
    }

    /// A path as a user writes it, with TOML quoting: `corpora."my text".train`. `None` where it is no TOML
    /// key.
    pub fn parse(text: &str) -> Option<Self> {
        let keys = text.trim();
        if keys.contains('\n') {
            return None;
        }
        // TOML's own reader splits the keys: they stand before a value whose place tells that nothing else
        // does.
        let line = format!("{keys}=0");
        let table = DeTable::parse(&line).ok()?;
        let mut table = table.get_ref();
        let mut steps = Vec::new();
        loop {
            let mut entries = table.iter();
            let (Some((key, value)), None) = (entries.next(), entries.next()) else { return None };
            steps.push(Step::Key(key.get_ref().to_string()));
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => return (value.span().start == line.len() - 1).then_some(Self(steps)),
            }
        }
    }

    /// This path and one more key.
    pub fn key(&self, name: &str) -> Self {
        self.with(Step::Key(name.to_owned()))
    }

    /// This path and an index.
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// This path followed by another.
    pub fn join(&self, rest: &KeyPath) -> Self {
        Self(self.0.iter().chain(&rest.0).cloned().collect())
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// The steps from the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The path below `start`, where this path begins with it.
    pub fn below(&self, start: &KeyPath) -> Option<KeyPath> {
        self.0.strip_prefix(&start.0[..]).map(|rest| Self(rest.to_vec()))
    }

    /// The last key, without its tables.
    pub fn last(&self) -> &str {
        self.0
            .iter()
            .rev()
            .find_map(|s| if let Step::Key(k) = s { Some(k.as_str()) } else { None })
            .unwrap_or_default()
    }

    /// Whether one of the two paths contains the other, so that setting both sets something twice.
    pub fn overlaps(&self, other: &KeyPath) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }
}

impl From<Step> for KeyPath {
    fn from(step: Step) -> Self {
        Self(vec![step])
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => write!(f, "{}{}", if i > 0 { "." } else { "" }, quoted(key))?,
            }
        }
        Ok(())
    }
}

/// A key as TOML writes it: quoted unless it is bare.
fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { key.to_owned() } else { format!("{key:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_print_as_users_write_them() {
        let path = KeyPath::of("search.stages").index(1).key("survivors");
        assert_eq!(path.to_string(), "search.stages[1].survivors");
        assert_eq!(path.last(), "survivors");
        let odd = KeyPath::parse("corpora.\"my text\".train").unwrap();
        assert_eq!(odd.to_string(), "corpora.\"my text\".train");
        assert_eq!(KeyPath::parse(&odd.to_string()), Some(odd));
        for wrong in ["a..b", "", "a=1", "a=0 #", "[a]\nb", "a\nb", "a=1\nb", "a#b", "a = {b"] {
            assert_eq!(KeyPath::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_table_overlaps_its_keys_and_no_others() {
        assert!(KeyPath::of("prune").overlaps(&KeyPath::of("prune.damping")));
        assert!(!KeyPath::of("prune.target").overlaps(&KeyPath::of("prune.damping")));
    }
}
