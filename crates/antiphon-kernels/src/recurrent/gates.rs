//! The arithmetic of one row at one step, forward and backward. Rows are slices of width `H` or multiples of it.

use super::Cell;
use crate::vector::{multiversion, sigmoid, tanh};

/// A step: `x`, the projected input, becomes the activated gates; `z`: recurrent product; `h` becomes the new state, and
/// `inner` the new cell (LSTM) or the product inside the reset gate (GRU).
pub(crate) fn forward(cell: Cell, x: &mut [f32], z: &[f32], bias: &[f32], inner: &mut [f32], h: &mut [f32]) {
    match cell {
        Cell::Rnn => rnn_forward(x, z, bias, h),
        Cell::Lstm => lstm_forward(x, z, bias, inner, h),
        Cell::Gru => gru_forward(x, z, bias, inner, h),
    }
}

/// As [`forward`], but `x` is left as it is, or in any state: nothing is to be saved.
pub(crate) fn infer(cell: Cell, x: &mut [f32], z: &[f32], bias: &[f32], inner: &mut [f32], h: &mut [f32]) {
    match cell {
        Cell::Lstm => lstm_infer(x, z, bias, inner, h),
        Cell::Rnn | Cell::Gru => forward(cell, x, z, bias, inner, h),
    }
}

/// A row's numbers at one step on the way back.
pub(crate) struct StepBack<'a> {
    /// The activated gates; become the gradient of the projected input.
    pub(crate) gates: &'a mut [f32],
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
    pub(crate) dz: &'a mut [f32],
    /// The gradient of the bias; is added to.
    pub(crate) db: &'a mut [f32],
}

/// A step back.
pub(crate) fn backward(cell: Cell, step: StepBack<'_>) {
    let StepBack { gates, inner, before, cell_before, dh, dc, dz, db } = step;
    match cell {
        Cell::Rnn => rnn_backward(gates, dh, db),
        Cell::Lstm => lstm_backward(gates, inner, cell_before, dh, dc, db),
        Cell::Gru => {
            gru_backward(gates, before, dh, inner, db);
            let own = dz.len() - inner.len();
            dz[..own].copy_from_slice(&gates[..own]);
            dz[own..].copy_from_slice(inner);
            return;
        }
    }
    dh.fill(0.0);
    dz.copy_from_slice(gates);
}

/// Of a row's saved numbers `[T, H]`, if its cell has any: those of step `at`, and for the LSTM the cell of the step
/// `before` it (that of the initial `state` `[N·H]`, if there is none).
pub(crate) fn inner_and_cell_before<'a>(
    trace: Option<&'a mut [f32]>,
    at: usize,
    before: Option<usize>,
    state: &'a [f32],
    h: usize,
) -> (&'a mut [f32], &'a [f32]) {
    let Some(trace) = trace else { return (&mut [], &[]) };
    let start = &state[h..];
    if start.is_empty() {
        return (&mut trace[at * h..][..h], start);
    }
    match before {
        None => (&mut trace[at * h..][..h], start),
        Some(before) if before < at => {
            let (head, tail) = trace.split_at_mut(at * h);
            (&mut tail[..h], &head[before * h..][..h])
        }
        Some(before) => {
            let (head, tail) = trace.split_at_mut(before * h);
            (&mut head[at * h..][..h], &tail[..h])
        }
    }
}

/// A row's first three blocks of width `h`; written out, so that the compiler sees their length and checks no bound.
#[inline(always)]
fn three(row: &[f32], h: usize) -> [&[f32]; 3] {
    [&row[..h], &row[h..][..h], &row[2 * h..][..h]]
}

/// A row's first four blocks of width `h`.
#[inline(always)]
fn four(row: &[f32], h: usize) -> [&[f32]; 4] {
    [&row[..h], &row[h..][..h], &row[2 * h..][..h], &row[3 * h..][..h]]
}

/// As [`three`], to write to.
#[inline(always)]
fn three_mut(row: &mut [f32], h: usize) -> [&mut [f32]; 3] {
    let (a, row) = row.split_at_mut(h);
    let (b, row) = row.split_at_mut(h);
    [&mut a[..h], &mut b[..h], &mut row[..h]]
}

/// As [`four`], to write to.
#[inline(always)]
fn four_mut(row: &mut [f32], h: usize) -> [&mut [f32]; 4] {
    let (a, row) = row.split_at_mut(h);
    let [b, c, d] = three_mut(row, h);
    [&mut a[..h], b, c, d]
}

multiversion! {
    /// `x`: projected input, becomes `h`; `z`: recurrent product; `h`: becomes the new state.
    fn rnn_forward(x: &mut [f32], z: &[f32], bias: &[f32], h: &mut [f32]) = rnn_forward_body
}
#[inline(always)]
fn rnn_forward_body<const FMA: bool>(x: &mut [f32], z: &[f32], bias: &[f32], h: &mut [f32]) {
    let n = h.len();
    let (x, z, bias) = (&mut x[..n], &z[..n], &bias[..n]);
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
    /// `x`: projected input, becomes the gates i, f, g, o; `z`: recurrent product; `c` and `h`: become the new state.
    fn lstm_forward(x: &mut [f32], z: &[f32], bias: &[f32], c: &mut [f32], h: &mut [f32]) = lstm_forward_body
}
#[inline(always)]
fn lstm_forward_body<const FMA: bool>(x: &mut [f32], z: &[f32], bias: &[f32], c: &mut [f32], h: &mut [f32]) {
    let n = h.len();
    let [xi, xf, xg, xo] = four_mut(x, n);
    let [zi, zf, zg, zo] = four(z, n);
    let [bi, bf, bg, bo] = four(bias, n);
    let c = &mut c[..n];
    for j in 0..n {
        let sums = [xi[j] + zi[j] + bi[j], xf[j] + zf[j] + bf[j], xg[j] + zg[j] + bg[j], xo[j] + zo[j] + bo[j]];
        [xi[j], xf[j], xg[j], xo[j]] = lstm_cell::<FMA>(sums, &mut c[j], &mut h[j]);
    }
}

multiversion! {
    /// As [`lstm_forward`], without a trace of the gates.
    fn lstm_infer(x: &[f32], z: &[f32], bias: &[f32], c: &mut [f32], h: &mut [f32]) = lstm_infer_body
}
#[inline(always)]
fn lstm_infer_body<const FMA: bool>(x: &[f32], z: &[f32], bias: &[f32], c: &mut [f32], h: &mut [f32]) {
    let n = h.len();
    let [xi, xf, xg, xo] = four(x, n);
    let [zi, zf, zg, zo] = four(z, n);
    let [bi, bf, bg, bo] = four(bias, n);
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
        gates: &mut [f32], cell: &[f32], before: &[f32], dh: &[f32], dc: &mut [f32], db: &mut [f32],
    ) = lstm_backward_body
}
#[inline(always)]
fn lstm_backward_body<const FMA: bool>(
    gates: &mut [f32],
    cell: &[f32],
    before: &[f32],
    dh: &[f32],
    dc: &mut [f32],
    db: &mut [f32],
) {
    let n = dh.len();
    let [gi, gf, gg, go] = four_mut(gates, n);
    let [bi, bf, bg, bo] = four_mut(db, n);
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
    fn gru_forward(x: &mut [f32], z: &[f32], bias: &[f32], q: &mut [f32], h: &mut [f32]) = gru_forward_body
}
#[inline(always)]
fn gru_forward_body<const FMA: bool>(x: &mut [f32], z: &[f32], bias: &[f32], q: &mut [f32], h: &mut [f32]) {
    let n = h.len();
    let [xr, xu, xn] = three_mut(x, n);
    let [zr, zu, zn] = three(z, n);
    let [br, bu, bn, bq] = four(bias, n);
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
    fn gru_backward(gates: &mut [f32], before: &[f32], dh: &mut [f32], q: &mut [f32], db: &mut [f32]) = gru_backward_body
}
#[inline(always)]
fn gru_backward_body<const FMA: bool>(
    gates: &mut [f32],
    before: &[f32],
    dh: &mut [f32],
    q: &mut [f32],
    db: &mut [f32],
) {
    let n = dh.len();
    let [gr, gu, gc] = three_mut(gates, n);
    let [br, bu, bn, bq] = four_mut(db, n);
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
