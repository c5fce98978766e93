//! What passes between a model and the loop that trains it: the summands of a loss, and the state that outlives a batch.

use std::collections::BTreeMap;

use antiphon_core::{Error, Result};
use burn::tensor::{Bool, Tensor, TensorData};

use crate::distillation::Teacher;
use crate::loss::Projection;

/// A summand of the loss of one batch: a *sum* over the batch's target tokens. A step divides all of them by its real target
/// tokens, so that batches can be accumulated; a mean, which has a divisor of its own, is no term.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // a few values a batch
pub enum Term {
    /// The cross-entropy of the target tokens.
    CrossEntropy {
        /// States, output weight and targets.
        projection: Projection,
        /// Its share.
        weight: f64,
    },
    /// The same with a share for what a teacher holds of all tokens in their places.
    Taught {
        /// States, output weight and targets.
        projection: Projection,
        /// Who teaches.
        teacher: Teacher,
        /// Its share.
        weight: f64,
    },
    /// The cross-entropy of target tokens that the vocabulary says, or that are copied: [`copied_cross_entropy`](crate::copied_cross_entropy).
    Copied {
        /// States, output weight and targets, slots among them.
        projection: Projection,
        /// `[N]`, on the graph: the logarithm of the vocabulary's share.
        own: Tensor<1>,
        /// `[N]`, on the graph: that of what a target is worth otherwise.
        beside: Tensor<1>,
        /// Its share.
        weight: f64,
    },
    /// Another loss.
    Sum {
        /// What it is called where it is told.
        name: &'static str,
        /// `[1]`, on the graph.
        loss: Tensor<1>,
        /// Its share.
        weight: f64,
    },
}

impl Term {
    /// Its share of the loss. A term without one takes no part.
    pub fn weight(&self) -> f64 {
        match self {
            Term::CrossEntropy { weight, .. }
            | Term::Taught { weight, .. }
            | Term::Copied { weight, .. }
            | Term::Sum { weight, .. } => *weight,
        }
    }
}

/// What a model hands on from batch to batch: arrays by name, a row for each row of the batch, off the graph (a graph that goes
/// from batch to batch would never be freed). It is a part of a checkpoint.
#[derive(Debug, Clone, Default)]
pub struct Carry {
    arrays: BTreeMap<String, Tensor<2>>,
}

impl Carry {
    /// Arrays `[B, …]` by name.
    pub fn new(arrays: impl IntoIterator<Item = (String, Tensor<2>)>) -> Self {
        Self { arrays: arrays.into_iter().map(|(name, array)| (name, array.inner())).collect() }
    }

    /// Whether nothing is carried: before the first batch, or where examples have nothing to do with one another.
    pub fn is_empty(&self) -> bool {
        self.arrays.is_empty()
    }

    /// All arrays, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<2>)> {
        self.arrays.iter().map(|(name, array)| (name.as_str(), array))
    }

    /// The arrays whose names begin with `prefix`, without it.
    #[must_use]
    pub fn part(&self, prefix: &str) -> Self {
        let named = |(name, array): (&String, &Tensor<2>)| Some((name.strip_prefix(prefix)?.to_owned(), array.clone()));
        Self { arrays: self.arrays.iter().filter_map(named).collect() }
    }

    /// Takes in the arrays of another, whose names get this prefix.
    pub fn add(&mut self, prefix: &str, part: Self) {
        self.arrays.extend(part.arrays.into_iter().map(|(name, array)| (format!("{prefix}{name}"), array)));
    }

    /// Puts the array called `name` in the place of `fresh` `[B, …]`, in the rows that go on where the batch before stopped.
    ///
    /// # Errors
    /// If a row goes on and there is no such array, or one of another shape.
    pub fn resume(&self, name: &str, fresh: Tensor<2>, continues: &[bool]) -> Result<Tensor<2>> {
        if !continues.contains(&true) {
            return Ok(fresh);
        }
        let missing = || Error::new(format!("a row goes on, but nothing was carried as `{name}`"));
        let carried = self.arrays.get(name).ok_or_else(missing)?;
        if carried.dims() != fresh.dims() {
            let (before, now) = (carried.dims(), fresh.dims());
            return Err(Error::new(format!("rows go on as {now:?} where {before:?} was carried as `{name}`")));
        }
        let carried = match fresh.is_autodiff() {
            true => Tensor::from_inner(carried.clone()),
            false => carried.clone(),
        };
        Ok(if continues.contains(&false) { choose_rows(fresh, carried, continues) } else { carried })
    }
}

/// `[B, W]`: the rows of `chosen` where `rows` is true, else those of `others`.
pub fn choose_rows(others: Tensor<2>, chosen: Tensor<2>, rows: &[bool]) -> Tensor<2> {
    let mask = TensorData::new(rows.to_vec(), [rows.len(), 1]);
    let mask = Tensor::<2, Bool>::from_data(mask, &chosen.device().inner()).expand(chosen.dims());
    others.mask_where(mask, chosen)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn rows(values: [[f32; 2]; 3], device: &Device) -> Tensor<2> {
        Tensor::from_data(values, device)
    }

    #[test]
    fn rows_that_go_on_take_what_was_carried_and_nothing_of_its_graph() {
        let device = Device::flex().autodiff();
        let (old, new) = ([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0]]);
        let carried = rows(old, &device).require_grad();
        let carry = Carry::new([("state".to_owned(), carried.clone() * 1.0)]);
        let resumed = |continues: &[bool]| {
            let fresh = rows(new, &device).require_grad();
            let resumed = carry.resume("state", fresh.clone() * 1.0, continues).unwrap();
            let gradients = resumed.clone().sum().backward();
            let of = |t: &Tensor<2>| t.grad(&gradients).map(|g| g.into_data().try_to_vec::<f32>().unwrap());
            (resumed.into_data().try_to_vec::<f32>().unwrap(), of(&fresh), of(&carried))
        };
        let (values, fresh, carried) = resumed(&[true, false, true]);
        assert_eq!(values, [1.0, 2.0, -3.0, -4.0, 5.0, 6.0]);
        assert_eq!((fresh, carried), (Some(vec![0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), None));
        assert_eq!(resumed(&[false; 3]).0, new.concat());
    }

    #[test]
    fn parts_are_told_apart_by_their_prefix() {
        let array = |number: f32| Tensor::<2>::full([2, 2], number, &Device::flex());
        let of = |names: &[(&str, f32)]| Carry::new(names.iter().map(|&(name, n)| (name.to_owned(), array(n))));
        let listed = |carry: &Carry| {
            let number = |array: &Tensor<2>| array.clone().into_data().try_to_vec::<f32>().unwrap()[0];
            carry.iter().map(|(name, array)| (name.to_owned(), number(array))).collect::<Vec<_>>()
        };
        let mut carry = of(&[("state", 1.0)]);
        let (first, second) = (of(&[("state", 2.0), ("looks", 3.0)]), of(&[("state", 4.0)]));
        carry.add("other.0.", first.clone());
        carry.add("other.1.", second.clone());
        assert_eq!(listed(&carry).len(), 4);
        assert_eq!(listed(&carry.part("other.0.")), listed(&first));
        assert_eq!(listed(&carry.part("other.1.")), listed(&second));
        assert!(carry.part("nobody").is_empty());
    }

    #[test]
    fn what_was_not_carried_cannot_go_on() {
        let device = Device::flex();
        let fresh = || rows([[0.0; 2]; 3], &device);
        let carry = Carry::new([("state".to_owned(), Tensor::zeros([2, 2], &device))]);
        assert!(carry.resume("other", fresh(), &[true; 3]).unwrap_err().to_string().contains("`other`"));
        assert!(carry.resume("state", fresh(), &[true; 3]).unwrap_err().to_string().contains("[2, 2]"));
        assert!(carry.resume("other", fresh(), &[]).is_ok());
        assert!(Carry::default().is_empty() && !carry.is_empty());
    }
}
