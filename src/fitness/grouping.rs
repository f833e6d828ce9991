//! How candidates share work: those that agree on all modules so far form a group, which a module splits by
//! the levels that its members pick of it.

use std::collections::BTreeMap;

use crate::space::{Candidate, ModuleId, Space};

/// Bytes that the hidden states of a population may take at once.
const STATE_BYTES: usize = 192 << 20;

/// The members of a group that pick one level of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PickedLevel {
    /// Units that the level removes.
    pub removed: usize,
    /// Indices of the candidates, in order.
    pub members: Vec<usize>,
}

/// The group of all candidates: before the first module nothing tells them apart.
pub(super) fn whole(candidates: &[Candidate]) -> Vec<usize> {
    (0..candidates.len()).collect()
}

/// Splits a group of candidates by the levels that they pick of a module, the densest level first.
pub(super) fn split(
    space: &Space,
    module: ModuleId,
    candidates: &[Candidate],
    group: &[usize],
) -> Vec<PickedLevel> {
    let mut by_level: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &c in group {
        by_level.entry(space.removed(module, candidates[c][module.index()])).or_default().push(c);
    }
    by_level.into_iter().map(|(removed, members)| PickedLevel { removed, members }).collect()
}

/// Sequences of `length` tokens that this many candidates walk at once, with hidden states of `hidden` floats
/// a token.
pub(super) fn sequences_at_once(candidates: usize, length: usize, hidden: usize) -> usize {
    (STATE_BYTES / (candidates.max(1) * length * hidden * 4)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::{Shape, SparsityDistribution, UnitSpec};

    fn space() -> Space {
        let units = UnitSpec { units: 8, width: 1, parameters: 1 };
        let shape = Shape { layers: 1, attention: units, mlp: units };
        Space::around(shape, SparsityDistribution { removed: vec![4, 4] }, [1, 1], 5).unwrap()
    }

    #[test]
    fn a_group_is_split_by_levels_the_densest_first_and_others_stay_out() {
        let space = space();
        let candidates = vec![vec![1, 0], vec![0, 0], vec![1, 1], vec![-1, 0], vec![0, 1]];
        let module = ModuleId::from_index(0);
        let of = |group: &[usize]| -> Vec<Vec<usize>> {
            split(&space, module, &candidates, group).into_iter().map(|level| level.members).collect()
        };
        let all = of(&whole(&candidates));
        let mut sorted = all.clone();
        sorted.sort();
        assert_eq!(sorted, [vec![0, 2], vec![1, 4], vec![3]]);
        let levels = split(&space, module, &candidates, &whole(&candidates));
        assert!(levels.windows(2).all(|pair| pair[0].removed < pair[1].removed), "{levels:?}");
        assert_eq!(of(&[2, 4]).concat().len(), 2);
    }

    #[test]
    fn many_candidates_walk_fewer_sequences_but_one_at_least() {
        assert_eq!(sequences_at_once(1, 1024, 1024), 48);
        assert_eq!(sequences_at_once(16, 1024, 1024), 3);
        assert_eq!(sequences_at_once(1_000_000, 4096, 8192), 1);
    }
}
