//! Trials that differ only in their seed: mean and standard deviation over them (paper Table 11).

use std::collections::{BTreeMap, BTreeSet};

use super::figure::model_key;
use super::wide::{Cells, Wide};

/// Trials that differ only in their seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Seeds {
    /// What their labels share; empty when the seed is all there is.
    pub label: String,
    /// How many trials.
    pub count: usize,
    /// What they measured, a value of each.
    pub wide: Wide,
}

/// The label without its `seed=N`; `None` when it has none.
pub fn base(label: &str) -> Option<String> {
    label.match_indices("seed=").find_map(|(start, name)| {
        let before = &label[..start];
        let rest = &label[start + name.len()..];
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let whole = before.is_empty() || before.ends_with([',', '/']);
        let ended = after.len() < rest.len() && (after.is_empty() || after.starts_with(','));
        let shared = match after.strip_prefix(',') {
            Some(after) => format!("{before}{after}"),
            None => before.trim_end_matches([',', '/']).to_string(),
        };
        (whole && ended).then_some(shared)
    })
}

/// Groups of at least two trials that differ only in their seed, in the order of their first trials.
pub fn groups(trials: &[(&str, Wide)]) -> Vec<Seeds> {
    let mut labels: Vec<String> = Vec::new();
    let mut members: BTreeMap<String, Vec<&Wide>> = BTreeMap::new();
    for (label, wide) in trials.iter().filter_map(|(label, wide)| base(label).map(|l| (l, wide))) {
        if !labels.contains(&label) {
            labels.push(label.clone());
        }
        members.entry(label).or_default().push(wide);
    }
    let several = labels
        .into_iter()
        .filter_map(|label| members.get(&label).map(|m| (label, m)))
        .filter(|(_, m)| m.len() > 1);
    several.map(|(label, m)| Seeds { label, count: m.len(), wide: aggregate(m) }).collect()
}

fn aggregate(members: &[&Wide]) -> Wide {
    let names: BTreeSet<_> = members.iter().flat_map(|w| &w.rows).map(|(name, _)| model_key(name)).collect();
    let rows_of = |name: &str| -> Vec<&Cells> {
        members.iter().flat_map(|w| &w.rows).filter(|(n, _)| n == name).map(|(_, r)| r).collect()
    };
    Wide { rows: names.into_iter().map(|(_, _, name)| (name.clone(), merge(&rows_of(&name)))).collect() }
}

/// The values of all seeds, cell by cell.
fn merge(rows: &[&Cells]) -> Cells {
    let mut merged = Cells::new();
    for (shown, values) in rows.iter().flat_map(|cells| cells.iter()) {
        merged.entry(shown.clone()).or_default().extend(values);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_taken_off_wherever_it_stands() {
        let of = |label| base(label).unwrap();
        assert_eq!(of("target=0.5,ablation=default,seed=3"), "target=0.5,ablation=default");
        assert_eq!(of("seed=3,target=0.5"), "target=0.5");
        assert_eq!(of("a=1,seed=3,target=0.5"), "a=1,target=0.5");
        assert_eq!(
            (of("seed=12"), of("run/seed=1"), of("run/seed=1,a=1")),
            ("".into(), "run".into(), "run/a=1".into())
        );
        for other in ["target=0.5", "seed=3/target=0.5", "a,seed=", "a,seed=x", "a,seed=1x", "myseed=3", ""] {
            assert_eq!(base(other), None, "{other}");
        }
    }
}
