//! The recurrent sequence made of backend operations, for every device and number type, and the oracle of the tests.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Shape, Slice, TensorMetadata};
use burn::tensor::TensorData;

use super::{Cell, Recurrence};

fn shape<const D: usize>(dims: [usize; D]) -> Shape {
    Shape::new(dims)
}

/// `[B, N]`: step `t` of a `[B, T, N]` tensor.
fn step<B: Backend>(tensor: &FloatTensor<B>, t: usize) -> FloatTensor<B> {
    let dims = tensor.shape();
    let (b, n) = (dims[0], dims[2]);
    let slices = [Slice::from(0..b), Slice::from(t..t + 1), Slice::from(0..n)];
    B::float_reshape(B::float_slice(tensor.clone(), &slices), shape([b, n]))
}

/// `[B, H]`: block `k` of a `[B, _·H]` tensor.
fn block<B: Backend>(tensor: &FloatTensor<B>, k: usize, h: usize) -> FloatTensor<B> {
    let b = tensor.shape()[0];
    B::float_slice(tensor.clone(), &[Slice::from(0..b), Slice::from(k * h..(k + 1) * h)])
}

/// `1 − x`.
fn complement<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_add_scalar(B::float_neg(x), 1.0.into())
}

/// `[B, T, N]` from `T` tensors `[B, N]`.
fn stack<B: Backend>(steps: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    let expand = |v: FloatTensor<B>| {
        let dims = v.shape();
        B::float_reshape(v, shape([dims[0], 1, dims[1]]))
    };
    B::float_cat(steps.into_iter().map(expand).collect(), 1)
}

/// `[B·T, N]` from `[B, T, N]`.
fn flat<B: Backend>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    let dims = tensor.shape();
    B::float_reshape(tensor, shape([dims[0] * dims[1], dims[2]]))
}

/// Rows `range` of a `[_, N]` tensor.
fn rows<B: Backend>(tensor: &FloatTensor<B>, range: std::ops::Range<usize>) -> FloatTensor<B> {
    let n = tensor.shape()[1];
    B::float_slice(tensor.clone(), &[Slice::from(range), Slice::from(0..n)])
}

/// One tensor a step, filled in any order.
fn in_order<T>(steps: Vec<Option<T>>) -> Vec<T> {
    steps.into_iter().map(|step| step.expect("every step was taken")).collect()
}

/// `[B, 1]` of ones and zeros a step: which rows are real there; `None` where all are.
fn masks<B: Backend>(like: &FloatTensor<B>, steps: usize, run: &Recurrence) -> Vec<Option<FloatTensor<B>>> {
    let batch = like.shape()[0];
    let mask = |t: usize| {
        let live: Vec<f32> = (0..batch).map(|b| if run.is_live(b, t) { 1.0 } else { 0.0 }).collect();
        live.contains(&0.0).then(|| {
            let data = TensorData::new(live, [batch, 1]).convert_dtype(like.dtype());
            B::float_from_data(data, &like.device())
        })
    };
    (0..steps).map(mask).collect()
}

/// `new` where a row is real, else `old`.
fn choose<B: Backend>(mask: &Option<FloatTensor<B>>, new: FloatTensor<B>, old: FloatTensor<B>) -> FloatTensor<B> {
    match mask {
        None => new,
        Some(mask) => B::float_add(B::float_mul(mask.clone(), new), B::float_mul(complement::<B>(mask.clone()), old)),
    }
}

/// `[1, N]` from a bias.
fn row<B: Backend>(bias: FloatTensor<B>) -> FloatTensor<B> {
    let n = bias.shape()[0];
    B::float_reshape(bias, shape([1, n]))
}

/// See [`super::RecurrentOps::recurrent_forward`].
pub(crate) fn forward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    state: FloatTensor<B>,
    run: &Recurrence,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (steps, hidden) = (x.shape()[1], weight.shape()[0]);
    let masks = masks::<B>(&x, steps, run);
    let bias = row::<B>(bias);
    let mut h = block::<B>(&state, 0, hidden);
    let mut c = if run.cell == Cell::Lstm { block::<B>(&state, 1, hidden) } else { h.clone() };
    let (mut sequence, mut gates, mut trace) = (vec![None; steps], vec![None; steps], vec![None; steps]);
    for t in run.order(steps) {
        let (x, z) = (step::<B>(&x, t), B::float_matmul(h.clone(), weight.clone()));
        let part = |tensor: &FloatTensor<B>, k: usize| block::<B>(tensor, k, hidden);
        let sum = |k: usize| B::float_add(B::float_add(part(&x, k), part(&z, k)), part(&bias, k));
        let (new, gate, saved) = match run.cell {
            Cell::Rnn => {
                let new = B::float_tanh(sum(0));
                (new.clone(), new.clone(), new)
            }
            Cell::Lstm => {
                let (i, f) = (B::sigmoid(sum(0)), B::sigmoid(sum(1)));
                let (g, o) = (B::float_tanh(sum(2)), B::sigmoid(sum(3)));
                let cell = B::float_add(B::float_mul(f.clone(), c.clone()), B::float_mul(i.clone(), g.clone()));
                let new = B::float_mul(o.clone(), B::float_tanh(cell.clone()));
                c = choose::<B>(&masks[t], cell, c);
                (new, B::float_cat(vec![i, f, g, o], 1), c.clone())
            }
            Cell::Gru => {
                let (r, u) = (B::sigmoid(sum(0)), B::sigmoid(sum(1)));
                let q = B::float_add(part(&z, 2), part(&bias, 3));
                let n = B::float_add(B::float_add(part(&x, 2), part(&bias, 2)), B::float_mul(r.clone(), q.clone()));
                let n = B::float_tanh(n);
                let new = B::float_add(
                    B::float_mul(complement::<B>(u.clone()), n.clone()),
                    B::float_mul(u.clone(), h.clone()),
                );
                (new, B::float_cat(vec![r, u, n], 1), q)
            }
        };
        h = choose::<B>(&masks[t], new, h);
        (sequence[t], gates[t], trace[t]) = (Some(h.clone()), Some(gate), Some(saved));
    }
    let mut packed = vec![flat::<B>(stack::<B>(in_order(sequence)))];
    if run.cell == Cell::Lstm {
        packed.push(c);
    }
    (B::float_cat(packed, 0), stack::<B>(in_order(gates)), stack::<B>(in_order(trace)))
}

/// See [`super::RecurrentOps::recurrent_backward`].
pub(crate) fn backward<B: Backend>(
    gradient: FloatTensor<B>,
    packed: FloatTensor<B>,
    gates: FloatTensor<B>,
    trace: FloatTensor<B>,
    weight: FloatTensor<B>,
    state: FloatTensor<B>,
    run: &Recurrence,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let dims = gates.shape();
    let (batch, steps, hidden) = (dims[0], dims[1], weight.shape()[0]);
    let masks = masks::<B>(&gates, steps, run);
    let transposed = B::float_transpose(weight);
    let zeros = || B::float_mul_scalar(block::<B>(&state, 0, hidden), 0.0.into());
    let of_sequence =
        |packed: &FloatTensor<B>| B::float_reshape(rows::<B>(packed, 0..batch * steps), shape([batch, steps, hidden]));
    let (sequence, given) = (of_sequence(&packed), of_sequence(&gradient));
    let mut dh = zeros();
    let mut dc = match run.cell {
        Cell::Lstm => rows::<B>(&gradient, batch * steps..batch * (steps + 1)),
        Cell::Rnn | Cell::Gru => zeros(),
    };
    let (mut dx, mut dz, mut previous) = (vec![None; steps], vec![None; steps], vec![None; steps]);
    let order: Vec<usize> = run.order(steps).collect();
    let mul = B::float_mul;
    // dy · y(1 − y) and dy · (1 − y²): through a logistic function and a tanh, from their values.
    let logistic = |dy, y: &FloatTensor<B>| mul(dy, mul(y.clone(), complement::<B>(y.clone())));
    let tangent = |dy, y: &FloatTensor<B>| mul(dy, complement::<B>(mul(y.clone(), y.clone())));
    for (s, &t) in order.iter().enumerate().rev() {
        let before = |tensor: &FloatTensor<B>, k: usize| match s {
            0 => block::<B>(&state, k, hidden),
            _ => step::<B>(tensor, order[s - 1]),
        };
        let (h_previous, gate) = (before(&sequence, 0), step::<B>(&gates, t));
        let part = |k: usize| block::<B>(&gate, k, hidden);
        let total = B::float_add(dh.clone(), step::<B>(&given, t));
        let (direct, to_input, to_product) = match run.cell {
            Cell::Rnn => {
                let da = tangent(total.clone(), &gate);
                (zeros(), da.clone(), da)
            }
            Cell::Lstm => {
                let (i, f, g, o) = (part(0), part(1), part(2), part(3));
                let bent = B::float_tanh(step::<B>(&trace, t));
                let cell = B::float_add(dc.clone(), tangent(mul(total.clone(), o.clone()), &bent));
                let da = B::float_cat(
                    vec![
                        logistic(mul(cell.clone(), g.clone()), &i),
                        logistic(mul(cell.clone(), before(&trace, 1)), &f),
                        tangent(mul(cell.clone(), i), &g),
                        logistic(mul(total.clone(), bent), &o),
                    ],
                    1,
                );
                dc = choose::<B>(&masks[t], mul(cell, f), dc);
                (zeros(), da.clone(), da)
            }
            Cell::Gru => {
                let (r, u, n, q) = (part(0), part(1), part(2), step::<B>(&trace, t));
                let du = mul(total.clone(), B::float_sub(h_previous.clone(), n.clone()));
                let dn = tangent(mul(total.clone(), complement::<B>(u.clone())), &n);
                let (dr, dq) = (logistic(mul(dn.clone(), q), &r), mul(dn.clone(), r));
                let (du, direct) = (logistic(du, &u), mul(total.clone(), u));
                let to_input = B::float_cat(vec![dr.clone(), du.clone(), dn], 1);
                (direct, to_input, B::float_cat(vec![dr, du, dq], 1))
            }
        };
        let live = |v: FloatTensor<B>| match &masks[t] {
            None => v,
            Some(mask) => mul(v, mask.clone()),
        };
        let (to_input, to_product) = (live(to_input), live(to_product));
        let through = B::float_matmul(to_product.clone(), transposed.clone());
        dh = B::float_add(choose::<B>(&masks[t], direct, total), through);
        (dx[t], dz[t], previous[t]) = (Some(to_input), Some(to_product), Some(h_previous));
    }
    let (dx, dz) = (stack::<B>(in_order(dx)), flat::<B>(stack::<B>(in_order(dz))));
    let previous = flat::<B>(stack::<B>(in_order(previous)));
    let dw = B::float_matmul(B::float_transpose(previous), dz.clone());
    let total = |v: FloatTensor<B>| {
        let n = v.shape()[1];
        B::float_reshape(B::float_sum_dim(v, 0), shape([n]))
    };
    let mut db = total(flat::<B>(dx.clone()));
    if run.cell == Cell::Gru {
        db = B::float_cat(vec![db, total(block::<B>(&dz, 2, hidden))], 0);
    }
    let ds = if run.cell == Cell::Lstm { B::float_cat(vec![dh, dc], 1) } else { dh };
    (dx, dw, db, ds)
}
