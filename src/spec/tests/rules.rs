//! Experiments that break rules between keys, and what is said about them.

use insta::assert_snapshot;

use super::*;

#[test]
fn stages_go_from_many_candidates_on_few_tokens_to_one_on_many() {
    let text = "[search]\noffspring = 8\ntokens = 4096\nstages = [\n  { tokens = 2048, survivors = 16 },\n  { tokens = 2048, survivors = 16 },\n  { tokens = 8192, survivors = 2 },\n]\n";
    assert_snapshot!(printed(text), @r#"
    5 errors in x.toml

      × stage 1 keeps 16 candidates, but a generation has 8 offspring
       ╭─[x.toml:5:32]
     5 │   { tokens = 2048, survivors = 16 },
       ·                                ─┬
       ·                                 ╰── search.stages[0].survivors
       ╰────
      help: lower the survivors or raise `search.offspring`

      × stage 2 scores on 2048 tokens, no more than the stage before, 2048
       ╭─[x.toml:6:14]
     6 │   { tokens = 2048, survivors = 16 },
       ·              ──┬─
       ·                ╰── search.stages[1].tokens
       ╰────
      help: let each stage score fewer candidates on more tokens

      × stage 2 keeps 16 candidates, no fewer than the stage before, 16
       ╭─[x.toml:6:32]
     6 │   { tokens = 2048, survivors = 16 },
       ·                                ─┬
       ·                                 ╰── search.stages[1].survivors
       ╰────
      help: let each stage keep fewer candidates

      × stage 3 scores on 8192 tokens, but the search set has 4096
       ╭─[x.toml:7:14]
     7 │   { tokens = 8192, survivors = 2 },
       ·              ──┬─
       ·                ╰── search.stages[2].tokens
       ╰────
      help: raise `search.tokens` or lower the stage's

      × the last stage keeps 2 candidates
       ╭─[x.toml:7:32]
     7 │   { tokens = 8192, survivors = 2 },
       ·                                ┬
       ·                                ╰── search.stages[2].survivors
       ╰────
      help: set it to 1: the survivor is the next parent
    "#);
}

#[test]
fn levels_and_intervals() {
    assert_snapshot!(printed("[supernet]\nlevels = 4\nintervals = [0.125, 0.25, 0.0]\n"), @r#"
    2 errors, 1 warning in x.toml

      × 4 levels have no middle
       ╭─[x.toml:2:10]
     2 │ levels = 4
       ·          ┬
       ·          ╰── supernet.levels
       ╰────
      help: take 3 or 5: the current level is the middle one

      × an interval of 0 makes all levels the same
       ╭─[x.toml:3:27]
     3 │ intervals = [0.125, 0.25, 0.0]
       ·                           ─┬─
       ·                            ╰── supernet.intervals[2]
       ╰────
      help: give a fraction above 0, at most 1

      ⚠ interval 0.25 is not finer than the one before, 0.125
       ╭─[x.toml:3:21]
     3 │ intervals = [0.125, 0.25, 0.0]
       ·                     ──┬─
       ·                       ╰── supernet.intervals[1]
       ╰────
      help: the schedule goes from coarse to fine: let each interval be smaller
    "#);
}

#[test]
fn tokens_come_in_sequences() {
    assert_snapshot!(printed("[calibration]\ntokens = 1000\n"), @r#"
    1 error in x.toml

      × 1000 tokens are not a whole number of sequences of 256
       ╭─[x.toml:2:10]
     2 │ tokens = 1000
       ·          ──┬─
       ·            ╰── calibration.tokens
       ╰────
      help: take 768 or 1024
    "#);
}

#[test]
fn keys_of_another_pruning_method() {
    let text = "[prune]\nmethod = 'magnitude'\ndamping = 0.01\nsaliency = { first_order = true }\n";
    assert_snapshot!(printed(text), @r#"
    2 warnings in x.toml

      ⚠ `prune.damping` has no effect: `prune.method` is "magnitude"
       ╭─[x.toml:3:11]
     3 │ damping = 0.01
       ·           ──┬─
       ·             ╰── prune.damping
       ╰────
      help: set `prune.method` to "obs", or leave `prune.damping` out

      ⚠ `prune.saliency` has no effect: `prune.method` is "magnitude"
       ╭─[x.toml:4:12]
     4 │ saliency = { first_order = true }
       ·            ───────────┬──────────
       ·                       ╰── prune.saliency
       ╰────
      help: set `prune.method` to "obs", or leave `prune.saliency` out
    "#);
    // Defaults, the paper's too, are nobody's choice.
    let text = "defaults = 'paper'\n[prune]\nmethod = 'magnitude'\nunit = { attention = 'kv_group' }\n";
    assert_eq!(printed(text), "");
}

#[test]
fn both_saliency_terms_off() {
    assert_snapshot!(printed("[prune]\nsaliency = { second_order = false }\n"), @r#"
    1 error in x.toml

      × both terms of the saliency are off, so units have no order
       ╭─[x.toml:2:29]
     2 │ saliency = { second_order = false }
       ·                             ──┬──
       ·                               ╰── prune.saliency.second_order
       ╰────
      help: turn one of them on
    "#);
}

#[test]
fn a_fitness_without_what_it_needs_and_with_what_it_does_not() {
    assert_snapshot!(printed("[fitness]\nkind = 'similarity'\ncorpora = ['quickstart']\ntop_k = 1\n"), @r#"
    2 errors, 1 warning in x.toml

      × a similarity fitness compares no layer
       ╭─[x.toml:2:8]
     2 │ kind = 'similarity'
       ·        ──────┬─────
       ·              ╰── fitness.kind
       ╰────
      help: set `fitness.layers`, as in [{ layer = 0, weight = 1.0 }, { layer = -1, weight = 1.0 }], or take
            kind "kl"

      × the KL divergence over one token is always 0
       ╭─[x.toml:4:9]
     4 │ top_k = 1
       ·         ┬
       ·         ╰── fitness.top_k
       ╰────
      help: renormalised over one token, both sides are 1; take 0 for the whole vocabulary, or hundreds

      ⚠ `fitness.corpora` has no effect: `fitness.kind` is not "perplexity"
       ╭─[x.toml:3:11]
     3 │ corpora = ['quickstart']
       ·           ───────┬──────
       ·                  ╰── fitness.corpora
       ╰────
      help: set `fitness.kind` to "perplexity", or leave `fitness.corpora` out
    "#);
}

#[test]
fn unknown_corpora_and_tasks() {
    assert_snapshot!(printed("[calibration]\ncorpus = 'quickstrat'\n[evaluate]\ntasks = ['arc_easy', 'arc_esay']\n"), @r#"
    2 errors in x.toml

      × unknown corpus "quickstrat"
       ╭─[x.toml:2:10]
     2 │ corpus = 'quickstrat'
       ·          ──────┬─────
       ·                ╰── calibration.corpus
       ╰────
      help: did you mean "quickstart"? a table [corpora.NAME] adds other names

      × unknown task "arc_esay"
       ╭─[x.toml:4:22]
     4 │ tasks = ['arc_easy', 'arc_esay']
       ·                      ─────┬────
       ·                           ╰── evaluate.tasks[1]
       ╰────
      help: did you mean "arc_easy"? a table [tasks.NAME] adds other names
    "#);
}

#[test]
fn missing_files_and_folders() {
    let text = "[model]\nsource = '/nowhere/model'\n[fitness]\nkind = 'script'\nscript = '/nowhere/f.rhai'\n[corpora.mine]\ntrain = ['/nowhere/a.txt']\n[calibration]\ncorpus = 'mine'\n";
    assert_snapshot!(printed(text), @r#"
    3 errors in x.toml

      × there is no folder /nowhere/model
       ╭─[x.toml:2:10]
     2 │ source = '/nowhere/model'
       ·          ────────┬───────
       ·                  ╰── model.source
       ╰────
      help: name a folder with a checkpoint, hf:OWNER/NAME for one of the hub, or builtin:quickstart

      × there is no script /nowhere/f.rhai
       ╭─[x.toml:5:10]
     5 │ script = '/nowhere/f.rhai'
       ·          ────────┬────────
       ·                  ╰── fitness.script
       ╰────
      help: check the path; a relative one counts from the folder of the experiment file

      × there is no text file /nowhere/a.txt
       ╭─[x.toml:7:10]
     7 │ train = ['/nowhere/a.txt']
       ·          ────────┬───────
       ·                  ╰── corpora.mine.train[0]
       ╰────
      help: check the path; a relative one counts from the folder of the experiment file
    "#);
}

#[test]
fn a_corpus_without_the_split_that_is_read() {
    assert_snapshot!(printed("[corpora.mine]\ntest = ['/nowhere/a.txt']\n[calibration]\ncorpus = 'mine'\n"), @r#"
    1 error in x.toml

      × corpus "mine" has no train text, which `calibration.corpus` reads
       ╭─[x.toml:4:10]
     4 │ corpus = 'mine'
       ·          ───┬──
       ·             ╰── calibration.corpus
       ╰────
      help: list its files in `corpora.mine.train`
    "#);
}

#[test]
fn warnings_alone_do_not_stop() {
    let checked = inspect_with(
        "[prune]\ndamping = 0\ntarget = 'layer'\ntarget_interpolation = 0.5\n[supernet]\nlevels = 1\n",
        |_| {},
    );
    assert!(checked.loaded.is_some());
    assert_snapshot!(checked.render(Style::Plain), @r#"
    3 warnings in x.toml

      ⚠ without damping the Hessian may have no inverse
       ╭─[x.toml:2:11]
     2 │ damping = 0
       ·           ┬
       ·           ╰── prune.damping
       ╰────
      help: a dead or duplicate channel makes XᵀX singular; 0.01 is usual

      ⚠ `prune.target_interpolation` has no effect: `prune.target` is "layer"
       ╭─[x.toml:4:24]
     4 │ target_interpolation = 0.5
       ·                        ─┬─
       ·                         ╰── prune.target_interpolation
       ╰────
      help: set `prune.target` to "dense" or "residual", or leave `prune.target_interpolation` out

      ⚠ one level leaves nothing to search
       ╭─[x.toml:6:10]
     6 │ levels = 1
       ·          ┬
       ·          ╰── supernet.levels
       ╰────
      help: every module keeps its sparsity; take 3 or more to search
    "#);
}

#[test]
fn broken_sweeps() {
    let text = "exclude = [{ nonsense = 1 }]\n[[sweep]]\nkey = 'sparsity.taget'\nvalues = [0.5]\n[[sweep]]\nkey = 'supernet.levels'\nvalues = [9, 'many', 9]\n[[sweep]]\nname = 'both'\n[[sweep]]\ncases = [{ label = 'a', set = { name = 'x' } }]\n";
    assert_snapshot!(printed(text), @r#"
    6 errors in x.toml

      × unknown key `nonsense`
       ╭─[x.toml:1:12]
     1 │ exclude = [{ nonsense = 1 }]
       ·            ────────┬───────
       ·                    ╰── exclude[0]
       ╰────
      help: write the tables too, as in `prune.damping`; the reference page lists all keys

      × unknown key `sparsity.taget`
       ╭─[x.toml:3:7]
     3 │ key = 'sparsity.taget'
       ·       ────────┬───────
       ·               ╰── sweep[0]
       ╰────
      help: did you mean `sparsity.target`?

      × `supernet.levels` takes an integer, at least 1 and at most 9999, not a string
       ╭─[x.toml:7:14]
     7 │ values = [9, 'many', 9]
       ·              ───┬──
       ·                 ╰── supernet.levels
       ╰────
      help: the default is 9

      × 9 appears twice
       ╭─[x.toml:7:22]
     7 │ values = [9, 'many', 9]
       ·                      ┬
       ·                      ╰── sweep[1].values[2]
       ╰────

      × this axis is none of the three kinds
       ╭─[x.toml:8:1]
     8 │ [[sweep]]
       · ────┬────
       ·     ╰── sweep[2]
       ╰────
      help: an axis has `key` and `values`, or `cases`, or `seeds`

      × `name` cannot differ between trials
        ╭─[x.toml:11:33]
     11 │ cases = [{ label = 'a', set = { name = 'x' } }]
        ·                                 ──┬─
        ·                                   ╰── sweep[3].cases[0].set
        ╰────
      help: sweep a key of one of the experiment's tables, or `seed`
    "#);
}

#[test]
fn findings_of_some_trials_name_them() {
    assert_snapshot!(printed("[[sweep]]\nkey = 'supernet.levels'\nvalues = [8, 9]\n"), @r#"
    1 error in x.toml

      × 8 levels have no middle (trial levels=8)
       ╭─[x.toml:3:11]
     3 │ values = [8, 9]
       ·           ┬
       ·           ╰── supernet.levels
       ╰────
      help: take 7 or 9: the current level is the middle one
    "#);
}

#[test]
fn a_wrong_key_does_not_hide_a_broken_rule() {
    let keys = |text: &str| {
        inspect_with(text, |_| {}).findings.iter().map(|f| f.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        keys("[prune]\ndampng = 1\ntarget_interpolation = 'x'\n[supernet]\nlevels = 4\n"),
        ["prune.dampng", "prune.target_interpolation", "supernet.levels"]
    );
}

#[test]
fn values_of_the_wrong_shape_in_the_environment_and_unknown_variables_are_findings() {
    let checked = inspect_with("", |source| {
        source.env = vec![
            ("TYR_PRUNE__DAMPNG".into(), "1".into()),
            ("TYR_SUPERNET".into(), "9".into()),
            ("TYR_".into(), "x".into()),
        ];
    });
    let printed: Vec<_> = checked.findings.iter().map(|f| f.message.as_str()).collect();
    assert_eq!(
        printed,
        ["unknown key `\"\"`", "unknown key `prune.dampng`", "`supernet` takes a table, not an integer"]
    );
}

#[test]
fn a_date_is_told_as_one_wherever_it_stands() {
    let told = |text: &str| {
        let checked = inspect_with(text, |_| {});
        assert_eq!(checked.findings.len(), 1, "{:?}", checked.findings);
        let Finding { message, .. } = &checked.findings[0];
        assert!(message.contains("a date"), "{message}");
        assert!(!message.contains("::"), "{message}");
    };
    told("[[sweep]]\nkey = 'seed'\nvalues = [1, 1979-05-27]\n");
    told("[[sweep]]\nkey = 'seed'\nvalues = [1, [07:32:00]]\n");
    told("[[sweep]]\ncases = [{ label = 'a', set = { seed = 1979-05-27T07:32:00Z } }]\n");
    told("exclude = [{ seed = 1979-05-27 }]\n");
    told("seed = 1979-05-27\n");
    told("name = 1979-05-27\n");
}

#[test]
fn names_that_a_run_would_refuse_are_refused_before() {
    let errors = |text: &str| {
        let checked = inspect_with(text, |_| {});
        checked.findings.iter().filter(|f| f.severity == Severity::Error).count()
    };
    assert_eq!(errors(&format!("name = '{}'\n", "n".repeat(255))), 0);
    assert_eq!(errors(&format!("name = '{}'\n", "n".repeat(256))), 1);
    assert_eq!(errors("[tasks.boolq]\nfile = 'Cargo.toml'\ncontext = 'q'\nchoices = 'c'\ngold = 'g'\n"), 1);
    let harness = |url: &str| format!("[evaluate.lm_eval]\ntasks = ['boolq']\nurl = '{url}'\n");
    assert_eq!(errors(&harness("http://127.0.0.1:1")), 0);
    assert_eq!(errors(&harness("https://example.org")), 1);
    assert_eq!(errors("[fitness]\nkind = 'perplexity'\ncorpora = ['quickstart', 'quickstart']\n"), 1);
    assert_eq!(errors("[search]\nmax_flips = 1000\n"), 0);
    assert_eq!(errors("[search]\nmax_flips = 4294967295\n"), 1);
    assert_eq!(errors("[calibration]\nsequence_length = 1\n"), 1);
    assert_eq!(errors("[evaluate]\nsequence_length = 1\n"), 1);
}

#[test]
fn how_many_tokens_are_scored_is_told_where_it_is_not_what_is_asked() {
    let said = |evaluate: &str| {
        let found = inspect_with(&format!("[evaluate]\n{evaluate}"), |_| {}).findings;
        assert!(found.iter().all(|f| f.severity == Severity::Warning));
        found.into_iter().map(|f| format!("{} {}", f.message, f.hint.unwrap())).collect::<Vec<_>>()
    };
    let kl = |asked: usize, measured: usize, of: &str| {
        format!(
            "`evaluate.kl_tokens` is {asked}, but {measured} tokens are measured on: whole sequences of 64{of} set it to {measured}"
        )
    };
    let read = " of the `evaluate.tokens` that are read";
    assert_eq!(
        said("sequence_length = 64\ntokens = 100\n"),
        ["of 100 tokens, 64 are scored: whole sequences of 64 take 64 or 128"]
    );
    assert_eq!(said("sequence_length = 64\nkl_tokens = 10\n"), [kl(10, 64, "")]);
    assert_eq!(said("sequence_length = 64\nkl_tokens = 130\n"), [kl(130, 128, "")]);
    assert_eq!(said("sequence_length = 64\ntokens = 128\nkl_tokens = 256\n"), [kl(256, 128, read)]);
    // What is asked, a default, and what is not measured.
    let exact = ["tokens = 128\nkl_tokens = 128\n", "tokens = 128\n", "tokens = 0\nkl_tokens = 0\n"];
    exact
        .iter()
        .for_each(|text| assert_eq!(said(&format!("sequence_length = 64\n{text}")), [""; 0], "{text}"));
    assert_eq!(said("sequence_length = 100\n"), [""; 0]);
}

#[test]
fn sizes_of_the_model_bound_sequences_and_layers() {
    let known = Known {
        inputs: |spec| Inputs {
            model: Some(ModelSizes { context: 128, layers: 4 }),
            faults: match spec.model.source.as_str() {
                "builtin:quickstart" => vec![],
                _ => vec![(
                    KeyPath::of("model.source"),
                    crate::base::Error::new(crate::base::Kind::Checkpoint, "broken").at("x"),
                )],
            },
        },
        ..KNOWN
    };
    let keys = |text: &str| {
        let source = Source { path: "x.toml".into(), ..Source::default() };
        let found = inspect_text(&source, text, &known).unwrap().findings;
        found.iter().map(|f| format!("{} {}", f.key, f.message)).collect::<Vec<_>>()
    };
    let short = "calibration.sequence_length = 128\nevaluate.sequence_length = 128\n";
    assert_eq!(keys(short), [""; 0]);
    assert_eq!(
        keys("calibration.sequence_length = 256\nevaluate.sequence_length = 128\n"),
        ["calibration.sequence_length sequences of 256 tokens are longer than the model's context of 128"]
    );
    let unwritten = keys("evaluate.sequence_length = 128\n");
    assert!(unwritten[0].starts_with("calibration.sequence_length sequences of 256"), "{unwritten:?}");
    assert_eq!(keys("[evaluate]\nperplexity = []\nkl_tokens = 0\n").len(), 1);
    let layers = "fitness = { kind = 'similarity', layers = [{ layer = -4, weight = 1 }, { layer = 4, weight = 1 }] }\n";
    assert_eq!(
        keys(&format!("{short}{layers}")),
        ["fitness.layers[1].layer the model has 4 layers, so none is 4"]
    );
    assert_eq!(keys(&format!("{short}model.source = 'src'\n")), ["model.source broken (x)"]);
}

#[test]
fn a_number_that_cannot_be_read_is_told_alike_in_a_file_and_on_the_command_line() {
    let large = "18446744073709551615";
    let said = |text: &str, set: &str, variable: &str| {
        let found = inspect_with(text, |source| {
            source.set = (!set.is_empty()).then(|| set.to_owned()).into_iter().collect();
            source.env =
                (!variable.is_empty()).then(|| ("TYR_SEED".into(), variable.into())).into_iter().collect();
        });
        found.findings.into_iter().map(|f| (f.message, f.hint)).collect::<Vec<_>>()
    };
    let file = said(&format!("seed = {large}\n"), "", "");
    assert_eq!(file.len(), 1);
    assert!(file[0].0.contains("is not an integer of 64 bits"), "{file:?}");
    assert_eq!(said("", &format!("seed={large}"), ""), file);
    assert_eq!(said("", "", large), file);
    let word = said("", "seed=many", "");
    assert!(word[0].0.contains("not a string"), "{word:?}");
}
