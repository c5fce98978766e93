//! Rows of a batch dealt to threads, and the real steps of ragged rows.

use std::borrow::Cow;

/// Deals rows, each with its number of steps, to as many blocks as there are threads: the longest first and in turn, so
/// that all blocks have about as much to do, and the rows of a block stand by falling length.
///
/// A block has at least 8 rows, if there are as many: a product of fewer reads the weight for little work. The blocks
/// depend on nothing but lengths and number of threads.
pub(crate) fn deal<R>(mut rows: Vec<(usize, R)>) -> Vec<Vec<R>> {
    rows.sort_by_key(|&(steps, _)| std::cmp::Reverse(steps)); // stable
    let size = rows.len().div_ceil(rayon::current_num_threads()).max(8);
    let count = rows.len().div_ceil(size);
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

/// `[real, width]`: of a `[B, steps, width]` buffer the first steps of each row, as many as `lives` says; itself, where
/// that is all.
pub(crate) fn real_steps<'b>(buffer: &'b [f32], width: usize, steps: usize, lives: &[usize]) -> Cow<'b, [f32]> {
    if lives.iter().all(|&live| live == steps) {
        return Cow::Borrowed(buffer);
    }
    let mut real = Vec::with_capacity(lives.iter().sum::<usize>() * width);
    for (row, live) in buffer.chunks_exact(steps * width).zip(lives) {
        real.extend_from_slice(&row[..live * width]);
    }
    Cow::Owned(real)
}
