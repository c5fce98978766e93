//! A source in, a target out, without a decoder: an encoder whose memory says the target by itself.
//!
//! How probable a token is behind others follows from all paths that begin with them ([`CtcPrefix`]), so that such a model is asked
//! token by token as any other: it is searched, scored and combined in the same ways.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{
    Batch, CtcOutput, CtcPrefix, Error, Mask, PrefixOutput, Problem, Request, Result, Selection, SourceBatch, Special,
    StepModel, StepOutput, StepSession, TokenId, Want, source_batches,
};
use antiphon_kernels::{Term, TokenScores};
use burn::module::Module;
use burn::tensor::Device;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ctc::{Ctc, CtcConfig};
use crate::embedding::Embedding;
use crate::encoder::{Around, Beside, Encoded, Encoder, EncoderConfig};
use crate::lookup::check_ids;
use crate::model::{Judgement, Vocabularies, below};
use crate::session::batch_factor;
use crate::source::{FrameEntry, SourceConfig};
use crate::stream::{Entry, Reader, Streams};
use crate::target::Distributions;

/// An encoder alone: a layer over its memory says the target, step by step (connectionist temporal classification, CTC; Graves et
/// al. 2006). A target may have no more tokens than the memory has steps.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CtcModelConfig {
    /// How the source enters.
    pub source: SourceConfig,
    /// What reads the source.
    pub encoder: EncoderConfig,
}

/// What is said where CTC has a step for a sentence.
pub(crate) const SENTENCES_SAY_NO_TOKENS: &str =
    "CTC says a token a step, and here a step is a whole sentence; leave `sentences` out, or CTC";

impl CtcModelConfig {
    /// How many steps of the source a step of the memory stands for.
    pub(crate) fn reduction(&self) -> usize {
        self.encoder.shape(self.source.size()).reduction
    }

    /// How wide the memory is.
    pub(crate) fn width(&self) -> usize {
        self.encoder.shape(self.source.size()).memory
    }

    /// What cannot work, with places from the root of the settings.
    pub(crate) fn problems(&self, streams: Streams<'_>) -> Vec<Problem> {
        let problem = |place: &str, message: &str| Problem { place: place.into(), message: message.into() };
        if self.source.frames().is_some_and(|frames| frames.width.is_none()) {
            return vec![problem("model.source.width", "not set: say how many numbers a frame has")];
        }
        let message = "`ctc` reads one source; remove the streams, or let `model.kind` be `encoder_decoder`";
        let idle = (!streams.0.is_empty()).then(|| problem("streams", message));
        let alone = Beside { is_text: self.source.frames().is_none(), states: &[] };
        let unreadable: Vec<Problem> =
            below("model.encoder", self.encoder.problems(self.source.size(), alone)).chain(idle).collect();
        let by_sentences = unreadable.is_empty() && self.encoder.sentences().is_some();
        unreadable.into_iter().chain(by_sentences.then(|| problem("model.encoder", SENTENCES_SAY_NO_TOKENS))).collect()
    }

    /// What is valid but has no effect, with places below `[model]`.
    pub(crate) fn warnings(&self) -> Vec<Problem> {
        below("source", self.source.warnings()).chain(below("encoder", self.encoder.warnings())).collect()
    }

    /// A model whose parameters are drawn on first use, under `key`; the settings have no problems.
    ///
    /// # Errors
    /// If the corpus has not the source that it reads.
    pub(crate) fn outline(&self, vocabularies: &Vocabularies, key: Key, device: &Device) -> Result<CtcModel> {
        let frames = self.source.frames();
        // Recordings have no vocabulary.
        let (reads, sources) = (usize::from(frames.is_none()), &vocabularies.sources);
        if sources.len() != reads {
            let message =
                format!("this model reads one source, and the corpus has {} with a vocabulary", sources.len());
            return Err(Error::new(message));
        }
        let source_vocabulary = match frames.and(self.source.size()) {
            Some(width) => width,
            None => sources[0],
        };
        let input = self.source.size().unwrap_or(source_vocabulary);
        let layer = CtcConfig { weight: 1.0 };
        Ok(CtcModel {
            source: self.source.init(source_vocabulary, key.named("source"), device),
            encoder: self.encoder.init(input, key.named("encoder"), device),
            ctc: layer.init(self.width(), vocabularies.target, key.named("ctc"), device),
            frames: frames.map(|frames| frames.entry(source_vocabulary)),
            source_vocabulary,
        })
    }
}

/// An encoder that says the target by itself. Its parameters are called as those of an encoder–decoder with `[model.ctc]` are.
#[derive(Module, Debug)]
pub struct CtcModel {
    /// Absent for one-hot and for frames.
    source: Option<Embedding>,
    encoder: Encoder,
    ctc: Ctc,
    /// How frames enter, where the source is a recording.
    #[module(skip)]
    frames: Option<FrameEntry>,
    #[module(skip)]
    source_vocabulary: usize,
}

impl CtcModel {
    /// `V`.
    fn vocabulary(&self) -> usize {
        self.ctc.vocabulary()
    }

    pub(crate) fn is_on_graph(&self) -> bool {
        self.ctc.is_on_graph()
    }

    /// Reads the source.
    fn encode(&self, sources: &[SourceBatch], dropout: Option<Key>) -> Result<Encoded> {
        let [source] = sources else {
            return Err(Error::new(format!("this model reads one source, but was given {}", sources.len())));
        };
        let entry = match self.frames {
            Some(frames) => Entry::Frames(frames, self.ctc.device()),
            None => Entry::Tokens { vocabulary: self.source_vocabulary, embedding: self.source.as_ref() },
        };
        let reader = Reader { name: "source", entry, encoder: &self.encoder };
        reader.read(source, Around::default(), dropout.map(|key| [key.named("source"), key.named("encoder")]))
    }

    /// The same of a batch that fits.
    fn read(&self, batch: &Batch, dropout: Option<Key>) -> Result<Encoded> {
        batch.check()?;
        check_ids(&batch.target.labels, self.vocabulary(), "target")?;
        self.encode(&batch.sources, dropout)
    }

    /// The loss of a batch: a target that no path says counts nothing.
    ///
    /// # Errors
    /// If there is not one source, of the kind that the model reads, a row for each target, or an id lies outside the vocabulary.
    pub(crate) fn terms(&self, batch: &Batch, dropout: Option<Key>) -> Result<Vec<Term>> {
        let encoded = self.read(batch, dropout)?;
        Ok(vec![Term::Sum { name: "ctc", loss: self.ctc.loss(&encoded, &batch.target), weight: 1.0 }])
    }

    /// How probable each real target token is behind those before it, at each of some temperatures.
    ///
    /// # Errors
    /// As [`terms`](Self::terms).
    pub(crate) fn judge(&self, batch: &Batch, temperatures: &[f64]) -> Result<Judgement> {
        let (rows, vocabulary) = (self.followed(batch)?, self.vocabulary());
        let of = |&temperature: &f64| {
            let mut scores = TokenScores::default();
            for Followed { targets, log_probs } in &rows {
                for (&target, row) in targets.iter().zip(log_probs.chunks_exact(vocabulary)) {
                    let own = row[target as usize];
                    scores.log_probs.push(tempered(row, own, temperature));
                    scores.correct.push(row.iter().all(|&other| other <= own));
                }
            }
            scores
        };
        let lost: Vec<bool> = rows.iter().map(|row| row.is_lost(vocabulary)).collect();
        Ok(Judgement::of(temperatures.iter().map(of).collect(), &batch.target.lengths, &lost))
    }

    /// How probable every token is in the place of each real target token.
    ///
    /// # Errors
    /// As [`terms`](Self::terms).
    pub(crate) fn distributions(&self, batch: &Batch) -> Result<Distributions> {
        let (rows, vocabulary) = (self.followed(batch)?, self.vocabulary());
        let lost = rows.iter().map(|row| row.is_lost(vocabulary)).collect();
        let targets = rows.iter().flat_map(|row| row.targets.iter().copied()).collect();
        let log_probs = rows.into_iter().flat_map(|row| row.log_probs).collect();
        Ok(Distributions::known(targets, log_probs, vocabulary, lost))
    }

    fn followed(&self, batch: &Batch) -> Result<Vec<Followed>> {
        let outputs = self.ctc.outputs(&self.read(batch, None)?);
        let target = &batch.target;
        let all: Vec<TokenId> = (0..self.vocabulary() as TokenId).collect();
        let follow = |(b, source): (usize, CtcOutput)| {
            let targets = target.labels[b * target.width..][..target.lengths[b] as usize].to_vec();
            let (mut behind, mut log_probs) = (CtcPrefix::empty(&source), Vec::new());
            for &token in &targets {
                log_probs.extend(behind.gains(&source, &all).into_iter().map(at_most_one));
                if token != Special::End.id() {
                    behind = behind.with(&source, token);
                }
            }
            Followed { targets, log_probs }
        };
        Ok(outputs.into_par_iter().enumerate().map(follow).collect())
    }
}

/// A row's target, and how probable every token is in each of its places: `[T, V]`.
struct Followed {
    targets: Vec<TokenId>,
    log_probs: Vec<f32>,
}

impl Followed {
    /// Whether no path says the target.
    fn is_lost(&self, vocabulary: usize) -> bool {
        let mut rows = self.targets.iter().zip(self.log_probs.chunks_exact(vocabulary));
        rows.any(|(&target, row)| !row[target as usize].is_finite())
    }
}

/// The logarithm of a probability, without what rounding added.
fn at_most_one(log_prob: f64) -> f32 {
    // What is not a number stays so.
    if log_prob > 0.0 { 0.0 } else { log_prob as f32 }
}

/// How probable a token of log-probability `own` is among these with all divided by a temperature.
fn tempered(row: &[f32], own: f32, temperature: f64) -> f32 {
    if temperature == 1.0 || own == f32::NEG_INFINITY {
        return own;
    }
    let log_z = row.iter().map(|&other| (f64::from(other) / temperature).exp()).sum::<f64>().ln();
    at_most_one(f64::from(own) / temperature - log_z)
}

/// Such a model made ready for search, off the graph.
pub(crate) struct CtcSearch(CtcModel);

impl CtcSearch {
    pub(crate) fn new(model: &CtcModel) -> Self {
        Self(if model.is_on_graph() { model.clone().valid() } else { model.clone() })
    }
}

impl StepModel for CtcSearch {
    fn begin(self: Arc<Self>, requests: &[Request]) -> Result<Box<dyn StepSession>> {
        let Self(model) = self.as_ref();
        for request in requests {
            check_ids(&request.prefix, model.vocabulary(), "target")?;
        }
        let outputs = model.ctc.outputs(&model.encode(&source_batches(requests)?, None)?);
        let (mut rows, mut prefixes) = (Vec::with_capacity(outputs.len()), Vec::with_capacity(outputs.len()));
        for (source, request) in outputs.into_iter().zip(requests) {
            let (mut before, mut log_probs) = (CtcPrefix::empty(&source), Vec::new());
            for (i, &token) in request.prefix.iter().enumerate() {
                log_probs.extend(before.gains(&source, &[token]).into_iter().map(at_most_one));
                // The session is fed the last token itself.
                if i + 1 < request.prefix.len() {
                    before = before.with(&source, token);
                }
            }
            prefixes.push(PrefixOutput { log_probs, scores: Vec::new() });
            rows.push(Row { source: Arc::new(source), said: Arc::new(before) });
        }
        let sources = rows.iter().map(|row| Arc::clone(&row.source)).collect();
        Ok(Box::new(CtcSession { vocabulary: model.vocabulary(), rows, sources, prefixes }))
    }

    fn vocabulary(&self) -> usize {
        self.0.vocabulary()
    }

    fn batch_factor(&self) -> usize {
        batch_factor(&self.0.ctc.device())
    }
}

/// A row in flight: its source, and what it has said.
#[derive(Clone)]
struct Row {
    source: Arc<CtcOutput>,
    said: Arc<CtcPrefix>,
}

/// Rows in flight over one batch of requests.
struct CtcSession {
    vocabulary: usize,
    rows: Vec<Row>,
    /// What each source says by itself, until somebody has asked.
    sources: Vec<Arc<CtcOutput>>,
    /// What the prefixes were worth, until somebody has asked.
    prefixes: Vec<PrefixOutput>,
}

impl CtcSession {
    /// Answers what `want` asks for of these rows.
    fn tell<'r>(&'r self, rows: impl Iterator<Item = &'r Row>, want: &Want, out: &mut StepOutput) {
        let rows: Vec<&Row> = rows.collect();
        assert!(want.masks.is_empty() || want.masks.len() == rows.len(), "a mask for each row, or none");
        out.tokens.clear();
        out.log_probs.clear();
        out.scores.clear();
        out.attention.clear();
        let all = || (0..self.vocabulary as TokenId).collect();
        out.per_row = match &want.selection {
            Selection::Top(k) => *k.min(&self.vocabulary),
            Selection::Given(tokens) => tokens.len() / rows.len(),
            Selection::All => self.vocabulary,
        };
        for (b, row) in rows.into_iter().enumerate() {
            let asked: Vec<TokenId> = match &want.selection {
                Selection::Given(tokens) => tokens[b * out.per_row..][..out.per_row].to_vec(),
                Selection::Top(_) | Selection::All => all(),
            };
            let mask = want.masks.get(b).unwrap_or(&Mask::Free);
            let worth = row.said.gains(&row.source, &asked).into_iter().zip(asked);
            let may = |token: TokenId| !want.banned.contains(&token) && mask.allows(token);
            let worth =
                worth.map(|(gain, token)| (token, if may(token) { at_most_one(gain) } else { f32::NEG_INFINITY }));
            let mut told: Vec<(TokenId, f32)> = worth.collect();
            if let Selection::Top(_) = want.selection {
                // Of equals the smaller token is first.
                told.sort_by(|a, b| b.1.total_cmp(&a.1));
                told.truncate(out.per_row);
            }
            out.tokens.extend(told.iter().map(|&(token, _)| token));
            out.log_probs.extend(told.iter().map(|&(_, log_prob)| log_prob));
        }
    }

    /// That no id of these, and none that `want` names, lies outside the vocabulary.
    fn check(&self, ids: &[TokenId], want: &Want) -> Result<()> {
        let given = if let Selection::Given(tokens) = &want.selection { tokens.as_slice() } else { &[] };
        let named = [ids, given, &want.banned].into_iter().chain(want.masks.iter().map(Mask::ids));
        named.into_iter().try_for_each(|ids| check_ids(ids, self.vocabulary, "target"))
    }
}

impl StepSession for CtcSession {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn take_prefixes(&mut self) -> Vec<PrefixOutput> {
        std::mem::take(&mut self.prefixes)
    }

    fn take_ctc(&mut self) -> Vec<CtcOutput> {
        std::mem::take(&mut self.sources).into_iter().map(|source| source.as_ref().clone()).collect()
    }

    fn step(&mut self, last: &[TokenId], want: &Want, out: &mut StepOutput) -> Result<()> {
        assert_eq!(last.len(), self.rows.len(), "one token a row");
        self.check(last, want)?;
        for (row, &last) in self.rows.iter_mut().zip(last) {
            if last != Special::Begin.id() {
                row.said = Arc::new(row.said.with(&row.source, last));
            }
        }
        self.tell(self.rows.iter(), want, out);
        Ok(())
    }

    fn again(&mut self, rows: &[u32], want: &Want, out: &mut StepOutput) -> Result<()> {
        self.check(&[], want)?;
        self.tell(rows.iter().map(|&row| &self.rows[row as usize]), want, out);
        Ok(())
    }

    fn select(&mut self, rows: &[u32]) {
        self.rows = rows.iter().map(|&row| self.rows[row as usize].clone()).collect();
    }
}
