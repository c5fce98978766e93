//! A layer of the query-reduction network over one row, forward and backward, on slices of its real steps.

use crate::memory::LINE;
use crate::vector::{multiply_add, multiversion, sigmoid, tanh};

/// What is read of a row.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    /// `[T, D]`.
    pub(super) sentences: &'a [f32],
    /// `[T, D]`, or `[1, D]` for all steps.
    pub(super) queries: &'a [f32],
    /// `[G, D]`.
    pub(super) weight: &'a [f32],
    /// `[G]`.
    pub(super) bias: &'a [f32],
}

impl Row<'_> {
    /// `D`.
    #[inline(always)]
    fn width(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    /// Sentence and query of a step.
    #[inline(always)]
    fn step(&self, t: usize) -> (&[f32], &[f32]) {
        let d = self.width();
        (&self.sentences[t * d..][..d], &self.queries[self.asked(t)..][..d])
    }

    /// Where the query of a step begins.
    #[inline(always)]
    fn asked(&self, t: usize) -> usize {
        let d = self.width();
        if self.queries.len() == d { 0 } else { t * d }
    }
}

/// Gradients of a row, all zero on entry but the candidates, which are to hold their hyperbolic tangent.
pub(super) struct Found<'a> {
    /// `[N, D]`.
    pub(super) sentences: &'a mut [f32],
    /// `[N, D]` or `[1, D]`; is added to.
    pub(super) queries: &'a mut [f32],
    /// `[T, D]`.
    pub(super) candidates: &'a mut [f32],
    /// `[G, D]`.
    pub(super) weight: &'a mut [f32],
    /// `[G]`.
    pub(super) bias: &'a mut [f32],
}

/// How a step moves the state: what is taken of the candidate, `z r`, and kept of the state, `1 − z`.
#[inline(always)]
fn shares(gates: &[f32]) -> (f32, f32) {
    (gates.iter().product(), 1.0 - gates[0])
}

/// `Σ f(a, b, c)` in running sums that the compiler keeps in one register, added up by halves.
#[inline(always)]
fn sum([a, b, c]: [&[f32]; 3], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; LINE];
    let ((a, a_rest), (b, b_rest), (c, c_rest)) = (a.as_chunks::<LINE>(), b.as_chunks::<LINE>(), c.as_chunks::<LINE>());
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for j in 0..LINE {
            sums[j] += f(a[j], b[j], c[j]);
        }
    }
    for (j, ((&a, &b), &c)) in a_rest.iter().zip(b_rest).zip(c_rest).enumerate() {
        sums[j] += f(a, b, c);
    }
    let mut half = LINE / 2;
    while half > 0 {
        for j in 0..half {
            sums[j] += sums[j + half];
        }
        half /= 2;
    }
    sums[0]
}

/// The state becomes `taken · candidate + kept · state`.
#[inline(always)]
fn turn<const FMA: bool>((taken, kept): (f32, f32), candidate: &[f32], state: &mut [f32]) {
    for (state, c) in state.iter_mut().zip(candidate) {
        *state = multiply_add::<FMA>(kept, *state, taken * c);
    }
}

#[inline(always)]
fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
}

multiversion! {
    /// `candidates` `[T, D]` become their hyperbolic tangent, `gates` `[T, G]` and `sequence` `[N, D]` are written. `last` `[D]`: of both
    /// directions, and then becomes the final state.
    pub(super) fn forward(
        row: Row<'_>, candidates: &mut [f32], gates: &mut [f32], sequence: &mut [f32], last: Option<&mut [f32]>,
    ) = forward_body
}
#[inline(always)]
fn forward_body<const FMA: bool>(
    row: Row<'_>,
    candidates: &mut [f32],
    gates: &mut [f32],
    sequence: &mut [f32],
    last: Option<&mut [f32]>,
) {
    let (d, g) = (row.width(), row.bias.len());
    candidates.iter_mut().for_each(|c| *c = tanh::<FMA>(*c));
    for (t, gates) in gates.chunks_exact_mut(g).enumerate() {
        let (x, q) = row.step(t);
        for ((gate, weight), bias) in gates.iter_mut().zip(row.weight.chunks_exact(d)).zip(row.bias) {
            *gate = sigmoid::<FMA>(sum([x, q, weight], |x, q, w| x * q * w) + bias);
        }
    }
    let mut state = vec![0.0; d];
    let (steps, padding) = sequence.split_at_mut(candidates.len());
    for ((y, c), gates) in steps.chunks_exact_mut(d).zip(candidates.chunks_exact(d)).zip(gates.chunks_exact(g)) {
        turn::<FMA>(shares(gates), c, &mut state);
        y.copy_from_slice(&state);
    }
    padding.chunks_exact_mut(d).for_each(|y| y.copy_from_slice(&state));
    let Some(last) = last else { return };
    last.copy_from_slice(&state);
    state.fill(0.0);
    let back = steps.chunks_exact_mut(d).zip(candidates.chunks_exact(d)).zip(gates.chunks_exact(g)).rev();
    for ((y, c), gates) in back {
        turn::<FMA>(shares(gates), c, &mut state);
        add(y, &state);
    }
}

multiversion! {
    /// `gradient`: of the sequence `[N, D]`; `of_last`: of both directions, that of the final state `[D]`; `gates` `[T, G]`.
    pub(super) fn backward(
        row: Row<'_>, gradient: &[f32], of_last: Option<&[f32]>, gates: &[f32], found: Found<'_>,
    ) = backward_body
}
#[inline(always)]
fn backward_body<const FMA: bool>(
    row: Row<'_>,
    gradient: &[f32],
    of_last: Option<&[f32]>,
    gates: &[f32],
    found: Found<'_>,
) {
    let (d, g, count) = (row.width(), row.bias.len(), row.sentences.len());
    let Found { sentences, queries, candidates, weight, bias } = found;
    // The states forward, before each step, and the gradients of those backward, which need no other.
    let (mut before, mut of_back) = (vec![0.0; count + d], vec![0.0; count]);
    for (t, (gates, c)) in gates.chunks_exact(g).zip(candidates.chunks_exact(d)).enumerate() {
        let (from, to) = before[t * d..][..2 * d].split_at_mut(d);
        to.copy_from_slice(from);
        turn::<FMA>(shares(gates), c, to);
    }
    if of_last.is_some() {
        let mut state = vec![0.0; d];
        let steps = of_back.chunks_exact_mut(d).zip(gradient.chunks_exact(d)).zip(gates.chunks_exact(g));
        for ((of_back, gradient), gates) in steps {
            let (_, kept) = shares(gates);
            add(&mut state, gradient);
            of_back.copy_from_slice(&state);
            state.iter_mut().for_each(|d| *d *= kept);
        }
    }
    // The gradient of the state forward, with that of the padding, which repeats the last one; and the state backward, behind each step.
    let (mut ahead, mut behind) = (of_last.map_or_else(|| vec![0.0; d], <[f32]>::to_vec), vec![0.0; d]);
    gradient[count..].chunks_exact(d).for_each(|gradient| add(&mut ahead, gradient));
    for t in (0..count / d).rev() {
        let (x, q) = row.step(t);
        let (gates, before, of_back) = (&gates[t * g..][..g], &before[t * d..][..d], &of_back[t * d..][..d]);
        let (z, r, (taken, kept)) = (gates[0], gates.get(1).copied().unwrap_or(1.0), shares(gates));
        let c = &mut candidates[t * d..][..d];
        add(&mut ahead, &gradient[t * d..][..d]);
        let of_taken = sum([&*c, &ahead[..], of_back], |c, ahead, back| c * (ahead + back));
        let of_kept =
            sum([before, &ahead[..], before], |f, d, _| f * d) + sum([&behind[..], of_back, of_back], |g, d, _| g * d);
        for (((c, ahead), back), behind) in c.iter_mut().zip(&mut ahead).zip(of_back).zip(&mut behind) {
            let candidate = *c;
            *c = taken * (*ahead + back) * (1.0 - candidate * candidate);
            *behind = multiply_add::<FMA>(kept, *behind, taken * candidate);
            *ahead *= kept;
        }
        // Of what the gates are the logistic function of.
        let of_gates = [(r * of_taken - of_kept) * z * (1.0 - z), z * of_taken * r * (1.0 - r)];
        let (dx, dq) = (&mut sentences[t * d..][..d], &mut queries[row.asked(t)..][..d]);
        for ((&of_gate, w), (dw, db)) in
            of_gates.iter().zip(row.weight.chunks_exact(d)).zip(weight.chunks_exact_mut(d).zip(&mut *bias))
        {
            *db += of_gate;
            product_backward::<FMA>(of_gate, x, q, w, dx, dq, dw);
        }
    }
}

/// From the gradient of `w · (x ⊙ q)` adds to those of `x`, `q` and `w`.
#[inline(always)]
fn product_backward<const FMA: bool>(
    gradient: f32,
    x: &[f32],
    q: &[f32],
    w: &[f32],
    dx: &mut [f32],
    dq: &mut [f32],
    dw: &mut [f32],
) {
    let n = x.len();
    let (q, w, dx, dq, dw) = (&q[..n], &w[..n], &mut dx[..n], &mut dq[..n], &mut dw[..n]);
    for i in 0..n {
        let inner = gradient * w[i];
        dx[i] = multiply_add::<FMA>(inner, q[i], dx[i]);
        dq[i] = multiply_add::<FMA>(inner, x[i], dq[i]);
        dw[i] = multiply_add::<FMA>(gradient * x[i], q[i], dw[i]);
    }
}
