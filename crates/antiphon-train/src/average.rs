//! `[train.average]`: averages of the weights, which are validated, chosen and written in the place of the weights themselves.
//!
//! Averages of two sorts. *Models*, `last` and `best`, are kept whenever they are validated; at the end of the run their means are
//! judged, and the best of them is chosen if it is better than the best single one. *Steps* are averaged on the way: every such
//! average is the same running mean `a ← a + s_t (w_t − a)` over the weights `w_t` behind each optimizer step; its kind is the
//! share `s_t` of update number `t`, and when it begins:
//!
//! | kind | begins | share |
//! |---|---|---|
//! | exponential | with the first step | `(1 − d) / (1 − dᵗ)` |
//! | triggered | when validation stops improving | `1 / t` |
//!
//! With the first share `a` is `Σ_i dᵗ⁻ⁱ w_i / Σ_i dᵗ⁻ⁱ`: an exponential mean that owes nothing to where it started, as Adam's moments
//! are once they are corrected. With the second it is the plain mean.

use std::collections::BTreeMap;

use antiphon_core::{Error, Problem, Result};
use antiphon_kernels::update::average;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{AVERAGE, Best};
use crate::config::Demands;
use crate::path::ModulePath;
use crate::weights::Places;
use crate::{ParametersConfig, Weight};

/// Which average of the weights is validated, chosen and written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AverageConfig {
    /// None: the weights themselves are.
    None(NoAverageConfig),
    /// A mean over all steps, in which older weights count less (Polyak and Juditsky 1992; as PyTorch's and Keras's moving averages,
    /// but corrected for its start).
    Exponential(ExponentialAverageConfig),
    /// The plain mean over all steps since validation stopped improving; the weights themselves before that (NT-ASGD, Merity et al.
    /// 2018, algorithm 1). It is held in 32 bits, as PyTorch's `ASGD` has it: after some hundred thousand steps small changes are
    /// lost.
    Triggered(TriggeredAverageConfig),
    /// The plain mean of the models of the last validations (as Vaswani et al. 2017, section 6.1, average checkpoints), made at the end
    /// of the run.
    Last(ModelsAverageConfig),
    /// The plain mean of the models that validation found best, made at the end of the run.
    Best(ModelsAverageConfig),
}

/// Nothing to set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NoAverageConfig {}

/// How long weights are remembered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExponentialAverageConfig {
    /// The share of the average that survives an optimizer step. It remembers about `1 / (1 − decay)` steps; before there are so
    /// many, it is nearly their plain mean.
    #[schemars(range(min = 0.0), extend("format" = "float", "exclusiveMaximum" = 1))]
    pub decay: f64,
}

impl Default for ExponentialAverageConfig {
    fn default() -> Self {
        Self { decay: 0.999 }
    }
}

/// How many models are averaged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelsAverageConfig {
    /// As many as this at most: the means of 2, 3, … of them are judged on the validation split, and the best one is given if it is
    /// better than the best single model. So many checkpoints are kept.
    #[schemars(range(min = 2, max = 64))]
    pub count: usize,
}

impl Default for ModelsAverageConfig {
    fn default() -> Self {
        Self { count: 5 }
    }
}

/// When validation counts as no longer improving.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TriggeredAverageConfig {
    /// The average begins behind the first validation that is worse than the best of those before the last `patience` ones (the
    /// paper's non-monotone interval `n`).
    #[schemars(range(min = 1))]
    pub patience: u64,
}

impl Default for TriggeredAverageConfig {
    fn default() -> Self {
        Self { patience: 5 }
    }
}

impl Default for AverageConfig {
    fn default() -> Self {
        Self::None(NoAverageConfig {})
    }
}

impl AverageConfig {
    /// Its name in configs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::None(_) => "none",
            Self::Exponential(_) => "exponential",
            Self::Triggered(_) => "triggered",
            Self::Last(_) => "last",
            Self::Best(_) => "best",
        }
    }

    /// Whether it can begin only by validation.
    pub fn needs_validation(&self) -> bool {
        match self {
            Self::None(_) | Self::Exponential(_) => false,
            Self::Triggered(_) | Self::Last(_) | Self::Best(_) => true,
        }
    }

    /// Takes in a model that was judged behind a step, where models are averaged: `kept` are those that are, the first ones to be
    /// averaged first. One whose figure is not finite is none of them.
    pub(crate) fn keep(&self, kept: &mut Vec<Best>, judged: Best, lower_is_better: bool) {
        let is_better = |a: f64, b: f64| if lower_is_better { a < b } else { a > b };
        let (at, count) = match self {
            Self::None(_) | Self::Exponential(_) | Self::Triggered(_) => return,
            Self::Last(c) => (0, c.count),
            Self::Best(c) => {
                (kept.iter().position(|other| is_better(judged.value, other.value)).unwrap_or(kept.len()), c.count)
            }
        };
        if judged.value.is_finite() {
            kept.insert(at, judged);
            kept.truncate(count);
        }
    }

    /// The validations that a run needs at least for the average to hold a step, if it needs any.
    pub(crate) fn least_validations(&self) -> Option<u64> {
        match self {
            Self::None(_) | Self::Exponential(_) | Self::Last(_) | Self::Best(_) => None,
            Self::Triggered(c) => Some(c.patience.saturating_add(3)),
        }
    }

    pub(crate) fn problems(&self, found: &mut Demands) {
        match self {
            Self::None(_) => {}
            Self::Exponential(c) => found.share(c.decay, "average.decay"),
            Self::Triggered(c) => found.demand(c.patience >= 1, "average.patience", || "must be at least 1".into()),
            Self::Last(c) | Self::Best(c) => {
                found.demand((2..=64).contains(&c.count), "average.count", || "must be 2 to 64".into());
            }
        }
    }

    /// The share of update number `t`, from 1; `None` while there is nothing to average.
    fn share(&self, t: u64, state: &AverageState) -> Option<f64> {
        match self {
            Self::None(_) | Self::Last(_) | Self::Best(_) => None,
            Self::Exponential(c) => Some((1.0 - c.decay) / (1.0 - c.decay.powf(t as f64))),
            Self::Triggered(_) => state.began.map(|_| 1.0 / t as f64),
        }
    }

    /// Takes a validation behind `step` into account; whether the average begins there. A value that is not finite is no sign of
    /// anything.
    pub(crate) fn observe(&self, state: &mut AverageState, step: u64, value: f64, lower_is_better: bool) -> bool {
        let Self::Triggered(config) = self else { return false };
        if state.began.is_some() || !value.is_finite() {
            return false;
        }
        let is_worse = |value: f64, than: f64| if lower_is_better { value > than } else { value < than };
        if state.reference.is_some_and(|reference| is_worse(value, reference)) {
            *state = AverageState { began: Some(step), updates: state.updates, ..AverageState::default() };
            return true;
        }
        state.recent.push(value);
        if state.recent.len() as u64 > config.patience {
            let oldest = state.recent.remove(0);
            if state.reference.is_none_or(|reference| is_worse(reference, oldest)) {
                state.reference = Some(oldest);
            }
        }
        false
    }
}

/// Where an average stands, besides its arrays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AverageState {
    /// How many steps' weights are in it.
    pub updates: u64,
    /// The step behind which validation let it begin.
    pub began: Option<u64>,
    /// The figures of the last validations, `patience` of them at most, until it begins.
    pub recent: Vec<f64>,
    /// The best figure of those before.
    pub reference: Option<f64>,
}

impl AverageState {
    /// Whether there is nothing to tell.
    pub(crate) fn is_new(&self) -> bool {
        *self == Self::default()
    }
}

/// The average at work: the mean of each parameter that is trained, by module path.
#[derive(Debug)]
pub(crate) struct Average {
    config: AverageConfig,
    parameters: ParametersConfig,
    means: BTreeMap<String, Mean>,
}

/// The mean of one parameter.
#[derive(Debug)]
struct Mean {
    dims: Vec<usize>,
    flat: Tensor<1>,
}

impl Average {
    pub(crate) fn new(config: AverageConfig, parameters: ParametersConfig) -> Self {
        Self { config, parameters, means: BTreeMap::new() }
    }

    /// Takes in the weights behind an optimizer step.
    pub(crate) fn take_in<M: Module>(&mut self, model: &M, state: &mut AverageState) {
        let Some(share) = self.config.share(state.updates + 1, state) else { return };
        state.updates += 1;
        let Self { parameters, means, .. } = self;
        model.visit(&mut TakeIn { path: ModulePath::default(), parameters, means, share: share as f32 });
    }

    /// What is judged and kept of `model`, without autodiff: the average, or the model itself while there is none. Nothing is copied.
    pub(crate) fn of<M: Module>(&self, model: &M) -> M {
        let model = model.valid();
        if self.means.is_empty() {
            model
        } else {
            model.map(&mut Put { path: ModulePath::default(), means: &self.means })
        }
    }

    /// All means.
    pub(crate) fn save(&self) -> Vec<Weight> {
        let mean = |(path, mean): (&String, &Mean)| Weight {
            path: path.clone(),
            dims: mean.dims.clone(),
            values: mean.flat.clone().try_into_vec_as::<f32>().expect("an average can be read back"),
        };
        self.means.iter().map(mean).collect()
    }

    /// Takes up what [`save`](Self::save) gave, for the parameters of `model`.
    ///
    /// # Errors
    /// If these are not exactly the parameters of the model that are trained, where there is an average; names all that differ.
    pub(crate) fn load<M: Module>(&mut self, model: &M, arrays: Vec<Weight>, state: &AverageState) -> Result<()> {
        let places = Places::of(model);
        let mut arrays: BTreeMap<String, Weight> =
            arrays.into_iter().map(|array| (array.path.clone(), array)).collect();
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: String| {
            problems.push(Problem { place: format!("{AVERAGE}.{path}").into(), message });
        };
        for path in places.paths().filter(|path| state.updates > 0 && self.parameters.trains(path)) {
            let (dims, device) = places.find(path).expect("a path of this model");
            match arrays.remove(path) {
                None => problem(path, "missing".into()),
                Some(array) if array.dims != dims => {
                    problem(path, format!("has the shape {:?}, the parameter {dims:?}", array.dims));
                }
                Some(array) => {
                    let n = array.values.len();
                    let flat = Tensor::from_data(TensorData::new(array.values, [n]), &device);
                    self.means.insert(path.to_owned(), Mean { dims, flat });
                }
            }
        }
        arrays.keys().for_each(|path| problem(path, "is an average of nothing".into()));
        if problems.is_empty() { Ok(()) } else { Err(Error { file: None, problems }) }
    }
}

struct TakeIn<'a> {
    path: ModulePath,
    parameters: &'a ParametersConfig,
    means: &'a mut BTreeMap<String, Mean>,
    share: f32,
}

impl ModuleVisitor for TakeIn<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.dotted();
        if !self.parameters.trains(&path) {
            return;
        }
        let value = param.val().inner();
        let dims = value.dims().to_vec();
        let value = value.reshape([dims.iter().product::<usize>()]);
        // Out of the map while it is moved, so that nobody else holds it.
        let before = self.means.remove(&path).map(|mean| mean.flat);
        let before = before.unwrap_or_else(|| Tensor::zeros(value.shape(), &value.device()));
        self.means.insert(path, Mean { dims, flat: average(before, value, self.share) });
    }
}

struct Put<'a> {
    path: ModulePath,
    means: &'a BTreeMap<String, Mean>,
}

impl ModuleMapper for Put<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // What is frozen has none.
        let Some(mean) = self.means.get(&self.path.dotted()) else { return param };
        let (id, tensor, mapper) = param.consume();
        Param::from_mapped_value(id, mean.flat.clone().reshape(tensor.dims()), mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct One {
        weight: Param<Tensor<2>>,
    }

    fn one(values: [f32; 2]) -> One {
        let device = Device::flex().autodiff();
        One { weight: Param::from_tensor(Tensor::from_data([values], &device)) }
    }

    fn values(model: &One) -> Vec<f32> {
        assert!(!model.weight.val().is_autodiff());
        model.weight.val().into_data().try_to_vec().unwrap()
    }

    fn averaging(config: AverageConfig) -> Average {
        Average::new(config, ParametersConfig::default())
    }

    fn exponential(decay: f64) -> AverageConfig {
        AverageConfig::Exponential(ExponentialAverageConfig { decay })
    }

    fn triggered(patience: u64) -> AverageConfig {
        AverageConfig::Triggered(TriggeredAverageConfig { patience })
    }

    /// Weights as they may follow one another.
    fn walk(t: usize) -> [f32; 2] {
        [(t as f32).sin(), 3.0 - t as f32 / 7.0]
    }

    #[test]
    fn an_exponential_average_is_the_weighted_mean_of_its_definition() {
        for decay in [0.0, 0.5, 0.99] {
            let (mut average, mut state) = (averaging(exponential(decay)), AverageState::default());
            for t in 1..=50 {
                average.take_in(&one(walk(t)), &mut state);
                let share = |i: usize| decay.powi((t - i) as i32);
                let whole: f64 = (1..=t).map(share).sum();
                let found = values(&average.of(&one([9.0, 9.0])));
                for (k, found) in found.into_iter().enumerate() {
                    let mean = (1..=t).map(|i| share(i) * f64::from(walk(i)[k])).sum::<f64>() / whole;
                    assert!((f64::from(found) - mean).abs() < 1e-5, "{decay} {t}: {found} is not {mean}");
                }
            }
            assert_eq!(state.updates, 50);
        }
    }

    #[test]
    fn the_average_of_what_does_not_change_is_itself() {
        let (mut average, mut state) = (averaging(exponential(0.9)), AverageState::default());
        for _ in 0..100 {
            average.take_in(&one([0.1, -7.3]), &mut state);
            assert_eq!(values(&average.of(&one([0.0; 2]))), [0.1, -7.3]);
        }
    }

    #[test]
    fn a_triggered_average_is_the_plain_mean_since_it_began() {
        let config = triggered(1);
        let (mut average, mut state) = (averaging(config.clone()), AverageState::default());
        let mut began = 0;
        for (t, loss) in (1..).zip([5.0, 4.0, 3.0, 3.5, 4.5, 4.6, 4.7, 1.0, 9.0]) {
            average.take_in(&one(walk(t)), &mut state);
            if began == 0 {
                assert_eq!(values(&average.of(&one(walk(t)))), walk(t));
            } else {
                for (k, found) in values(&average.of(&one(walk(t)))).into_iter().enumerate() {
                    let mean = (began + 1..=t).map(|i| walk(i)[k]).sum::<f32>() / (t - began) as f32;
                    assert!((found - mean).abs() < 1e-6, "{t}: {found} is not {mean}");
                }
            }
            if config.observe(&mut state, t as u64, loss, true) {
                assert_eq!(began, 0, "it begins once");
                began = t;
            }
        }
        // 3.5 is no worse than what came before 3.0; 4.5 is worse than 3.0.
        assert_eq!((began, state.began, state.updates), (5, Some(5), 4));
    }

    /// Beside the program of the paper: worse than the least of all but the last `n`.
    #[test]
    fn an_average_begins_where_the_papers_program_lets_it_begin() {
        let key = antiphon_core::random::Key::from_seed(3);
        let mut seen = std::collections::BTreeSet::new();
        for trial in 0..200 {
            for patience in 1..6 {
                for lower in [true, false] {
                    let sign = if lower { 1.0 } else { -1.0 };
                    let value = |t: u64| sign * (20.0 / (t + 1) as f64 + key.numbered(trial).normal(t));
                    let (mut state, mut logs) = (AverageState::default(), Vec::<f64>::new());
                    let config = triggered(patience);
                    let ours = (0..30).find(|&t| config.observe(&mut state, t, value(t), lower));
                    let theirs = (0..30).find(|&t| {
                        let loss = sign * value(t);
                        let earlier = logs.len().saturating_sub(patience as usize);
                        let least = logs[..earlier].iter().copied().fold(f64::INFINITY, f64::min);
                        logs.push(loss);
                        earlier > 0 && loss > least
                    });
                    assert_eq!(ours, theirs, "{trial} {patience} {lower}");
                    seen.insert(ours);
                }
            }
        }
        assert!(seen.len() > 10, "{seen:?}");
    }

    #[test]
    fn the_last_models_and_the_best_are_kept_in_their_orders() {
        let kept = |kind: fn(ModelsAverageConfig) -> AverageConfig, lower| {
            let mut kept = Vec::new();
            for (step, value) in (1..).zip([3.0, 1.0, f64::NAN, 2.0, 2.0, 4.0]) {
                kind(ModelsAverageConfig { count: 3 }).keep(&mut kept, Best { step, value }, lower);
            }
            kept.into_iter().map(|best| best.step).collect::<Vec<_>>()
        };
        assert_eq!(kept(AverageConfig::Last, true), [6, 5, 4]);
        assert_eq!(kept(AverageConfig::Best, true), [2, 4, 5]);
        assert_eq!(kept(AverageConfig::Best, false), [6, 1, 4]);
        let mut none = Vec::new();
        exponential(0.5).keep(&mut none, Best { step: 1, value: 1.0 }, true);
        assert!(none.is_empty());
    }

    #[test]
    fn what_is_not_finite_says_nothing() {
        let (config, mut state) = (triggered(1), AverageState::default());
        assert!(![4.0, 5.0, f64::NAN, f64::INFINITY].into_iter().any(|v| config.observe(&mut state, 1, v, true)));
        assert!(config.observe(&mut state, 7, 4.5, true));
    }

    #[test]
    fn a_mean_is_moved_where_it_lies_and_judged_where_it_lies() {
        let address = |tensor: Tensor<1>| tensor.try_into_primitive::<Flex>().unwrap().bytes().as_ptr();
        let (mut average, mut state) = (averaging(exponential(0.5)), AverageState::default());
        average.take_in(&one([1.0, 2.0]), &mut state);
        let place = |average: &Average| address(average.means["weight"].flat.clone());
        let before = place(&average);
        let judged = average.of(&one([5.0, 6.0]));
        assert_eq!(address(judged.weight.val().reshape([2])), before);
        drop(judged);
        average.take_in(&one([3.0, 4.0]), &mut state);
        assert_eq!(place(&average), before);
    }

    #[test]
    fn an_average_comes_back_and_what_does_not_fit_is_named() {
        let (mut average, mut state) = (averaging(exponential(0.5)), AverageState::default());
        let nothing = average.save();
        assert!(nothing.is_empty());
        average.take_in(&one([1.0, 2.0]), &mut state);
        average.take_in(&one([3.0, 4.0]), &mut state);
        let mut again = averaging(exponential(0.5));
        again.load(&one([0.0; 2]), average.save(), &state).unwrap();
        assert_eq!(again.save(), average.save());
        let error = again.load(&one([0.0; 2]), nothing, &state).unwrap_err().to_string();
        assert_eq!(error, "average.weight: missing");
        let error = again.load(&one([0.0; 2]), average.save(), &AverageState::default()).unwrap_err().to_string();
        assert_eq!(error, "average.weight: is an average of nothing");
    }
}
