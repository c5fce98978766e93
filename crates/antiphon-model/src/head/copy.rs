//! A head that says words of the vocabulary, and copies words of the sources (See et al. 2017).
//!
//! `p(w) = g P(w) + (1 − g) Σ_{i: says_i = w} a_i` (eq. 9), with the softmax `P` over the vocabulary and the gate `g = σ(v r + b)`. The
//! shares `a` are a softmax over all steps of the sources that say a word, with scores `r W_s m_i` of a weight for each source. A row
//! whose sources say nothing has `g = 1`.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{Batch, CopyBatch, Error, Mask, Result, Special, StepOutput, TokenId};
use antiphon_kernels::{
    IMPOSSIBLE, OutputLayer, PackedWeight, Pointing, Term, TokenScores, dot_products, host, linear, log_add, point,
};
use burn::module::{Module, Param};
use burn::tensor::activation::{log_sigmoid, log_softmax};
use burn::tensor::{Bool, Device, Tensor, TensorData};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{projection, weight_of};
use crate::encoder::Encoded;
use crate::hiding::hidden;
use crate::initial::{Initial, zeros};
use crate::lookup::check_ids;

/// What is copied from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CopyHeadConfig {
    /// The sources that words are copied from: `source`, or names of streams. If unset, all that are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), inner(length(min = 1)), example = &["source"])]
    pub from: Option<Vec<String>>,
    /// The share of words that may be copied which training hides, drawn anew for each row of a batch: a hidden word is unknown in the
    /// sources that are copied from, and can only be copied. So a model learns to copy words that it has never seen.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub hide: f64,
}

impl CopyHeadConfig {
    /// Whether it copies from a source of this name.
    pub(crate) fn copies_from(&self, name: &str, is_text: bool) -> bool {
        match &self.from {
            Some(names) => names.iter().any(|other| other == name),
            None => is_text,
        }
    }

    /// A head of outputs of width `output` over `vocabulary` tokens, which copies from memories of these widths, `None` from a source that
    /// is not copied from.
    pub(crate) fn init(
        &self,
        vocabulary: usize,
        output: usize,
        tied: bool,
        memories: &[Option<usize>],
        key: Key,
        device: &Device,
    ) -> CopyHead {
        let weight = |dims, key: Key| Initial::GlorotUniform.weight(dims, output, key, device);
        let of_source = |(i, &width): (usize, &Option<usize>)| {
            Some(weight([output, width?], key.named("pointer").numbered(i as u64)))
        };
        CopyHead {
            weight: (!tied).then(|| weight([vocabulary, output], key)),
            bias: zeros(vocabulary, device),
            pointers: memories.iter().enumerate().filter_map(of_source).collect(),
            gate: Gate { weight: weight([output, 1], key.named("gate")), bias: zeros(1, device) },
            from: memories.iter().map(Option::is_some).collect(),
            hide: self.hide,
        }
    }
}

/// A head with its parameters.
#[derive(Module, Debug)]
pub(crate) struct CopyHead {
    /// `[V, R]`; absent where the target's table is used.
    pub(super) weight: Option<Param<Tensor<2>>>,
    /// `[V]`.
    pub(super) bias: Param<Tensor<1>>,
    /// `[R, M]` of each source that is copied from.
    pointers: Vec<Param<Tensor<2>>>,
    gate: Gate,
    /// Which sources are copied from.
    #[module(skip)]
    from: Vec<bool>,
    #[module(skip)]
    hide: f64,
}

/// How much the vocabulary says: `σ(v r + b)`.
#[derive(Module, Debug)]
struct Gate {
    /// `[R, 1]`.
    weight: Param<Tensor<2>>,
    /// `[1]`.
    bias: Param<Tensor<1>>,
}

/// What may be copied in a batch, as it was read.
#[derive(Clone)]
pub(crate) struct Copied {
    /// `[B, S, M]` of each source that is copied from, and what its steps say, `[B, S]`.
    memories: Vec<(Tensor<3>, Arc<[TokenId]>)>,
    /// Of each row the ids that any step says, ascending.
    said: Vec<Vec<TokenId>>,
    /// `N`.
    pub(crate) slots: usize,
}

impl Copied {
    /// Whether a row of the batch can say this id by copying.
    pub(crate) fn says(&self, row: usize, id: TokenId) -> bool {
        self.said[row].binary_search(&id).is_ok()
    }
}

impl CopyHead {
    /// A batch as training shows it: some words are hidden, if any are.
    pub(super) fn hiding(&self, batch: &Batch, key: Key) -> Option<Batch> {
        (self.hide > 0.0).then(|| hidden(batch.clone(), self.bias.dims()[0], self.hide, key))
    }

    /// What may be copied of sources that were read.
    ///
    /// # Errors
    /// If it is not told what the steps say, or that does not fit what was read, or an id lies beyond vocabulary and slots.
    pub(crate) fn copied(&self, encoded: &[Encoded], copies: Option<&CopyBatch>) -> Result<Copied> {
        let untold = || Error::new("this model copies words of its sources, and was not told what these say");
        let copies = copies.ok_or_else(untold)?;
        let CopyBatch { says, slots } = copies;
        if says.len() != encoded.len() || self.from.len() != encoded.len() {
            let (told, read) = (says.len(), encoded.len());
            return Err(Error::new(format!("it was told what {told} sources say, and has read {read}")));
        }
        if !copies.fits(encoded.iter().map(|source| &*source.lengths)) {
            return Err(Error::new("what may be copied is not that of the sources"));
        }
        let rows = encoded.first().map_or(0, |source| source.lengths.len());
        let (mut said, mut memories) = (vec![Vec::new(); rows], Vec::new());
        for ((source, says), _) in encoded.iter().zip(says).zip(&self.from).filter(|(_, from)| **from) {
            let [_, steps, _] = source.memory.dims();
            check_ids(&says.ids, self.bias.dims()[0] + slots, "copied")?;
            let mut padded = vec![Special::Pad.id(); rows * steps];
            for (b, said) in said.iter_mut().enumerate() {
                let row = says.row(b);
                padded[b * steps..][..row.len()].copy_from_slice(row);
                said.extend(row.iter().filter(|&&id| id != Special::Pad.id()));
            }
            memories.push((source.memory.clone(), padded.into()));
        }
        for said in &mut said {
            said.sort_unstable();
            said.dedup();
        }
        Ok(Copied { memories, said, slots: *slots })
    }

    /// The loss of given tokens, one for each output `[N, R]`, of which a row of the batch has `lengths` each.
    pub(crate) fn term(
        &self,
        outputs: Tensor<2>,
        targets: Vec<TokenId>,
        lengths: &Arc<[u32]>,
        tied: Option<Tensor<2>>,
        copied: &Copied,
    ) -> Term {
        let [n, _] = outputs.dims();
        let gate = outputs.clone().matmul(self.gate.weight.val()) + self.gate.bias.val().unsqueeze();
        let gate = gate.reshape([n]);
        let (mut own, mut beside) = (log_sigmoid(gate.clone()), log_sigmoid(-gate));
        let labels: Arc<[TokenId]> = targets.as_slice().into();
        let pointed = self.pointers.iter().zip(&copied.memories).map(|(pointer, (memory, says))| {
            let pointing = Pointing { says: says.clone(), queries: lengths.clone(), labels: labels.clone() };
            point(project(outputs.clone(), pointer.val()), memory.clone(), &pointing)
        });
        let pointed = pointed.reduce(log_add).expect("some source is copied from");
        let of = |which: usize| pointed.clone().narrow(0, which, 1).reshape([n]);
        beside = beside + of(0) - of(1);
        let rows = || lengths.iter().enumerate().flat_map(|(b, &length)| std::iter::repeat_n(b, length as usize));
        let device = own.device().inner();
        let fill = |values: Tensor<1>, of: Vec<bool>, by: f32| match of.contains(&true) {
            true => values.mask_fill(Tensor::<1, Bool>::from_data(TensorData::new(of, [n]), &device), by),
            false => values,
        };
        own = fill(own, rows().map(|b| copied.said[b].is_empty()).collect(), 0.0);
        beside = fill(beside, rows().zip(&*labels).map(|(b, &label)| !copied.says(b, label)).collect(), IMPOSSIBLE);
        let projection = projection(&self.weight, &self.bias, outputs, targets, tied);
        Term::Copied { projection, own, beside, weight: 1.0 }
    }

    /// How probable given tokens are, with logits and the scores of pointers divided by `temperature`, and whether none is more so.
    pub(crate) fn scores(
        &self,
        outputs: &Tensor<2>,
        targets: &[TokenId],
        lengths: &[u32],
        tied: Option<Tensor<2>>,
        copied: &Copied,
        temperature: f64,
    ) -> TokenScores {
        let (weight, bias) = (weight_of(&self.weight, tied).inner().transpose(), self.bias.val().inner().unsqueeze());
        let vocabulary = self.bias.dims()[0];
        let (pointer, sources) = (self.pointer(temperature), CopiedRows::new(copied));
        let owners: Vec<u32> = owners(lengths);
        let outputs = outputs.clone().inner();
        let mut scores = TokenScores::default();
        let chunk = (MOST / vocabulary).max(1);
        for (targets, from) in targets.chunks(chunk).zip((0..).step_by(chunk)) {
            let states = outputs.clone().narrow(0, from, targets.len());
            let logits = states.clone().matmul(weight.clone()) + bias.clone();
            let log_p = host(log_softmax(logits / temperature, 1));
            let pointed = pointer.point(states, &sources, &owners[from..][..targets.len()]);
            let rows = log_p.par_chunks_exact(vocabulary).zip(&pointed).zip(targets);
            let judged: Vec<(f32, bool)> = rows
                .map(|((log_p, pointed), &target)| {
                    let of = |id: TokenId| log_p.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
                    let own = pointed.mixed(target, of(target));
                    // Of what is not copied the most probable is that of the vocabulary alone, and what is copied is worth no less.
                    let top = log_p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let top = pointed
                        .said
                        .iter()
                        .map(|&(id, _)| pointed.mixed(id, of(id)))
                        .fold((pointed.own + f64::from(top)) as f32, f32::max);
                    (own, own >= top)
                })
                .collect();
            for (log_prob, correct) in judged {
                scores.log_probs.push(log_prob);
                scores.correct.push(correct);
            }
        }
        scores
    }

    /// What points, off the graph, with scores divided by `temperature`.
    fn pointer(&self, temperature: f64) -> Pointer {
        let weight = |pointer: &Param<Tensor<2>>| {
            let weight = pointer.val().inner();
            PackedWeight::new(if temperature == 1.0 { weight } else { weight / temperature })
        };
        Pointer {
            weights: self.pointers.iter().map(weight).collect(),
            gate: host(self.gate.weight.val().inner()),
            bias: host(self.gate.bias.val().inner())[0],
        }
    }

    /// The head, ready for many steps of a search. Off the graph.
    pub(crate) fn for_search(&self, tied: Option<Tensor<2>>) -> CopySearch {
        let layer = OutputLayer::new(weight_of(&self.weight, tied), self.bias.val());
        CopySearch { layer, pointer: self.pointer(1.0) }
    }
}

/// So many logits are on the host at once.
const MOST: usize = 1 << 22;

/// A sequence of rows times a weight.
fn project(rows: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    linear(rows.unsqueeze_dim(0), weight).squeeze_dim(0)
}

/// Which row of a batch each of its real target tokens stands in.
pub(crate) fn owners(lengths: &[u32]) -> Vec<u32> {
    let row = |(b, &length): (usize, &u32)| std::iter::repeat_n(b as u32, length as usize);
    lengths.iter().enumerate().flat_map(row).collect()
}

/// What may be copied, on the host.
pub(crate) struct CopiedRows {
    memories: Vec<HostMemory>,
    rows: Vec<CopiedRow>,
    /// `N`.
    pub(crate) slots: usize,
}

/// A memory that is copied from.
struct HostMemory {
    /// `[B, S, M]`.
    values: Vec<f32>,
    steps: usize,
    width: usize,
}

/// What the sources of a row say.
struct CopiedRow {
    /// Each once, ascending.
    said: Vec<TokenId>,
    /// Of each memory its steps that say something, and the place in `said` of what they say.
    steps: Vec<Vec<(u32, u32)>>,
}

impl CopiedRows {
    pub(crate) fn new(copied: &Copied) -> Self {
        let memory = |(memory, _): &(Tensor<3>, Arc<[TokenId]>)| {
            let [_, steps, width] = memory.dims();
            HostMemory { values: host(memory.clone().inner()), steps, width }
        };
        let row = |(b, said): (usize, &Vec<TokenId>)| {
            let of_memory = |(memory, says): &(Tensor<3>, Arc<[TokenId]>)| {
                let steps = memory.dims()[1];
                let place = |(step, id): (usize, &TokenId)| {
                    // The padding symbol is never among them.
                    said.binary_search(id).ok().map(|place| (step as u32, place as u32))
                };
                says[b * steps..][..steps].iter().enumerate().filter_map(place).collect()
            };
            CopiedRow { said: said.clone(), steps: copied.memories.iter().map(of_memory).collect() }
        };
        Self {
            memories: copied.memories.iter().map(memory).collect(),
            rows: copied.said.iter().enumerate().map(row).collect(),
            slots: copied.slots,
        }
    }
}

/// What points at steps of memories, and how much that counts.
pub(crate) struct Pointer {
    /// `[R, M]` of each memory.
    weights: Vec<PackedWeight>,
    /// `[R]`.
    gate: Vec<f32>,
    bias: f32,
}

/// What one output copies.
#[derive(Clone)]
pub(crate) struct Pointed {
    /// `ln g`.
    own: f64,
    /// `ln (1 − g) + ln C` of all that its sources say, ids ascending.
    said: Vec<(TokenId, f64)>,
}

impl Pointed {
    /// What an id is worth by copying.
    fn of(&self, id: TokenId) -> f64 {
        match self.said.binary_search_by_key(&id, |&(id, _)| id) {
            Ok(place) => self.said[place].1,
            Err(_) => f64::NEG_INFINITY,
        }
    }

    /// The logarithm of an id's probability, of which the vocabulary holds `log_p`.
    fn mixed(&self, id: TokenId, log_p: f32) -> f32 {
        sum_of_logs(self.own + f64::from(log_p), self.of(id)) as f32
    }
}

/// `ln (e^a + e^b)`; of a NaN it is one.
fn sum_of_logs(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY {
        return b;
    }
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    high + (low - high).exp().ln_1p()
}

impl Pointer {
    /// What outputs `[B, R]` copy of rows `owners` of the sources, one each. No number of an output depends on the others.
    pub(crate) fn point(&self, outputs: Tensor<2>, sources: &CopiedRows, owners: &[u32]) -> Vec<Pointed> {
        let queries: Vec<Vec<f32>> = self.weights.iter().map(|weight| host(weight.multiply(outputs.clone()))).collect();
        let states = host(outputs);
        let width = self.gate.len();
        (0..owners.len())
            .into_par_iter()
            .map(|at| {
                let row = &sources.rows[owners[at] as usize];
                if row.said.is_empty() {
                    return Pointed { own: 0.0, said: Vec::new() };
                }
                let products = states[at * width..][..width].iter().zip(&self.gate);
                let gate: f64 =
                    products.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>() + f64::from(self.bias);
                let mut scores: Vec<Vec<f32>> = Vec::with_capacity(sources.memories.len());
                for ((memory, queries), steps) in sources.memories.iter().zip(&queries).zip(&row.steps) {
                    let &HostMemory { ref values, steps: all, width } = memory;
                    let real = steps.last().map_or(0, |&(step, _)| step as usize + 1);
                    let values = &values[owners[at] as usize * all * width..][..real * width];
                    let mut of_steps = vec![0.0; real];
                    dot_products(&queries[at * width..][..width], values, &mut of_steps);
                    scores.push(of_steps);
                }
                let said = || {
                    let of_memory = |(scores, steps): (&'_ Vec<f32>, &'_ Vec<(u32, u32)>)| {
                        let score = |&(step, place): &(u32, u32)| (place as usize, f64::from(scores[step as usize]));
                        steps.iter().map(score).collect::<Vec<_>>()
                    };
                    scores.iter().zip(&row.steps).flat_map(of_memory).collect::<Vec<_>>()
                };
                let said = said();
                let top = said.iter().map(|&(_, score)| score).fold(f64::NEG_INFINITY, f64::max);
                let (mut sums, mut total) = (vec![0.0_f64; row.said.len()], 0.0);
                for (place, score) in said {
                    let share = (score - top).exp();
                    sums[place] += share;
                    total += share;
                }
                let log_total = total.ln() - log_sigmoid_of(-gate);
                let worth = sums.into_iter().map(|sum| sum.ln() - log_total);
                Pointed { own: log_sigmoid_of(gate), said: row.said.iter().copied().zip(worth).collect() }
            })
            .collect()
    }
}

/// `ln σ(x)`.
fn log_sigmoid_of(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// The head, ready for many steps of a search.
pub(crate) struct CopySearch {
    pub(super) layer: OutputLayer,
    pub(crate) pointer: Pointer,
}

impl CopySearch {
    /// The `k` best tokens of each output that its row may choose, slots among them. What is not copied and is among them is among the `k`
    /// best of the vocabulary too.
    ///
    /// → the best token of the vocabulary alone, of each row, for [`given`](Self::given); none, if one may not choose any of it.
    pub(super) fn best(
        &self,
        outputs: Tensor<2>,
        pointed: &[Pointed],
        banned: &[TokenId],
        masks: &[Mask],
        k: usize,
        out: &mut StepOutput,
    ) -> Vec<(TokenId, f32)> {
        let vocabulary = self.layer.vocabulary() as TokenId;
        let known = |ids: &[TokenId]| ids.iter().copied().filter(|&id| id < vocabulary).collect::<Vec<_>>();
        let of_vocabulary = |mask: &Mask| match mask {
            Mask::Free => Mask::Free,
            Mask::Banned(ids) => Mask::Banned(known(ids)),
            Mask::Allowed(ids) => Mask::Allowed(known(ids)),
        };
        let of_rows: Vec<Mask> = masks.iter().map(of_vocabulary).collect();
        let best = self.layer.best(outputs.clone(), &known(banned), &of_rows, k);
        let firsts: Vec<(TokenId, f32)> = best.iter().filter_map(|row| row.first().copied()).collect();
        let is_measured = firsts.len() == pointed.len() && firsts.iter().all(|(_, log_p)| log_p.is_finite());
        let firsts = if is_measured { firsts } else { Vec::new() };
        // As many of each row as the one has that says most: what lacks is the first token of the vocabulary.
        let said = |pointed: &Pointed| known(&pointed.said.iter().map(|&(id, _)| id).collect::<Vec<_>>());
        let said: Vec<Vec<TokenId>> = pointed.iter().map(said).collect();
        let each = said.iter().map(Vec::len).max().unwrap_or(0);
        let padded = said.iter().flat_map(|ids| ids.iter().copied().chain(std::iter::repeat_n(0, each - ids.len())));
        let of_said = self.of_vocabulary(outputs, &padded.collect::<Vec<_>>(), &firsts);
        for (b, (best, pointed)) in best.into_iter().zip(pointed).enumerate() {
            let mask = masks.get(b).unwrap_or(&Mask::Free);
            let allowed = |id: TokenId| mask.allows(id) && !banned.contains(&id);
            let not_said = best.into_iter().filter(|&(id, _)| pointed.of(id) == f64::NEG_INFINITY || !allowed(id));
            let mut row: Vec<(f32, TokenId)> =
                not_said.map(|(id, log_p)| ((pointed.own + f64::from(log_p)) as f32, id)).collect();
            let log_p = said[b].iter().copied().zip(of_said[b * each..].iter().copied());
            let slots = pointed.said.iter().filter(|(id, _)| *id >= vocabulary).map(|&(id, _)| (id, f32::NEG_INFINITY));
            let copied = log_p.chain(slots).filter(|&(id, _)| pointed.of(id) != f64::NEG_INFINITY && allowed(id));
            row.extend(copied.map(|(id, log_p)| (pointed.mixed(id, log_p), id)));
            row.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            row.truncate(k);
            out.tokens.extend(row.iter().map(|&(_, id)| id));
            out.log_probs.extend(row.iter().map(|&(log_prob, _)| log_prob));
        }
        firsts
    }

    /// What the vocabulary alone holds of given tokens, as many of each output.
    fn of_vocabulary(&self, outputs: Tensor<2>, tokens: &[TokenId], firsts: &[(TokenId, f32)]) -> Vec<f32> {
        let (rows, vocabulary) = (outputs.dims()[0], self.layer.vocabulary());
        if tokens.is_empty() {
            return Vec::new();
        }
        if !firsts.is_empty() {
            return self.layer.given(outputs, tokens, firsts);
        }
        let (all, each) = (self.layer.log_probs(outputs), tokens.len() / rows);
        tokens.iter().enumerate().map(|(i, &id)| all[i / each * vocabulary + id as usize]).collect()
    }

    /// The log-probabilities of given tokens, as many of each output, slots among them. `firsts`: what [`best`](Self::best) gave, or none.
    pub(super) fn given(
        &self,
        outputs: Tensor<2>,
        pointed: &[Pointed],
        tokens: &[TokenId],
        firsts: &[(TokenId, f32)],
    ) -> Vec<f32> {
        let (each, vocabulary) = (tokens.len() / pointed.len().max(1), self.layer.vocabulary() as TokenId);
        let known: Vec<TokenId> = tokens.iter().map(|&id| if id < vocabulary { id } else { 0 }).collect();
        let of_known = self.of_vocabulary(outputs, &known, firsts);
        let mixed = |(i, (&id, log_p)): (usize, (&TokenId, f32))| {
            pointed[i / each].mixed(id, if id < vocabulary { log_p } else { f32::NEG_INFINITY })
        };
        tokens.iter().zip(of_known).enumerate().map(mixed).collect()
    }

    /// The log-probabilities of all tokens and `slots` slots, `[B, V + N]`.
    pub(super) fn log_probs(&self, outputs: Tensor<2>, pointed: &[Pointed], slots: usize) -> Vec<f32> {
        let vocabulary = self.layer.vocabulary();
        let of_vocabulary = self.layer.log_probs(outputs);
        let width = vocabulary + slots;
        let mut all = vec![f32::NEG_INFINITY; pointed.len() * width];
        let rows = all.par_chunks_exact_mut(width).zip(of_vocabulary.par_chunks_exact(vocabulary)).zip(pointed);
        rows.for_each(|((row, log_p), pointed)| {
            row.iter_mut().zip(log_p).for_each(|(own, &log_p)| *own = (pointed.own + f64::from(log_p)) as f32);
            for &(id, copied) in &pointed.said {
                let log_p = log_p.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
                row[id as usize] = sum_of_logs(pointed.own + f64::from(log_p), copied) as f32;
            }
        });
        all
    }
}
