//! Broken experiments and what is said about them.

use insta::assert_snapshot;

use super::*;

#[test]
fn an_unknown_key_names_the_nearest_one() {
    assert_snapshot!(printed("[prune]\ndampng = 0.1\n"), @r#"
    1 error in x.toml

      × unknown key `dampng` in `prune`
       ╭─[x.toml:2:1]
     2 │ dampng = 0.1
       · ───┬──
       ·    ╰── prune.dampng
       ╰────
      help: did you mean `damping`?
    "#);
}

#[test]
fn a_key_in_the_wrong_table_is_sent_home() {
    assert_snapshot!(printed("[supernet]\ndamping = 0.1\n"), @r#"
    1 error in x.toml

      × unknown key `damping` in `supernet`
       ╭─[x.toml:2:1]
     2 │ damping = 0.1
       · ───┬───
       ·    ╰── supernet.damping
       ╰────
      help: did you mean `prune.damping`?
    "#);
}

#[test]
fn a_key_like_no_other_lists_the_keys_of_its_table() {
    assert_snapshot!(printed("[model]\nquantisation = 4\n"), @r#"
    1 error in x.toml

      × unknown key `quantisation` in `model`
       ╭─[x.toml:2:1]
     2 │ quantisation = 4
       · ──────┬─────
       ·       ╰── model.quantisation
       ╰────
      help: the keys here are device, dtype, source
    "#);
}

#[test]
fn an_unknown_value_lists_the_legal_ones() {
    assert_snapshot!(printed("prune.target = 'residul'\n"), @r#"
    1 error in x.toml

      × `prune.target` has no value "residul"
       ╭─[x.toml:1:16]
     1 │ prune.target = 'residul'
       ·                ────┬────
       ·                    ╰── prune.target
       ╰────
      help: did you mean "residual"? It takes "layer", "dense", "residual"
    "#);
}

#[test]
fn wrong_types_and_ranges_are_all_said_at_once() {
    assert_snapshot!(printed("name = 3\n[sparsity]\ntarget = 1\n[prune.saliency]\nfirst_order = 'yes'\n[search]\noffspring = 0\nstages = []\ntokens = 1.5\n[supernet]\nintervals = [0.5, nan]\n"), @r#"
    7 errors in x.toml

      × `name` takes a string, not an integer
       ╭─[x.toml:1:8]
     1 │ name = 3
       ·        ┬
       ·        ╰── name
       ╰────
      help: the default is "experiment"

      × 1 is out of range for `sparsity.target`
       ╭─[x.toml:3:10]
     3 │ target = 1
       ·          ┬
       ·          ╰── sparsity.target
       ╰────
      help: it takes a number, at least 0 and below 1

      × `prune.saliency.first_order` takes true or false, not a string
       ╭─[x.toml:5:15]
     5 │ first_order = 'yes'
       ·               ──┬──
       ·                 ╰── prune.saliency.first_order
       ╰────
      help: the default is false

      × 0 is out of range for `search.offspring`
       ╭─[x.toml:7:13]
     7 │ offspring = 0
       ·             ┬
       ·             ╰── search.offspring
       ╰────
      help: it takes an integer, at least 1 and at most 100000

      × `search.stages` is empty
       ╭─[x.toml:8:10]
     8 │ stages = []
       ·          ─┬
       ·           ╰── search.stages
       ╰────
      help: give it at least one element

      × `search.tokens` takes an integer, at least 1 and at most 1099511627776, not a float
       ╭─[x.toml:9:10]
     9 │ tokens = 1.5
       ·          ─┬─
       ·           ╰── search.tokens
       ╰────
      help: the default is 131072

      × NaN is out of range for `supernet.intervals[1]`
        ╭─[x.toml:11:19]
     11 │ intervals = [0.5, nan]
        ·                   ─┬─
        ·                    ╰── supernet.intervals[1]
        ╰────
      help: it takes a number, at least 0 and at most 1
    "#);
}

#[test]
fn a_table_where_a_value_belongs_and_the_other_way_round() {
    assert_snapshot!(printed("prune = 3\n[seed]\nx = 1\n"), @r#"
    2 errors in x.toml

      × `prune` takes a table, not an integer
       ╭─[x.toml:1:9]
     1 │ prune = 3
       ·         ┬
       ·         ╰── prune
       ╰────

      × `seed` takes an integer, at least 0, not a table
       ╭─[x.toml:2:1]
     2 │ [seed]
       · ───┬──
       ·    ╰── seed
       ╰────
      help: the default is 0
    "#);
}

#[test]
fn syntax_errors_have_places() {
    assert_snapshot!(printed("[model]\nsource = \nseed == 3\n"), @r#"
    3 errors in x.toml

      × not TOML: string values must be quoted, expected literal string
       ╭─[x.toml:2:10]
     2 │ source =
       ·         ─
       ╰────

      × not TOML: extra `=`, expected nothing
       ╭─[x.toml:3:7]
     3 │ seed == 3
       ·       ─
       ╰────

      × not TOML: unexpected key or value, expected newline, `#`
       ╭─[x.toml:3:9]
     3 │ seed == 3
       ·         ▲
       ╰────
    "#);
}

#[test]
fn a_key_written_twice() {
    assert_snapshot!(printed("seed = 1\nseed = 2\n"), @r#"
    1 error in x.toml

      × not TOML: duplicate key
       ╭─[x.toml:2:1]
     2 │ seed = 2
       · ────
       ╰────
    "#);
}

#[test]
fn a_number_beyond_64_bits() {
    assert_snapshot!(printed("seed = 99999999999999999999\n"), @r#"
    1 error in x.toml

      × 99999999999999999999 is not an integer of 64 bits
       ╭─[x.toml:1:8]
     1 │ seed = 99999999999999999999
       ·        ────────────────────
       ╰────
      help: the largest is 9223372036854775807
    "#);
}

#[test]
fn an_element_of_an_array_lacks_a_key() {
    assert_snapshot!(printed("[search]\nstages = [{ tokens = 512 }]\n"), @r#"
    1 error in x.toml

      × `search.stages[0]` lacks `survivors`
       ╭─[x.toml:2:11]
     2 │ stages = [{ tokens = 512 }]
       ·           ────────┬───────
       ·                   ╰── search.stages[0].survivors
       ╰────
      help: add `survivors`: an integer, at least 1 and at most 100000
    "#);
}

#[test]
fn a_task_of_ones_own_lacks_a_key_after_merging() {
    assert_snapshot!(printed("[tasks.mine]\nfile = '/nowhere/x.jsonl'\ncontext = 'q'\nchoices = 'c'\n"), @r#"
    1 error in x.toml

      × `tasks.mine` lacks `gold`
       ╭─[x.toml:1:1]
     1 │ [tasks.mine]
       · ──────┬─────
       ·       ╰── tasks.mine.gold
       ╰────
      help: add `gold`: a string
    "#);
}

#[test]
fn findings_of_the_environment_and_of_the_command_line_show_where_they_come_from() {
    let checked = inspect_with("", |source| {
        source.env = vec![("TYR_PRUNE__DAMPING".into(), "-1".into()), ("HOME".into(), "x".into())];
        source.set = vec![
            "supernet.levels=8".into(),
            "prune.dampng=1".into(),
            "nothing".into(),
            "supernet.intervals=[0.1,".into(),
        ];
    });
    assert_snapshot!(checked.render(Style::Plain), @r#"
    5 errors in x.toml

      × -1 is out of range for `prune.damping`
       ╭─[TYR_PRUNE__DAMPING:1:20]
     1 │ TYR_PRUNE__DAMPING=-1
       ·                    ─┬
       ·                     ╰── prune.damping
       ╰────
      help: it takes a number, at least 0

      × `nothing` sets no key
       ╭─[command line:1:7]
     1 │ --set nothing
       ·       ───────
       ╰────
      help: write KEY=VALUE, as in --set prune.damping=0.05

      × unknown key `prune.dampng`
       ╭─[command line:1:7]
     1 │ --set prune.dampng=1
       ·       ──────┬─────
       ·             ╰── prune.dampng
       ╰────
      help: did you mean `prune.damping`?

      × 8 levels have no middle
       ╭─[command line:1:23]
     1 │ --set supernet.levels=8
       ·                       ┬
       ·                       ╰── supernet.levels
       ╰────
      help: take 7 or 9: the current level is the middle one

      × not TOML: unclosed array, expected `]`
       ╭─[command line:1:31]
     1 │ --set supernet.intervals=[0.1,
       ·                              ┬
       ·                              ╰── supernet.intervals
       ╰────
    "#);
}

#[test]
fn an_unknown_profile() {
    let checked = inspect_with("[profile.mini]\nseed = 1\n", |source| source.profile = Some("mnii".into()));
    assert_snapshot!(checked.render(Style::Plain), @r#"
    1 error in x.toml

      × unknown profile `mnii`
       ╭─[command line:1:11]
     1 │ --profile mnii
       ·           ──┬─
       ·             ╰── profile.mnii
       ╰────
      help: did you mean `mini`?
    "#);
}
