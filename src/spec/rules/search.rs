//! Rules on levels, intervals, stages and token counts.

use super::{Issues, keys};
use crate::spec::key::KeyPath;
use crate::spec::types::{Search, SearchStart, SearchText, SparsityShape, Spec, Stage};

pub(super) fn check(spec: &Spec, issues: &mut Issues) {
    levels(spec, issues);
    intervals(spec, issues);
    stages(&spec.search, issues);
    tokens(spec, issues);
    if !spec.searches() && spec.sparsity.shape == SparsityShape::Free {
        issues.warning(
            &keys(["search.generations", "search.start"]),
            "without generations and sensitivities nothing is searched",
            "the result is the uniform distribution",
        );
    }
}

/// The current sparsity is the middle level, with as many levels above as below.
fn levels(spec: &Spec, issues: &mut Issues) {
    match spec.supernet.levels {
        1 => {
            let hint = "every module keeps its sparsity; take 3 or more to search";
            issues.warning(&keys(["supernet.levels"]), "one level leaves nothing to search", hint);
        }
        n if n.is_multiple_of(2) => {
            let hint =
                format!("take {} or {}: the current level is the middle one", n.saturating_sub(1), n + 1);
            issues.error(&keys(["supernet.levels"]), format!("{n} levels have no middle"), hint);
        }
        _ => {}
    }
}

/// Coarse to fine: each iteration refines what the one before found.
fn intervals(spec: &Spec, issues: &mut Issues) {
    let intervals = &spec.supernet.intervals;
    let at = |i: usize| [KeyPath::of("supernet.intervals").index(i)];
    for (i, interval) in intervals.iter().enumerate() {
        if *interval == 0.0 {
            issues.error(
                &at(i),
                "an interval of 0 makes all levels the same",
                "give a fraction above 0, at most 1",
            );
        }
        if i > 0 && *interval >= intervals[i - 1] {
            let message =
                format!("interval {interval} is not finer than the one before, {}", intervals[i - 1]);
            issues.warning(
                &at(i),
                message,
                "the schedule goes from coarse to fine: let each interval be smaller",
            );
        }
    }
}

/// Each stage scores fewer candidates on more tokens, until one is left.
fn stages(search: &Search, issues: &mut Issues) {
    let at = |i: usize, key: &str| [KeyPath::of("search.stages").index(i).key(key)];
    for (i, pair) in search.stages.windows(2).enumerate() {
        if pair[1].tokens <= pair[0].tokens {
            let message = format!(
                "stage {} scores on {} tokens, no more than the stage before, {}",
                i + 2,
                pair[1].tokens,
                pair[0].tokens
            );
            issues.error(
                &at(i + 1, "tokens"),
                message,
                "let each stage score fewer candidates on more tokens",
            );
        }
        if pair[1].survivors >= pair[0].survivors {
            let message = format!(
                "stage {} keeps {} candidates, no fewer than the stage before, {}",
                i + 2,
                pair[1].survivors,
                pair[0].survivors
            );
            issues.error(&at(i + 1, "survivors"), message, "let each stage keep fewer candidates");
        }
    }
    let last = search.stages.len().saturating_sub(1);
    if let Some(stage) = search.stages.last().filter(|stage| stage.survivors != 1) {
        let message = format!("the last stage keeps {} candidates", stage.survivors);
        issues.error(&at(last, "survivors"), message, "set it to 1: the survivor is the next parent");
    }
    first_stage(search, issues);
    sensitivity(search, issues);
    let larger = |stage: &Stage| search.generations > 0 && stage.tokens > search.tokens;
    for (i, stage) in search.stages.iter().enumerate().filter(|(_, stage)| larger(stage)) {
        let message = format!(
            "stage {} scores on {} tokens, but the search set has {}",
            i + 1,
            stage.tokens,
            search.tokens
        );
        let [stage_key] = at(i, "tokens");
        issues.error(
            &[stage_key, KeyPath::of("search.tokens")],
            message,
            "raise `search.tokens` or lower the stage's",
        );
    }
}

fn sensitivity(search: &Search, issues: &mut Issues) {
    let tokens = search.sensitivity.tokens;
    if search.start == SearchStart::Sensitivity && tokens > search.tokens {
        let message = format!(
            "`search.sensitivity.tokens` is {tokens}, but single changes are scored on the {} tokens of the search set",
            search.tokens
        );
        let hint = "raise `search.tokens` or lower `search.sensitivity.tokens`";
        issues.if_written(KeyPath::of("search.sensitivity.tokens"), message, hint);
    }
}

fn first_stage(search: &Search, issues: &mut Issues) {
    if let Some(stage) = search.stages.first().filter(|stage| stage.survivors > search.offspring) {
        let message = format!(
            "stage 1 keeps {} candidates, but a generation has {} offspring",
            stage.survivors, search.offspring
        );
        let at = [KeyPath::of("search.stages").index(0).key("survivors"), KeyPath::of("search.offspring")];
        issues.error(&at, message, "lower the survivors or raise `search.offspring`");
    }
}

/// Text is drawn in whole sequences.
fn tokens(spec: &Spec, issues: &mut Issues) {
    let sequence = spec.calibration.sequence_length;
    for (key, tokens) in
        [("calibration.tokens", spec.calibration.tokens), ("search.tokens", spec.search.tokens)]
    {
        if sequence > 0 && !tokens.is_multiple_of(sequence) {
            let below = tokens / sequence * sequence;
            let near = if below == 0 {
                format!("{sequence}")
            } else {
                format!("{below} or {}", below.saturating_add(sequence))
            };
            let message = format!("{tokens} tokens are not a whole number of sequences of {sequence}");
            issues.error(
                &[KeyPath::of(key), KeyPath::of("calibration.sequence_length")],
                message,
                format!("take {near}"),
            );
        }
    }
    if spec.search.text == SearchText::Calibration && spec.search.tokens > spec.calibration.tokens {
        let message = format!(
            "the search set has {} tokens, but calibration draws only {}",
            spec.search.tokens, spec.calibration.tokens
        );
        let at = keys(["search.tokens", "calibration.tokens", "search.text"]);
        issues.error(
            &at,
            message,
            "with `search.text` = \"calibration\", search on no more tokens than `calibration.tokens`",
        );
    }
}
