//! Saved models that answer together: one, which is itself, or several as an ensemble.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use antiphon_core::{Batch, Error, Result, SourceBatch, StepModel, TokenId, Tokenizer};
use antiphon_data::{CorpusConfig, Reader};
use antiphon_decode::{Combination, Ensemble, Member, Mixture, SearchConfig};
use antiphon_kernels::{Carry, TokenScores};
use antiphon_lab::ModelSize;
use antiphon_model::{Distributions, Judgement, Model, SourceLooks};
use rayon::prelude::*;

use super::answering::Answering;
use super::{ExperimentConfig, SavedModel};

/// The places of target tokens whose probabilities are combined at once.
const TOGETHER: usize = 256;

/// Models that answer the same sources in one target vocabulary.
pub struct SavedModels {
    /// What each is called, and itself.
    members: Vec<(String, SavedModel)>,
    /// Each of them ready for a search, once it was wanted.
    packed: Vec<OnceLock<Arc<dyn StepModel>>>,
    mixture: Mixture,
    /// Which reading of the sources each takes: those whose tokenizers are equal share one.
    readings: Vec<usize>,
}

impl fmt::Debug for SavedModels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { members, packed: _, mixture, readings } = self;
        let names: Vec<&String> = members.iter().map(|(name, _)| name).collect();
        f.debug_struct("SavedModels")
            .field("members", &names)
            .field("mixture", mixture)
            .field("readings", readings)
            .finish()
    }
}

impl SavedModels {
    /// A model alone.
    pub fn alone(name: String, saved: SavedModel) -> Self {
        let mixture = Mixture::new(Combination::default(), &[1.0]).expect("one weight above 0");
        Self { members: vec![(name, saved)], packed: vec![OnceLock::new()], mixture, readings: vec![0] }
    }

    /// Models, and ensembles of models, that are to answer together with these weights; within an ensemble weights keep their
    /// proportions. If no combination is chosen, it is that of the ensembles among them, or else linear.
    ///
    /// # Errors
    /// If there is none, a weight is not above 0, ensembles among them are combined in two ways and none is chosen, or two cannot
    /// answer together: because they answer something else, or in another vocabulary.
    pub fn together(parts: Vec<Self>, combination: Option<Combination>, weights: &[f64]) -> Result<Self> {
        assert_eq!(parts.len(), weights.len(), "a weight for each part");
        let combination = combination.map_or_else(|| Self::combination_of(&parts), Ok)?;
        let (mut members, mut all) = (Vec::new(), Vec::new());
        for (part, weight) in parts.into_iter().zip(weights) {
            all.extend(part.mixture.weights().iter().map(|share| weight * share));
            members.extend(part.members);
        }
        let mixture = Mixture::new(combination, &all)?;
        let (first, others) = members.split_first().expect("a mixture has members");
        others.iter().try_for_each(|other| agree(first, other))?;
        let mut distinct: Vec<Vec<String>> = Vec::new();
        let reading = |(_, saved): &(String, SavedModel)| {
            let mut own: Vec<String> = saved.tokenizers.sources().map(|tokenizer| tokenizer.to_json()).collect();
            // Equal tokenizers may read histories in two ways.
            let history = saved.config.data.history();
            own.extend(history.map(|history| format!("{history:?} {}", saved.config.data.limits().max_source)));
            distinct.iter().position(|known| *known == own).unwrap_or_else(|| {
                distinct.push(own);
                distinct.len() - 1
            })
        };
        let readings: Vec<usize> = members.iter().map(reading).collect();
        copies_agree(&members, &readings)?;
        let packed = members.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { members, packed, mixture, readings })
    }

    /// How these are combined where nobody says: as the ensembles among them are, or else linearly.
    ///
    /// # Errors
    /// If those are combined in two ways.
    pub fn combination_of(parts: &[Self]) -> Result<Combination> {
        let ensembles = parts.iter().filter(|part| part.members.len() > 1);
        let mut own = ensembles.map(|ensemble| ensemble.mixture.combination());
        let first = own.next();
        if own.any(|other| Some(other) != first) {
            let message = "some of these ensembles are combined linearly and some log-linearly: say which it shall be";
            return Err(Error::new(message));
        }
        Ok(first.unwrap_or_default())
    }

    /// That this search can ask them.
    ///
    /// # Errors
    /// If it asks for a CTC, and they are several: each has its own, and together they have none.
    pub fn check_search(&self, search: &SearchConfig) -> Result<()> {
        let (key, remedy) = match search {
            SearchConfig::Beam(beam) if beam.ctc_weight > 0.0 => {
                ("search.ctc_weight", "let their decoders search alone: `--set search.ctc_weight=0`")
            }
            SearchConfig::BestPath(_) => ("search.kind", "search token by token: `--set search.kind=beam`"),
            SearchConfig::Beam(_) | SearchConfig::Greedy(_) | SearchConfig::Sample(_) => return Ok(()),
        };
        if self.members.len() == 1 {
            return Ok(());
        }
        let message = format!(
            "each of several models has a CTC of its own, and together they have none to search with; {remedy}"
        );
        Err(Error::new(message).at(key).in_file(&self.members[0].0))
    }

    /// The model, if it is alone.
    ///
    /// # Errors
    /// If there are several.
    pub(crate) fn into_alone(mut self) -> Result<SavedModel> {
        match (self.members.pop(), self.members.len()) {
            (Some((_, saved)), 0) => Ok(saved),
            (_, others) => Err(Error::new(format!(
                "holds {} models that answer together, and this is about one: name the file or the run of one of them",
                others + 1
            ))),
        }
    }

    /// The first, whose settings hold for all: how answers are searched and judged, and how lines are read.
    pub fn first(&self) -> &SavedModel {
        &self.members[0].1
    }

    /// The first, to change its settings.
    pub(crate) fn first_mut(&mut self) -> &mut SavedModel {
        &mut self.members[0].1
    }

    /// The settings of all.
    pub(crate) fn configs_mut(&mut self) -> impl Iterator<Item = &mut ExperimentConfig> {
        self.members.iter_mut().map(|(_, saved)| &mut saved.config)
    }

    /// Reads the sources as the settings of each say now.
    pub(crate) fn read_as_set(&mut self) {
        for (_, saved) in &mut self.members {
            saved.tokenizers = saved.tokenizers.clone().reading(&saved.config);
        }
    }

    /// How the others read the sources and how long these may be for them, where that is not as it is for the first.
    pub(crate) fn other_readers(&self) -> Vec<Reader> {
        let mut readers: Vec<(usize, Reader)> = Vec::new();
        for ((_, saved), &reading) in self.members.iter().zip(&self.readings) {
            let limits = saved.config.limits();
            if !readers.iter().any(|(other, reader)| *other == reading && reader.limits == limits) {
                readers.push((reading, Reader { sources: saved.tokenizers.sources().cloned().collect(), limits }));
            }
        }
        readers.into_iter().skip(1).map(|(_, reader)| reader).collect()
    }

    /// All of them, with what each is called.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&str, &SavedModel)> {
        self.members.iter().map(|(name, saved)| (name.as_str(), saved))
    }

    /// Which reading of the sources each takes.
    pub(crate) fn reading(&self, member: usize) -> usize {
        self.readings[member]
    }

    /// One of them ready for a search. Its weights are packed once, whoever asks.
    fn packed(&self, member: usize) -> Arc<dyn StepModel> {
        Arc::clone(self.packed[member].get_or_init(|| self.members[member].1.model.for_search()))
    }

    /// One of them, as it answers alone.
    pub(crate) fn member(&self, member: usize) -> OneOf<'_> {
        OneOf { models: self, member }
    }

    /// How they are combined.
    pub fn mixture(&self) -> &Mixture {
        &self.mixture
    }

    /// How probable they find every token in the place of each real target token of a batch, row after row, under teacher forcing;
    /// `batches` and `carries` are those of [`judge`](Answering::judge).
    ///
    /// # Errors
    /// If the batch cannot be read, or a row goes on and nothing was carried.
    pub(super) fn say(&self, batches: &[Batch], carries: &mut Vec<Carry>) -> Result<Said> {
        carries.resize_with(self.members.len(), Carry::default);
        let all = self.members.iter().zip(&self.readings).zip(carries);
        let said = all.map(|(((name, saved), &reading), carry)| {
            let model: &Model = &saved.model;
            model.distributions(&batches[reading], carry).map_err(|error| error.of(name))
        });
        Ok(Said { each: said.collect::<Result<_>>()?, mixture: self.mixture.clone() })
    }

    /// How large they are together, without what files hold beside the weights.
    pub(crate) fn size_of_weights(&self) -> ModelSize {
        let sizes = self.members.iter().map(|(_, saved)| saved.size_of_weights());
        let add = |a: ModelSize, b: ModelSize| ModelSize {
            parameters: a.parameters + b.parameters,
            bytes: a.bytes + b.bytes,
        };
        sizes.reduce(add).expect("there is one")
    }
}

/// That models which answer together all copy words of the sources, or none, and read these by equal tokenizers if they do.
fn copies_agree(members: &[(String, SavedModel)], readings: &[usize]) -> Result<()> {
    let copies = |(_, saved): &(String, SavedModel)| saved.config.model.copies();
    let Some(copying) = members.iter().find(|member| copies(member)) else { return Ok(()) };
    if let Some((plain, _)) = members.iter().find(|member| !copies(member)) {
        let message = format!(
            "copies words of its sources, and `{plain}` does not; models answer together of which all copy, or none"
        );
        return Err(Error::new(message).in_file(&copying.0));
    }
    if let Some(odd) = readings.iter().position(|&reading| reading != 0) {
        let message = format!(
            "copies words of its sources, which `{}` reads by another tokenizer; models that copy answer together where these are equal",
            members[odd].0
        );
        return Err(Error::new(message).in_file(&members[0].0));
    }
    Ok(())
}

/// What models hold together of every token in the places of a batch's real target tokens.
pub(super) struct Said {
    each: Vec<Distributions>,
    mixture: Mixture,
}

impl Said {
    /// `[N]`: the tokens that are right.
    fn targets(&self) -> &[TokenId] {
        self.each[0].targets()
    }

    /// Natural logarithms of the probabilities of all tokens in some of the `N` places, `[n, V]`, slots behind the vocabulary where words
    /// are copied.
    pub(super) fn log_probs(&self, places: Range<usize>) -> Vec<f32> {
        if let [alone] = self.each.as_slice() {
            return alone.log_probs(places);
        }
        let each: Vec<Vec<f32>> = self.each.iter().map(|said| said.log_probs(places.clone())).collect();
        let each: Vec<&[f32]> = each.iter().map(Vec::as_slice).collect();
        self.mixture.of_rows(&each, each[0].len() / places.len())
    }
}

impl Answering for SavedModels {
    fn for_search(&self) -> Arc<dyn StepModel> {
        if self.members.len() == 1 {
            return self.packed(0);
        }
        let member =
            |(i, &reading): (usize, &usize)| Member { name: self.members[i].0.clone(), model: self.packed(i), reading };
        let members = self.readings.iter().enumerate().map(member).collect();
        Arc::new(Ensemble::new(members, self.mixture.clone()).expect("they have one vocabulary, and a weight each"))
    }

    fn readings(&self) -> Vec<Vec<Arc<dyn Tokenizer>>> {
        let count = self.readings.iter().max().expect("there is one") + 1;
        let of = |reading| self.readings.iter().position(|&own| own == reading).expect("somebody reads so");
        let tokenizers = |reading| self.members[of(reading)].1.tokenizers.sources().cloned().collect();
        (1..count).map(tokenizers).collect()
    }

    fn judge(&self, batches: &[Batch], carries: &mut Vec<Carry>, temperatures: &[f64]) -> Result<Judgement> {
        if let [(_, saved)] = self.members.as_slice() {
            return Answering::judge(&saved.model, batches, carries, temperatures);
        }
        let said = self.say(batches, carries)?;
        let targets = said.targets();
        let mut scores = vec![TokenScores::default(); temperatures.len()];
        for (k, targets) in targets.chunks(TOGETHER).enumerate() {
            let places = k * TOGETHER..k * TOGETHER + targets.len();
            let combined = said.log_probs(places);
            for (scores, &temperature) in scores.iter_mut().zip(temperatures) {
                let rows = combined.par_chunks_exact(combined.len() / targets.len()).zip(targets);
                let judged: Vec<(f32, bool)> = rows.map(|(row, &target)| judged(row, target, temperature)).collect();
                scores.log_probs.extend(judged.iter().map(|(log_prob, _)| log_prob));
                scores.correct.extend(judged.iter().map(|(_, correct)| correct));
            }
        }
        // Each has a CTC of its own, and together they have none.
        let lengths = &batches[0].target.lengths;
        let may_be_lost: Vec<bool> = (0..lengths.len()).map(|b| said.each.iter().any(|said| said.is_lost(b))).collect();
        Ok(Judgement::of(scores, lengths, &may_be_lost))
    }

    fn looks(&self, sources: &[SourceBatch]) -> Result<Option<SourceLooks>> {
        let [(_, alone)] = self.members.as_slice() else { return Ok(None) };
        alone.model.looks(sources)
    }
}

/// One of several models, which answers alone.
pub(crate) struct OneOf<'a> {
    models: &'a SavedModels,
    member: usize,
}

impl Answering for OneOf<'_> {
    fn for_search(&self) -> Arc<dyn StepModel> {
        self.models.packed(self.member)
    }

    fn readings(&self) -> Vec<Vec<Arc<dyn Tokenizer>>> {
        Vec::new()
    }

    fn judge(&self, batches: &[Batch], carries: &mut Vec<Carry>, temperatures: &[f64]) -> Result<Judgement> {
        Answering::judge(&self.models.members[self.member].1.model, batches, carries, temperatures)
    }

    fn looks(&self, sources: &[SourceBatch]) -> Result<Option<SourceLooks>> {
        self.models.members[self.member].1.model.looks(sources)
    }
}

/// How probable a token is at a temperature, and whether no other is more probable.
fn judged(log_probs: &[f32], target: TokenId, temperature: f64) -> (f32, bool) {
    let own = log_probs[target as usize];
    let correct = log_probs.iter().all(|&other| other <= own);
    if temperature == 1.0 {
        return (own, correct);
    }
    let top = f64::from(log_probs.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let below = |log_prob: f32| (f64::from(log_prob) - top) / temperature;
    let log_z = log_probs.iter().map(|&other| below(other).exp()).sum::<f64>().ln();
    ((below(own) - log_z) as f32, correct)
}

/// That another can answer together with the first.
fn agree((first, one): &(String, SavedModel), (name, other): &(String, SavedModel)) -> Result<()> {
    let error = |message: String| Err(Error::new(message).in_file(name));
    let (a, b) = (occupation(&one.config), occupation(&other.config));
    if a != b {
        return error(format!("{b}, and `{first}` {a}: models answer together that are asked the same"));
    }
    if one.config.features != other.config.features {
        let message = format!(
            "its `features` are not those of `{first}`: models answer together that hear the same of a recording"
        );
        return error(message);
    }
    let (a, b) = read_by(&one.config, &other.config);
    if a != b {
        return error(format!("reads {b}, and `{first}` reads {a}: models answer together that read the same sources"));
    }
    let Some(what) = unlike(one.tokenizers.target(), other.tokenizers.target()) else { return Ok(()) };
    error(format!(
        "its target vocabulary is not that of `{first}`: {what}; models answer together that have one, as the seeds of a config have: \
         train them on the same targets with the same `tokenizer.target`, or with the tokenizer of one file (`kind = \"file\"`)"
    ))
}

/// What a model is for, in words that follow its name.
pub(super) fn occupation(config: &ExperimentConfig) -> &'static str {
    match &config.data {
        CorpusConfig::Pairs(_) | CorpusConfig::Parallel(_) | CorpusConfig::Table(_) => "answers sources",
        CorpusConfig::Manifest(_) => "transcribes recordings",
        CorpusConfig::Text(_) => "is a model of single texts",
        CorpusConfig::Stream(_) => "is a model of running text",
    }
}

/// What a vocabulary has that another one has not, if they differ.
pub(super) fn unlike(a: &Arc<dyn Tokenizer>, b: &Arc<dyn Tokenizer>) -> Option<String> {
    let differs = |id: &TokenId| a.token(*id) != b.token(*id);
    if a.size() != b.size() {
        Some(format!("{} tokens, not {}", b.size(), a.size()))
    } else if let Some(id) = (0..a.size() as TokenId).find(differs) {
        let token = |tokenizer: &Arc<dyn Tokenizer>| tokenizer.token(id).unwrap_or_default();
        Some(format!("token {id} is `{}`, not `{}`", token(b), token(a)))
    } else {
        let message = "the tokens are the same, but texts are cut into them, or joined of them, in another way";
        (a.to_json() != b.to_json()).then(|| message.to_owned())
    }
}

/// What each of two models reads of a line, as far as that can differ: of what is no table there is only the source.
pub(super) fn read_by(one: &ExperimentConfig, other: &ExperimentConfig) -> (String, String) {
    let are_tables = one.data.as_table().is_some() && other.data.as_table().is_some();
    (columns(one, are_tables), columns(other, are_tables))
}

/// What a model reads of a line: its source, of a table that of some columns, and its streams.
fn columns(config: &ExperimentConfig, are_tables: bool) -> String {
    let source = config.data.as_table().filter(|_| are_tables).map_or("the source".to_owned(), |table| {
        let names: Vec<String> = table.source.names().iter().map(|name| format!("`{name}`")).collect();
        format!("the source from {}", names.join(&format!(" and `{}` and ", table.join)))
    });
    let streams = config.further_columns().sources.into_iter();
    let stream = |(name, column): (String, String)| format!("`{name}` from `{column}`");
    [source].into_iter().chain(streams.map(stream)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use antiphon_core::random::Key;
    use antiphon_core::{Request, Selection, Source, Special, StepOutput, Want};
    use antiphon_model::Vocabularies;
    use antiphon_train::{load_weights, save_weights};
    use burn::tensor::Device;

    use super::*;

    /// The best few of real models, whose large vocabularies are screened, are the best of all that they say.
    #[test]
    fn screened_models_say_together_what_all_of_them_says() {
        const VOCABULARY: usize = 700;
        let config = r#"{"data": {"kind": "pairs", "train": "a"}, "model": {"source": {"kind": "embedding", "size": 8},
            "target": {"kind": "embedding", "size": 8}, "encoder": {"kind": "gru", "hidden": 8},
            "decoder": {"kind": "gru", "hidden": 12, "attention": {"kind": "general"}}}}"#;
        let config: ExperimentConfig = serde_json::from_str(config).unwrap();
        let vocabularies = Vocabularies { sources: vec![9], target: VOCABULARY, shared: false };
        // Sure of something, as trained models are; `own`: how much of it is each one's own thought.
        let member = |seed: u64, number: u64, own: f32| {
            let model = |seed| config.init_model(&vocabularies, Key::from_seed(seed), &Device::flex()).unwrap();
            let mut weights = save_weights(&model(seed));
            for (weight, other) in weights.iter_mut().zip(save_weights(&model(100 + number))) {
                let scale = if weight.path == "output.weight" { 30.0 } else { 1.0 };
                weight.values.iter_mut().zip(other.values).for_each(|(a, b)| *a = scale * ((1.0 - own) * *a + own * b));
            }
            let model = load_weights(model(seed), weights).unwrap();
            Member { name: format!("model {number}"), model: model.for_search(), reading: 0 }
        };
        for (seed, own, combination) in
            [(1, 0.05, Combination::Linear), (2, 1.0, Combination::Linear), (3, 0.3, Combination::LogLinear)]
        {
            for members in [2, 3] {
                let mixture = Mixture::new(combination, &[1.0, 2.0, 0.5][..members]).unwrap();
                let all = (0..members as u64).map(|number| member(seed, number, own)).collect();
                let ensemble = Arc::new(Ensemble::new(all, mixture).unwrap());
                let sources = [vec![4, 5, Special::End.id()], vec![8, 7, 6, 5, 4, Special::End.id()]];
                let requests = sources.map(|source| Request::new(vec![Source::Tokens(source)]));
                let want = |selection: Selection| Want {
                    selection,
                    banned: vec![Special::Pad.id(), Special::Begin.id()],
                    masks: Vec::new(),
                    attention: false,
                };
                let mut session = ensemble.begin(&requests).unwrap();
                let (mut best, mut whole) = (StepOutput::default(), StepOutput::default());
                let mut last = vec![Special::Begin.id(); 2];
                for step in 0..20 {
                    let k = 1 + step % 5;
                    session.step(&last, &want(Selection::Top(k)), &mut best).unwrap();
                    session.again(&[0, 1], &want(Selection::All), &mut whole).unwrap();
                    for row in 0..2 {
                        let all = &whole.log_probs[row * VOCABULARY..][..VOCABULARY];
                        let mut order: Vec<usize> = (0..VOCABULARY).collect();
                        order.sort_by(|&a, &b| all[b].total_cmp(&all[a]).then(a.cmp(&b)));
                        for (i, &id) in order[..k].iter().enumerate() {
                            let at = row * k + i;
                            // A model that is asked for its best few rounds otherwise in the last bits.
                            for found in [best.log_probs[at], all[best.tokens[at] as usize]] {
                                let is_like = (found - all[id]).abs() < 1e-5 * all[id].abs().max(10.0);
                                assert!(is_like, "{seed} {members} {step}: {found} {}", all[id]);
                            }
                        }
                        last[row] = order[row] as TokenId;
                    }
                }
            }
        }
    }
}
