//! Copying words of a source: how much a query points at what is right, and the loss of a vocabulary with what is copied beside it
//! (See et al. 2017, eq. 8 to 10 of section 2.2).
//!
//! A query `q` scores each step of a memory by their product, and its share is a softmax. What is needed of it for a token that is right are
//! two logarithms, of which one is over the steps that say the token:
//!
//! `ln C = ln Σ_{i: says_i = label} e^{q·m_i} − ln Σ_i e^{q·m_i}`
//!
//! With the gate `g` and the vocabulary's `P` the token's probability is `g P + (1 − g) C`. Where something is impossible, its logarithm is
//! [`IMPOSSIBLE`] rather than minus infinity, so that no gradient is a NaN.

mod flex;

use std::sync::Arc;

use antiphon_core::{Special, TokenId};
use burn::backend::Dispatch;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::attention::rows::dots;
use crate::flex::serves;
use crate::loss::Projection;
use crate::rows::select_rows;
use flex::{CopiedOps, PointerOps};

/// A logarithm that stands for that of nothing: whatever is added to it, its exponential is 0.
pub const IMPOSSIBLE: f32 = -1e30;

/// What the steps of a memory say, and what is asked of them.
#[derive(Debug, Clone)]
pub struct Pointing {
    /// `[B, S]`, row after row: what each step says; [`Special::Pad`] where nothing, to which no query points.
    pub says: Arc<[TokenId]>,
    /// `[B]`: how many of the queries look at each row; those of a row stand together, in the order of the rows.
    pub queries: Arc<[u32]>,
    /// `[N]`: the token that is right where each query is made.
    pub labels: Arc<[TokenId]>,
}

impl Pointing {
    /// Which row each query looks at.
    fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.queries.iter().enumerate().flat_map(|(row, &queries)| std::iter::repeat_n(row, queries as usize))
    }
}

/// How much queries `[N, M]` point at steps of a memory `[B, S, M]`: `[2, N]`, the logarithms of `Σ e^{q·m}` over the steps that say the
/// label, and over all that say something; [`IMPOSSIBLE`] where there are none. Differentiable in both.
///
/// # Panics
/// If shapes do not fit.
pub fn point(queries: Tensor<2>, memory: Tensor<3>, pointing: &Pointing) -> Tensor<2> {
    let ([n, width], [rows, steps, wide]) = (queries.dims(), memory.dims());
    assert_eq!(width, wide, "queries are as wide as the memory");
    assert_eq!(pointing.says.len(), rows * steps, "a word for each step");
    assert_eq!(pointing.queries.len(), rows, "a number of queries for each row");
    assert!(pointing.labels.len() == n && pointing.rows().count() == n, "a label for each of {n} queries");
    if !serves(&queries) || n == 0 {
        return point_by_operations(queries, memory, pointing);
    }
    let pointing = pointing.clone();
    let pointed = <Dispatch as PointerOps>::pointed(queries.into_dispatch(), memory.into_dispatch(), pointing);
    Tensor::from_dispatch(pointed)
}

/// The operation made of tensor operations.
fn point_by_operations(queries: Tensor<2>, memory: Tensor<3>, pointing: &Pointing) -> Tensor<2> {
    let ([n, width], [rows, steps, _]) = (queries.dims(), memory.dims());
    let most = pointing.queries.iter().copied().max().unwrap_or(0).max(1) as usize;
    // Padded with whatever query there is.
    let (mut padded, mut real, mut first) = (vec![0_u32; rows * most], Vec::with_capacity(n), 0);
    for (row, &count) in pointing.queries.iter().enumerate() {
        for t in 0..count as usize {
            padded[row * most + t] = (first + t) as u32;
            real.push((row * most + t) as u32);
        }
        first += count as usize;
    }
    let queries = select_rows(queries, &padded).reshape([rows, most, width]);
    let scores = queries.matmul(memory.swap_dims(1, 2)).reshape([rows * most, steps]);
    let scores = select_rows(scores, &real);
    let says = |row: usize| &pointing.says[row * steps..][..steps];
    let total = |silent: Vec<bool>| {
        let silent = Tensor::<2, Bool>::from_data(TensorData::new(silent, [n, steps]), &scores.device().inner());
        let scores = scores.clone().mask_fill(silent, IMPOSSIBLE);
        let top = scores.clone().detach().max_dim(1);
        ((scores - top.clone()).exp().sum_dim(1).log() + top).reshape([1, n])
    };
    let pad = Special::Pad.id();
    let of_label = pointing.rows().zip(&*pointing.labels);
    let of_label = of_label.flat_map(|(row, &label)| says(row).iter().map(move |&says| says != label || says == pad));
    let of_all = pointing.rows().flat_map(|row| says(row).iter().map(|&says| says == pad));
    Tensor::cat(vec![total(of_label.collect()), total(of_all.collect())], 0)
}

/// The products of a query `[M]` with the rows of a memory `[S, M]`, as many as `out` has place for. Off the graph, on the host.
///
/// # Panics
/// If there are fewer rows.
pub fn dot_products(query: &[f32], memory: &[f32], out: &mut [f32]) {
    dots(query, memory, out);
}

/// The cross-entropy in nats of tokens that a vocabulary says, or that are copied: summed over all tokens, `[1]`, differentiable. Of a
/// token it is
///
/// `−(1 − ε) ln (e^own P + e^beside) − ε / V Σ_v ln P_v`
///
/// with the softmax `P` of the projection and label smoothing `ε`, which is that of the vocabulary alone. A target beyond the vocabulary
/// is a slot, which has no `P`.
///
/// `own` `[N]`: the logarithm of the vocabulary's share. `beside` `[N]`: that of what the token is worth otherwise; [`IMPOSSIBLE`] where it
/// is nothing.
///
/// # Panics
/// If shapes do not fit, or there is no token.
pub fn copied_cross_entropy(
    projection: Projection,
    own: Tensor<1>,
    beside: Tensor<1>,
    label_smoothing: f32,
) -> Tensor<1> {
    let Projection { states, weight, bias, targets } = projection;
    let ([n, h], [v, width]) = (states.dims(), weight.dims());
    assert!(n == targets.len() && h == width, "states [{n}, {h}], weight [{v}, {width}], {} targets", targets.len());
    assert!(n > 0, "no tokens");
    assert!(own.dims() == [n] && beside.dims() == [n], "shares of {n} tokens");
    assert!(bias.as_ref().is_none_or(|bias| bias.dims() == [v]), "a bias for each of {v} tokens");
    if !serves(&states) {
        return copied_by_operations(Projection { states, weight, bias, targets }, own, beside, label_smoothing);
    }
    let bias = bias.unwrap_or_else(|| Tensor::zeros([v], &states.device().inner()));
    Tensor::from_dispatch(<Dispatch as CopiedOps>::copied(
        states.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        own.into_dispatch(),
        beside.into_dispatch(),
        targets.into(),
        label_smoothing,
    ))
}

/// The operation made of tensor operations.
fn copied_by_operations(projection: Projection, own: Tensor<1>, beside: Tensor<1>, smoothing: f32) -> Tensor<1> {
    let Projection { states, weight, bias, targets } = projection;
    let ([n, _], [v, _], device) = (states.dims(), weight.dims(), states.device().inner());
    let mut logits = states.matmul(weight.transpose());
    if let Some(bias) = bias {
        logits = logits + bias.unsqueeze();
    }
    let log_p = log_softmax(logits, 1);
    let is_slot: Vec<bool> = targets.iter().map(|&target| target as usize >= v).collect();
    let indices: Vec<i32> =
        targets.iter().map(|&target| if target as usize >= v { 0 } else { target as i32 }).collect();
    let indices = Tensor::<2, Int>::from_data(TensorData::new(indices, [n, 1]), &device);
    let is_slot = Tensor::<1, Bool>::from_data(TensorData::new(is_slot, [n]), &device);
    let own = (own + log_p.clone().gather(1, indices).reshape([n])).mask_fill(is_slot, IMPOSSIBLE);
    let likelihood = log_add(own, beside).sum() * (1.0 - f64::from(smoothing));
    match smoothing > 0.0 {
        true => -likelihood - log_p.sum() * (f64::from(smoothing) / v as f64),
        false => -likelihood,
    }
}

/// `ln (e^a + e^b)`, number by number. Differentiable.
///
/// # Panics
/// If shapes differ.
pub fn log_add<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    let top = a.clone().detach().max_pair(b.clone().detach());
    top.clone() + ((a - top.clone()).exp() + (b - top).exp()).log()
}
