//! The order in which units go where groups of them have to lose equally many: in rounds, in each of which every
//! group loses one.

/// Groups of neighbouring units, and what each has lost. A single group is no constraint: any order is one of
/// rounds.
#[derive(Debug, Clone)]
pub(super) struct Rounds {
    /// Units of one group.
    size: usize,
    /// Units that each group has lost.
    lost: Vec<usize>,
}

impl Rounds {
    /// For `units` units in `groups` groups of equal size, all still there.
    pub(super) fn new(units: usize, groups: usize) -> Self {
        Self { size: units / groups, lost: vec![0; groups] }
    }

    /// Brings what is left, ranked by what should go first, into the order in which it may go: the best of the
    /// groups that have lost least, until all have lost as many. `unit` tells which unit an entry stands for.
    pub(super) fn order<T: Copy>(&self, ranked: &mut Vec<T>, unit: impl Fn(&T) -> u32) {
        if self.lost.len() == 1 {
            return;
        }
        let mut lost = self.lost.clone();
        let mut round = |entry: &T| {
            let group = &mut lost[unit(entry) as usize / self.size];
            *group += 1;
            *group
        };
        let mut in_rounds: Vec<(usize, T)> = ranked.iter().map(|entry| (round(entry), *entry)).collect();
        in_rounds.sort_by_key(|(round, _)| *round);
        *ranked = in_rounds.into_iter().map(|(_, entry)| entry).collect();
    }

    /// A unit is gone.
    pub(super) fn lose(&mut self, unit: u32) {
        self.lost[unit as usize / self.size] += 1;
    }
}
