//! `[train.optimizer]`: how gradients become steps. The arithmetic is [`antiphon_kernels::update`]'s.

use std::collections::BTreeMap;

use antiphon_core::{Error, Problem, Result};
use antiphon_kernels::update::{Rule, Step, Updates, update};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checkpoint::START;
use crate::config::Demands;
use crate::gradients::ParameterGradients;
use crate::path::ModulePath;
use crate::weights::Places;
use crate::{ParametersConfig, Weight};

/// The optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OptimizerConfig {
    /// Stochastic gradient descent, with momentum if wanted.
    Sgd(SgdConfig),
    /// RMSProp (Hinton's lecture 6e), with Keras's defaults.
    Rmsprop(RmspropConfig),
    /// Adagrad (Duchi et al. 2011).
    Adagrad(AdagradConfig),
    /// Adam (Kingma and Ba 2015).
    Adam(AdamConfig),
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    Adamw(AdamwConfig),
}

/// Stochastic gradient descent: `v ← momentum · v + g`, `w ← w − learning_rate · v`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SgdConfig {
    /// The learning rate that the schedule starts from.
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// The share of the velocity that survives a step; 0 for plain gradient descent.
    #[schemars(range(min = 0.0), extend("format" = "float", "exclusiveMaximum" = 1))]
    pub momentum: f64,
    /// Whether the step looks ahead along the velocity (Nesterov). Needs momentum.
    pub nesterov: bool,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self { learning_rate: 0.01, momentum: 0.0, nesterov: false }
    }
}

/// RMSProp: `s ← rho · s + (1 − rho) · g²`, `w ← w − learning_rate · g / √(s + epsilon)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RmspropConfig {
    /// The learning rate that the schedule starts from.
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// The share of the mean square that survives a step.
    #[schemars(range(min = 0.0), extend("format" = "float", "exclusiveMaximum" = 1))]
    pub rho: f64,
    /// Keeps the root from zero.
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    pub epsilon: f64,
    /// The share of the velocity that survives a step; 0 for none.
    #[schemars(range(min = 0.0), extend("format" = "float", "exclusiveMaximum" = 1))]
    pub momentum: f64,
}

impl Default for RmspropConfig {
    fn default() -> Self {
        Self { learning_rate: 1e-3, rho: 0.9, epsilon: 1e-7, momentum: 0.0 }
    }
}

/// Adagrad: `s ← s + g²`, `w ← w − learning_rate · g / √s`, with `s` from `initial` on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdagradConfig {
    /// The learning rate that the schedule starts from.
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Where the sum of squares starts; 0.1 in TensorFlow.
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    pub initial: f64,
}

impl Default for AdagradConfig {
    fn default() -> Self {
        Self { learning_rate: 0.01, initial: 0.1 }
    }
}

/// Adam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdamConfig {
    /// The learning rate that the schedule starts from.
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// The share of the first moment that survives a step.
    #[schemars(range(min = 0.0), extend("format" = "float", "exclusiveMaximum" = 1))]
    pub beta1: f64,
    /// The share of the second moment that survives a step.
    #[schemars(range(min = 0.0), extend("format" = "float", "exclusiveMaximum" = 1))]
    pub beta2: f64,
    /// Added to the root of the second moment.
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    pub epsilon: f64,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// AdamW: Adam, whose parameters also shrink by `learning_rate · weight_decay` of themselves at each step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdamwConfig {
    /// The learning rate that the schedule starts from.
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// The share of the first moment that survives a step.
    #[schemars(range(min = 0.0), extend("format" = "float", "exclusiveMaximum" = 1))]
    pub beta1: f64,
    /// The share of the second moment that survives a step.
    #[schemars(range(min = 0.0), extend("format" = "float", "exclusiveMaximum" = 1))]
    pub beta2: f64,
    /// Added to the root of the second moment.
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    pub epsilon: f64,
    /// The decoupled decay of all parameters. The penalty `l2` goes through the moments instead.
    #[schemars(range(min = 0.0), extend("format" = "float"))]
    pub weight_decay: f64,
}

impl Default for AdamwConfig {
    fn default() -> Self {
        Self { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::Adam(AdamConfig::default())
    }
}

impl OptimizerConfig {
    /// The learning rate that the schedule starts from.
    pub fn learning_rate(&self) -> f64 {
        match self {
            Self::Sgd(c) => c.learning_rate,
            Self::Rmsprop(c) => c.learning_rate,
            Self::Adagrad(c) => c.learning_rate,
            Self::Adam(c) => c.learning_rate,
            Self::Adamw(c) => c.learning_rate,
        }
    }

    /// What the rate of a parameter's update number `t`, from 1, is multiplied by.
    ///
    /// Adagrad's sum of squares is `t` times their mean, so that its step is RMSProp's over the mean of all of them, divided by `√t`.
    fn pace(&self, t: u64) -> f64 {
        match self {
            Self::Adagrad(_) => (t as f64).sqrt().recip(),
            Self::Sgd(_) | Self::Rmsprop(_) | Self::Adam(_) | Self::Adamw(_) => 1.0,
        }
    }

    /// The rule of a parameter's update number `t`, from 1.
    fn rule(&self, t: u64) -> Rule {
        let adam = |beta1: f64, beta2: f64, epsilon: f64, weight_decay: f64| Rule::Adam {
            complement1: (1.0 - beta1) as f32,
            complement2: (1.0 - beta2) as f32,
            epsilon: epsilon as f32,
            correction1: (1.0 - beta1.powf(t as f64)) as f32,
            correction2: (1.0 - beta2.powf(t as f64)) as f32,
            weight_decay: weight_decay as f32,
        };
        match self {
            Self::Sgd(c) if c.momentum == 0.0 => Rule::Sgd,
            Self::Sgd(c) => Rule::Momentum { momentum: c.momentum as f32, nesterov: c.nesterov },
            Self::Rmsprop(c) => {
                let (complement, epsilon, momentum) = ((1.0 - c.rho) as f32, c.epsilon as f32, c.momentum as f32);
                match c.momentum {
                    0.0 => Rule::RmsProp { complement, epsilon },
                    _ => Rule::RmsPropMomentum { complement, epsilon, momentum },
                }
            }
            Self::Adagrad(c) => {
                let t = t as f64;
                Rule::RmsProp { complement: t.recip() as f32, epsilon: (c.initial / t) as f32 }
            }
            Self::Adam(c) => adam(c.beta1, c.beta2, c.epsilon, 0.0),
            Self::Adamw(c) => adam(c.beta1, c.beta2, c.epsilon, c.weight_decay),
        }
    }

    /// The names of the rule's slots, in its order.
    fn slots(&self) -> &'static [&'static str] {
        match self.rule(1) {
            Rule::Sgd => &[],
            Rule::Momentum { .. } => &["velocity"],
            Rule::RmsProp { .. } => &["mean_square"],
            Rule::RmsPropMomentum { .. } => &["mean_square", "velocity"],
            Rule::Adam { .. } => &["first_moment", "second_moment"],
        }
    }

    pub(crate) fn problems(&self, found: &mut Demands) {
        found.positive(self.learning_rate(), "optimizer.learning_rate");
        match self {
            Self::Sgd(c) => {
                found.share(c.momentum, "optimizer.momentum");
                found.demand(!c.nesterov || c.momentum > 0.0, "optimizer.nesterov", || {
                    "Nesterov's look-ahead needs `momentum` above 0".into()
                });
            }
            Self::Rmsprop(c) => {
                found.share(c.rho, "optimizer.rho");
                found.positive(c.epsilon, "optimizer.epsilon");
                found.share(c.momentum, "optimizer.momentum");
            }
            Self::Adagrad(c) => found.positive(c.initial, "optimizer.initial"),
            Self::Adam(AdamConfig { beta1, beta2, epsilon, .. })
            | Self::Adamw(AdamwConfig { beta1, beta2, epsilon, .. }) => {
                found.share(*beta1, "optimizer.beta1");
                found.share(*beta2, "optimizer.beta2");
                found.positive(*epsilon, "optimizer.epsilon");
            }
        }
        if let Self::Adamw(c) = self {
            found.not_negative(c.weight_decay as f32, "optimizer.weight_decay");
        }
    }
}

/// An optimizer at work: what it remembers of each parameter, by module path.
#[derive(Debug)]
pub(crate) struct Optimizer {
    config: OptimizerConfig,
    l1: f64,
    l2: f64,
    parameters: ParametersConfig,
    memory: BTreeMap<String, Memory>,
    /// Where the parameters started that are drawn back to it, each with its shape, flat.
    start: BTreeMap<String, (Vec<usize>, Tensor<1>)>,
}

/// What multiplies all gradients of a step.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // one value a step
pub(crate) enum Scale {
    Known(f64),
    /// The first number of a tensor.
    OnDevice(Tensor<1>),
}

impl From<f64> for Scale {
    fn from(scale: f64) -> Self {
        Scale::Known(scale)
    }
}

/// What all parameters have in common in one step.
#[derive(Debug)]
struct Common {
    rate: f64,
    /// As far as it is known.
    scale: f64,
    /// Where the rest of it is known.
    updates: Updates,
}

impl Common {
    fn new(rate: f64, scale: Scale) -> Self {
        match scale {
            Scale::Known(scale) => Self { rate, scale, updates: Updates::new(None) },
            Scale::OnDevice(scaling) => Self { rate, scale: 1.0, updates: Updates::new(Some(scaling)) },
        }
    }
}

/// What is remembered of one parameter.
#[derive(Debug)]
struct Memory {
    /// How many updates it has had. A parameter without a gradient has none in that step.
    updates: u64,
    /// The parameter's shape.
    dims: Vec<usize>,
    /// Flat, in the order of the rule's slots.
    slots: Vec<Tensor<1>>,
}

impl Optimizer {
    pub(crate) fn new(config: OptimizerConfig, l1: f64, l2: f64) -> Self {
        let parameters = ParametersConfig::default();
        Self { config, l1, l2, parameters, memory: BTreeMap::new(), start: BTreeMap::new() }
    }

    /// The same with parts that are treated on their own.
    pub(crate) fn with(self, parameters: ParametersConfig) -> Self {
        Self { parameters, ..self }
    }

    /// Remembers where the training starts of parameters that are drawn back to it.
    pub(crate) fn begin<M: Module>(&mut self, model: &M) {
        model.visit(&mut Begin { path: ModulePath::default(), optimizer: self });
    }

    /// One step over all parameters that have a gradient; the gradients are used up. `scale` multiplies each gradient.
    pub(crate) fn step<M: Module>(
        &mut self,
        model: M,
        gradients: ParameterGradients,
        rate: f64,
        scale: impl Into<Scale>,
    ) -> M {
        let common = Common::new(rate, scale.into());
        model.map(&mut Walk { path: ModulePath::default(), optimizer: self, gradients, common })
    }

    fn update(
        &mut self,
        path: String,
        dims: &[usize],
        value: Tensor<1>,
        mut gradient: Tensor<1>,
        common: &mut Common,
    ) -> Tensor<1> {
        let Common { rate, mut scale, .. } = *common;
        let is_scaled = self.start.contains_key(&path);
        if let Some((_, start)) = self.start.get(&path) {
            gradient = match common.updates.scaling() {
                Some(scaling) => gradient * scaling,
                None => gradient * scale,
            };
            gradient = gradient + (value.clone() - start.clone()) * self.parameters.pull(&path);
            scale = 1.0;
        }
        let rate = rate * self.parameters.rate(&path);
        let count = self.config.slots().len();
        let memory = self.memory.entry(path).or_insert_with(|| Memory {
            updates: 0,
            dims: dims.to_vec(),
            slots: (0..count).map(|_| Tensor::zeros(value.shape(), &value.device())).collect(),
        });
        memory.updates += 1;
        let rule = self.config.rule(memory.updates);
        let rate = (rate * self.config.pace(memory.updates)) as f32;
        let step = Step { rate, scale: scale as f32, l1: self.l1 as f32, l2: self.l2 as f32 };
        match is_scaled {
            true => update(value, gradient, &mut memory.slots, rule, step),
            false => common.updates.update(value, gradient, &mut memory.slots, rule, step),
        }
    }

    /// How many updates each parameter has had.
    pub(crate) fn updates(&self) -> BTreeMap<String, u64> {
        self.memory.iter().map(|(path, memory)| (path.clone(), memory.updates)).collect()
    }

    /// All slots, each as `<slot>.<path>`.
    pub(crate) fn save(&self) -> Vec<Weight> {
        let names = self.config.slots();
        let slots = self.memory.iter().flat_map(|(path, memory)| {
            names.iter().zip(&memory.slots).map(move |(name, slot)| {
                let values = slot.clone().try_into_vec_as::<f32>().expect("optimizer state can be read back");
                Weight { path: format!("{name}.{path}"), dims: memory.dims.clone(), values }
            })
        });
        slots.collect()
    }

    /// Where parameters started that are drawn back to it.
    pub(crate) fn save_start(&self) -> Vec<Weight> {
        let weight = |(path, (dims, start)): (&String, &(Vec<usize>, Tensor<1>))| Weight {
            path: path.clone(),
            dims: dims.clone(),
            values: start.clone().try_into_vec_as::<f32>().expect("a parameter can be read back"),
        };
        self.start.iter().map(weight).collect()
    }

    /// Takes up what [`save_start`](Self::save_start) gave.
    ///
    /// # Errors
    /// If these are not exactly the parameters of `model` that are drawn back; names all that differ.
    pub(crate) fn load_start<M: Module>(&mut self, model: &M, arrays: Vec<Weight>) -> Result<()> {
        let places = Places::of(model);
        let mut arrays: BTreeMap<String, Weight> =
            arrays.into_iter().map(|array| (array.path.clone(), array)).collect();
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: String| {
            problems.push(Problem { place: format!("{START}.{path}").into(), message });
        };
        for path in places.paths().filter(|path| self.parameters.pull(path) > 0.0) {
            let (dims, device) = places.find(path).expect("a path of this model");
            match arrays.remove(path) {
                None => problem(path, "missing".into()),
                Some(array) if array.dims != dims => {
                    problem(path, format!("has the shape {:?}, the parameter {dims:?}", array.dims));
                }
                Some(array) => {
                    let n = array.values.len();
                    let start = Tensor::from_data(TensorData::new(array.values, [n]), &device);
                    self.start.insert(path.to_owned(), (dims, start));
                }
            }
        }
        arrays.keys().for_each(|path| problem(path, "is drawn back to nothing".into()));
        if problems.is_empty() { Ok(()) } else { Err(Error { file: None, problems }) }
    }

    /// Takes up what [`save`](Self::save) and [`updates`](Self::updates) gave, for the parameters of `model`.
    ///
    /// # Errors
    /// If the slots are not exactly those of this optimizer over these parameters; names all that differ.
    pub(crate) fn load<M: Module>(
        &mut self,
        model: &M,
        slots: Vec<Weight>,
        updates: &BTreeMap<String, u64>,
    ) -> Result<()> {
        let places = Places::of(model);
        let mut slots: BTreeMap<String, Weight> = slots.into_iter().map(|slot| (slot.path.clone(), slot)).collect();
        let mut problems = Vec::new();
        let mut problem = |place: &str, message: String| {
            problems.push(Problem { place: format!("optimizer.{place}").into(), message });
        };
        for (path, &updates) in updates {
            let Some((dims, device)) = places.find(path) else {
                problem(path, "the model has no such parameter".into());
                continue;
            };
            let mut tensors = Vec::new();
            for name in self.config.slots() {
                let key = format!("{name}.{path}");
                match slots.remove(&key) {
                    None => problem(&key, "missing".into()),
                    Some(slot) if slot.dims != dims => {
                        problem(&key, format!("has the shape {:?}, the parameter {dims:?}", slot.dims));
                    }
                    Some(slot) => {
                        let n = slot.values.len();
                        tensors.push(Tensor::from_data(TensorData::new(slot.values, [n]), &device));
                    }
                }
            }
            self.memory.insert(path.clone(), Memory { updates, dims, slots: tensors });
        }
        for name in slots.keys() {
            problem(name, "unknown to this optimizer".into());
        }
        if problems.is_empty() { Ok(()) } else { Err(Error { file: None, problems }) }
    }
}

struct Begin<'a> {
    path: ModulePath,
    optimizer: &'a mut Optimizer,
}

impl ModuleVisitor for Begin<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.dotted();
        if self.optimizer.parameters.pull(&path) > 0.0 {
            let value = param.val().inner();
            let dims = value.dims().to_vec();
            let n = dims.iter().product::<usize>();
            self.optimizer.start.insert(path, (dims, value.reshape([n])));
        }
    }
}

struct Walk<'a> {
    path: ModulePath,
    optimizer: &'a mut Optimizer,
    gradients: ParameterGradients,
    common: Common,
}

impl ModuleMapper for Walk<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.dotted();
        let Some(gradient) = self.gradients.take(&path) else { return param };
        // `consume` leaves one handle to the storage, so that the update can be in place.
        let (id, tensor, mapper) = param.consume();
        let (dims, checkpointing) = (tensor.dims(), tensor.gradient_checkpointing_strategy());
        let n = dims.iter().product::<usize>();
        let value = tensor.inner().reshape([n]);
        let value = self.optimizer.update(path, &dims, value, gradient, &mut self.common);
        let mut tensor = Tensor::from_inner(value.reshape(dims));
        if let Some(strategy) = checkpointing {
            tensor = tensor.with_gradient_checkpointing_strategy(strategy);
        }
        Param::from_mapped_value(id, tensor.require_grad(), mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Bowl {
        position: Param<Tensor<2>>,
        unused: Param<Tensor<1>>,
    }

    impl Bowl {
        fn new(start: [[f32; 2]; 2]) -> Self {
            let device = Device::flex().autodiff();
            Self {
                position: Param::from_tensor(Tensor::from_data(start, &device)),
                unused: Param::from_tensor(Tensor::from_data([7.0], &device)),
            }
        }

        /// `½ Σ aᵢ (wᵢ − 3)²` with the curvatures 1 and 4.
        fn loss(&self) -> Tensor<1> {
            let curvature = Tensor::<2>::from_data([[1.0, 4.0], [1.0, 4.0]], &Device::flex());
            let away = self.position.val() - 3.0;
            (away.clone() * away * curvature * 0.5).sum()
        }

        fn gradients(&self) -> ParameterGradients {
            let mut gradients = ParameterGradients::default();
            gradients.add(self, self.loss().backward());
            gradients
        }

        fn values(&self) -> Vec<f32> {
            self.position.val().into_data().as_slice::<f32>().unwrap().to_vec()
        }
    }

    fn optimizers() -> Vec<OptimizerConfig> {
        vec![
            OptimizerConfig::Sgd(SgdConfig { learning_rate: 0.1, ..SgdConfig::default() }),
            OptimizerConfig::Sgd(SgdConfig { learning_rate: 0.05, momentum: 0.8, nesterov: false }),
            OptimizerConfig::Sgd(SgdConfig { learning_rate: 0.05, momentum: 0.8, nesterov: true }),
            OptimizerConfig::Rmsprop(RmspropConfig { learning_rate: 0.02, ..RmspropConfig::default() }),
            OptimizerConfig::Rmsprop(RmspropConfig { learning_rate: 0.01, momentum: 0.5, ..RmspropConfig::default() }),
            OptimizerConfig::Adagrad(AdagradConfig { learning_rate: 0.5, ..AdagradConfig::default() }),
            OptimizerConfig::Adam(AdamConfig { learning_rate: 0.1, ..AdamConfig::default() }),
            OptimizerConfig::Adamw(AdamwConfig { learning_rate: 0.1, weight_decay: 1e-4, ..AdamwConfig::default() }),
        ]
    }

    #[test]
    fn every_optimizer_minimises_a_quadratic_and_leaves_alone_what_has_no_gradient() {
        for config in optimizers() {
            let mut optimizer = Optimizer::new(config.clone(), 0.0, 0.0);
            let mut model = Bowl::new([[0.0, 5.0], [-1.0, 3.5]]);
            for _ in 0..400 {
                let gradients = model.gradients();
                model = optimizer.step(model, gradients, config.learning_rate(), 1.0);
            }
            for value in model.values() {
                assert!((value - 3.0).abs() < 0.03, "{config:?} ended at {:?}", model.values());
            }
            assert_eq!(model.unused.val().into_scalar::<f32>(), 7.0);
            assert_eq!(optimizer.updates(), BTreeMap::from([("position".to_owned(), 400)]));
        }
    }

    /// One step from `w` with gradient `g` = curvature · (w − 3), by the formula.
    #[test]
    fn coupled_l2_passes_through_adams_moments_and_decoupled_decay_does_not() {
        let start = [[1.0, 2.0], [4.0, -1.0]];
        let step = |config: OptimizerConfig, l1, l2| {
            let model = Bowl::new(start);
            let gradients = model.gradients();
            Optimizer::new(config, l1, l2).step(model, gradients, 0.1, 1.0).values()
        };
        let curvatures = [1.0_f32, 4.0, 1.0, 4.0];
        let w = start.concat();
        let g: Vec<f32> = w.iter().zip(curvatures).map(|(w, a)| a * (w - 3.0)).collect();
        let check = |got: Vec<f32>, want: &dyn Fn(usize) -> f32| {
            for (i, got) in got.iter().enumerate() {
                assert!((got - want(i)).abs() < 1e-5, "element {i}: {got} is not {}", want(i));
            }
        };
        let sgd = || OptimizerConfig::Sgd(SgdConfig::default());
        check(step(sgd(), 0.0, 0.5), &|i| w[i] - 0.1 * (g[i] + 0.5 * w[i]));
        check(step(sgd(), 0.5, 0.0), &|i| w[i] - 0.1 * (g[i] + 0.5 * w[i].signum()));
        // The first step of Adam is rate · sign(g) whatever the size of g: a coupled penalty only matters by its sign.
        let adam = || OptimizerConfig::Adam(AdamConfig::default());
        check(step(adam(), 0.0, 0.5), &|i| w[i] - 0.1 * (g[i] + 0.5 * w[i]).signum());
        let adamw = OptimizerConfig::Adamw(AdamwConfig { weight_decay: 0.5, ..AdamwConfig::default() });
        check(step(adamw, 0.0, 0.0), &|i| w[i] - 0.1 * 0.5 * w[i] - 0.1 * g[i].signum());
    }

    #[test]
    fn adagrad_divides_by_the_root_of_the_sum_of_all_squares() {
        let (rate, initial) = (0.3, 0.1);
        let mut optimizer =
            Optimizer::new(OptimizerConfig::Adagrad(AdagradConfig { learning_rate: rate, initial }), 0.0, 0.0);
        let mut model = Bowl::new([[0.0, 5.0], [-1.0, 3.5]]);
        let mut truth: Vec<[f64; 2]> = model.values().iter().map(|&w| [f64::from(w), initial]).collect();
        for step in 0..300 {
            let gradients = model.gradients();
            model = optimizer.step(model, gradients, rate, 1.0);
            for (i, [w, sum]) in truth.iter_mut().enumerate() {
                let gradient = [1.0, 4.0][i % 2] * (*w - 3.0);
                *sum += gradient * gradient;
                *w -= rate * gradient / sum.sqrt();
            }
            for (value, [w, _]) in model.values().into_iter().zip(&truth) {
                assert!((f64::from(value) - w).abs() < 1e-4, "after step {step}: {value} is not {w}");
            }
        }
    }

    /// The minimum of `½ a (w − 3)² + ½ α (w − w₀)²` is `(3 a + α w₀) / (a + α)`.
    #[test]
    fn what_is_drawn_towards_its_start_ends_between_it_and_the_minimum() {
        let start = [[0.0, 5.0], [-1.0, 3.5]];
        let parameters = |json| serde_json::from_value::<ParametersConfig>(json).unwrap();
        let alpha = 0.5;
        let optimizers = optimizers();
        // Adam and RMSProp go by the sign of a small gradient, and circle around a minimum.
        for config in &optimizers[..3] {
            let drawn = parameters(serde_json::json!({"towards_start": {"*": 9.0, "position": alpha}}));
            let mut optimizer = Optimizer::new(config.clone(), 0.0, 0.0).with(drawn.clone());
            let mut model = Bowl::new(start);
            optimizer.begin(&model);
            for step in 0..400 {
                if step == 3 {
                    let (slots, updates, start) = (optimizer.save(), optimizer.updates(), optimizer.save_start());
                    optimizer = Optimizer::new(config.clone(), 0.0, 0.0).with(drawn.clone());
                    optimizer.load(&model, slots, &updates).unwrap();
                    optimizer.load_start(&model, start).unwrap();
                }
                let gradients = model.gradients();
                model = optimizer.step(model, gradients, config.learning_rate(), 1.0);
            }
            for (i, (value, start)) in model.values().into_iter().zip(start.concat()).enumerate() {
                let a = [1.0, 4.0][i % 2];
                let expected = (3.0 * a + alpha as f32 * start) / (a + alpha as f32);
                assert!((value - expected).abs() < 1e-3, "{config:?}: {value} is not {expected}");
            }
        }
        // What is not drawn back has no start, and what is must have one.
        let model = Bowl::new(start);
        let mut optimizer = Optimizer::new(OptimizerConfig::default(), 0.0, 0.0)
            .with(parameters(serde_json::json!({"towards_start": {"position": 1.0, "unused": 0.0}})));
        optimizer.begin(&model);
        let saved = optimizer.save_start();
        assert_eq!(saved.iter().map(|w| w.path.as_str()).collect::<Vec<_>>(), ["position"]);
        assert_eq!(optimizer.load_start(&model, vec![]).unwrap_err().to_string(), "start.position: missing");
        let error = Optimizer::new(OptimizerConfig::default(), 0.0, 0.0).load_start(&model, saved).unwrap_err();
        assert_eq!(error.to_string(), "start.position: is drawn back to nothing");
    }

    #[test]
    fn a_factor_of_the_rate_is_a_factor_of_the_step() {
        let start = [[1.0, 2.0], [4.0, -1.0]];
        for config in optimizers() {
            let moved = |parameters: serde_json::Value| {
                let mut optimizer =
                    Optimizer::new(config.clone(), 0.0, 0.0).with(serde_json::from_value(parameters).unwrap());
                let model = Bowl::new(start);
                let gradients = model.gradients();
                let after = optimizer.step(model, gradients, 0.1, 1.0).values();
                after.into_iter().zip(start.concat()).map(|(w, w0)| w - w0).collect::<Vec<f32>>()
            };
            let plain = moved(serde_json::json!({}));
            assert_eq!(moved(serde_json::json!({"learning_rates": {"unused": 0.5, "*.x": 2.0}})), plain);
            let half = moved(serde_json::json!({"learning_rates": {"*": 7.0, "position": 0.5}}));
            for (half, plain) in half.into_iter().zip(plain) {
                assert!((half - 0.5 * plain).abs() < 1e-6, "{config:?}: {half} is not half of {plain}");
            }
        }
    }

    /// The moments of `beta2 = 0.9999` span ten thousand steps. Were `1 − beta2` that of single precision, the bias correction,
    /// made in double precision, would be for another mean: a weight would be off by 8e-5 of itself after 1,000 steps.
    #[test]
    fn moments_of_long_memory_are_those_of_double_precision() {
        let (rate, beta1, beta2, epsilon) = (1e-3, 0.9, 0.9999, 1e-8);
        let config = AdamConfig { learning_rate: rate, beta1, beta2, epsilon };
        let mut optimizer = Optimizer::new(OptimizerConfig::Adam(config), 0.0, 0.0);
        let mut parameter = Tensor::<1>::zeros([3], &burn::tensor::Device::flex());
        let mut truth = [[0.0_f64; 3]; 3]; // weight, first and second moment of each
        let mut common = Common::new(rate, Scale::Known(1.0));
        for t in 1..=1000 {
            let gradient = |i: usize| [1.0, 0.3, 20.0][i] * (1.5 + (0.7 * f64::from(t) + i as f64).sin()) as f32;
            for (i, [w, m, s]) in truth.iter_mut().enumerate() {
                let g = f64::from(gradient(i));
                *m = beta1 * *m + (1.0 - beta1) * g;
                *s = beta2 * *s + (1.0 - beta2) * g * g;
                let (first, second) = (*m / (1.0 - beta1.powi(t)), *s / (1.0 - beta2.powi(t)));
                *w -= rate * first / (second.sqrt() + epsilon);
            }
            let gradient = TensorData::new([0, 1, 2].map(gradient).to_vec(), [3]);
            let gradient = Tensor::from_data(gradient, &burn::tensor::Device::flex());
            parameter = optimizer.update("p".into(), &[3], parameter, gradient, &mut common);
        }
        let found: Vec<f32> = parameter.into_data().try_to_vec().unwrap();
        for (found, [truth, ..]) in found.into_iter().zip(truth) {
            let error = (f64::from(found) - truth).abs() / truth.abs();
            assert!(error < 5e-6, "{found} is not {truth}: {error:e}");
        }
    }

    #[test]
    fn a_step_writes_parameters_in_place() {
        let address = |model: &Bowl| {
            let value = model.position.val().inner();
            value.try_into_primitive::<burn::backend::Flex>().unwrap().bytes().as_ptr() as usize
        };
        let config = OptimizerConfig::default();
        let mut optimizer = Optimizer::new(config, 0.0, 0.0);
        let mut model = Bowl::new([[0.0, 5.0], [-1.0, 3.5]]);
        let before = address(&model);
        for _ in 0..3 {
            let gradients = model.gradients();
            model = optimizer.step(model, gradients, 0.1, 1.0);
            assert_eq!(address(&model), before);
            assert!(model.position.val().is_require_grad());
        }
    }

    #[test]
    fn state_comes_back_and_a_foreign_one_is_refused() {
        let config = OptimizerConfig::default();
        let mut optimizer = Optimizer::new(config.clone(), 0.0, 0.0);
        let model = Bowl::new([[0.0, 5.0], [-1.0, 3.5]]);
        let gradients = model.gradients();
        let model = optimizer.step(model, gradients, 0.1, 1.0);
        let (slots, updates) = (optimizer.save(), optimizer.updates());

        let mut again = Optimizer::new(config, 0.0, 0.0);
        again.load(&model, slots.clone(), &updates).unwrap();
        assert_eq!((again.save(), again.updates()), (slots.clone(), updates.clone()));

        let mut other = Optimizer::new(OptimizerConfig::Rmsprop(RmspropConfig::default()), 0.0, 0.0);
        let text = other.load(&model, slots, &updates).unwrap_err().to_string();
        assert_eq!(
            text,
            "3 problems\n  optimizer.mean_square.position: missing\n  optimizer.first_moment.position: unknown to \
             this optimizer\n  optimizer.second_moment.position: unknown to this optimizer"
        );
    }
}
