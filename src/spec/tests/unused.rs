//! Keys without effect: named, with the key that would make them count.

use super::*;

/// A text, the key in it that has no effect, and the key that decides so.
#[rustfmt::skip]
const ROWS: &[(&str, &str, &str)] = &[
    ("prune = { target = 'layer', target_shrinkage = 'none' }", "prune.target_shrinkage", "prune.target"),
    (
        "prune = { target = 'layer', target_interpolation = 1 }",
        "prune.target_interpolation",
        "prune.target",
    ),
    (
        "prune = { target_interpolation = 0, target_shrinkage = 'none' }",
        "prune.target_shrinkage",
        "prune.target_interpolation",
    ),
    ("prune = { ranking = 'one_shot', step = { heads = 2 } }", "prune.step", "prune.ranking"),
    ("prune = { damping = 0, damping_mean = 'arithmetic' }", "prune.damping_mean", "prune.damping"),
    (
        "calibration.sink_tokens = 8\nprune.method = 'magnitude'",
        "calibration.sink_tokens",
        "prune.method",
    ),
    (
        "supernet.accumulation = 'none'\nprune.method = 'magnitude'",
        "supernet.accumulation",
        "prune.method",
    ),
    ("supernet.sequential = 'layer'\nprune.method = 'magnitude'", "supernet.sequential", "prune.method"),
    ("supernet.refit = false\nprune.method = 'magnitude'", "supernet.refit", "prune.method"),
    ("search = { generations = 0, max_flips = 2 }", "search.max_flips", "search.generations"),
    ("search = { generations = 0, guided = false }", "search.guided", "search.generations"),
    ("search = { start = 'uniform', sensitivity.tokens = 64 }", "search.sensitivity", "search.start"),
    ("search = { start = 'uniform', guided = true }", "search.guided", "search.start"),
    ("sparsity = { shape = 'uniform', trade = true }", "sparsity.trade", "sparsity.shape"),
    ("sparsity.trade = true\nsearch = { start = 'uniform', generations = 0 }", "sparsity.trade", "search.generations"),
    ("search = { generations = 0, offspring = 65 }", "search.offspring", "search.generations"),
    ("fitness.kind = 'kl'\nsearch.start = 'uniform'\nsearch.generations = 0", "fitness.kind", "search.generations"),
    ("search.start = 'uniform'\nsearch.generations = 0\nsearch.stages = [{ tokens = 512, survivors = 1 }]", "search.stages", "search.generations"),
    ("search.start = 'uniform'\nsearch.generations = 0\nfitness.top_k = 8", "fitness.top_k", "search.generations"),
    ("search.start = 'uniform'\nsearch.generations = 0\nfitness.logits_weight = 2", "fitness.logits_weight", "search.generations"),
    (
        "search.start = 'uniform'\nsearch.generations = 0\nfitness.layers = [{ layer = 0, weight = 1 }]",
        "fitness.layers",
        "search.generations",
    ),
    ("search.start = 'uniform'\nsearch.generations = 0\nfitness.corpora = ['quickstart']", "fitness.corpora", "search.generations"),
    ("sparsity = { shape = 'uniform', rounding = 'layer' }", "sparsity.rounding", "sparsity.shape"),
    ("sparsity.shape = 'uniform'\nsearch.generations = 5", "search.generations", "sparsity.shape"),
    ("sparsity.shape = 'uniform'\nsearch.offspring = 65", "search.offspring", "sparsity.shape"),
    ("sparsity.shape = 'uniform'\nfitness.top_k = 8", "fitness.top_k", "sparsity.shape"),
    ("sparsity.shape = 'uniform'\nprune.align.heads = 'equal'", "prune.align.heads", "sparsity.shape"),
    (
        "prune = { unit.attention = 'kv_group', align.heads = 'equal' }",
        "prune.align.heads",
        "prune.unit.attention",
    ),
    ("sparsity.shape = 'uniform'\nprune.method = 'magnitude'\nsearch.tokens = 512", "search.tokens", "prune.method"),
    ("supernet.levels = 1\nsearch.generations = 5", "search.generations", "supernet.levels"),
    ("supernet.levels = 1\nsearch.offspring = 65", "search.offspring", "supernet.levels"),
    ("supernet.levels = 1\nfitness.top_k = 8", "fitness.top_k", "supernet.levels"),
    (
        "prune.method = 'magnitude'\nsearch.start = 'uniform'\nsearch.generations = 0\ncalibration.tokens = 512",
        "calibration.tokens",
        "prune.method",
    ),
    (
        "prune.method = 'magnitude'\nsearch.start = 'uniform'\nsearch.generations = 0\ncalibration.sequence_length = 128",
        "calibration.sequence_length",
        "prune.method",
    ),
    (
        "prune.method = 'magnitude'\nsupernet.levels = 1\ncalibration.corpus = 'quickstart'",
        "calibration.corpus",
        "prune.method",
    ),
    ("prune.method = 'magnitude'\nsearch.start = 'uniform'\nsearch.generations = 0\nsearch.tokens = 512", "search.tokens", "prune.method"),
    (
        "prune.method = 'magnitude'\nsearch.start = 'uniform'\nsearch.generations = 0\nsearch.text = 'disjoint'",
        "search.text",
        "prune.method",
    ),
    ("fitness = { kind = 'kl', logits_weight = 2 }", "fitness.logits_weight", "fitness.kind"),
    ("fitness.layers = [{ layer = 0, weight = 1 }]", "fitness.layers", "fitness.kind"),
    (
        "fitness = { kind = 'perplexity', corpora = ['quickstart'], top_k = 8 }",
        "fitness.top_k",
        "fitness.kind",
    ),
    (
        "fitness = { kind = 'similarity', layers = [{ layer = 0, weight = 1 }], logits_weight = 0, top_k = 8 }",
        "fitness.top_k",
        "fitness.logits_weight",
    ),
    ("fitness.corpora = ['quickstart']", "fitness.corpora", "fitness.kind"),
    ("fitness.script = 'x.rhai'", "fitness.script", "fitness.kind"),
    (
        "evaluate = { perplexity = [], kl_tokens = 0, tokens = 512 }",
        "evaluate.tokens",
        "evaluate.perplexity",
    ),
    (
        "evaluate = { perplexity = [], kl_tokens = 0, sequence_length = 64 }",
        "evaluate.sequence_length",
        "evaluate.perplexity",
    ),
    ("evaluate.limit = 3", "evaluate.limit", "evaluate.tasks"),
    ("evaluate.bos = true", "evaluate.bos", "evaluate.tasks"),
    (
        "evaluate.lm_eval = { tasks = ['boolq'], url = 'http://127.0.0.1:1', python = 'x' }",
        "evaluate.lm_eval.python",
        "evaluate.lm_eval.url",
    ),
    ("sparsity.latency = { tokens = 2 }", "sparsity.latency", "sparsity.basis"),
    ("sparsity = { basis = 'kv_bytes', trade = true }", "sparsity.trade", "sparsity.basis"),
    ("export.gguf = 'f16'", "export.gguf", "export.to"),
    ("export.gguf_base = 'base.gguf'", "export.gguf_base", "export.to"),
];

#[test]
fn keys_without_effect_name_the_key_that_makes_them_count() {
    for (text, key, other) in ROWS {
        let checked = inspect_with(text, |_| {});
        let unused: Vec<&Finding> =
            checked.findings.iter().filter(|f| f.message.contains("no effect")).collect();
        assert_eq!(unused.len(), 1, "{text}: {:?}", checked.findings);
        assert_eq!(
            (unused[0].severity, unused[0].key.to_string().as_str()),
            (Severity::Warning, *key),
            "{text}"
        );
        assert!(unused[0].message.contains(&format!("`{other}`")), "{}", unused[0].message);
        assert!(unused[0].hint.as_ref().unwrap().contains(key), "{text}");
    }
}

#[test]
fn a_key_that_some_trial_reads_has_an_effect() {
    let said = |text: &str| {
        let checked = inspect_with(text, |_| {});
        checked.findings.into_iter().map(|f| f.message).collect::<Vec<_>>()
    };
    let sweep = "[[sweep]]\nkey = 'prune.method'\nvalues = ['obs', 'magnitude']\n";
    assert_eq!(said(&format!("prune.damping = 0.1\n{sweep}")), [""; 0]);
    let cases = "[[sweep]]\ncases = [{ label = 'a', set = { 'prune.method' = 'magnitude', 'prune.damping' = 0.1 } }, { label = 'b' }]\n";
    let lost = ["`prune.damping` has no effect: `prune.method` is \"magnitude\" (trial case=a)"];
    assert_eq!(said(cases), lost);
}

#[test]
fn corpora_and_tasks_that_nothing_names_have_no_effect() {
    let corpus = "[corpora.mine]\ntrain = ['Cargo.toml']\ntest = ['Cargo.lock']\n";
    let task = "[tasks.own]\nfile = 'Cargo.toml'\ncontext = 'q'\nchoices = 'c'\ngold = 'g'\n";
    let said = |text: &str, profile: Option<&str>| {
        let checked = inspect_with(text, |source| source.profile = profile.map(str::to_owned));
        checked.findings.into_iter().map(|f| format!("{} {}", f.key, f.message)).collect::<Vec<_>>()
    };
    let none = [""; 0];
    assert_eq!(said(corpus, None), ["corpora.mine `corpora.mine` has no effect: nothing names it"]);
    assert_eq!(said(task, None), ["tasks.own `tasks.own` has no effect: nothing names it"]);
    let uses = ["calibration.corpus = 'mine'", "evaluate.perplexity = ['mine']"];
    uses.iter().for_each(|used| assert_eq!(said(&format!("{used}\n{corpus}"), None), none, "{used}"));
    assert_eq!(said(&format!("evaluate.tasks = ['own']\n{task}"), None), none);
    // One trial of a sweep that reads it is enough, and a profile may read other texts than the file.
    let sweep = "[[sweep]]\nkey = 'calibration.corpus'\nvalues = ['quickstart', 'mine']\n";
    assert_eq!(said(&format!("{corpus}{sweep}"), None), none);
    let profile = "[profile.small.calibration]\ncorpus = 'quickstart'\n";
    assert_eq!(said(&format!("calibration.corpus = 'mine'\n{corpus}{profile}"), Some("small")), none);
}

#[test]
fn calibration_text_counts_wherever_a_search_reads_it() {
    let found = inspect_with("prune.method = 'magnitude'\ncalibration.tokens = 512\n", |_| {}).findings;
    assert_eq!(found, []);
}
