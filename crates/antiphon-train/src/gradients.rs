//! Gradients by module path.

use std::collections::BTreeMap;

use antiphon_kernels::update::{scaling, square_sum};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

use crate::path::ModulePath;
use crate::weights::Places;

/// The gradients of a module's parameters, flat, by the parameter's path in the module.
#[derive(Debug, Default)]
pub(crate) struct ParameterGradients(BTreeMap<String, Tensor<1>>);

impl ParameterGradients {
    /// Takes the parameters' gradients out of a backward pass, adding them to those already here.
    pub(crate) fn add<M: Module>(&mut self, model: &M, gradients: Gradients) {
        model.visit(&mut Collect { path: ModulePath::default(), from: gradients, into: &mut self.0 });
    }

    /// The gradient of one parameter, which is then gone.
    pub(crate) fn take(&mut self, path: &str) -> Option<Tensor<1>> {
        self.0.remove(path)
    }

    /// What they are to be multiplied by, `factor` or so much less that their norm is `most`, and that norm before: `[2]`, on their
    /// device. `None` if there are none.
    pub(crate) fn scaling(&self, factor: f64, most: Option<f64>) -> Option<Tensor<1>> {
        (!self.0.is_empty()).then(|| scaling(self.0.values().cloned().collect(), factor, most))
    }

    /// The Euclidean norm of all gradients together: one number crosses to the host.
    ///
    /// Each gradient is summed in fixed chunks and the sums are added in the order of the paths, so the bits do not
    /// depend on the number of threads.
    pub(crate) fn norm(&self) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        let squares = self.0.values().map(|gradient| square_sum(gradient.clone())).collect();
        let squares = Tensor::cat(squares, 0).try_into_vec_as::<f32>().expect("a sum can be read back");
        squares.iter().map(|&square| f64::from(square)).sum::<f64>().sqrt()
    }
}

/// The paths of the parameters that a loss does not reach, in their order. Runs the backward pass of `loss`.
pub fn parameters_without_gradient<M: Module>(model: &M, loss: &Tensor<1>) -> Vec<String> {
    let mut found = ParameterGradients::default();
    found.add(model, loss.backward());
    Places::of(model).paths().filter(|&path| !found.0.contains_key(path)).map(str::to_owned).collect()
}

struct Collect<'a> {
    path: ModulePath,
    from: Gradients,
    into: &'a mut BTreeMap<String, Tensor<1>>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = param.val().grad_remove(&mut self.from) else { return };
        let n = gradient.shape().num_elements();
        let gradient = gradient.reshape([n]);
        let path = self.path.dotted();
        let sum = match self.into.remove(&path) {
            Some(before) => before + gradient,
            None => gradient,
        };
        self.into.insert(path, sum);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Pair {
        a: Param<Tensor<2>>,
        b: Vec<Param<Tensor<1>>>,
    }

    fn pair() -> Pair {
        let device = Device::flex().autodiff();
        let vector = |values: [f32; 2]| Param::from_tensor(Tensor::from_data(values, &device));
        Pair {
            a: Param::from_tensor(Tensor::from_data([[1.0, 2.0], [3.0, 4.0]], &device)),
            b: vec![vector([5.0, 6.0]), vector([7.0, 8.0])],
        }
    }

    fn values(tensor: Tensor<1>) -> Vec<f32> {
        tensor.into_data().as_slice::<f32>().unwrap().to_vec()
    }

    #[test]
    fn gradients_of_several_passes_add_up_under_their_paths() {
        let model = pair();
        let mut gradients = ParameterGradients::default();
        gradients.add(&model, (model.a.val().transpose() * 3.0).sum().backward());
        gradients.add(&model, (model.a.val().sum() + (model.b[1].val() * 2.0).sum()).backward());
        assert!((gradients.norm() - (4.0 * 16.0 + 2.0 * 4.0_f64).sqrt()).abs() < 1e-6);
        assert_eq!(gradients.take("a").map(values), Some(vec![4.0; 4]));
        assert_eq!(gradients.take("b.1").map(values), Some(vec![2.0; 2]));
        assert!(gradients.take("b.0").is_none());
    }

    #[test]
    fn parameters_that_a_loss_does_not_reach_are_named() {
        let model = pair();
        assert_eq!(parameters_without_gradient(&model, &model.b[0].val().sum()), ["a", "b.1"]);
    }
}
