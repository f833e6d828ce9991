//! Ragged batches: segments of tokens that may continue other segments, so that shared beginnings of texts are
//! computed once.

use std::ops::Range;

/// A run of consecutive tokens of one text; its rows lie together in the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Position of the first row in its text.
    pub position: usize,
    /// The earlier segment that this one continues, if any.
    pub parent: Option<usize>,
}

/// The segments of a batch, parents before children.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Segments(pub Vec<Segment>);

impl Segments {
    /// `count` texts of `length` tokens each.
    pub fn sequences(count: usize, length: usize) -> Self {
        Self(
            (0..count)
                .map(|i| Segment { rows: i * length..(i + 1) * length, position: 0, parent: None })
                .collect(),
        )
    }

    /// Adds a segment of `length` tokens after `parent`; returns its index.
    pub fn push(&mut self, length: usize, parent: Option<usize>) -> usize {
        let start = self.rows();
        let position = parent.map_or(0, |p| self.0[p].position + self.0[p].rows.len());
        self.0.push(Segment { rows: start..start + length, position, parent });
        self.0.len() - 1
    }

    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.0.last().map_or(0, |s| s.rows.end)
    }

    /// Row ranges of a segment's keys: its ancestors', oldest first, then its own.
    pub(super) fn keys(&self, segment: usize) -> Vec<Range<usize>> {
        let mut chain: Vec<_> = std::iter::successors(Some(segment), |&s| self.0[s].parent)
            .map(|s| self.0[s].rows.clone())
            .collect();
        chain.reverse();
        chain
    }

    /// The batch in parts of at least `rows` rows, but for the first, that no attention crosses. No part has a
    /// single row unless the batch has.
    pub fn parts(&self, rows: usize) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut end = self.0.len();
        let mut earliest = end;
        for i in (0..self.0.len()).rev() {
            // The earliest segment that this one or a later one continues.
            earliest = earliest.min(self.0[i].parent.unwrap_or(i));
            let held = self.0[end - 1].rows.end - self.0[i].rows.start;
            let left = self.0[i].rows.start;
            let enough = held >= rows.max(2) && left != 1;
            if i == 0 || (earliest == i && enough) {
                parts.push(self.part(i..end));
                end = i;
            }
        }
        parts.reverse();
        parts
    }

    /// The whole batch as one part.
    pub fn whole(&self) -> Part {
        self.part(0..self.0.len())
    }

    fn part(&self, range: Range<usize>) -> Part {
        let first = range.start;
        let start = self.0.get(first).map_or(0, |segment| segment.rows.start);
        let moved = |segment: &Segment| Segment {
            rows: segment.rows.start - start..segment.rows.end - start,
            parent: segment.parent.map(|parent| parent - first),
            ..*segment
        };
        let segments = Self(self.0[range].iter().map(moved).collect());
        Part { rows: start..start + segments.rows(), segments }
    }

    /// Longest text, in tokens.
    pub fn longest(&self) -> usize {
        self.0.iter().map(|s| s.position + s.rows.len()).max().unwrap_or(0)
    }
}

/// Some texts of a batch that no other text of it continues or is continued by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Its segments, whose rows count from the part's first.
    pub segments: Segments,
}
