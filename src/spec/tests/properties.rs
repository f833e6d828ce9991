//! Properties over random experiments: writing and reading agree, the schema and the check agree, and no text
//! makes a panic.

use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use toml::Value;

use super::*;
use crate::spec::key::KeyPath;
use crate::spec::layers;

/// A file that uses every kind of table.
const RICH: &str = "
exclude = [{ 'sparsity.target' = 0.25 }]
[corpora.mine]
train = ['a.txt']
test = ['b.txt']
column = 'text'
[tasks.mine]
file = 'x.jsonl'
context = 'q'
choices = 'c'
gold = 'g'
[fitness]
layers = [{ layer = -1, weight = 1.0 }, { layer = 0, weight = 0.5 }]
script = 'f.rhai'
[evaluate]
data = 'tasks'
lm_eval = { url = 'http://localhost:1', tasks = ['arc_easy'], num_fewshot = 3 }
[[sweep]]
key = 'sparsity.target'
values = [0.25, 0.5]
[[sweep]]
seeds = 2
[[sweep]]
name = 'ablation'
cases = [{ label = 'a' }, { label = 'b', set = { 'prune.damping' = 0.1 } }]
[profile.mini]
seed = 3
[profile.mini.search]
generations = 1
[profile.mini.fitness]
layers = [{ layer = 0, weight = 1.0 }]
[[profile.mini.sweep]]
key = 'supernet.levels'
values = [3, 5]
[[profile.mini.sweep]]
name = 'case'
cases = [{ label = 'c', set = { 'prune.target_interpolation' = 0.5 } }]
[profile.other]
exclude = [{ seed = 3 }]
sweep = []
[profile.other.corpora.more]
train = ['c.txt']
";

/// The defaults with everything of `RICH`.
fn document() -> Value {
    let mut all: toml::Table = toml::from_str(defaults_toml()).unwrap();
    for (key, value) in toml::from_str::<toml::Table>(RICH).unwrap() {
        match (all.get_mut(&key), value) {
            (Some(Value::Table(table)), Value::Table(more)) => table.extend(more),
            (_, value) => drop(all.insert(key, value)),
        }
    }
    Value::Table(all)
}

/// One change to a value somewhere in a document.
#[derive(Debug, Clone)]
enum Change {
    Set(Value),
    Rename(String),
    Remove,
    Add(String, Value),
}

fn values() -> impl Strategy<Value = Value> {
    let names = ["", "kl", "auto", "layer", "head", "residul", "16", "quickstart"];
    prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        select(vec![-1, 0, 1, 2, 9, 10_001, i64::MAX, i64::MIN]).prop_map(Value::Integer),
        select(vec![-0.5, 0.0, 0.5, 1.0, 1.5, 1e6, f64::NAN, f64::INFINITY]).prop_map(Value::Float),
        select(names.to_vec()).prop_map(|name| Value::String(name.into())),
        Just(Value::Array(Vec::new())),
        Just(Value::Array(vec![Value::Float(0.5), Value::String("x".into())])),
        Just(Value::Table(toml::Table::new())),
        Just(Value::Table(toml::Table::from_iter([("tokens".to_owned(), Value::Integer(1))]))),
    ]
}

fn changes() -> impl Strategy<Value = Vec<(Index, Change)>> {
    let names = || {
        select(vec!["seed", "tokens", "target", "x", "profile", "sweep", "label", "survivors"])
            .prop_map(str::to_owned)
    };
    let change = prop_oneof![
        4 => values().prop_map(Change::Set),
        1 => names().prop_map(Change::Rename),
        1 => Just(Change::Remove),
        1 => (names(), values()).prop_map(|(name, value)| Change::Add(name, value)),
    ];
    proptest::collection::vec((any::<Index>(), change), 0..4)
}

/// How many values a document has, itself included.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Table(table) => table.values().map(size).sum(),
        Value::Array(items) => items.iter().map(size).sum::<usize>(),
        _ => 0,
    }
}

/// Changes the value with number `at`, counted in depth-first order from this one's children. Returns what is
/// left to count.
fn change(value: &mut Value, at: usize, what: &Change) -> Option<usize> {
    let mut left = at;
    match value {
        Value::Table(table) => {
            for key in table.keys().cloned().collect::<Vec<_>>() {
                if left == 0 {
                    change_entry(table, &key, what);
                    return None;
                }
                left = change(table.get_mut(&key)?, left - 1, what)?;
            }
        }
        Value::Array(items) => {
            for item in items {
                if left == 0 {
                    change_element(item, what);
                    return None;
                }
                left = change(item, left - 1, what)?;
            }
        }
        _ => {}
    }
    Some(left)
}

fn change_entry(table: &mut toml::Table, key: &str, what: &Change) {
    match what {
        Change::Set(value) => drop(table.insert(key.to_owned(), value.clone())),
        Change::Remove => drop(table.remove(key)),
        Change::Add(name, value) => drop(table.insert(name.clone(), value.clone())),
        Change::Rename(name) => {
            if let Some(value) = table.remove(key) {
                table.insert(name.clone(), value);
            }
        }
    }
}

fn change_element(item: &mut Value, what: &Change) {
    match (item, what) {
        (Value::Table(table), Change::Add(name, value)) => drop(table.insert(name.clone(), value.clone())),
        (item, Change::Set(value)) => *item = value.clone(),
        _ => {}
    }
}

fn changed(changes: &[(Index, Change)]) -> Value {
    let mut all = document();
    for (index, what) in changes {
        let at = index.index((size(&all) - 1).max(1));
        change(&mut all, at, what);
    }
    all
}

static VALIDATOR: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::validator_for(schema()).unwrap());

fn source() -> Source {
    Source { path: "x.toml".into(), ..Source::default() }
}

#[test]
fn the_unchanged_document_is_valid_and_most_changes_are_not() {
    assert!(VALIDATOR.is_valid(&serde_json::to_value(document()).unwrap()));
    let mut broken = document();
    change(&mut broken, 0, &Change::Rename("x".into()));
    assert!(!VALIDATOR.is_valid(&serde_json::to_value(broken).unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_schema_and_the_check_agree(changes in changes()) {
        let document = changed(&changes);
        let text = toml::to_string(&document).unwrap();
        let (_, found) = layers::read(&source(), &text);
        let valid = VALIDATOR.is_valid(&serde_json::to_value(&document).unwrap());
        prop_assert_eq!(valid, found.is_empty(), "{}\n{:?}", text, found);
    }

    #[test]
    fn what_passes_the_check_or_is_dropped_by_it_leaves_a_document_that_merges(changes in changes()) {
        let text = toml::to_string(&changed(&changes)).unwrap();
        let checked = inspect_text(&source(), &text, &KNOWN).unwrap();
        // A failure of the merge itself would be a finding about no key.
        prop_assert!(checked.findings.iter().all(|f| f.key != KeyPath::default()), "{:?}", checked.findings);
    }

    #[test]
    fn no_text_makes_a_panic(at in any::<Index>(), length in 0_usize..40, put in "[\\[\\]{}=.,\"'#äß∑ a0\n\r\t-]{0,6}") {
        let text = format!("{}{RICH}", defaults_toml());
        let mut start = at.index(text.len());
        while !text.is_char_boundary(start) { start -= 1 }
        let mut end = (start + length).min(text.len());
        while !text.is_char_boundary(end) { end -= 1 }
        let text = format!("{}{put}{}", &text[..start], &text[end.max(start)..]);
        let checked = inspect_text(&source(), &text, &KNOWN).unwrap();
        prop_assert_eq!(checked.render(Style::Plain).is_empty(), checked.findings.is_empty());
    }

    #[test]
    fn a_resolved_experiment_loads_again_to_the_same(spec in specs()) {
        let text = spec.to_toml().unwrap();
        let (layers, found) = layers::read(&source(), &text);
        prop_assert!(found.is_empty(), "{}\n{:?}", text, found);
        prop_assert_eq!(layers.merge::<Spec>().unwrap(), spec);
    }
}

/// Experiments within the schema, not necessarily within the rules.
fn specs() -> impl Strategy<Value = Spec> {
    let strings = || "[a-zA-Z0-9 ./\"'\\\\äΣ\n#-]{0,8}";
    let numbers = (0..=i64::MAX as u64, 0.0..0.999_f64, 0.0..10.0_f64, 0.0..=1.0_f64, -100_i64..100);
    let counts = (1_usize..1 << 40, 2_usize..1 << 20, 1_usize..99);
    let names = proptest::collection::btree_map(
        strings(),
        (strings(), proptest::collection::vec(strings(), 0..3)),
        0..3,
    );
    let choices =
        (any::<bool>(), any::<bool>(), proptest::option::of(strings()), proptest::option::of(0_usize..9));
    (strings(), numbers, counts, names, choices).prop_map(|(name, numbers, counts, names, choices)| {
        let mut spec: Spec = toml::from_str(defaults_toml()).unwrap();
        spec.name = name.clone();
        spec.model.source = name.clone();
        spec.seed = numbers.0;
        spec.sparsity.target = numbers.1;
        spec.prune.damping = numbers.2;
        spec.prune.target_interpolation = numbers.3;
        spec.fitness.layers = vec![LayerWeight { layer: numbers.4, weight: numbers.2 }];
        spec.supernet.intervals = vec![numbers.3, 1e-9, 1.0];
        (spec.calibration.tokens, spec.calibration.sequence_length, spec.supernet.levels) = counts;
        spec.search.stages = vec![Stage { tokens: counts.0, survivors: counts.2 }; 1 + counts.2 % 3];
        spec.prune.saliency = Saliency { first_order: choices.0, second_order: choices.1 };
        spec.evaluate.data = choices.2.clone().map(PathBuf::from);
        spec.fitness.script = choices.2.clone().map(PathBuf::from);
        spec.evaluate.lm_eval = choices.2.map(|url| LmEval {
            url: Some(url),
            python: name,
            tasks: Vec::new(),
            num_fewshot: choices.3,
        });
        for (key, (text, files)) in names {
            let files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
            let corpus =
                Corpus { train: files.clone(), test: files, column: text.clone(), separator: text.clone() };
            spec.corpora.insert(key.clone(), corpus);
            let task =
                Task { file: text.clone().into(), context: text.clone(), choices: key.clone(), gold: text };
            spec.tasks.insert(key, task);
        }
        spec
    })
}
