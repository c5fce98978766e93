//! The plain mean of models.

use std::collections::BTreeMap;

use antiphon_core::{Error, Problem, Result};

use crate::Weight;

/// The mean of models of one shape, summed in double precision: in whatever order they come, it is the same but for the last bit, and
/// the mean of equal models is that model.
#[derive(Debug, Clone, Default)]
pub struct Mean {
    count: usize,
    sums: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

impl Mean {
    /// Takes in one more model.
    ///
    /// # Errors
    /// If its parameters are not those of the others: names all that differ. It is then left aside.
    pub fn add(&mut self, weights: Vec<Weight>) -> Result<()> {
        if self.count == 0 {
            let sum = |w: Weight| (w.path, (w.dims, w.values.into_iter().map(f64::from).collect()));
            self.sums = weights.into_iter().map(sum).collect();
            self.count = 1;
            return Ok(());
        }
        let mut weights: BTreeMap<String, Weight> = weights.into_iter().map(|w| (w.path.clone(), w)).collect();
        let mut problems = Vec::new();
        for (path, (dims, _)) in &self.sums {
            let message = match weights.get(path) {
                Some(weight) if weight.dims == *dims => continue,
                Some(weight) => format!("has the shape {:?} here, and {dims:?} before", weight.dims),
                None => "is not here".into(),
            };
            problems.push(Problem { place: path.as_str().into(), message });
        }
        let new = weights.keys().filter(|path| !self.sums.contains_key(*path));
        problems
            .extend(new.map(|path| Problem { place: path.as_str().into(), message: "was not there before".into() }));
        if !problems.is_empty() {
            return Err(Error { file: None, problems });
        }
        for (path, (_, sum)) in &mut self.sums {
            let values = weights.remove(path).expect("it was found above").values;
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(value));
        }
        self.count += 1;
        Ok(())
    }

    /// How many models it is made of.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The mean, in the order of the paths.
    pub fn weights(&self) -> Vec<Weight> {
        let mean = |(path, (dims, sum)): (&String, &(Vec<usize>, Vec<f64>))| Weight {
            path: path.clone(),
            dims: dims.clone(),
            values: sum.iter().map(|sum| (sum / self.count as f64) as f32).collect(),
        };
        self.sums.iter().map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(path: &str, values: &[f32]) -> Weight {
        Weight { path: path.into(), dims: vec![values.len()], values: values.to_vec() }
    }

    #[test]
    fn it_is_the_mean_and_of_equal_models_it_is_the_model() {
        let mut mean = Mean::default();
        for values in [[1.0, -2.0], [2.0, 0.0], [6.0, 0.5]] {
            mean.add(vec![weight("b", &[7.0]), weight("a", &values)]).unwrap();
        }
        assert_eq!((mean.count(), mean.weights()), (3, vec![weight("a", &[3.0, -0.5]), weight("b", &[7.0])]));
        let odd = [0.1, -7.3, f32::MIN_POSITIVE / 3.0, 16_777_217.0];
        let mut same = Mean::default();
        for _ in 0..7 {
            same.add(vec![weight("a", &odd)]).unwrap();
        }
        assert_eq!(same.weights(), [weight("a", &odd)]);
    }

    #[test]
    fn models_that_are_unlike_have_none() {
        let mut mean = Mean::default();
        mean.add(vec![weight("a", &[1.0]), weight("b", &[1.0])]).unwrap();
        let error = mean.add(vec![weight("a", &[1.0, 2.0]), weight("c", &[1.0])]).unwrap_err().to_string();
        assert_eq!(
            error,
            "3 problems\n  a: has the shape [2] here, and [1] before\n  b: is not here\n  c: was not there before"
        );
        mean.add(vec![weight("a", &[3.0]), weight("b", &[1.0])]).unwrap();
        assert_eq!(mean.weights(), [weight("a", &[2.0]), weight("b", &[1.0])]);
    }
}
