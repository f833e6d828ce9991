//! What a list has more than once, found without comparing all with all: lists of a sweep may be long.

use std::collections::{BTreeMap, BTreeSet};

/// The places of the items that the list had before.
pub(super) fn repeated<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    items.into_iter().enumerate().filter_map(|(i, item)| (!seen.insert(item)).then_some(i)).collect()
}

/// Adds `-2`, `-3`, … to names that were there before, upper and lower case alike: some file systems do not
/// tell them apart.
pub(super) fn number_repeats(names: &mut [String]) {
    let mut seen = BTreeSet::new();
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        let lower = name.to_lowercase();
        if seen.insert(lower.clone()) {
            continue;
        }
        let number = numbers.entry(lower).or_insert(1);
        loop {
            *number += 1;
            let candidate = format!("{name}-{number}");
            if seen.insert(candidate.to_lowercase()) {
                *name = candidate;
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::cmp::Ordering;

    use super::*;

    #[derive(PartialEq, Eq)]
    struct Counted<'a>(u64, &'a Cell<u64>);

    impl PartialOrd for Counted<'_> {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl Ord for Counted<'_> {
        fn cmp(&self, other: &Self) -> Ordering {
            self.1.set(self.1.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    #[test]
    fn repeats_are_found_in_few_comparisons() {
        assert_eq!(repeated(["a", "b", "a", "a", "b"]), [2, 3, 4]);
        assert_eq!(repeated(Vec::<u8>::new()), [0; 0]);
        let compared = Cell::new(0);
        assert_eq!(repeated((0..100_000).map(|i| Counted(i, &compared))), [0; 0]);
        assert!(compared.get() < 100_000 * 100, "{} comparisons", compared.get());
    }

    #[test]
    fn every_name_is_unique_even_among_names_that_look_numbered() {
        let mut names = ["a", "A", "a-2", "a", "a-2"].map(str::to_owned);
        number_repeats(&mut names);
        assert_eq!(names, ["a", "A-2", "a-2-2", "a-3", "a-2-3"]);
        let mut equal = vec!["x".to_owned(); 100_000];
        number_repeats(&mut equal);
        assert_eq!(equal[99_999], "x-100000");
    }
}
