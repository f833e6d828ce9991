//! Tests of the experiment file as a whole.

mod benches;
mod broken;
mod exports;
mod large;
mod layering;
mod properties;
mod renamed;
mod rules;
pub(crate) mod schema;
mod sweeps;
mod unused;

use super::load::inspect_text;
use super::*;

const KNOWN: Known = Known {
    corpora: &["quickstart"],
    tasks: &["arc_easy", "boolq"],
    script: |_, _| Ok(()),
    inputs: |_| crate::spec::Inputs::default(),
};

pub(super) fn inspect_with(text: &str, change: impl FnOnce(&mut Source)) -> Checked {
    let mut source = Source { path: "x.toml".into(), ..Source::default() };
    change(&mut source);
    inspect_text(&source, text, &KNOWN).unwrap()
}

#[test]
fn an_empty_file_is_the_defaults() {
    let loaded = parse("", "x.toml", &KNOWN).unwrap();
    assert_eq!(loaded.trials.len(), 1);
    assert_eq!(loaded.trials[0].label, "main");
    assert_eq!(loaded.trials[0].spec, toml::from_str(defaults_toml()).unwrap());
    assert_eq!(loaded.warnings, []);
}

/// Everything that is said about a file.
fn printed(text: &str) -> String {
    inspect_with(text, |_| {}).render(Style::Plain)
}
