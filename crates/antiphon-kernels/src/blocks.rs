//! Rows of a batch dealt to threads, and the real steps of ragged rows.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::memory::{LINE, unwritten, written};
use crate::packed::TILE;

/// How the rows of a batch are divided among threads: into so many blocks of rows, each of which so many threads share, who have
/// some columns of every weight each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Division {
    pub(crate) blocks: usize,
    pub(crate) shares: usize,
}

impl Division {
    /// Of `rows`, each of which is multiplied with `weights` numbers a step, by the threads of this pool. The narrowest of what
    /// is made at a step is `width` numbers wide.
    pub(crate) fn of(rows: usize, weights: usize, width: usize) -> Self {
        Self::among(rayon::current_num_threads(), rows, weights, width)
    }

    /// What uses most threads, and of that what has most blocks. A block has the rows of a tile at least, and of two where the weight is
    /// far larger than a second-level cache, so that every step reads it from further away. A share has whole lines of the caches, and is worth waiting for others at every step.
    fn among(threads: usize, rows: usize, weights: usize, width: usize) -> Self {
        const FAR: usize = 1 << 20;
        let least = if weights >= FAR { 2 * TILE } else { TILE };
        /// Multiplications of one share at a step: a few microseconds.
        const WORTH: usize = 1 << 15;
        let division = |blocks: usize| {
            let worth = rows.div_ceil(blocks) * weights / WORTH;
            Self { blocks, shares: (threads / blocks).min(width.div_ceil(LINE)).min(worth).max(1) }
        };
        let divisions = (1..=(rows / least).clamp(1, threads)).map(division);
        divisions.max_by_key(|division| (division.blocks * division.shares, division.blocks)).expect("there is one")
    }
}

/// Deals rows, each with its number of steps, to blocks: the longest first and in turn, so that all blocks have about as much
/// to do, and the rows of a block stand by falling length.
pub(crate) fn deal<R>(mut rows: Vec<(usize, R)>, count: usize) -> Vec<Vec<R>> {
    rows.sort_by_key(|&(steps, _)| std::cmp::Reverse(steps)); // stable
    let size = rows.len().div_ceil(count);
    let mut blocks: Vec<Vec<R>> = (0..count).map(|_| Vec::with_capacity(size)).collect();
    for (i, (_, row)) in rows.into_iter().enumerate() {
        blocks[i % count].push(row);
    }
    blocks
}

/// A buffer that is handed out row by row.
pub(crate) struct Rows<'a> {
    left: &'a mut [f32],
    width: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `width` numbers.
    pub(crate) fn new(buffer: &'a mut [f32], width: usize) -> Self {
        Self { left: buffer, width }
    }

    /// The next row.
    pub(crate) fn row(&mut self) -> &'a mut [f32] {
        self.rows(1)
    }

    /// The next `count` rows, as one.
    pub(crate) fn rows(&mut self, count: usize) -> &'a mut [f32] {
        let (row, left) = std::mem::take(&mut self.left).split_at_mut(count * self.width);
        self.left = left;
        row
    }
}

/// A buffer cut into rows of `size`; `count` times nothing, if there is none.
pub(crate) fn rows_mut<T>(buffer: Option<&mut [T]>, size: usize, count: usize) -> Vec<Option<&mut [T]>> {
    match buffer {
        Some(buffer) => buffer.chunks_exact_mut(size).map(Some).collect(),
        None => (0..count).map(|_| None).collect(),
    }
}

/// How many of `steps` steps of each of `rows` rows are real: all of them, if nothing says their lengths.
pub(crate) fn real_lengths(lengths: Option<&[u32]>, rows: usize, steps: usize) -> Vec<usize> {
    match lengths {
        None => vec![steps; rows],
        Some(lengths) => lengths.iter().map(|&length| (length as usize).min(steps)).collect(),
    }
}

/// `[real, width]`: of a `[B, steps, width]` buffer the first steps of each row, as many as `lives` says; itself, where
/// that is all.
pub(crate) fn real_steps<'b>(buffer: &'b [f32], width: usize, steps: usize, lives: &[usize]) -> Cow<'b, [f32]> {
    if lives.iter().all(|&live| live == steps) {
        return Cow::Borrowed(buffer);
    }
    let mut real = unwritten(lives.iter().sum::<usize>() * width);
    let mut left = &mut real[..];
    let mut rows = Vec::with_capacity(lives.len());
    for (row, live) in buffer.chunks_exact(steps * width).zip(lives) {
        let (to, rest) = std::mem::take(&mut left).split_at_mut(live * width);
        left = rest;
        rows.push((to, &row[..live * width]));
    }
    rows.into_par_iter().for_each(|(to, row)| _ = to.write_copy_of_slice(row));
    // SAFETY: the rows fill all of it.
    Cow::Owned(unsafe { written(real) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_keeps_the_threads_busy_that_its_work_is_worth() {
        let division = |threads, rows, weights| {
            let Division { blocks, shares } = Division::among(threads, rows, weights, 512);
            (blocks, shares)
        };
        let large = 1 << 19;
        assert_eq!(division(1, 64, large), (1, 1));
        assert_eq!(division(2, 64, large), (2, 1));
        assert_eq!(division(2, 16, large), (2, 1));
        assert_eq!(division(2, 15, large), (1, 2));
        assert_eq!(division(2, 1, large), (1, 2));
        assert_eq!(division(16, 64, large), (8, 2));
        assert_eq!(division(3, 16, large), (1, 3));
        assert_eq!(division(6, 32, large), (3, 2));
        assert_eq!(division(11, 64, large), (1, 11));
        // A weight that is far away is read for more rows.
        assert_eq!(division(2, 16, 1 << 20), (1, 2));
        assert_eq!(division(2, 32, 1 << 20), (2, 1));
        assert_eq!(division(16, 64, 1 << 20), (4, 4));
        // Narrow layers.
        assert_eq!(Division::among(11, 64, large, 64), Division { blocks: 5, shares: 2 });
        assert_eq!(Division::among(16, 20, large, 64), Division { blocks: 2, shares: 4 });
        assert_eq!(Division::among(7, 50, 3072, 32), Division { blocks: 6, shares: 1 });
        // Too little to wait for each other at every step.
        assert_eq!(division(2, 1, 1 << 14), (1, 1));
        assert_eq!(division(16, 1, 1 << 17), (1, 4));
        for threads in 1..20 {
            for rows in 1..100 {
                let (blocks, shares) = division(threads, rows, large);
                assert!(blocks * shares <= threads && (blocks == 1 || rows / blocks >= 8), "{threads} {rows}");
            }
        }
    }
}
