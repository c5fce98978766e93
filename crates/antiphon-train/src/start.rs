//! `[train.start_from]`: parameters that begin as those of another model, not as they are drawn.

use std::collections::BTreeMap;
use std::path::PathBuf;

use antiphon_core::{Error, Problem, Result};
use burn::module::Module;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Demands;
use crate::part::holds;
use crate::weights::shapes;
use crate::{Weight, load_weights, save_weights};

/// What the parameters start from. What is not named here is drawn by `seed`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StartConfig {
    /// The model whose parameters are taken: a model file, or the folder of a run that is trained, from where the program is
    /// called. Its SHA-256 is part of the run's identity. Of a vocabulary the tokens that it knows keep their rows; the rows of
    /// others are drawn.
    #[schemars(length(min = 1))]
    pub model: Option<PathBuf>,
    /// The parts that are taken, by the paths of their parameters: `encoder`, `decoder.layers.0`, `*.table` (`*` is any one
    /// segment). Empty: all.
    pub parts: Vec<String>,
    /// Parts that are not taken, though they are among `parts`: they are drawn.
    pub leave_out: Vec<String>,
    /// Where the tokenizers come from.
    pub tokenizers: StartTokenizers,
    /// Files of word vectors, below the data folder, for tables that have a row for each token: `"source.table" = "glove.txt"`.
    /// word2vec, GloVe and fastText are read, as text; how many tokens have a vector there is told. The rows of others stay as they
    /// are: those of the model, or drawn.
    #[schemars(extend("additionalProperties" = { "type": "string", "minLength": 1 }))]
    pub vectors: BTreeMap<String, PathBuf>,
}

/// Where the tokenizers of a run come from that starts from a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartTokenizers {
    /// They are learned from this corpus.
    #[default]
    Learn,
    /// They are those of the model. `[tokenizer]` must be what it was for the model.
    Keep,
}

impl StartConfig {
    /// Whether anything starts from something.
    pub fn is_used(&self) -> bool {
        self.model.is_some() || !self.vectors.is_empty()
    }

    /// Whether the parameter at `path` is taken from the model.
    pub fn takes(&self, path: &str) -> bool {
        let within = |parts: &[String]| parts.iter().any(|part| holds(part, path));
        (self.parts.is_empty() || within(&self.parts)) && !within(&self.leave_out)
    }

    pub(crate) fn problems(&self, found: &mut Demands) {
        let named = self.model.as_ref().is_none_or(|model| !model.as_os_str().is_empty());
        found.demand(named, "start_from.model", || "must name a model, but is empty".into());
        for (table, file) in &self.vectors {
            let place = format!("start_from.vectors.{}", serde_json::Value::from(table.as_str()));
            found.demand(!file.as_os_str().is_empty(), &place, || "must name a file of vectors, but is empty".into());
        }
    }

    pub(crate) fn warnings(&self, found: &mut Demands) {
        let idle = || "has no effect: `train.start_from.model` names no model".into();
        let is_there = self.model.is_some();
        found.demand(is_there || self.parts.is_empty(), "start_from.parts", idle);
        found.demand(is_there || self.leave_out.is_empty(), "start_from.leave_out", idle);
        found.demand(is_there || self.tokenizers == StartTokenizers::Learn, "start_from.tokenizers", idle);
    }
}

/// For each row of a parameter the row of another model's that it takes; `None`: it keeps its own.
pub type Rows = Vec<Option<usize>>;

/// Rows that are taken one by one, wherever in a parameter they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slices {
    /// The dimension along which rows are counted: 0 of a table `[V, E]`, and 1 of a layer `[M, V]`, whose columns they are.
    pub along: usize,
    /// Which are taken.
    pub rows: Rows,
}

impl Slices {
    /// Why a parameter of the shape `there` has not what one of the shape `here` takes, if it has not.
    fn misfit(&self, there: &[usize], here: &[usize]) -> Option<String> {
        let along = self.along;
        let others = |dims: &[usize]| {
            let others = dims.iter().enumerate().filter(|&(d, _)| d != along);
            others.map(|(_, &size)| size).collect::<Vec<_>>()
        };
        let what = if along == 0 { "rows" } else { "columns" };
        if there.len() != here.len() || others(there) != others(here) {
            return Some(format!("has {what} of the shape {:?} there, and {:?} here", others(there), others(here)));
        }
        let known = self.rows.iter().flatten().all(|&from| from < there[along]);
        (self.rows.len() != here[along] || !known).then(|| {
            format!("has the shape {there:?} there, and {here:?} here, which are not {what} that belong to each other")
        })
    }

    /// Takes them: `from` and `to` are of the shapes `there` and `here`.
    fn copy(&self, from: &[f32], there: &[usize], to: &mut [f32], here: &[usize]) {
        let outer: usize = here[..self.along].iter().product();
        let inner: usize = here[self.along + 1..].iter().product();
        let pairs = self.rows.iter().enumerate().filter_map(|(to, from)| Some((to, (*from)?)));
        for (new, old) in pairs {
            for block in 0..outer {
                let (new, old) = (block * here[self.along] + new, block * there[self.along] + old);
                to[new * inner..][..inner].copy_from_slice(&from[old * inner..][..inner]);
            }
        }
    }
}

/// What a model takes from another one, known to fit.
#[derive(Debug)]
pub struct Inherited {
    taken: BTreeMap<String, Weight>,
    slices: BTreeMap<String, Slices>,
    unused: Vec<String>,
}

impl Inherited {
    /// What `model` takes of `weights`. Of parameters that have `slices` it takes these alone. Nothing of the model is drawn for that.
    ///
    /// # Errors
    /// If a parameter that is to be taken is not among the weights, or has another shape there: names all of them.
    pub fn of<M: Module>(
        model: &M,
        weights: Vec<Weight>,
        config: &StartConfig,
        slices: BTreeMap<String, Slices>,
    ) -> Result<Self> {
        let mut weights: BTreeMap<String, Weight> = weights.into_iter().map(|w| (w.path.clone(), w)).collect();
        let (mut taken, mut problems) = (BTreeMap::new(), Vec::new());
        for (path, dims) in shapes(model).into_iter().filter(|(path, _)| config.takes(path)) {
            let Some(weight) = weights.remove(&path) else {
                problems.push(Problem { place: path.into(), message: "that model has no such parameter".into() });
                continue;
            };
            let misfit = match slices.get(&path) {
                Some(slices) => slices.misfit(&weight.dims, &dims),
                None => {
                    (weight.dims != dims).then(|| format!("has the shape {:?} there, and {dims:?} here", weight.dims))
                }
            };
            match misfit {
                Some(message) => problems.push(Problem { place: path.into(), message }),
                None => drop(taken.insert(path, weight)),
            }
        }
        if problems.is_empty() {
            Ok(Self { taken, slices, unused: weights.into_keys().collect() })
        } else {
            Err(Error { file: None, problems })
        }
    }

    /// Parts of parameters that come from elsewhere: by the path of each what there is, and what of it is taken.
    pub fn of_slices(parameters: BTreeMap<String, (Weight, Slices)>) -> Self {
        let (mut taken, mut slices) = (BTreeMap::new(), BTreeMap::new());
        for (path, (weight, of)) in parameters {
            taken.insert(path.clone(), weight);
            slices.insert(path, of);
        }
        Self { taken, slices, unused: Vec::new() }
    }

    /// How many parameters are taken.
    pub fn count(&self) -> usize {
        self.taken.len()
    }

    /// Whether the parameter at `path` is taken.
    pub fn has(&self, path: &str) -> bool {
        self.taken.contains_key(path)
    }

    /// The paths of the other model's parameters that are not taken.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Puts it in its places.
    ///
    /// # Errors
    /// If `model` is another one than that for which it was found to fit.
    pub fn give<M: Module>(mut self, model: M) -> Result<M> {
        let mut own = save_weights(&model);
        for weight in &mut own {
            let Some(old) = self.taken.remove(&weight.path) else { continue };
            match self.slices.get(&weight.path) {
                Some(slices) => slices.copy(&old.values, &old.dims, &mut weight.values, &weight.dims),
                None => weight.values = old.values,
            }
        }
        load_weights(model, own)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::{Device, Tensor, TensorData};
    use serde_json::json;

    use super::*;

    #[derive(Module, Debug)]
    struct Net {
        table: Param<Tensor<2>>,
        bias: Param<Tensor<1>>,
        extra: Option<Param<Tensor<1>>>,
    }

    /// Numbers that count on from `first`.
    fn net(rows: usize, first: f32, extra: bool) -> Net {
        let device = Device::flex();
        let numbers = |n: usize| (0..n).map(|i| first + i as f32).collect::<Vec<f32>>();
        let vector = || Param::from_tensor(Tensor::from_data(TensorData::new(numbers(2), [2]), &device));
        let table = Tensor::from_data(TensorData::new(numbers(2 * rows), [rows, 2]), &device);
        Net { table: Param::from_tensor(table), bias: vector(), extra: extra.then(vector) }
    }

    fn config(json: serde_json::Value) -> StartConfig {
        serde_json::from_value(json).unwrap()
    }

    fn values(model: &Net) -> Vec<Vec<f32>> {
        save_weights(model).into_iter().map(|weight| weight.values).collect()
    }

    #[test]
    fn rows_are_taken_one_by_one_and_the_others_stay() {
        let slices = Slices { along: 0, rows: vec![Some(0), None, Some(1)] };
        let rows = BTreeMap::from([("table".to_owned(), slices)]);
        let inherited = Inherited::of(&net(3, 0.0, false), save_weights(&net(2, 50.0, true)), &config(json!({})), rows);
        let inherited = inherited.unwrap();
        assert_eq!((inherited.count(), inherited.unused()), (2, &["extra".to_owned()][..]));
        let model = inherited.give(net(3, 0.0, false)).unwrap();
        assert_eq!(values(&model), [vec![50.0, 51.0, 2.0, 3.0, 52.0, 53.0], vec![50.0, 51.0]]);
    }

    #[test]
    fn parts_that_are_not_named_or_left_out_stay() {
        let after = |json| {
            let inherited =
                Inherited::of(&net(2, 0.0, true), save_weights(&net(2, 50.0, true)), &config(json), BTreeMap::new());
            let first = |model: &Net| values(model).iter().map(|values| values[0]).collect::<Vec<_>>();
            first(&inherited.unwrap().give(net(2, 0.0, true)).unwrap())
        };
        assert_eq!(after(json!({})), [50.0, 50.0, 50.0]);
        assert_eq!(after(json!({"parts": ["table", "bias"]})), [50.0, 50.0, 0.0]);
        assert_eq!(after(json!({"parts": ["table", "bias"], "leave_out": ["table"]})), [0.0, 50.0, 0.0]);
        assert_eq!(after(json!({"leave_out": ["*"]})), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_shapes() {
        let old = || save_weights(&net(2, 50.0, false));
        let refused =
            |rows| Inherited::of(&net(3, 0.0, true), old(), &config(json!({})), rows).unwrap_err().to_string();
        assert_eq!(
            refused(BTreeMap::new()),
            "2 problems\n  extra: that model has no such parameter\n  table: has the shape [2, 2] there, and [3, 2] here"
        );
        let rows = || BTreeMap::from([("table".to_owned(), Slices { along: 0, rows: vec![None; 3] })]);
        assert_eq!(refused(rows()), "extra: that model has no such parameter");
        // Rows that are no rows of one of the two are not taken from wherever they would lie.
        let fits = config(json!({"leave_out": ["extra"]}));
        for odd in [vec![None; 2], vec![None; 4], vec![Some(0), None, Some(2)]] {
            let rows = BTreeMap::from([("table".to_owned(), Slices { along: 0, rows: odd })]);
            let error = Inherited::of(&net(3, 0.0, true), old(), &fits, rows).unwrap_err().to_string();
            assert!(
                error.starts_with("table: has the shape [2, 2] there, and [3, 2] here, which are not rows"),
                "{error}"
            );
        }
        let mut narrow = old();
        narrow[0].dims = vec![4, 1];
        let error = Inherited::of(&net(3, 0.0, false), narrow, &config(json!({})), rows()).unwrap_err().to_string();
        assert_eq!(error, "table: has rows of the shape [1] there, and [2] here");
        assert!(Inherited::of(&net(3, 0.0, true), old(), &fits, rows()).is_ok());
    }

    /// Along any dimension: what is taken stands where the same place of the other model says, and all else is as it was.
    #[test]
    fn slices_are_taken_along_any_dimension() {
        #[derive(Module, Debug)]
        struct Cube {
            cube: Param<Tensor<3>>,
        }
        let cube = |dims: [usize; 3], first: f32| {
            let numbers: Vec<f32> = (0..dims.iter().product()).map(|i: usize| first + i as f32).collect();
            Cube { cube: Param::from_tensor(Tensor::from_data(TensorData::new(numbers, dims), &Device::flex())) }
        };
        let at = |weight: &Weight, place: [usize; 3]| {
            let flat = place.iter().zip(&weight.dims).fold(0, |flat, (place, size)| flat * size + place);
            weight.values[flat]
        };
        for along in 0..3 {
            let (mut here, mut there) = ([2, 3, 4], [2, 3, 4]);
            (here[along], there[along]) = (5, 3);
            let rows = vec![Some(2), None, Some(0), Some(0), None];
            let slices = BTreeMap::from([("cube".to_owned(), Slices { along, rows: rows.clone() })]);
            let old = save_weights(&cube(there, 1000.0));
            let inherited = Inherited::of(&cube(here, 0.0), old.clone(), &config(json!({})), slices).unwrap();
            let (before, after) = (cube(here, 0.0), inherited.give(cube(here, 0.0)).unwrap());
            let (before, after) = (&save_weights(&before)[0], &save_weights(&after)[0]);
            for i in 0..here.iter().product() {
                let place = [i / (here[1] * here[2]), i / here[2] % here[1], i % here[2]];
                let mut from = place;
                let expected = match rows[place[along]] {
                    Some(row) => {
                        from[along] = row;
                        at(&old[0], from)
                    }
                    None => at(before, place),
                };
                assert_eq!(at(after, place), expected, "{place:?} along {along}");
            }
        }
    }
}
