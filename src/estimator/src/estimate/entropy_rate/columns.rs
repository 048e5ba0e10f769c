//! The sums of surprisal and the sizes of each document, as rows of numbers, so that everything can be resampled.

use crate::estimate::entropy_rate::OMITTED_POSITIONS;
use crate::estimate::terms::sum;
use crate::plan::WindowSize;

/// The places of the sums in a row, which all are sums over positions of one document.
pub(crate) struct Columns {
    pub(crate) window: usize,
    /// The first and last positions, from 1, of ranges of half an octave, by increasing position; without the omitted
    /// positions. Their sums come first.
    pub(crate) halves: Vec<(usize, usize)>,
    /// The lengths `N` of blocks, by increasing length. Their sums `2 H(N) - H(2N)` come second.
    pub(crate) blocks: Vec<usize>,
}

/// The columns after those of [`Columns::halves`] and [`Columns::blocks`].
#[derive(Clone, Copy)]
pub(crate) enum Total {
    Whole,
    Tail,
    WholeBytes,
    WholeCharacters,
    TailBytes,
    TailCharacters,
}

impl Columns {
    pub(crate) fn new(window: usize) -> Self {
        // The ends of the ranges: the window, and the window divided by powers of √2.
        let end = |half: i32| (window as f64 * (-0.5 * f64::from(half)).exp2()).round() as usize;
        let mut halves = Vec::new();
        for half in 0.. {
            if end(half + 1) < OMITTED_POSITIONS {
                break;
            }
            halves.push((end(half + 1) + 1, end(half)));
        }
        halves.reverse();
        let mut blocks: Vec<usize> = (1..usize::BITS).map(|power| window >> power).filter(|&block| block > 0).collect();
        blocks.reverse();
        Self { window, halves, blocks }
    }

    /// Returns one row per document. The sizes are 0 if they are unknown.
    pub(crate) fn rows(&self, whole: &[&[f32]], sizes: Option<&[WindowSize]>) -> Vec<Vec<f64>> {
        let mut rows = Vec::with_capacity(whole.len());
        for (document, answer) in whole.iter().enumerate() {
            let surprisal = |from: usize, to: usize| -sum(&answer[from..to]);
            let mut row: Vec<f64> = self.halves.iter().map(|&(first, last)| surprisal(first - 1, last)).collect();
            row.extend(self.blocks.iter().map(|&block| surprisal(0, block) - surprisal(block, 2 * block)));
            row.push(surprisal(0, self.window));
            row.push(surprisal(WindowSize::tail_start(self.window), self.window));
            let WindowSize { bytes, characters, tail_bytes, tail_characters } =
                sizes.map_or_else(WindowSize::default, |sizes| sizes[document]);
            row.extend([bytes, characters, tail_bytes, tail_characters].map(|size| size as f64));
            rows.push(row);
        }
        rows
    }

    /// Returns the column of a block.
    pub(crate) fn block(&self, index: usize) -> usize {
        self.halves.len() + index
    }

    /// Returns the column of a total.
    pub(crate) fn total(&self, total: Total) -> usize {
        self.halves.len() + self.blocks.len() + total as usize
    }

    /// Returns the number of columns.
    pub(crate) fn width(&self) -> usize {
        self.total(Total::TailCharacters) + 1
    }

    /// Returns the number of positions in the tail.
    pub(crate) fn tail(&self) -> usize {
        self.window - WindowSize::tail_start(self.window)
    }

    /// Returns the last ranges that consist of `halves` half octaves each, and begin after the position `omitted`.
    pub(crate) fn ranges(&self, halves: usize, omitted: usize) -> Vec<Range> {
        let mut ranges = Vec::new();
        let chunks = self.halves.rchunks_exact(halves);
        for (index, chunk) in chunks.enumerate() {
            let (first, last) = (chunk[0].0, chunk[halves - 1].1);
            let end = self.halves.len() - index * halves;
            if first > omitted {
                ranges.push(Range { first, last, columns: end - halves..end });
            }
        }
        ranges.reverse();
        ranges
    }
}

/// A range of positions.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    /// The first and the last position, from 1.
    pub(crate) first: usize,
    pub(crate) last: usize,
    /// The columns whose sum is that of the range.
    columns: std::ops::Range<usize>,
}

impl Range {
    /// Returns the mean surprisal over the range.
    pub(crate) fn mean(&self, row: &[f64]) -> f64 {
        row[self.columns.clone()].iter().sum::<f64>() / (self.last + 1 - self.first) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_octaves_from_the_end() {
        let columns = Columns::new(128);
        assert_eq!(columns.halves, [(17, 23), (24, 32), (33, 45), (46, 64), (65, 91), (92, 128)]);
        assert_eq!(columns.blocks, [1, 2, 4, 8, 16, 32, 64]);
        let octaves = columns.ranges(2, 16);
        assert_eq!(
            octaves.iter().map(|range| (range.first, range.last)).collect::<Vec<_>>(),
            [(17, 32), (33, 64), (65, 128)]
        );
        assert_eq!(columns.ranges(1, 32).len(), 4);
        assert!(Columns::new(2).halves.is_empty() && Columns::new(2).blocks == [1]);
    }

    #[test]
    fn rows_have_sums_and_sizes() {
        let answer: Vec<f32> = (1..=48).map(|n| -(n as f32)).collect();
        let columns = Columns::new(48);
        let size = WindowSize { bytes: 9, characters: 8, tail_bytes: 5, tail_characters: 4 };
        let row = &columns.rows(&[&answer], Some(&[size]))[0];
        let sum = |first: usize, last: usize| (first..=last).sum::<usize>() as f64;
        let range = &columns.ranges(2, 16)[0];
        assert_eq!((range.first, range.last, range.mean(row)), (25, 48, sum(25, 48) / 24.0));
        assert_eq!(row[columns.block(columns.blocks.len() - 1)], sum(1, 24) - sum(25, 48));
        let totals = [Total::Whole, Total::Tail, Total::WholeBytes, Total::TailCharacters];
        assert_eq!(totals.map(|total| row[columns.total(total)]), [sum(1, 48), sum(25, 48), 9.0, 4.0]);
    }
}
