//! A plan as a person reads it, in a hundred columns.

use super::trial::{Count, IterationPlan, TokenCounts, TrialPlan};
use super::{Missing, Plan, Standing, Step, StepCost, StepKey, total};
use crate::report::columns;
use crate::report::grid::{Column, Grid, Role};
use crate::report::number::{bytes, count, duration, percent, prefixed};
use crate::spec::Basis;
use crate::trial::{ModelName, StepName};

/// Characters of a step's name.
const NAME: usize = 24;
/// Bytes on disk that are too few to show.
const LITTLE: f64 = 1e5;
/// Hours from which on a time is given in days.
const LONG: f64 = 48.0;

/// The whole plan.
pub fn text(plan: &Plan) -> String {
    let mut parts = Vec::new();
    for (i, trial) in plan.trials.iter().enumerate() {
        let before = i.checked_sub(1).map(|b| &plan.trials[b]);
        parts.push(trial_text(&plan.name, trial, before));
    }
    if plan.trials.len() > 1 {
        let steps = to_do(plan.trials.iter().flat_map(|t| &t.steps));
        parts.push(wrapped(&format!("all {} trials: ", plan.trials.len()), &sum(&plan.total(), steps)));
    }
    parts.push(speed(plan));
    parts.join("\n")
}

/// What the times rest on.
fn speed(plan: &Plan) -> String {
    let machine = plan.machine.map_or(String::new(), |machine| format!("machine: {machine}\n"));
    let times = match plan.rates.map(|rates| rates.per_second()) {
        Some(r) => format!(
            "times at {:.0} GFLOP/s of f32 products, {:.0} of local pruning in f64, {}/s written\n",
            r.products / 1e9,
            r.solves / 1e9,
            bytes(r.written)
        ),
        None => "no times: no rate was measured or given\n".into(),
    };
    [times, machine].concat()
}

/// One trial; tables and notes that are those of the trial before are left out.
fn trial_text(name: &str, trial: &TrialPlan, before: Option<&TrialPlan>) -> String {
    let mut parts = vec![head(name, trial)];
    if before.is_none_or(|b| b.parameters != trial.parameters) {
        parts.push(parameters(&trial.parameters));
    }
    if before.is_none_or(|b| b.iterations != trial.iterations) {
        parts.push(iterations(&trial.iterations));
    }
    parts.push(steps(&trial.steps));
    parts.push(wrapped(
        &format!("{}: ", trial.label),
        &sum(&total(trial.steps.iter()), to_do(trial.steps.iter())),
    ));
    if before.is_none_or(|b| b.notes != trial.notes) {
        parts.extend(trial.notes.iter().map(|note| wrapped("note: ", note)));
    }
    parts.concat()
}

fn head(name: &str, trial: &TrialPlan) -> String {
    let of = match trial.basis {
        Basis::Prunable => "what heads and neurons own",
        Basis::Total => "all parameters",
        Basis::Flops => "all operations for a token",
        Basis::KvBytes => "a token's bytes in the key/value cache",
        Basis::Latency => "the time of a pass",
    };
    let sparsity =
        format!("{}% of {of} asked, {}% reached", percent(trial.asked, 2), percent(trial.reached, 2));
    let model = format!("{}; sizes from {}", trial.model, trial.origin);
    let lines = [
        ("trial", format!("{} of {name}", trial.label)),
        ("model", model),
        ("sparsity", sparsity),
        ("tokens", tokens(&trial.tokens)),
    ];
    lines.iter().map(|(what, text)| wrapped(&format!("{what:<9} "), text)).collect()
}

fn tokens(t: &TokenCounts) -> String {
    let of = |n: usize| count(n as f64);
    let stages: Vec<String> =
        t.stages.iter().map(|(tokens, survivors)| format!("{} keep {survivors}", of(*tokens))).collect();
    let sets: Vec<String> = t.evaluation.iter().map(|(name, n)| format!("{name} {}", of(*n))).collect();
    let search = match t.generations {
        0 => "no search".to_string(),
        n => format!(
            "search set {} ({}), {n} generations score {} over all candidates per iteration",
            of(t.search),
            stages.join(", "),
            of(t.candidates)
        ),
    };
    let others = [("kl", t.kl), ("tasks about", t.tasks)]
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .map(|(what, n)| format!("{what} {}", of(n)));
    let evaluation: Vec<String> = sets.into_iter().chain(others).collect();
    format!(
        "calibration {} in sequences of {}; {search}; evaluation: {}",
        of(t.calibration),
        t.sequence_length,
        evaluation.join(", ")
    )
}

/// A text under a head, broken at spaces, the head's width indented.
fn wrapped(head: &str, text: &str) -> String {
    let indent = " ".repeat(head.chars().count());
    let lines = columns::wrapped(text, 100, &indent);
    format!("{}\n", format!("{head}{}", lines.strip_prefix(&indent).unwrap_or_default()).trim_end())
}

fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let role = |i: usize| if i == 0 { Role::Name } else { Role::Summary };
    let columns =
        heads.iter().enumerate().map(|(i, name)| Column { name: (*name).into(), role: role(i) }).collect();
    Grid { columns, rows }.terminal()
}

fn parameters(counts: &[Count]) -> String {
    let row = |c: &Count| {
        let after = if c.after == c.least {
            count(c.after as f64)
        } else {
            format!("{} to {}", count(c.least as f64), count(c.after as f64))
        };
        let fraction =
            if c.before == 0 { String::new() } else { percent(1.0 - c.after as f64 / c.before as f64, 1) };
        vec![c.kind.to_string(), count(c.before as f64), after, fraction]
    };
    table(&["matrix", "parameters before", "parameters after", "removed %"], counts.iter().map(row).collect())
}

fn iterations(all: &[IterationPlan]) -> String {
    let levels =
        |(low, high): (usize, usize)| if low == high { high.to_string() } else { format!("{low} to {high}") };
    let row = |i: &IterationPlan| {
        vec![
            i.number.to_string(),
            percent(i.interval, 4).trim_end_matches('0').trim_end_matches('.').to_string(),
            i.spacings[0].to_string(),
            i.spacings[1].to_string(),
            levels(i.levels[0]),
            levels(i.levels[1]),
            distributions(i.log10_distributions),
        ]
    };
    let heads = [
        "iteration",
        "interval %",
        "step heads",
        "step neurons",
        "levels heads",
        "levels neurons",
        "legal distributions",
    ];
    table(&heads, all.iter().map(row).collect())
}

/// A number of distributions by its decimal logarithm.
fn distributions(log10: f64) -> String {
    if log10 < 6.0 { format!("{:.0}", 10f64.powf(log10)) } else { format!("10^{log10:.1}") }
}

fn steps(all: &[Step]) -> String {
    let mut rows = Vec::new();
    for (i, step) in all.iter().enumerate() {
        let begins = i.checked_sub(1).is_none_or(|b| all[b].model != step.model);
        if let Some(model) = step.model.filter(|model| *model == ModelName::Dense && begins) {
            rows.push([vec![model.to_string()], vec![String::new(); 6]].concat());
        }
        rows.push(row(step));
    }
    table(&["step", "key", "cache", "peak memory", "disk", "FLOP", "time"], rows)
}

fn row(step: &Step) -> Vec<String> {
    let key = key(&step.key);
    let standing = standing(step);
    let e = step.estimate;
    let costs = match step.standing {
        Standing::Miss => [
            bytes(e.memory),
            if e.disk < LITTLE { String::new() } else { bytes(e.disk) },
            flops(e.flops),
            time(e.seconds),
        ],
        Standing::Hit | Standing::Shared => Default::default(),
    };
    [vec![short(&label(step)), key, standing], costs.to_vec()].concat()
}

/// A measurement's name stands below its model's.
fn label(step: &Step) -> String {
    match &step.name {
        StepName::Evaluate(evaluation, _) => format!("  {evaluation}"),
        name => name.to_string(),
    }
}

fn short(name: &str) -> String {
    if name.chars().count() <= NAME {
        name.into()
    } else {
        name.chars().take(NAME - 1).chain(['…']).collect()
    }
}

/// The hash of a key, whose kind the step's name says.
fn key(key: &StepKey) -> String {
    match key {
        StepKey::Known(address) => address.rsplit('-').next().unwrap_or(address).into(),
        // Measurements stand below the compaction that they wait for.
        StepKey::Waits(Missing::After(StepName::Compact(_))) => "after compaction".into(),
        StepKey::Waits(missing) => missing.to_string(),
        StepKey::None => String::new(),
    }
}

fn standing(step: &Step) -> String {
    match (&step.standing, &step.key) {
        (Standing::Hit, _) => "hit".into(),
        (Standing::Shared, _) => "shared".into(),
        (Standing::Miss, StepKey::Known(_)) => "miss".into(),
        (Standing::Miss, _) => String::new(),
    }
}

fn to_do<'a>(steps: impl Iterator<Item = &'a Step>) -> (usize, usize) {
    let states: Vec<&Standing> = steps.map(|s| &s.standing).collect();
    (states.iter().filter(|s| ***s == Standing::Miss).count(), states.len())
}

fn sum(e: &StepCost, (to_do, all): (usize, usize)) -> String {
    let time = e.seconds.map(|s| format!(", {}", time(Some(s)))).unwrap_or_default();
    let mapped =
        if e.mapped > 0.0 { format!(" ({} of it mapped files)", bytes(e.mapped)) } else { String::new() };
    let meanwhile = match e.meanwhile {
        0.0 => String::new(),
        passing => format!(" ({} more meanwhile)", bytes(passing)),
    };
    format!(
        "{to_do} of {all} steps to do, {} of memory{mapped}, {} of disk{meanwhile}, {}FLOP{time}",
        bytes(e.memory),
        bytes(e.disk),
        prefixed(e.flops)
    )
}

fn time(seconds: Option<f64>) -> String {
    match seconds {
        Some(s) if s < 9.95 => format!("{s:.1} s"),
        Some(s) if s >= LONG * 3600.0 => format!("{:.*} days", if s < 8.64e6 { 1 } else { 0 }, s / 86400.0),
        Some(s) => duration(s),
        None => String::new(),
    }
}

/// Operations: `12.3 P`.
fn flops(value: f64) -> String {
    if value == 0.0 { String::new() } else { prefixed(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_a_prefix() {
        assert_eq!([0.0, 4.2e12, 1.5e23].map(flops), ["", "4.20 T", "150 Z"]);
    }

    #[test]
    fn times_go_from_tenths_of_a_second_to_days() {
        assert_eq!(
            [1.25, 90.0, 7500.0, 86400.0 * 2.5, 86400.0 * 711.4].map(|s| time(Some(s))),
            ["1.2 s", "1 min 30 s", "2 h 05 min", "2.5 days", "711 days"]
        );
        assert_eq!(time(None), "");
    }

    #[test]
    fn few_distributions_are_counted_and_many_given_as_a_power() {
        assert_eq!([0.0, 2.0, 63.44].map(distributions), ["1", "100", "10^63.4"]);
    }

    #[test]
    fn long_texts_are_broken_under_their_head() {
        let text = wrapped("tokens    ", &"word ".repeat(40));
        assert!(text.lines().all(|l| l.chars().count() <= 100) && text.lines().count() > 1, "{text}");
        assert!(text.lines().skip(1).all(|l| l.starts_with("          w")), "{text}");
        assert_eq!(wrapped("a: ", ""), "a:\n");
    }

    #[test]
    fn a_long_name_is_cut() {
        assert_eq!(short(&"x".repeat(30)).chars().count(), NAME);
        assert_eq!(short("search-1"), "search-1");
    }
}
