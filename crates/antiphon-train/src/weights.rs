//! A module's parameters as named arrays on the host, and back.

use std::collections::BTreeMap;

use antiphon_core::{Error, Problem, Result};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::path::ModulePath;

/// A named array.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// The parameter's path in the module: `encoder.layers.0.bias`.
    pub path: String,
    /// The shape.
    pub dims: Vec<usize>,
    /// The numbers, row-major.
    pub values: Vec<f32>,
}

/// All parameters, in the module's own order. Parameters that are not initialised yet are so now.
///
/// # Panics
/// If the module holds integer or boolean parameters, which could not be saved.
pub fn save_weights<M: Module>(model: &M) -> Vec<Weight> {
    let mut save = Save::default();
    model.visit(&mut save);
    save.weights
}

/// Replaces all parameters; order does not matter. Device, gradients and ids stay those of `model`.
///
/// # Errors
/// If parameters are missing, unknown or of another shape: names all of them at once.
pub fn load_weights<M: Module>(model: M, weights: Vec<Weight>) -> Result<M> {
    let weights = weights.into_iter().map(|weight| (weight.path.clone(), weight)).collect();
    let mut load = Load { path: ModulePath::default(), weights, problems: Vec::new() };
    let model = model.map(&mut load);
    let Load { weights, mut problems, .. } = load;
    problems.extend(
        weights
            .into_keys()
            .map(|path| Problem { place: path.into(), message: "the model has no such parameter".into() }),
    );
    if problems.is_empty() { Ok(model) } else { Err(Error { file: None, problems }) }
}

#[derive(Default)]
struct Save {
    path: ModulePath,
    weights: Vec<Weight>,
}

impl Save {
    fn refuse(&self) -> ! {
        panic!("parameter `{}` is not of floating point", self.path.dotted())
    }
}

impl ModuleVisitor for Save {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val().inner();
        self.weights.push(Weight {
            path: self.path.dotted(),
            dims: value.dims().to_vec(),
            values: value.try_into_vec_as::<f32>().expect("a parameter can be read back"),
        });
    }

    fn visit_int<const D: usize>(&mut self, _: &Param<Tensor<D, Int>>) {
        self.refuse();
    }

    fn visit_bool<const D: usize>(&mut self, _: &Param<Tensor<D, Bool>>) {
        self.refuse();
    }
}

struct Load {
    path: ModulePath,
    weights: BTreeMap<String, Weight>,
    problems: Vec<Problem>,
}

impl ModuleMapper for Load {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let place = self.path.dotted();
        let dims = param.lazy_shape().to_vec();
        let message = match self.weights.remove(&place) {
            Some(weight) if weight.dims == dims => {
                let data = TensorData::new(weight.values, weight.dims);
                let tensor = Tensor::from_data(data, &param.lazy_device());
                let id = param.id;
                return param.transform_for_load(tensor, id);
            }
            Some(weight) => format!("has the shape {:?}, the model wants {dims:?}", weight.dims),
            None => "missing".into(),
        };
        self.problems.push(Problem { place: place.into(), message });
        param
    }
}

/// The shapes of all parameters by their paths. None is drawn for that.
pub fn shapes<M: Module>(model: &M) -> BTreeMap<String, Vec<usize>> {
    Places::of(model).found.into_iter().map(|(path, (dims, _))| (path, dims)).collect()
}

/// Initialises what is not initialised yet, now rather than at an uncertain time.
pub(crate) fn initialise<M: Module>(model: &M) {
    struct Initialise;
    impl ModuleVisitor for Initialise {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            drop(param.val());
        }
    }
    model.visit(&mut Initialise);
}

/// The shape and the device of each parameter.
#[derive(Default)]
pub(crate) struct Places {
    path: ModulePath,
    found: BTreeMap<String, (Vec<usize>, Device)>,
}

impl Places {
    pub(crate) fn of<M: Module>(model: &M) -> Self {
        let mut places = Self::default();
        model.visit(&mut places);
        places
    }

    /// The paths of all parameters, in their order.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.found.keys().map(String::as_str)
    }

    /// The device (without autodiff) of the first parameter, if there is one.
    pub(crate) fn device(&self) -> Option<Device> {
        self.found.values().next().map(|(_, device)| device.clone())
    }

    /// Shape and device (without autodiff) of the parameter at `path`.
    pub(crate) fn find(&self, path: &str) -> Option<(Vec<usize>, Device)> {
        self.found.get(path).cloned()
    }
}

impl ModuleVisitor for Places {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let place = (param.lazy_shape().to_vec(), param.lazy_device().without_autodiff());
        self.found.insert(self.path.dotted(), place);
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;
    use burn::tensor::TensorData;

    use super::*;

    #[derive(Module, Debug)]
    pub(crate) struct Net {
        table: Param<Tensor<2>>,
        bias: Option<Param<Tensor<1>>>,
    }

    fn net(device: &Device, value: f32) -> Net {
        let lazy = move |device: &Device, grad: bool| Tensor::<2>::full([2, 3], value, device).set_require_grad(grad);
        Net {
            table: Param::uninitialized(ParamId::new(), lazy, device.clone(), true, [2, 3].into()),
            bias: Some(Param::from_tensor(Tensor::full([3], value, device))),
        }
    }

    #[test]
    fn weights_come_back_by_path_and_stay_trainable() {
        let device = Device::flex().autodiff();
        let saved = save_weights(&net(&device, 4.0));
        assert_eq!(saved.iter().map(|w| w.path.as_str()).collect::<Vec<_>>(), ["table", "bias"]);
        assert_eq!((saved[0].dims.as_slice(), saved[0].values.as_slice()), (&[2, 3][..], &[4.0; 6][..]));
        let loaded = load_weights(net(&device, 0.0), saved.iter().rev().cloned().collect()).unwrap();
        assert_eq!(save_weights(&loaded), saved);
        assert!(loaded.table.val().is_require_grad());
        // Without autodiff, too; `train` then makes it trainable.
        let plain = load_weights(net(&Device::flex(), 0.0), saved.clone()).unwrap();
        assert_eq!(save_weights(&plain), saved);
        assert!(!plain.table.val().is_autodiff() && plain.train().table.val().is_require_grad());
    }

    #[test]
    fn everything_that_does_not_fit_is_named_at_once() {
        let weight = |path: &str, dims: &[usize]| Weight {
            path: path.into(),
            dims: dims.to_vec(),
            values: vec![0.0; dims.iter().product()],
        };
        let error = load_weights(net(&Device::flex(), 0.0), vec![weight("table", &[3, 2]), weight("extra", &[1])]);
        assert_eq!(
            error.unwrap_err().to_string(),
            "3 problems\n  table: has the shape [3, 2], the model wants [2, 3]\n  bias: missing\n  extra: the model has \
             no such parameter"
        );
    }

    #[test]
    #[should_panic(expected = "parameter `counts` is not of floating point")]
    fn integer_parameters_are_not_silently_lost() {
        #[derive(Module, Debug)]
        struct Counts {
            counts: Param<Tensor<1, Int>>,
        }
        let data = TensorData::from([1, 2]);
        save_weights(&Counts { counts: Param::initialized(ParamId::new(), Tensor::from_data(data, &Device::flex())) });
    }
}
