//! An optimizer's step over one parameter, in one pass over memory.
//!
//! With parameter `w`, gradient `d` as backpropagation left it, and `g = scale · d + l1 · sign(w) + l2 · w`:
//!
//! | rule | state | step |
//! |---|---|---|
//! | [`Rule::Sgd`] | – | `w ← w − rate · g` |
//! | [`Rule::Momentum`] | `v` | `v ← μ v + g`, `w ← w − rate · v`, or `w − rate · (g + μ v)` after Nesterov |
//! | [`Rule::RmsProp`] | `s` | `s ← s − ρ̄ s + ρ̄ g²`, `w ← w − rate · g / √(s + ε)` |
//! | [`Rule::RmsPropMomentum`] | `s`, `v` | the same, with `v ← μ v + rate · g / √(s + ε)`, `w ← w − v` |
//! | [`Rule::Adam`] | `m`, `s` | `m ← m − β̄₁ m + β̄₁ g`, `s ← s − β̄₂ s + β̄₂ g²`, `w ← (1 − rate · decay) w − rate · (m / c₁) / (√(s / c₂) + ε)` |
//!
//! SGD as in PyTorch (Sutskever et al. 2013, without dampening), RMSProp as in Keras 3 (Hinton's lecture 6e; ε under the
//! root), Adam by Kingma and Ba 2015, the decoupled decay by Loshchilov and Hutter 2019 (as PyTorch's AdamW). `c₁` and
//! `c₂` are the bias corrections `1 − βᵗ` of update number `t`.
//!
//! A decay `ρ`, `β₁` or `β₂` is given by its complement `ρ̄ = 1 − ρ`, `β̄ = 1 − β`, subtracted before it is rounded to single
//! precision: `0.9999` itself, rounded, would make `1 − β₂` wrong by 2e-4 of itself, and a mean over the last ten thousand
//! squares another one than the bias correction is for.
//!
//! A running average of parameters is one more pass ([`average`]).
//!
//! Parameter and state are written in place where nobody else holds them.
//!
//! A device that works through a queue need not be waited for: the factor of all gradients is made there ([`scaling`]), and
//! [`Updates`] takes it from there, and the steps of several parameters together.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use crate::flex;
use crate::vector::multiversion;

/// Elements that one task takes: 64 KiB of each array. Sums are grouped by it, so changing it changes bits.
const CHUNK: usize = 16 * 1024;

/// How the effective gradient `g` of one step is made, and how large the step is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The learning rate.
    pub rate: f32,
    /// What the raw gradient is multiplied by: normalisation by tokens and clipping, in one factor.
    pub scale: f32,
    /// The weight of the penalty `l1 · Σ|w|`.
    pub l1: f32,
    /// The weight of the penalty `l2 / 2 · Σw²`.
    pub l2: f32,
}

/// What is done with the gradient. The module's head gives the equations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Plain gradient descent.
    Sgd,
    /// Gradient descent with momentum.
    Momentum {
        /// `μ`.
        momentum: f32,
        /// Whether the step looks ahead along the velocity.
        nesterov: bool,
    },
    /// Steps divided by the root mean square of recent gradients.
    RmsProp {
        /// `1 − ρ`.
        complement: f32,
        /// `ε`.
        epsilon: f32,
    },
    /// [`Rule::RmsProp`] with momentum.
    RmsPropMomentum {
        /// `1 − ρ`.
        complement: f32,
        /// `ε`.
        epsilon: f32,
        /// `μ`.
        momentum: f32,
    },
    /// Adam, and AdamW if `weight_decay` is not 0.
    Adam {
        /// `1 − β₁`.
        complement1: f32,
        /// `1 − β₂`.
        complement2: f32,
        /// `ε`.
        epsilon: f32,
        /// `c₁`.
        correction1: f32,
        /// `c₂`.
        correction2: f32,
        /// The decoupled decay.
        weight_decay: f32,
    },
}

impl Rule {
    /// How many arrays of the parameter's size the rule remembers.
    pub const fn slots(&self) -> usize {
        match self {
            Rule::Sgd => 0,
            Rule::Momentum { .. } | Rule::RmsProp { .. } => 1,
            Rule::RmsPropMomentum { .. } | Rule::Adam { .. } => 2,
        }
    }
}

/// Makes one step: the parameter `[n]` after it, with `state` (as many tensors `[n]` as [`Rule::slots`] says) brought up
/// to date. No tensor may be on an autodiff device.
///
/// # Panics
/// If the tensors are not all as long as the parameter, or not as many as the rule remembers.
pub fn update(
    parameter: Tensor<1>,
    gradient: Tensor<1>,
    state: &mut Vec<Tensor<1>>,
    rule: Rule,
    step: Step,
) -> Tensor<1> {
    check(&parameter, &gradient, state, rule);
    let (parameter, gradient) = (parameter.into_dispatch(), gradient.into_dispatch());
    let second = state.pop();
    let first = state.pop();
    let parameter = match (second, first) {
        (None, _) => <Dispatch as UpdateOps>::update_stateless(parameter, gradient, rule, step),
        (Some(only), None) => {
            let (parameter, only) =
                <Dispatch as UpdateOps>::update_one_slot(parameter, gradient, only.into_dispatch(), rule, step);
            state.push(Tensor::from_dispatch(only));
            parameter
        }
        (Some(second), Some(first)) => {
            let (first, second) = (first.into_dispatch(), second.into_dispatch());
            let (parameter, first, second) =
                <Dispatch as UpdateOps>::update_two_slots(parameter, gradient, first, second, rule, step);
            state.extend([Tensor::from_dispatch(first), Tensor::from_dispatch(second)]);
            parameter
        }
    };
    Tensor::from_dispatch(parameter)
}

fn check(parameter: &Tensor<1>, gradient: &Tensor<1>, state: &[Tensor<1>], rule: Rule) {
    assert_eq!(state.len(), rule.slots(), "{rule:?} needs another state");
    let n = parameter.dims();
    assert!(gradient.dims() == n && state.iter().all(|slot| slot.dims() == n), "tensors as long as the parameter");
}

/// Whether a number is read from this device only after all that was asked of it before: then it is better read late, with others.
pub fn is_queued(device: &Device) -> bool {
    device.clone().inner() != Device::flex()
}

/// What gradients are to be multiplied by and the norm of all of them together after that, if it is not clipped: `[2]`, of at least one
/// gradient, and on their device, which nothing waits for.
///
/// The factor is `factor`, or as much smaller as makes the norm `most`.
pub fn scaling(gradients: Vec<Tensor<1>>, factor: f64, most: Option<f64>) -> Tensor<1> {
    let (factor, most) = (factor as f32, most.map_or(f32::MAX, |most| most as f32));
    #[cfg(feature = "wgpu")]
    if gradients.iter().all(crate::cube::serves) {
        let gradients = gradients.into_iter().filter_map(crate::cube::primitive).collect();
        return Tensor::from_primitive::<burn::backend::Cube>(crate::cube::scaling(gradients, factor, most));
    }
    let squares: Vec<Tensor<1>> = gradients.into_iter().map(square_sum).collect();
    let norm = Tensor::cat(squares, 0).sum().sqrt() * factor;
    let smaller = norm.clone().recip() * most;
    Tensor::cat(vec![smaller.clamp_max(1.0) * factor, norm], 0)
}

/// Steps of several parameters, made together where the device can: at latest when this is dropped, and only then what it gave may
/// be read.
#[derive(Debug)]
pub struct Updates {
    scaling: Option<Tensor<1>>,
    #[cfg(feature = "wgpu")]
    queue: crate::cube::Queue,
}

impl Updates {
    /// `scaling`: what all gradients are multiplied by besides [`Step::scale`], the first number of what [`scaling`] gives.
    pub fn new(scaling: Option<Tensor<1>>) -> Self {
        #[cfg(feature = "wgpu")]
        let queue = crate::cube::Queue::new(scaling.clone().and_then(crate::cube::primitive));
        Self {
            scaling,
            #[cfg(feature = "wgpu")]
            queue,
        }
    }

    /// The number that all gradients are multiplied by besides [`Step::scale`], `[1]`.
    pub fn scaling(&self) -> Option<Tensor<1>> {
        self.scaling.clone().map(|scaling| scaling.narrow(0, 0, 1))
    }

    /// As [`update`].
    ///
    /// # Panics
    /// As [`update`].
    pub fn update(
        &mut self,
        parameter: Tensor<1>,
        gradient: Tensor<1>,
        state: &mut Vec<Tensor<1>>,
        rule: Rule,
        step: Step,
    ) -> Tensor<1> {
        #[cfg(feature = "wgpu")]
        if crate::cube::serves(&parameter) {
            check(&parameter, &gradient, state, rule);
            return self.queue.step(parameter, gradient, state, rule, step);
        }
        let gradient = match self.scaling() {
            Some(scaling) => gradient * scaling,
            None => gradient,
        };
        update(parameter, gradient, state, rule, step)
    }
}

/// The sum of the squares of a tensor, `[1]`: the square of its part of the global gradient norm.
///
/// On the CPU it is summed in double precision over fixed chunks, so any number of threads gives the same bits.
pub fn square_sum(tensor: Tensor<1>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as UpdateOps>::square_sum(tensor.into_dispatch()))
}

/// Moves a running average `[n]` towards a parameter `[n]`: `a ← a + share · (w − a)`, in one pass and in place where nobody else
/// holds the average. A share of 1 makes it the parameter, to the last bit.
///
/// With the shares 1, 1/2, 1/3, … it is the mean of all parameters that it was given. No tensor may be on an autodiff device.
///
/// # Panics
/// If the two are not equally long.
pub fn average(average: Tensor<1>, parameter: Tensor<1>, share: f32) -> Tensor<1> {
    assert_eq!(average.dims(), parameter.dims(), "an average as long as its parameter");
    let (average, parameter) = (average.into_dispatch(), parameter.into_dispatch());
    Tensor::from_dispatch(<Dispatch as UpdateOps>::average(average, parameter, share))
}

/// The backend operations behind [`update`], [`average`] and [`square_sum`].
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"))]
pub trait UpdateOps: Backend {
    /// One step of a rule without state.
    fn update_stateless(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        rule: Rule,
        step: Step,
    ) -> FloatTensor<Self> {
        portable::update::<Self, 0>(parameter, gradient, [], rule, step).0
    }

    /// One step of a rule with one slot: the parameter and the slot.
    fn update_one_slot(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        slot: FloatTensor<Self>,
        rule: Rule,
        step: Step,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (parameter, [slot]) = portable::update::<Self, 1>(parameter, gradient, [slot], rule, step);
        (parameter, slot)
    }

    /// One step of a rule with two slots: the parameter and the slots.
    fn update_two_slots(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        rule: Rule,
        step: Step,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (parameter, [first, second]) =
            portable::update::<Self, 2>(parameter, gradient, [first, second], rule, step);
        (parameter, first, second)
    }

    /// The average, moved.
    fn average(average: FloatTensor<Self>, parameter: FloatTensor<Self>, share: f32) -> FloatTensor<Self> {
        portable::average::<Self>(average, parameter, share)
    }

    /// The sum of squares, `[1]`.
    fn square_sum(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::square_sum::<Self>(tensor)
    }
}

impl UpdateOps for Flex {
    fn update_stateless(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        rule: Rule,
        step: Step,
    ) -> FloatTensor<Self> {
        on_slices(parameter, gradient, [], rule, step).0
    }

    fn update_one_slot(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        slot: FloatTensor<Self>,
        rule: Rule,
        step: Step,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (parameter, [slot]) = on_slices(parameter, gradient, [slot], rule, step);
        (parameter, slot)
    }

    fn update_two_slots(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        rule: Rule,
        step: Step,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (parameter, [first, second]) = on_slices(parameter, gradient, [first, second], rule, step);
        (parameter, first, second)
    }

    fn average(average: FloatTensor<Self>, parameter: FloatTensor<Self>, share: f32) -> FloatTensor<Self> {
        if !flex::is_f32(&average) {
            return portable::average::<Self>(average, parameter, share);
        }
        let parameter = flex::dense(parameter);
        let mut average = flex::into_owned(flex::dense(average));
        let averages = flex::slice_mut(&mut average).par_chunks_mut(CHUNK);
        let both = averages.zip(flex::slice(&parameter).par_chunks(CHUNK));
        match share {
            1.0 => both.for_each(|(a, w)| a.copy_from_slice(w)),
            _ => both.for_each(|(a, w)| average_chunk(a, w, share)),
        }
        average
    }

    fn square_sum(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        if !flex::is_f32(&tensor) {
            return portable::square_sum::<Self>(tensor);
        }
        let tensor = flex::dense(tensor);
        let parts: Vec<f64> = flex::slice(&tensor).par_chunks(CHUNK).map(square_sum_chunk).collect();
        flex::wrap(vec![parts.iter().sum::<f64>() as f32], [1])
    }
}

/// The Flex body: every array is read and written once.
fn on_slices<const S: usize>(
    parameter: FloatTensor<Flex>,
    gradient: FloatTensor<Flex>,
    state: [FloatTensor<Flex>; S],
    rule: Rule,
    step: Step,
) -> (FloatTensor<Flex>, [FloatTensor<Flex>; S]) {
    if !flex::is_f32(&parameter) {
        return portable::update::<Flex, S>(parameter, gradient, state, rule, step);
    }
    let gradient = flex::dense(gradient);
    let gradients = flex::slice(&gradient).par_chunks(CHUNK);
    let mut parameter = flex::into_owned(flex::dense(parameter));
    let mut state = state.map(|slot| flex::into_owned(flex::dense(slot)));
    let parameters = flex::slice_mut(&mut parameter).par_chunks_mut(CHUNK);
    match state.as_mut_slice() {
        [] => parameters.zip(gradients).for_each(|(w, d)| sgd_chunk(w, d, step)),
        [only] => {
            let only = flex::slice_mut(only).par_chunks_mut(CHUNK);
            match rule {
                Rule::Momentum { momentum, nesterov } => {
                    let (own, ahead) = if nesterov { (1.0, momentum) } else { (0.0, 1.0) };
                    parameters
                        .zip(gradients)
                        .zip(only)
                        .for_each(|((w, d), v)| momentum_chunk(w, d, v, step, momentum, own, ahead));
                }
                Rule::RmsProp { complement, epsilon } => parameters
                    .zip(gradients)
                    .zip(only)
                    .for_each(|((w, d), s)| rms_prop_chunk(w, d, s, step, complement, epsilon)),
                _ => unreachable!("{rule:?} does not have one slot"),
            }
        }
        [first, second] => {
            let (first, second) =
                (flex::slice_mut(first).par_chunks_mut(CHUNK), flex::slice_mut(second).par_chunks_mut(CHUNK));
            let all = parameters.zip(gradients).zip(first.zip(second));
            match rule {
                Rule::RmsPropMomentum { complement, epsilon, momentum } => all.for_each(|((w, d), (s, v))| {
                    rms_prop_momentum_chunk(w, d, s, v, step, complement, epsilon, momentum);
                }),
                Rule::Adam { .. } => all.for_each(|((w, d), (m, s))| adam_chunk(w, d, m, s, step, rule)),
                _ => unreachable!("{rule:?} does not have two slots"),
            }
        }
        _ => unreachable!("no rule has more than two slots"),
    }
    (parameter, state)
}

/// `g`.
#[inline(always)]
fn effective(w: f32, d: f32, step: Step) -> f32 {
    let sign = f32::from(i8::from(w > 0.0) - i8::from(w < 0.0));
    step.scale * d + step.l1 * sign + step.l2 * w
}

/// `x − complement · x + complement · new`: a running mean. Its decay is one less the complement, to the complement's own
/// precision, and a complement of one leaves nothing of `x`.
#[inline(always)]
fn mean(x: f32, complement: f32, new: f32) -> f32 {
    (x - complement * x) + complement * new
}

#[inline(always)]
fn sgd<const FMA: bool>(w: &mut [f32], d: &[f32], step: Step) {
    for (w, &d) in w.iter_mut().zip(d) {
        *w -= step.rate * effective(*w, d, step);
    }
}
multiversion!(fn sgd_chunk(w: &mut [f32], d: &[f32], step: Step) = sgd);

/// `w ← w − rate · (own · g + ahead · v)`.
#[inline(always)]
fn momentum<const FMA: bool>(w: &mut [f32], d: &[f32], v: &mut [f32], step: Step, momentum: f32, own: f32, ahead: f32) {
    for ((w, &d), v) in w.iter_mut().zip(d).zip(v) {
        let g = effective(*w, d, step);
        *v = momentum * *v + g;
        *w -= step.rate * (own * g + ahead * *v);
    }
}
multiversion!(
    fn momentum_chunk(
        w: &mut [f32], d: &[f32], v: &mut [f32], step: Step, velocity_decay: f32, own: f32, ahead: f32
    ) = momentum
);

#[inline(always)]
fn rms_prop<const FMA: bool>(w: &mut [f32], d: &[f32], s: &mut [f32], step: Step, complement: f32, epsilon: f32) {
    for ((w, &d), s) in w.iter_mut().zip(d).zip(s) {
        let g = effective(*w, d, step);
        *s = mean(*s, complement, g * g);
        *w -= step.rate * g / (*s + epsilon).sqrt();
    }
}
multiversion!(
    fn rms_prop_chunk(w: &mut [f32], d: &[f32], s: &mut [f32], step: Step, complement: f32, epsilon: f32) = rms_prop
);

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn rms_prop_momentum<const FMA: bool>(
    w: &mut [f32],
    d: &[f32],
    s: &mut [f32],
    v: &mut [f32],
    step: Step,
    complement: f32,
    epsilon: f32,
    momentum: f32,
) {
    for ((w, &d), (s, v)) in w.iter_mut().zip(d).zip(s.iter_mut().zip(v)) {
        let g = effective(*w, d, step);
        *s = mean(*s, complement, g * g);
        *v = momentum * *v + step.rate * g / (*s + epsilon).sqrt();
        *w -= *v;
    }
}
multiversion!(
    fn rms_prop_momentum_chunk(
        w: &mut [f32], d: &[f32], s: &mut [f32], v: &mut [f32], step: Step, complement: f32, epsilon: f32, momentum: f32
    ) = rms_prop_momentum
);

#[inline(always)]
fn adam<const FMA: bool>(w: &mut [f32], d: &[f32], m: &mut [f32], s: &mut [f32], step: Step, rule: Rule) {
    let Rule::Adam { complement1, complement2, epsilon, correction1, correction2, weight_decay } = rule else {
        unreachable!("{rule:?} is not Adam")
    };
    let (keep, rate) = (1.0 - step.rate * weight_decay, step.rate / correction1);
    let root = 1.0 / correction2.sqrt();
    for ((w, &d), (m, s)) in w.iter_mut().zip(d).zip(m.iter_mut().zip(s)) {
        let g = effective(*w, d, step);
        *m = mean(*m, complement1, g);
        *s = mean(*s, complement2, g * g);
        *w = keep * *w - rate * *m / (s.sqrt() * root + epsilon);
    }
}
multiversion!(
    fn adam_chunk(w: &mut [f32], d: &[f32], m: &mut [f32], s: &mut [f32], step: Step, rule: Rule) = adam
);

/// In eight lanes of double precision.
#[inline(always)]
fn square_sum_lanes<const FMA: bool>(x: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    let (eights, rest) = x.as_chunks::<8>();
    for eight in eights {
        for (lane, &x) in lanes.iter_mut().zip(eight) {
            *lane += f64::from(x) * f64::from(x);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
}
multiversion!(pub(crate) fn square_sum_chunk(x: &[f32]) -> f64 = square_sum_lanes);

#[inline(always)]
fn average_body<const FMA: bool>(a: &mut [f32], w: &[f32], share: f32) {
    for (a, &w) in a.iter_mut().zip(w) {
        *a += share * (w - *a);
    }
}
multiversion!(fn average_chunk(a: &mut [f32], w: &[f32], share: f32) = average_body);

/// The same steps from backend operations, for every other device and as the oracle of the tests.
pub(crate) mod portable {
    use super::*;

    fn times<B: Backend>(x: FloatTensor<B>, by: f32) -> FloatTensor<B> {
        B::float_mul_scalar(x, by.into())
    }

    pub(crate) fn average<B: Backend>(a: FloatTensor<B>, w: FloatTensor<B>, share: f32) -> FloatTensor<B> {
        match share {
            1.0 => w,
            _ => B::float_add(a.clone(), times::<B>(B::float_sub(w, a), share)),
        }
    }

    /// `a · x + b · y`.
    fn blend<B: Backend>(a: f32, x: FloatTensor<B>, b: f32, y: FloatTensor<B>) -> FloatTensor<B> {
        B::float_add(times::<B>(x, a), times::<B>(y, b))
    }

    /// As [`super::mean`].
    fn mean<B: Backend>(x: FloatTensor<B>, complement: f32, new: FloatTensor<B>) -> FloatTensor<B> {
        let less = B::float_sub(x.clone(), times::<B>(x, complement));
        B::float_add(less, times::<B>(new, complement))
    }

    /// `g / √(s + ε)`.
    fn normalised<B: Backend>(g: FloatTensor<B>, s: FloatTensor<B>, epsilon: f32) -> FloatTensor<B> {
        B::float_div(g, B::float_sqrt(B::float_add_scalar(s, epsilon.into())))
    }

    pub(crate) fn square_sum<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
        B::float_sum(B::float_mul(x.clone(), x))
    }

    pub(crate) fn update<B: Backend, const S: usize>(
        w: FloatTensor<B>,
        d: FloatTensor<B>,
        state: [FloatTensor<B>; S],
        rule: Rule,
        step: Step,
    ) -> (FloatTensor<B>, [FloatTensor<B>; S]) {
        let mut g = times::<B>(d, step.scale);
        if step.l1 != 0.0 {
            g = B::float_add(g, times::<B>(B::float_sign(w.clone()), step.l1));
        }
        if step.l2 != 0.0 {
            g = B::float_add(g, times::<B>(w.clone(), step.l2));
        }
        let less = |w, change| B::float_sub(w, times::<B>(change, step.rate));
        let mut state = state.to_vec();
        let w = match (rule, state.as_mut_slice()) {
            (Rule::Sgd, []) => less(w, g),
            (Rule::Momentum { momentum, nesterov }, [v]) => {
                *v = B::float_add(times::<B>(v.clone(), momentum), g.clone());
                let change = if nesterov { blend::<B>(1.0, g, momentum, v.clone()) } else { v.clone() };
                less(w, change)
            }
            (Rule::RmsProp { complement, epsilon }, [s]) => {
                *s = mean::<B>(s.clone(), complement, B::float_mul(g.clone(), g.clone()));
                less(w, normalised::<B>(g, s.clone(), epsilon))
            }
            (Rule::RmsPropMomentum { complement, epsilon, momentum }, [s, v]) => {
                *s = mean::<B>(s.clone(), complement, B::float_mul(g.clone(), g.clone()));
                *v = blend::<B>(momentum, v.clone(), step.rate, normalised::<B>(g, s.clone(), epsilon));
                B::float_sub(w, v.clone())
            }
            (Rule::Adam { complement1, complement2, epsilon, correction1, correction2, weight_decay }, [m, s]) => {
                *m = mean::<B>(m.clone(), complement1, g.clone());
                *s = mean::<B>(s.clone(), complement2, B::float_mul(g.clone(), g));
                let root = times::<B>(B::float_sqrt(s.clone()), 1.0 / correction2.sqrt());
                let change = B::float_div(m.clone(), B::float_add_scalar(root, epsilon.into()));
                B::float_sub(times::<B>(w, 1.0 - step.rate * weight_decay), times::<B>(change, step.rate / correction1))
            }
            _ => unreachable!("{rule:?} does not have {S} slots"),
        };
        (w, state.try_into().unwrap_or_else(|_| unreachable!("the slots are only replaced")))
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::random::Key;
    use burn::tensor::{Device, TensorData};

    use super::*;

    const STEP: Step = Step { rate: 0.1, scale: 0.5, l1: 0.01, l2: 0.02 };

    fn rules() -> Vec<Rule> {
        vec![
            Rule::Sgd,
            Rule::Momentum { momentum: 0.9, nesterov: false },
            Rule::Momentum { momentum: 0.9, nesterov: true },
            Rule::RmsProp { complement: 0.1, epsilon: 1e-7 },
            Rule::RmsPropMomentum { complement: 0.1, epsilon: 1e-7, momentum: 0.5 },
            adam(1, 0.0),
            adam(3, 0.01),
        ]
    }

    fn adam(t: i32, weight_decay: f32) -> Rule {
        let (correction1, correction2) = (1.0 - 0.9_f32.powi(t), 1.0 - 0.999_f32.powi(t));
        Rule::Adam { complement1: 0.1, complement2: 0.001, epsilon: 1e-8, correction1, correction2, weight_decay }
    }

    fn random(n: usize, name: &str) -> Vec<f32> {
        let key = Key::from_seed(4).named(name);
        (0..n as u64).map(|i| if i % 97 == 5 { 0.0 } else { key.normal(i) as f32 }).collect()
    }

    fn tensor(values: Vec<f32>) -> Tensor<1> {
        let n = values.len();
        Tensor::from_data(TensorData::new(values, [n]), &Device::flex())
    }

    fn values(tensor: Tensor<1>) -> Vec<f32> {
        tensor.into_data().as_slice::<f32>().unwrap().to_vec()
    }

    /// A state as it may stand in the middle of a run: second moments are positive.
    fn state(rule: Rule, n: usize) -> Vec<Vec<f32>> {
        let squares = || random(n, "square").iter().map(|x| x * x).collect::<Vec<f32>>();
        match rule {
            Rule::Sgd => vec![],
            Rule::Momentum { .. } => vec![random(n, "velocity")],
            Rule::RmsProp { .. } => vec![squares()],
            Rule::RmsPropMomentum { .. } => vec![squares(), random(n, "velocity")],
            Rule::Adam { .. } => vec![random(n, "velocity"), squares()],
        }
    }

    fn run_flex(rule: Rule, n: usize) -> Vec<Vec<f32>> {
        let mut slots = state(rule, n).into_iter().map(tensor).collect();
        let w = update(tensor(random(n, "w")), tensor(random(n, "d")), &mut slots, rule, STEP);
        std::iter::once(w).chain(slots).map(values).collect()
    }

    fn run_portable(rule: Rule, n: usize) -> Vec<Vec<f32>> {
        fn go<const S: usize>(rule: Rule, n: usize) -> Vec<Vec<f32>> {
            let wrap = |x: Vec<f32>| flex::wrap(x, [n]);
            let slots: [FloatTensor<Flex>; S] =
                state(rule, n).into_iter().map(wrap).collect::<Vec<_>>().try_into().unwrap();
            let (w, d) = (wrap(random(n, "w")), wrap(random(n, "d")));
            let (w, slots) = portable::update::<Flex, S>(w, d, slots, rule, STEP);
            std::iter::once(w).chain(slots).map(|t| flex::slice(&t).to_vec()).collect()
        }
        match rule.slots() {
            0 => go::<0>(rule, n),
            1 => go::<1>(rule, n),
            _ => go::<2>(rule, n),
        }
    }

    /// The formulas of PyTorch (SGD, Adam, AdamW) and Keras 3 (RMSprop), one element in double precision.
    fn by_hand(rule: Rule, w: f64, d: f64, state: &[f64]) -> Vec<f64> {
        let f = f64::from;
        let rate = f(STEP.rate);
        let sign = if w == 0.0 { 0.0 } else { w.signum() };
        let g = f(STEP.scale) * d + f(STEP.l1) * sign + f(STEP.l2) * w;
        match rule {
            Rule::Sgd => vec![w - rate * g],
            Rule::Momentum { momentum, nesterov } => {
                let v = f(momentum) * state[0] + g;
                vec![w - rate * if nesterov { g + f(momentum) * v } else { v }, v]
            }
            Rule::RmsProp { complement, epsilon } => {
                let s = (1.0 - f(complement)) * state[0] + f(complement) * g * g;
                vec![w - rate * g / (s + f(epsilon)).sqrt(), s]
            }
            Rule::RmsPropMomentum { complement, epsilon, momentum } => {
                let s = (1.0 - f(complement)) * state[0] + f(complement) * g * g;
                let v = f(momentum) * state[1] + rate * g / (s + f(epsilon)).sqrt();
                vec![w - v, s, v]
            }
            Rule::Adam { complement1, complement2, epsilon, correction1, correction2, weight_decay } => {
                let m = (1.0 - f(complement1)) * state[0] + f(complement1) * g;
                let s = (1.0 - f(complement2)) * state[1] + f(complement2) * g * g;
                let decayed = w * (1.0 - rate * f(weight_decay));
                let step = rate * (m / f(correction1)) / ((s / f(correction2)).sqrt() + f(epsilon));
                vec![decayed - step, m, s]
            }
        }
    }

    #[test]
    fn the_slice_body_equals_the_portable_body() {
        for rule in rules() {
            for n in [1, 7, CHUNK, 2 * CHUNK + 37] {
                for (flex, portable) in run_flex(rule, n).iter().zip(run_portable(rule, n)) {
                    for (a, b) in flex.iter().zip(portable) {
                        assert!((a - b).abs() <= 2e-6 * b.abs().max(1.0), "{rule:?} of {n}: {a} is not {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn steps_follow_the_published_formulas() {
        let n = 500;
        for rule in rules() {
            let (w, d, before) = (random(n, "w"), random(n, "d"), state(rule, n));
            let after = run_flex(rule, n);
            for i in 0..n {
                let slots: Vec<f64> = before.iter().map(|slot| f64::from(slot[i])).collect();
                for (got, want) in after.iter().zip(by_hand(rule, w[i].into(), d[i].into(), &slots)) {
                    let error = (f64::from(got[i]) - want).abs() / want.abs().max(1.0);
                    assert!(error < 2e-6, "{rule:?}, element {i}: {} is not {want}", got[i]);
                }
            }
        }
    }

    #[test]
    fn a_complement_of_one_leaves_nothing_of_the_past() {
        let rule = Rule::RmsProp { complement: 1.0, epsilon: 1.0 };
        let mut state = vec![tensor(vec![1e6, 3.0])];
        let step = Step { scale: 1.0, l1: 0.0, l2: 0.0, ..STEP };
        update(tensor(vec![0.0; 2]), tensor(vec![1e-3, 0.0]), &mut state, rule, step);
        assert_eq!(values(state.remove(0)), [1e-3 * 1e-3, 0.0]);
    }

    #[test]
    fn an_average_is_the_mean_of_what_it_was_given_and_of_equal_parts_itself() {
        for n in [1, 7, 2 * CHUNK + 37] {
            let parts: Vec<Vec<f32>> = (0..5).map(|i| random(n, &format!("part {i}"))).collect();
            let mut mean = tensor(vec![f32::NAN; n]);
            let mut same = tensor(parts[0].clone());
            for (i, part) in parts.iter().enumerate() {
                mean = average(mean, tensor(part.clone()), 1.0 / (i + 1) as f32);
                same = average(same, tensor(parts[0].clone()), 0.3);
                if i == 0 {
                    assert_eq!(values(mean.clone()), parts[0]);
                }
            }
            assert_eq!(values(same), parts[0]);
            for (i, mean) in values(mean).into_iter().enumerate() {
                let truth = parts.iter().map(|part| f64::from(part[i])).sum::<f64>() / 5.0;
                assert!((f64::from(mean) - truth).abs() < 1e-6, "{i}: {mean} is not {truth}");
            }
            let [a, w] = ["a", "w"].map(|name| flex::wrap(random(n, name), [n]));
            let portable = portable::average::<Flex>(a, w, 0.3);
            let ours = values(average(tensor(random(n, "a")), tensor(random(n, "w")), 0.3));
            assert!(ours.iter().zip(flex::slice(&portable)).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }

    #[test]
    fn a_factor_clips_the_norm_of_all_gradients_together_and_steps_take_it() {
        let parts = || ["a", "b", "c"].map(|name| random(300, name));
        let norm = parts().concat().iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() * 0.25;
        for (most, factor) in [(None, 0.25), (Some(2.0 * norm), 0.25), (Some(norm / 3.0), 0.25 / 3.0)] {
            let scaling = scaling(parts().map(tensor).into(), 0.25, most);
            let found = values(scaling.clone());
            assert!((f64::from(found[0]) - factor).abs() < 1e-6 && (f64::from(found[1]) - norm).abs() < 1e-4);
            let (mut updates, step) = (Updates::new(Some(scaling)), Step { scale: 1.0, ..STEP });
            let (w, d) = (|| tensor(random(300, "w")), || tensor(random(300, "a")));
            let together = values(updates.update(w(), d(), &mut vec![], Rule::Sgd, step));
            let alone = update(w(), d(), &mut vec![], Rule::Sgd, Step { scale: factor as f32, ..step });
            assert!(together.iter().zip(values(alone)).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }

    #[test]
    fn what_nobody_else_holds_is_written_in_place() {
        let address = |t: &Tensor<1>| t.clone().try_into_primitive::<Flex>().unwrap().bytes().as_ptr();
        let (w, mut slots) = (tensor(random(99, "w")), vec![tensor(vec![0.0; 99])]);
        let before = (address(&w), address(&slots[0]));
        let rule = Rule::Momentum { momentum: 0.9, nesterov: false };
        let w = update(w, tensor(random(99, "d")), &mut slots, rule, STEP);
        assert_eq!((address(&w), address(&slots[0])), before);
        let mean = tensor(random(99, "mean"));
        let before = address(&mean);
        assert_eq!(address(&average(mean, w.clone(), 0.5)), before);

        let (held, kept) = (w.clone(), values(w.clone()));
        let w = update(w, tensor(random(99, "d")), &mut slots, rule, STEP);
        assert_eq!(values(held), kept);
        assert_ne!(values(w), kept);
    }

    #[test]
    fn a_strided_gradient_is_read_in_the_order_of_its_elements() {
        let d = Tensor::<2>::from_data([[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::flex()).transpose();
        let step = Step { rate: 1.0, scale: 1.0, l1: 0.0, l2: 0.0 };
        let w = update(tensor(vec![0.0; 6]), d.reshape([6]), &mut vec![], Rule::Sgd, step);
        assert_eq!(values(w), [-1.0, -4.0, -2.0, -5.0, -3.0, -6.0]);
    }

    #[test]
    fn the_sum_of_squares_has_the_same_bits_on_any_number_of_threads() {
        let x = random(5 * CHUNK + 321, "x");
        let truth: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let sum = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| values(square_sum(tensor(x.clone())))[0])
        };
        assert_eq!([1, 2, 7].map(|threads| sum(threads).to_bits()), [sum(1).to_bits(); 3]);
        assert!((f64::from(sum(1)) - truth).abs() < 1e-6 * truth);
        assert_eq!(values(square_sum(tensor(vec![3.0, 4.0]))), [25.0]);
    }
}
