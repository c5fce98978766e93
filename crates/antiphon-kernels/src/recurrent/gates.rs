//! The arithmetic of one row at one step, forward and backward, for all of its units or for some: those that one thread has.
//!
//! What a row has for each gate is a piece for each, `[units]`; the pieces that a cell has no use for are empty.

use super::Cell;
use crate::memory::LINE;
use crate::packed::Columns;
use crate::team::Divided;
use crate::vector::{multiversion, sigmoid, tanh};

/// Some of a layer's `H` units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Units {
    pub(crate) first: usize,
    pub(crate) width: usize,
    /// `H`.
    pub(crate) all: usize,
}

impl Units {
    /// All of `h`.
    pub(crate) const fn all(h: usize) -> Self {
        Self { first: 0, width: h, all: h }
    }

    /// `h` units in as many shares, of whole lines of the caches, of which there are as many at least.
    pub(crate) fn shares(h: usize, shares: usize) -> Vec<Self> {
        let lines = h.div_ceil(LINE);
        let start = |share: usize| (share * lines / shares * LINE).min(h);
        (0..shares).map(|i| Self { first: start(i), width: start(i + 1) - start(i), all: h }).collect()
    }

    /// Their numbers in one row of a `[rows, H]` buffer.
    pub(crate) fn of_row<'r, T>(&self, buffer: &'r [T], row: usize) -> &'r [T] {
        &buffer[row * self.all + self.first..][..self.width]
    }

    /// Their pieces of a row `[n·H]`.
    pub(crate) fn pieces<'r>(&self, row: &'r [f32]) -> [&'r [f32]; 4] {
        let mut blocks = row.chunks_exact(self.all).map(|block| &block[self.first..][..self.width]);
        [(); 4].map(|()| blocks.next().unwrap_or(&[]))
    }

    /// As [`pieces`](Self::pieces), to write to: of the row of `n` blocks that begins at `from`.
    ///
    /// # Safety
    /// Nobody else reads or writes them meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn divided<'r>(&self, buffer: &'r Divided<'_, f32>, from: usize, n: usize) -> [&'r mut [f32]; 4] {
        std::array::from_fn(|block| match block < n {
            // SAFETY: the caller's; and the pieces lie apart.
            true => unsafe { buffer.write(from + block * self.all + self.first, self.width) },
            false => &mut [],
        })
    }

    /// Their columns of the first rows of a `[rows, H]` buffer.
    ///
    /// # Safety
    /// Nobody else reads or writes them meanwhile, and whoever gets them leaves numbers wherever they write.
    pub(crate) unsafe fn columns<'r>(&self, buffer: &'r Divided<'_, f32>, rows: usize) -> Columns<'r> {
        // SAFETY: the caller's.
        unsafe { buffer.columns(rows, self.all, self.first, self.width) }
    }
}

/// The blocks of a row `[n·width]`.
fn blocks(row: &[f32], width: usize) -> [&[f32]; 4] {
    Units::all(width).pieces(row)
}

/// As [`blocks`], to write to.
pub(crate) fn blocks_mut(row: &mut [f32], width: usize) -> [&mut [f32]; 4] {
    let mut blocks = row.chunks_exact_mut(width);
    [(); 4].map(|()| blocks.next().unwrap_or_default())
}

/// A step: `x`, the projected input, becomes the activated gates; `z`, `[G·units]`: recurrent product; `h` becomes the new state,
/// and `inner` the new cell (LSTM) or the product inside the reset gate (GRU).
pub(crate) fn forward(cell: Cell, x: [&mut [f32]; 4], z: &[f32], bias: [&[f32]; 4], inner: &mut [f32], h: &mut [f32]) {
    let z = blocks(z, h.len());
    match cell {
        Cell::Rnn => rnn_forward(x, z, bias, h),
        Cell::Lstm => lstm_forward(x, z, bias, inner, h),
        Cell::Gru => gru_forward(x, z, bias, inner, h),
    }
}

/// As [`forward`], but `x` is left as it is, or in any state: nothing is to be saved.
pub(crate) fn infer(cell: Cell, x: [&mut [f32]; 4], z: &[f32], bias: [&[f32]; 4], inner: &mut [f32], h: &mut [f32]) {
    match cell {
        Cell::Lstm => lstm_infer(x.map(|x| &*x), blocks(z, h.len()), bias, inner, h),
        Cell::Rnn | Cell::Gru => forward(cell, x, z, bias, inner, h),
    }
}

/// A row's numbers at one step on the way back.
pub(crate) struct StepBack<'a> {
    /// The activated gates; become the gradient of the projected input.
    pub(crate) gates: [&'a mut [f32]; 4],
    /// What [`forward`] left there; the GRU's becomes its gradient.
    pub(crate) inner: &'a mut [f32],
    /// The state `h` before.
    pub(crate) before: &'a [f32],
    /// The cell before (LSTM).
    pub(crate) cell_before: &'a [f32],
    /// The whole gradient of the new state; becomes its direct part to the old one.
    pub(crate) dh: &'a mut [f32],
    /// The gradient of the new cell, becomes that of the old one (LSTM).
    pub(crate) dc: &'a mut [f32],
    /// Becomes the gradient of the recurrent product.
    pub(crate) dz: [&'a mut [f32]; 4],
    /// The gradient of the bias, `[biases·units]`; is added to.
    pub(crate) db: &'a mut [f32],
}

/// A step back.
pub(crate) fn backward(cell: Cell, step: StepBack<'_>) {
    let StepBack { mut gates, inner, before, cell_before, dh, dc, dz, db } = step;
    let own = gates.each_mut().map(|gate| &mut **gate);
    let db = blocks_mut(db, dh.len());
    match cell {
        Cell::Rnn => rnn_backward(own, dh, db),
        Cell::Lstm => lstm_backward(own, inner, cell_before, dh, dc, db),
        Cell::Gru => {
            gru_backward(own, before, dh, inner, db);
            let [r, u, n, _] = dz;
            r.copy_from_slice(gates[0]);
            u.copy_from_slice(gates[1]);
            n.copy_from_slice(inner);
            return;
        }
    }
    dh.fill(0.0);
    dz.into_iter().zip(gates).for_each(|(dz, gate)| dz.copy_from_slice(gate));
}

/// All of that length, so that the compiler sees it and checks no bound.
#[inline(always)]
fn cut<const N: usize>(pieces: [&[f32]; 4], n: usize) -> [&[f32]; N] {
    std::array::from_fn(|i| &pieces[i][..n])
}

/// As [`cut`], to write to.
#[inline(always)]
fn cut_mut<const N: usize>(pieces: [&mut [f32]; 4], n: usize) -> [&mut [f32]; N] {
    let mut pieces = pieces.into_iter();
    std::array::from_fn(|_| &mut pieces.next().expect("no more than four")[..n])
}

multiversion! {
    /// `x`: projected input, becomes `h`; `z`: recurrent product; `h`: becomes the new state.
    fn rnn_forward(x: [&mut [f32]; 4], z: [&[f32]; 4], bias: [&[f32]; 4], h: &mut [f32]) = rnn_forward_body
}
#[inline(always)]
fn rnn_forward_body<const FMA: bool>(x: [&mut [f32]; 4], z: [&[f32]; 4], bias: [&[f32]; 4], h: &mut [f32]) {
    let n = h.len();
    let ([x], [z], [bias]) = (cut_mut(x, n), cut(z, n), cut(bias, n));
    for j in 0..n {
        let y = tanh::<FMA>(x[j] + z[j] + bias[j]);
        (x[j], h[j]) = (y, y);
    }
}

multiversion! {
    /// `y`: the output, becomes the gradient of the sum; `dh`: its whole gradient; `db` is added to.
    fn rnn_backward(y: [&mut [f32]; 4], dh: &[f32], db: [&mut [f32]; 4]) = rnn_backward_body
}
#[inline(always)]
fn rnn_backward_body<const FMA: bool>(y: [&mut [f32]; 4], dh: &[f32], db: [&mut [f32]; 4]) {
    let n = dh.len();
    let ([y], [db]) = (cut_mut(y, n), cut_mut(db, n));
    for j in 0..n {
        let da = dh[j] * (1.0 - y[j] * y[j]);
        y[j] = da;
        db[j] += da;
    }
}

multiversion! {
    /// `x`: projected input, becomes the gates i, f, g, o; `z`: recurrent product; `c` and `h`: become the new state.
    fn lstm_forward(x: [&mut [f32]; 4], z: [&[f32]; 4], bias: [&[f32]; 4], c: &mut [f32], h: &mut [f32]) = lstm_forward_body
}
#[inline(always)]
fn lstm_forward_body<const FMA: bool>(
    x: [&mut [f32]; 4],
    z: [&[f32]; 4],
    bias: [&[f32]; 4],
    c: &mut [f32],
    h: &mut [f32],
) {
    let n = h.len();
    let [xi, xf, xg, xo] = cut_mut(x, n);
    let [zi, zf, zg, zo] = cut(z, n);
    let [bi, bf, bg, bo] = cut(bias, n);
    let c = &mut c[..n];
    for j in 0..n {
        let sums = [xi[j] + zi[j] + bi[j], xf[j] + zf[j] + bf[j], xg[j] + zg[j] + bg[j], xo[j] + zo[j] + bo[j]];
        [xi[j], xf[j], xg[j], xo[j]] = lstm_cell::<FMA>(sums, &mut c[j], &mut h[j]);
    }
}

multiversion! {
    /// As [`lstm_forward`], without a trace of the gates.
    fn lstm_infer(x: [&[f32]; 4], z: [&[f32]; 4], bias: [&[f32]; 4], c: &mut [f32], h: &mut [f32]) = lstm_infer_body
}
#[inline(always)]
fn lstm_infer_body<const FMA: bool>(x: [&[f32]; 4], z: [&[f32]; 4], bias: [&[f32]; 4], c: &mut [f32], h: &mut [f32]) {
    let n = h.len();
    let [xi, xf, xg, xo] = cut(x, n);
    let [zi, zf, zg, zo] = cut(z, n);
    let [bi, bf, bg, bo] = cut(bias, n);
    let c = &mut c[..n];
    for j in 0..n {
        let sums = [xi[j] + zi[j] + bi[j], xf[j] + zf[j] + bf[j], xg[j] + zg[j] + bg[j], xo[j] + zo[j] + bo[j]];
        lstm_cell::<FMA>(sums, &mut c[j], &mut h[j]);
    }
}

/// One number of a cell from its sums; → the gates.
#[inline(always)]
fn lstm_cell<const FMA: bool>([i, f, g, o]: [f32; 4], c: &mut f32, h: &mut f32) -> [f32; 4] {
    let (i, f) = (sigmoid::<FMA>(i), sigmoid::<FMA>(f));
    let (g, o) = (tanh::<FMA>(g), sigmoid::<FMA>(o));
    *c = f * *c + i * g;
    *h = o * tanh::<FMA>(*c);
    [i, f, g, o]
}

multiversion! {
    /// `gates`: become the gradient of their sums; `dh`: the whole gradient of `h`; `dc`: of the new cell, becomes that of
    /// the old one; `db` is added to.
    fn lstm_backward(
        gates: [&mut [f32]; 4], cell: &[f32], before: &[f32], dh: &[f32], dc: &mut [f32], db: [&mut [f32]; 4],
    ) = lstm_backward_body
}
#[inline(always)]
fn lstm_backward_body<const FMA: bool>(
    gates: [&mut [f32]; 4],
    cell: &[f32],
    before: &[f32],
    dh: &[f32],
    dc: &mut [f32],
    db: [&mut [f32]; 4],
) {
    let n = dh.len();
    let [gi, gf, gg, go] = cut_mut(gates, n);
    let [bi, bf, bg, bo] = cut_mut(db, n);
    let (cell, before, dc) = (&cell[..n], &before[..n], &mut dc[..n]);
    for j in 0..n {
        let (i, f, g, o) = (gi[j], gf[j], gg[j], go[j]);
        let bent = tanh::<FMA>(cell[j]);
        let d = dc[j] + dh[j] * o * (1.0 - bent * bent);
        let di = d * g * i * (1.0 - i);
        let df = d * before[j] * f * (1.0 - f);
        let dg = d * i * (1.0 - g * g);
        let do_ = dh[j] * bent * o * (1.0 - o);
        dc[j] = d * f;
        (gi[j], gf[j], gg[j], go[j]) = (di, df, dg, do_);
        bi[j] += di;
        bf[j] += df;
        bg[j] += dg;
        bo[j] += do_;
    }
}

multiversion! {
    /// `x`: projected input, becomes the gates r, z, n; `z`: recurrent product; `q`: becomes `h W_n + b_q`.
    fn gru_forward(x: [&mut [f32]; 4], z: [&[f32]; 4], bias: [&[f32]; 4], q: &mut [f32], h: &mut [f32]) = gru_forward_body
}
#[inline(always)]
fn gru_forward_body<const FMA: bool>(
    x: [&mut [f32]; 4],
    z: [&[f32]; 4],
    bias: [&[f32]; 4],
    q: &mut [f32],
    h: &mut [f32],
) {
    let n = h.len();
    let [xr, xu, xn] = cut_mut(x, n);
    let [zr, zu, zn] = cut(z, n);
    let [br, bu, bn, bq] = cut(bias, n);
    let q = &mut q[..n];
    for j in 0..n {
        let (r, u) = (sigmoid::<FMA>(xr[j] + zr[j] + br[j]), sigmoid::<FMA>(xu[j] + zu[j] + bu[j]));
        let inner = zn[j] + bq[j];
        let candidate = tanh::<FMA>(xn[j] + bn[j] + r * inner);
        q[j] = inner;
        h[j] = candidate + u * (h[j] - candidate);
        (xr[j], xu[j], xn[j]) = (r, u, candidate);
    }
}

multiversion! {
    /// `gates`: become the gradient of their sums; `before`: the old state; `dh`: the whole gradient of the new one, becomes
    /// its direct part to the old one; `q`: becomes the gradient of itself; `db` (r, z, n, q) is added to.
    fn gru_backward(
        gates: [&mut [f32]; 4], before: &[f32], dh: &mut [f32], q: &mut [f32], db: [&mut [f32]; 4],
    ) = gru_backward_body
}
#[inline(always)]
fn gru_backward_body<const FMA: bool>(
    gates: [&mut [f32]; 4],
    before: &[f32],
    dh: &mut [f32],
    q: &mut [f32],
    db: [&mut [f32]; 4],
) {
    let n = dh.len();
    let [gr, gu, gc] = cut_mut(gates, n);
    let [br, bu, bn, bq] = cut_mut(db, n);
    let (before, q) = (&before[..n], &mut q[..n]);
    for j in 0..n {
        let (r, u, c) = (gr[j], gu[j], gc[j]);
        let dn = dh[j] * (1.0 - u) * (1.0 - c * c);
        let dr = dn * q[j] * r * (1.0 - r);
        let du = dh[j] * (before[j] - c) * u * (1.0 - u);
        let dq = dn * r;
        dh[j] *= u;
        q[j] = dq;
        (gr[j], gu[j], gc[j]) = (dr, du, dn);
        br[j] += dr;
        bu[j] += du;
        bn[j] += dn;
        bq[j] += dq;
    }
}
