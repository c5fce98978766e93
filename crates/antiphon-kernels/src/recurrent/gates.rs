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
    let [a, b, c, d] = x;
    match cell {
        Cell::Rnn => rnn_forward(a, z, bias, h),
        Cell::Lstm => lstm_forward(a, b, c, d, z, bias, inner, h),
        Cell::Gru => gru_forward(a, b, c, z, bias, inner, h),
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
    let [a, b, c, d] = gates.each_mut().map(|gate| &mut **gate);
    let [ba, bb, bc, bd] = blocks_mut(db, dh.len());
    match cell {
        Cell::Rnn => rnn_backward(a, dh, ba),
        Cell::Lstm => lstm_backward(a, b, c, d, inner, cell_before, dh, dc, ba, bb, bc, bd),
        Cell::Gru => {
            gru_backward(a, b, c, before, dh, inner, ba, bb, bc, bd);
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

// The loops get each piece that they write as an argument of its own: the compiler then knows that it overlaps with no other.

/// All of that length, so that the compiler sees it and checks no bound.
#[inline(always)]
fn cut<const N: usize>(pieces: [&[f32]; 4], n: usize) -> [&[f32]; N] {
    std::array::from_fn(|i| &pieces[i][..n])
}

multiversion! {
    /// `x`: projected input, becomes `h`; `z`: recurrent product; `h`: becomes the new state.
    fn rnn_forward(x: &mut [f32], z: [&[f32]; 4], bias: [&[f32]; 4], h: &mut [f32]) = rnn_forward_body
}
#[inline(always)]
fn rnn_forward_body<const FMA: bool>(x: &mut [f32], z: [&[f32]; 4], bias: [&[f32]; 4], h: &mut [f32]) {
    let n = h.len();
    let (x, [z], [bias]) = (&mut x[..n], cut(z, n), cut(bias, n));
    for j in 0..n {
        let y = tanh::<FMA>(x[j] + z[j] + bias[j]);
        (x[j], h[j]) = (y, y);
    }
}

multiversion! {
    /// `y`: the output, becomes the gradient of the sum; `dh`: its whole gradient; `db` is added to.
    fn rnn_backward(y: &mut [f32], dh: &[f32], db: &mut [f32]) = rnn_backward_body
}
#[inline(always)]
fn rnn_backward_body<const FMA: bool>(y: &mut [f32], dh: &[f32], db: &mut [f32]) {
    let n = dh.len();
    let (y, db) = (&mut y[..n], &mut db[..n]);
    for j in 0..n {
        let da = dh[j] * (1.0 - y[j] * y[j]);
        y[j] = da;
        db[j] += da;
    }
}

multiversion! {
    /// `xi` …: projected input, become the gates i, f, g, o; `z`: recurrent product; `c` and `h`: become the new state.
    fn lstm_forward(
        xi: &mut [f32], xf: &mut [f32], xg: &mut [f32], xo: &mut [f32], z: [&[f32]; 4], bias: [&[f32]; 4],
        c: &mut [f32], h: &mut [f32],
    ) = lstm_forward_body
}
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn lstm_forward_body<const FMA: bool>(
    xi: &mut [f32],
    xf: &mut [f32],
    xg: &mut [f32],
    xo: &mut [f32],
    z: [&[f32]; 4],
    bias: [&[f32]; 4],
    c: &mut [f32],
    h: &mut [f32],
) {
    let n = h.len();
    let (xi, xf, xg, xo) = (&mut xi[..n], &mut xf[..n], &mut xg[..n], &mut xo[..n]);
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
    /// `gi` …: the gates, become the gradient of their sums; `dh`: the whole gradient of `h`; `dc`: of the new cell, becomes
    /// that of the old one; `bi` …: the gradient of the bias, are added to.
    fn lstm_backward(
        gi: &mut [f32], gf: &mut [f32], gg: &mut [f32], go: &mut [f32], cell: &[f32], before: &[f32], dh: &[f32],
        dc: &mut [f32], bi: &mut [f32], bf: &mut [f32], bg: &mut [f32], bo: &mut [f32],
    ) = lstm_backward_body
}
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn lstm_backward_body<const FMA: bool>(
    gi: &mut [f32],
    gf: &mut [f32],
    gg: &mut [f32],
    go: &mut [f32],
    cell: &[f32],
    before: &[f32],
    dh: &[f32],
    dc: &mut [f32],
    bi: &mut [f32],
    bf: &mut [f32],
    bg: &mut [f32],
    bo: &mut [f32],
) {
    let n = dh.len();
    let (gi, gf, gg, go) = (&mut gi[..n], &mut gf[..n], &mut gg[..n], &mut go[..n]);
    let (bi, bf, bg, bo) = (&mut bi[..n], &mut bf[..n], &mut bg[..n], &mut bo[..n]);
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
    /// `xr` …: projected input, become the gates r, z, n; `z`: recurrent product; `q`: becomes `h W_n + b_q`.
    fn gru_forward(
        xr: &mut [f32], xu: &mut [f32], xn: &mut [f32], z: [&[f32]; 4], bias: [&[f32]; 4], q: &mut [f32], h: &mut [f32],
    ) = gru_forward_body
}
#[inline(always)]
fn gru_forward_body<const FMA: bool>(
    xr: &mut [f32],
    xu: &mut [f32],
    xn: &mut [f32],
    z: [&[f32]; 4],
    bias: [&[f32]; 4],
    q: &mut [f32],
    h: &mut [f32],
) {
    let n = h.len();
    let (xr, xu, xn) = (&mut xr[..n], &mut xu[..n], &mut xn[..n]);
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
    /// `gr` …: the gates, become the gradient of their sums; `before`: the old state; `dh`: the whole gradient of the new one,
    /// becomes its direct part to the old one; `q`: becomes the gradient of itself; `br` …: the gradient of the bias, are added to.
    fn gru_backward(
        gr: &mut [f32], gu: &mut [f32], gc: &mut [f32], before: &[f32], dh: &mut [f32], q: &mut [f32],
        br: &mut [f32], bu: &mut [f32], bn: &mut [f32], bq: &mut [f32],
    ) = gru_backward_body
}
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn gru_backward_body<const FMA: bool>(
    gr: &mut [f32],
    gu: &mut [f32],
    gc: &mut [f32],
    before: &[f32],
    dh: &mut [f32],
    q: &mut [f32],
    br: &mut [f32],
    bu: &mut [f32],
    bn: &mut [f32],
    bq: &mut [f32],
) {
    let n = dh.len();
    let (gr, gu, gc) = (&mut gr[..n], &mut gu[..n], &mut gc[..n]);
    let (br, bu, bn, bq) = (&mut br[..n], &mut bu[..n], &mut bn[..n], &mut bq[..n]);
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
