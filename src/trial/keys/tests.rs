//! Addresses depend on what their results depend on, and on nothing else.

use std::collections::BTreeSet;

use super::*;
use crate::base::files;
use crate::space::Curve;
use crate::spec::{self, AttentionUnit, Known, Method};

#[test]
fn an_address_depends_on_what_is_computed_and_from_what() {
    let address = |computed, of: i32| Key::new(computed, json!(of)).address().unwrap();
    assert_eq!(address(Versioned::Kl, 1), address(Versioned::Kl, 1));
    assert_ne!(address(Versioned::Kl, 1), address(Versioned::Kl, 2));
    assert_ne!(address(Versioned::Kl, 1), address(Versioned::Tasks, 1));
    assert!(address(Versioned::Kl, 1).starts_with("evaluate-"));
    assert!(address(Versioned::Search, 1).starts_with("search-"));
}

#[test]
fn a_supernet_depends_on_what_its_method_reads_of_prune() {
    let mut spec = spec_of("[prune]\nmethod = \"obs\"");
    let mut whole = value(&spec.prune).unwrap();
    whole.as_object_mut().unwrap().retain(|key, _| !["align", "keep_at_least"].contains(&key.as_str()));
    assert_eq!(pruning(&spec.prune, 1).unwrap(), whole);
    assert_ne!(pruning(&spec.prune, 2).unwrap(), whole);
    let read = |prune: &Prune| pruning(prune, 1).unwrap();
    let obs = read(&spec.prune);
    spec.prune.damping *= 2.0;
    assert_ne!(read(&spec.prune), obs);
    spec.prune.method = Method::Magnitude;
    let magnitude = read(&spec.prune);
    assert_eq!(magnitude, json!({ "method": "magnitude", "unit": spec.prune.unit }));
    spec.prune.damping *= 2.0;
    assert_eq!(read(&spec.prune), magnitude);
    spec.prune.unit.attention = match spec.prune.unit.attention {
        AttentionUnit::Head => AttentionUnit::KvGroup,
        AttentionUnit::KvGroup => AttentionUnit::Head,
    };
    assert_ne!(read(&spec.prune), magnitude);
}

/// The spec of a text.
fn spec_of(text: &str) -> Spec {
    let known = Known {
        corpora: &["quickstart"],
        tasks: &[],
        script: |_, _| Ok(()),
        inputs: |_| crate::spec::Inputs::default(),
    };
    spec::parse(text, "spec.toml", &known).unwrap().spec
}

/// Hashes of inputs that are all alike.
fn hashes() -> InputHashes {
    InputHashes {
        model: "m".into(),
        calibration: "c".into(),
        search: "s".into(),
        corpora: BTreeMap::new(),
        evaluation: BTreeMap::new(),
        script: Some("r".into()),
        tasks: Some("t".into()),
        companions: "k".into(),
        harness: None,
        gguf_base: None,
    }
}

/// A search's on a supernet, from its centre.
fn searched(spec: &Spec) -> Key {
    search(&hashes(), "n", None, &Budget::Units([1, 2]), spec, 1).unwrap()
}

#[test]
fn what_a_search_starts_from_and_keeps_to_is_part_of_its_key_and_how_it_was_measured_of_its_own() {
    let spec = spec_of("search.start = 'sensitivity'");
    let other = spec_of("search.start = 'sensitivity'\nsearch.sensitivity.tokens = 8");
    let units = Budget::Units([1, 2]);
    let measured = |spec: &Spec, budget: &Budget| sensitivities(&hashes(), "n", budget, spec, 1).unwrap();
    assert_ne!(measured(&spec, &units), measured(&other, &units));
    assert_ne!(measured(&spec, &units), measured(&spec, &Budget::Units([2, 1])));
    let evolved = spec_of("search.generations = 3");
    assert_eq!(
        measured(&spec, &units),
        measured(
            &Spec { search: spec::Search { generations: 3, ..spec.search.clone() }, ..spec.clone() },
            &units
        )
    );
    let from = |address, budget: &Budget| search(&hashes(), "n", address, budget, &spec, 1).unwrap();
    assert_ne!(from(None, &units), from(Some("a"), &units));
    assert_ne!(from(Some("a"), &units), from(Some("b"), &units));
    let cost =
        |per_unit| Budget::Cost { curves: [4, 8].map(|units| Curve::linear(units, per_unit)), most: 9 };
    assert_ne!(from(Some("a"), &units), from(Some("a"), &cost(1)));
    assert_ne!(from(Some("a"), &cost(2)), from(Some("a"), &cost(1)));
    assert_eq!(from(Some("a"), &units), search(&hashes(), "n", Some("a"), &units, &other, 1).unwrap());
    assert_ne!(searched(&spec), searched(&evolved));
}

#[test]
fn no_key_depends_on_where_files_lie() {
    let toml = "[evaluate.lm_eval]\ntasks = [\"rte\"]";
    let keys = |folder: &str| {
        let mut spec = spec_of(toml);
        let file = |name: &str| PathBuf::from(format!("{folder}/{name}"));
        let task =
            Task { file: file("own.jsonl"), context: "c".into(), choices: "o".into(), gold: "g".into() };
        spec.tasks.insert("own".into(), task);
        spec.evaluate.data = Some(file("hub"));
        spec.fitness.script = Some(file("f.rhai"));
        let evaluated = |of: Evaluation| evaluation(&hashes(), "m", &of, &spec);
        [evaluated(Evaluation::Tasks), evaluated(Evaluation::Harness), searched(&spec)]
    };
    assert_eq!(keys("/a"), keys("/b/c"));
    let text = format!("{:?}", keys("/somewhere"));
    assert!(!text.contains("somewhere"), "{text}");
}

#[test]
fn a_result_of_the_harness_depends_on_its_version_its_files_and_the_tokenizers() {
    let dir = tempfile::tempdir().unwrap();
    let python = dir.path().join("python");
    let rows = dir.path().join("hub/nyu-mll/glue/rte/validation-0.jsonl");
    files::create_dir(rows.parent().unwrap()).unwrap();
    let write = |version: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(&python, format!("#!/bin/sh\necho {version}\n")).unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(&rows, text).unwrap();
    };
    write("0.4.13", "{}");
    let toml = format!(
        "[evaluate]\ndata = \"{0}/hub\"\n[evaluate.lm_eval]\npython = \"{0}/python\"\ntasks = [\"rte\"]\n",
        dir.path().display()
    );
    let spec = spec_of(&toml);
    let key = |companions: &str| {
        let harness = harness(&spec).unwrap();
        assert!(harness.is_some());
        let hashes = InputHashes { companions: companions.into(), harness, ..hashes() };
        evaluation(&hashes, "m", &Evaluation::Harness, &spec)
    };
    let first = key("k");
    assert_eq!(key("k"), first);
    assert_ne!(key("another tokenizer_config.json"), first);
    write("0.4.14", "{}");
    assert_ne!(key("k"), first);
    write("0.4.13", "{\"label\":1}");
    assert_ne!(key("k"), first);
    std::fs::write(&python, "#!/bin/sh\nexit 1\n").unwrap();
    assert_eq!(harness(&spec).unwrap_err().kind, Kind::Network);
}

#[test]
fn times_depend_on_the_pass_and_the_units_and_not_on_how_much_is_to_go() {
    let of = |toml: &str| latencies(&hashes(), Dtype::F32, &spec_of(toml));
    let basis = "sparsity.basis = 'latency'";
    let first = of(basis);
    assert_eq!(first, of(&format!("{basis}\nsparsity.target = 0.1\nsparsity.trade = true")));
    assert_ne!(first, of(&format!("{basis}\nsparsity.latency = {{ tokens = 2 }}")));
    assert_ne!(first, of(&format!("{basis}\nsparsity.latency = {{ context = 2 }}")));
    assert_ne!(first, of(&format!("{basis}\nprune.unit.attention = 'kv_group'")));
    assert_ne!(first, latencies(&hashes(), Dtype::BF16, &spec_of(basis)));
}

#[test]
fn a_smaller_model_depends_on_the_files_that_it_takes_over() {
    let key = |companions: &str| {
        let hashes = InputHashes { companions: companions.into(), ..hashes() };
        compact(&hashes, "n", &[1, 2]).unwrap()
    };
    assert_eq!(key("a"), key("a"));
    assert_ne!(key("a"), key("b"));
}

#[test]
fn no_two_have_the_same_name() {
    let names: BTreeSet<&str> = Versioned::ALL.iter().map(|computed| computed.name()).collect();
    assert_eq!(names.len(), Versioned::ALL.len());
}

#[test]
fn a_version_is_part_of_the_key() {
    let key = Key::new(Versioned::Kl, json!(1)).value();
    assert_eq!(key["version"], Versioned::Kl.version());
}
