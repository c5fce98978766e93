//! An optimizer's steps, a running average and the norm of a gradient on a GPU: several parameters in one launch, and no number that
//! the host waits for.
//!
//! A launch has as many cubes for each of its parameters as that is long for, up to a bound. Which rule it is, and how many
//! parameters, is compiled in; their lengths and all numbers of the rule are not.

use burn::backend::Cube;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::sums::total;
use super::{UNITS, dense, into_owned, is_f32, primitive, unwritten};
use crate::update::{Rule, Step, UpdateOps, portable};

/// Numbers that a cube takes, as long as a parameter does not have so many that its cubes take several turns.
const BLOCK: usize = 4 * UNITS;

/// Cubes of one parameter at most.
const MOST_UPDATING: usize = 4096;
const MOST_SUMMING: usize = 256;

/// Buffers of a launch at most, where the device has as many.
const BUFFERS: usize = 64;

/// What a step multiplies and adds, for each parameter: the rate, the factor of the gradient, `l1` and `l2`, and what the rule has.
const NUMBERS: usize = 10;

/// Which rule it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Sgd,
    Momentum,
    RmsProp,
    RmsPropMomentum,
    Adam,
}

/// The rule without its numbers, and these.
fn parts(rule: Rule, step: Step) -> (Kind, [f32; NUMBERS]) {
    let Step { rate, scale, l1, l2 } = step;
    let (kind, [a, b, c, d, e, f]) = match rule {
        Rule::Sgd => (Kind::Sgd, [0.0; 6]),
        Rule::Momentum { momentum, nesterov } => {
            let (own, ahead) = if nesterov { (1.0, momentum) } else { (0.0, 1.0) };
            (Kind::Momentum, [momentum, own, ahead, 0.0, 0.0, 0.0])
        }
        Rule::RmsProp { complement, epsilon } => (Kind::RmsProp, [complement, epsilon, 0.0, 0.0, 0.0, 0.0]),
        Rule::RmsPropMomentum { complement, epsilon, momentum } => {
            (Kind::RmsPropMomentum, [complement, epsilon, momentum, 0.0, 0.0, 0.0])
        }
        Rule::Adam { complement1, complement2, epsilon, correction1, correction2, weight_decay } => (
            Kind::Adam,
            [
                complement1,
                complement2,
                epsilon,
                1.0 - rate * weight_decay,
                rate / correction1,
                1.0 / correction2.sqrt(),
            ],
        ),
    };
    (kind, [rate, scale, l1, l2, a, b, c, d, e, f])
}

/// `x − complement · x + complement · new`.
#[cube]
fn mean(x: f32, complement: f32, new: f32) -> f32 {
    (x - complement * x) + complement * new
}

/// The steps of some parameters `[n]`, with their gradients, `slots` arrays each, and the factor of all gradients, if that is on the
/// device. `begins`: the first cube of each, and behind the last one; `numbers`: [`NUMBERS`] of each.
#[cube(launch_unchecked)]
fn update_kernel(
    mut parameters: Sequence<Box<[f32]>>,
    gradients: Sequence<Box<[f32]>>,
    mut states: Sequence<Box<[f32]>>,
    factor: Sequence<Box<[f32]>>,
    lengths: Sequence<u32>,
    begins: Sequence<u32>,
    numbers: Sequence<f32>,
    #[comptime] kind: Kind,
    #[comptime] slots: usize,
) {
    let cube = CUBE_POS_X;
    let count = parameters.len().comptime();
    let mut factor_of_all = 1.0f32;
    let is_given = factor.len().comptime() > 0;
    if is_given {
        factor_of_all = factor.index(0)[0];
    }
    #[unroll]
    for i in 0..count {
        let begin = begins[i];
        let end = begins[comptime!(i + 1)];
        if cube >= begin && cube < end {
            let rate = numbers[comptime!(i * NUMBERS)];
            let scale = numbers[comptime!(i * NUMBERS + 1)] * factor_of_all;
            let l1 = numbers[comptime!(i * NUMBERS + 2)];
            let l2 = numbers[comptime!(i * NUMBERS + 3)];
            let a = numbers[comptime!(i * NUMBERS + 4)];
            let b = numbers[comptime!(i * NUMBERS + 5)];
            let c = numbers[comptime!(i * NUMBERS + 6)];
            let keep = numbers[comptime!(i * NUMBERS + 7)];
            let corrected_rate = numbers[comptime!(i * NUMBERS + 8)];
            let root = numbers[comptime!(i * NUMBERS + 9)];
            let stride = (end - begin) as usize * UNITS;
            let mut at = (cube - begin) as usize * UNITS + UNIT_POS as usize;
            while at < lengths[i] as usize {
                let w = parameters.index(i)[at];
                let sign = select(w > 0.0f32, 1.0f32, select(w < 0.0f32, -1.0f32, 0.0f32));
                let g = scale * gradients.index(i)[at] + l1 * sign + l2 * w;
                if comptime!(kind == Kind::Sgd) {
                    parameters.index_mut(i)[at] = w - rate * g;
                } else if comptime!(kind == Kind::Momentum) {
                    let v = a * states.index(comptime!(i * slots))[at] + g;
                    states.index_mut(comptime!(i * slots))[at] = v;
                    parameters.index_mut(i)[at] = w - rate * (b * g + c * v);
                } else if comptime!(kind == Kind::RmsProp) {
                    let s = mean(states.index(comptime!(i * slots))[at], a, g * g);
                    states.index_mut(comptime!(i * slots))[at] = s;
                    parameters.index_mut(i)[at] = w - rate * g / (s + b).sqrt();
                } else if comptime!(kind == Kind::RmsPropMomentum) {
                    let s = mean(states.index(comptime!(i * slots))[at], a, g * g);
                    states.index_mut(comptime!(i * slots))[at] = s;
                    let v = c * states.index(comptime!(i * slots + 1))[at] + rate * g / (s + b).sqrt();
                    states.index_mut(comptime!(i * slots + 1))[at] = v;
                    parameters.index_mut(i)[at] = w - v;
                } else {
                    let m = mean(states.index(comptime!(i * slots))[at], a, g);
                    states.index_mut(comptime!(i * slots))[at] = m;
                    let s = mean(states.index(comptime!(i * slots + 1))[at], b, g * g);
                    states.index_mut(comptime!(i * slots + 1))[at] = s;
                    parameters.index_mut(i)[at] = keep * w - corrected_rate * m / (s.sqrt() * root + c);
                }
                at += stride;
            }
        }
    }
}

/// Moves averages towards their parameters: `a ← a + share · (w − a)`, or `a ← w` where the share is 1.
#[cube(launch_unchecked)]
fn average_kernel(average: &mut [f32], parameter: &[f32], length: u32, share: f32) {
    let stride = CUBE_COUNT * UNITS;
    let mut at = ABSOLUTE_POS;
    while at < length as usize {
        let (a, w) = (average[at], parameter[at]);
        average[at] = select(share == 1.0f32, w, a + share * (w - a));
        at += stride;
    }
}

/// Sums of squares, one of each cube: those of some arrays, whose first cubes are `begins`.
#[cube(launch_unchecked)]
fn squares_kernel(
    arrays: Sequence<Box<[f32]>>,
    sums: &mut [f32],
    lengths: Sequence<u32>,
    begins: Sequence<u32>,
    first: u32,
) {
    let cube = CUBE_POS_X;
    let count = arrays.len().comptime();
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..count {
        let begin = begins[i];
        let end = begins[comptime!(i + 1)];
        if cube >= begin && cube < end {
            let stride = (end - begin) as usize * UNITS;
            let mut at = (cube - begin) as usize * UNITS + UNIT_POS as usize;
            while at < lengths[i] as usize {
                let x = arrays.index(i)[at];
                sum += x * x;
                at += stride;
            }
        }
    }
    let sum = total(sum);
    if UNIT_POS == 0 {
        sums[(first + cube) as usize] = sum;
    }
}

/// One cube: the sum of sums, and of it, if `norm` is, the factor of a gradient and its norm times `factor`: the factor is so small
/// that the norm is not above `most`.
#[cube(launch_unchecked)]
fn norm_kernel(sums: &[f32], found: &mut [f32], count: u32, factor: f32, most: f32, #[comptime] norm: bool) {
    let mut sum = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < count as usize {
        sum += sums[at];
        at += UNITS;
    }
    let sum = total(sum);
    if UNIT_POS == 0 {
        if norm {
            let norm = sum.sqrt() * factor;
            found[0] = select(norm > most, factor * (most / norm), factor);
            found[1] = norm;
        } else {
            found[0] = sum;
        }
    }
}

/// The cubes of some arrays: the first of each, and behind the last one.
fn begins(lengths: impl Iterator<Item = usize>, most: usize) -> Vec<u32> {
    let mut begins = vec![0];
    for length in lengths {
        let cubes = length.div_ceil(BLOCK).clamp(1, most);
        begins.push(begins[begins.len() - 1] + cubes as u32);
    }
    begins
}

fn length(tensor: &CubeTensor) -> usize {
    tensor.meta.num_elements()
}

/// Buffers that a launch may have.
fn buffers(tensor: &CubeTensor) -> usize {
    // One holds the lengths and numbers.
    BUFFERS.min(tensor.client.properties().hardware.max_bindings as usize - 1)
}

/// One parameter's step that is to be made.
#[derive(Debug)]
struct Task {
    parameter: CubeTensor,
    gradient: CubeTensor,
    states: Vec<CubeTensor>,
    numbers: [f32; NUMBERS],
}

/// Steps that are made together. What [`push`](Self::push) gives is written by [`launch`](Self::launch), before whatever is asked of
/// the device after that.
#[derive(Debug)]
pub(crate) struct Queue {
    kind: Kind,
    /// What all gradients are multiplied by, in its first number.
    factor: Option<CubeTensor>,
    tasks: Vec<Task>,
}

impl Queue {
    pub(crate) fn new(factor: Option<CubeTensor>) -> Self {
        Self { kind: Kind::Sgd, factor, tasks: Vec::new() }
    }

    /// Takes up the step of an `f32` parameter; → what it will be, and its state.
    pub(crate) fn push(
        &mut self,
        parameter: CubeTensor,
        gradient: CubeTensor,
        states: Vec<CubeTensor>,
        rule: Rule,
        step: Step,
    ) -> (CubeTensor, Vec<CubeTensor>) {
        let (kind, numbers) = parts(rule, step);
        let most = (buffers(&parameter) - usize::from(self.factor.is_some())) / (2 + states.len());
        if kind != self.kind || self.tasks.len() >= most {
            self.launch();
            self.kind = kind;
        }
        let parameter = into_owned(dense(parameter));
        let states: Vec<CubeTensor> = states.into_iter().map(|slot| into_owned(dense(slot))).collect();
        let after = (parameter.clone(), states.clone());
        if length(&parameter) > 0 {
            self.tasks.push(Task { parameter, gradient: dense(gradient), states, numbers });
        }
        after
    }

    /// Makes the steps that were taken up.
    pub(crate) fn launch(&mut self) {
        let tasks = std::mem::take(&mut self.tasks);
        let Some(first) = tasks.first() else { return };
        let (client, slots) = (first.parameter.client.clone(), first.states.len());
        let lengths: Vec<usize> = tasks.iter().map(|task| length(&task.parameter)).collect();
        let begins = begins(lengths.iter().copied(), MOST_UPDATING);
        let cubes = begins[tasks.len()];
        let numbers: Vec<f32> = tasks.iter().flat_map(|task| task.numbers).collect();
        let (mut parameters, mut gradients, mut states) = (SequenceArg::new(), SequenceArg::new(), SequenceArg::new());
        for task in tasks {
            parameters.push(task.parameter.into_buffer_arg());
            gradients.push(task.gradient.into_buffer_arg());
            task.states.into_iter().for_each(|slot| states.push(slot.into_buffer_arg()));
        }
        // SAFETY: a unit stays below the length of its parameter, as long as which all its arrays are.
        unsafe {
            update_kernel::launch_unchecked(
                &client,
                CubeCount::Static(cubes, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                parameters,
                gradients,
                states,
                self.factor.iter().map(|factor| factor.clone().into_buffer_arg()).collect(),
                lengths.into_iter().map(|length| length as u32).collect(),
                begins.into_iter().collect(),
                numbers.into_iter().collect(),
                self.kind,
                slots,
            );
        }
    }
}

/// The step of one parameter, in a launch of its own.
fn update(
    parameter: CubeTensor,
    gradient: CubeTensor,
    states: Vec<CubeTensor>,
    rule: Rule,
    step: Step,
) -> (CubeTensor, Vec<CubeTensor>) {
    let mut queue = Queue::new(None);
    let after = queue.push(parameter, gradient, states, rule, step);
    queue.launch();
    after
}

/// The sums of squares of some arrays, as many as cubes summed them.
fn squares(arrays: Vec<CubeTensor>) -> CubeTensor {
    let most = buffers(&arrays[0]) - 1;
    let all = begins(arrays.iter().map(length), MOST_SUMMING);
    let sums = unwritten(&arrays[0], [all[arrays.len()] as usize]);
    let mut first = 0;
    for arrays in arrays.chunks(most) {
        let begins = begins(arrays.iter().map(length), MOST_SUMMING);
        let cubes = begins[arrays.len()];
        // SAFETY: a unit stays below the length of its array, and a cube writes one of as many sums as there are cubes.
        unsafe {
            squares_kernel::launch_unchecked(
                &sums.client,
                CubeCount::Static(cubes, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                arrays.iter().map(|array| dense(array.clone()).into_buffer_arg()).collect(),
                sums.clone().into_buffer_arg(),
                arrays.iter().map(|array| length(array) as u32).collect(),
                begins.into_iter().collect(),
                first,
            );
        }
        first += cubes;
    }
    sums
}

fn settle(sums: CubeTensor, factor: f32, most: f32, norm: bool) -> CubeTensor {
    let found = unwritten(&sums, [if norm { 2 } else { 1 }]);
    let count = length(&sums) as u32;
    // SAFETY: a unit stays below the number of sums.
    unsafe {
        norm_kernel::launch_unchecked(
            &found.client,
            CubeCount::Static(1, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            sums.into_buffer_arg(),
            found.clone().into_buffer_arg(),
            count,
            factor,
            most,
            norm,
        );
    }
    found
}

impl UpdateOps for Cube {
    fn update_stateless(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        rule: Rule,
        step: Step,
    ) -> FloatTensor<Self> {
        if !is_f32(&parameter) {
            return portable::update::<Self, 0>(parameter, gradient, [], rule, step).0;
        }
        update(parameter, gradient, vec![], rule, step).0
    }

    fn update_one_slot(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        slot: FloatTensor<Self>,
        rule: Rule,
        step: Step,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if !is_f32(&parameter) {
            let (parameter, [slot]) = portable::update::<Self, 1>(parameter, gradient, [slot], rule, step);
            return (parameter, slot);
        }
        let (parameter, mut slots) = update(parameter, gradient, vec![slot], rule, step);
        (parameter, slots.remove(0))
    }

    fn update_two_slots(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        rule: Rule,
        step: Step,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let slots = [first, second];
        let (parameter, slots) = match is_f32(&parameter) {
            true => update(parameter, gradient, slots.into(), rule, step),
            false => {
                let (parameter, slots) = portable::update::<Self, 2>(parameter, gradient, slots, rule, step);
                (parameter, slots.into())
            }
        };
        let [first, second] = slots.try_into().expect("the slots are only written to");
        (parameter, first, second)
    }

    fn average(average: FloatTensor<Self>, parameter: FloatTensor<Self>, share: f32) -> FloatTensor<Self> {
        if !is_f32(&average) || length(&average) == 0 {
            return portable::average::<Self>(average, parameter, share);
        }
        let average = into_owned(dense(average));
        let length = length(&average);
        let cubes = length.div_ceil(BLOCK).min(MOST_UPDATING) as u32;
        // SAFETY: a unit stays below the length of both.
        unsafe {
            average_kernel::launch_unchecked(
                &average.client,
                CubeCount::Static(cubes, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                average.clone().into_buffer_arg(),
                dense(parameter).into_buffer_arg(),
                length as u32,
                share,
            );
        }
        average
    }

    fn square_sum(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        if !is_f32(&tensor) {
            return portable::square_sum::<Self>(tensor);
        }
        settle(squares(vec![tensor]), 1.0, 0.0, false)
    }
}

/// What `f32` gradients are to be multiplied by, and their norm: see [`scaling`](crate::update::scaling).
pub(crate) fn scaling(gradients: Vec<CubeTensor>, factor: f32, most: f32) -> CubeTensor {
    settle(squares(gradients), factor, most, true)
}

impl Queue {
    /// [`push`](Self::push) of tensors that [`serves`](super::serves) is true for.
    pub(crate) fn step(
        &mut self,
        parameter: Tensor<1>,
        gradient: Tensor<1>,
        state: &mut Vec<Tensor<1>>,
        rule: Rule,
        step: Step,
    ) -> Tensor<1> {
        let own = |tensor| primitive(tensor).expect("all are on one device");
        let states = state.drain(..).map(own).collect();
        let (parameter, states) = self.push(own(parameter), own(gradient), states, rule, step);
        state.extend(states.into_iter().map(Tensor::from_primitive::<Cube>));
        Tensor::from_primitive::<Cube>(parameter)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.launch();
    }
}
