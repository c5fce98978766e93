//! How good a model is on a split: its losses under teacher forcing, and metrics over what it answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Judged, Result, Score, Source, SourceBatch, TokenBatch, Tokenizer};
use antiphon_data::{Corpus, Example, FurtherTokens, Prefetch, Reader, References, Skipped, Units};
use antiphon_decode::{SearchConfig, rename_sources};
use antiphon_eval::{CtcLikelihood, Likelihood, by_value};
use antiphon_kernels::{Carry, TokenScores};
use antiphon_lab::{Beside, Counts, CountsOfStream, Losses, OfValue, OverValues, SplitResults, TokenLosses};
use antiphon_model::Judgement;
use antiphon_text::normalize;
use serde::{Deserialize, Serialize};

use super::answering::Answering;
use super::answers::{Answer, Answers, Question, Searcher, encoded};
use super::data::Encoded;
use super::losses::Tally;
use super::no_answer::{fitted, select};
use super::reading::{SUPPORT, odd_support, readings, support};
use super::rerank::RerankConfig;
use super::streams::{apart, unknown_apart};
use super::{EvaluateConfig, ExperimentConfig, NoAnswerConfig, Temperature, Tokenizers, unknown};

/// A figure of the likelihood, if it has that.
type Figure = fn(&Likelihood) -> Option<f64>;

/// The name of the loss in nats per real target token, those left out that no path of CTC says.
pub(super) const LOSS: &str = "loss";

/// The name of the loss of `[model.ctc]`, of models that have it, in nats per real target token of what its paths say.
pub(super) const CTC_LOSS: &str = "ctc_loss";

/// What is known about a model without any search: name, figure, and whether smaller is better. Losses are not a number where no path
/// of CTC says anything, and so no best of a training.
const FIGURES: [(&str, Figure, bool); 5] = [
    (LOSS, |of| Some(of.per_token()), true),
    ("loss_per_character", |of| Some(of.per_character()), true),
    (CTC_LOSS, Likelihood::ctc_per_token, true),
    ("perplexity", |of| Some(of.perplexity()), true),
    ("token_accuracy", |of| Some(of.token_accuracy()), false),
];

/// Whether anything can be said of what was judged.
fn has_loss(likelihood: &Likelihood) -> bool {
    likelihood.tokens > 0
}

/// The names of the figures that need no search, and whether smaller is better.
pub(super) fn figures_of_likelihood() -> impl Iterator<Item = (&'static str, bool)> {
    FIGURES.into_iter().map(|(name, _, lower)| (name, lower))
}

/// The labels of all figures that a validation may have, and whether smaller is better.
pub(crate) fn figures_of_validation(config: &ExperimentConfig) -> Vec<(String, bool)> {
    let of_search = config.searched().map(|(label, metric)| (label, metric.lower_is_better()));
    let has = |name: &str| config.model.has_ctc() || name != CTC_LOSS;
    let of_likelihood = figures_of_likelihood().filter(|(name, _)| has(name));
    of_likelihood.map(|(name, lower)| (name.to_owned(), lower)).chain(of_search).collect()
}

/// Those figures of a likelihood.
pub(super) fn values(likelihood: &Likelihood) -> BTreeMap<String, f64> {
    FIGURES.into_iter().filter_map(|(name, figure, _)| Some((name.into(), figure(likelihood)?))).collect()
}

/// How many batches of recordings a thread are searched together.
const RECORDINGS: usize = 16;

/// One split, ready to judge models on.
pub struct Evaluator<'a> {
    config: &'a ExperimentConfig,
    tokenizers: &'a Tokenizers,
    /// Further models that read the sources.
    others: Vec<Reader>,
    encoded: Encoded,
    /// Each distinct source with all that counts as right; none of running text, which asks nothing.
    examples: Vec<Example>,
    /// In how many parts running text is read.
    parts: usize,
    /// The temperature at which a language model is judged too.
    temperature: Option<f64>,
    /// The confidence below which answers are withheld, where it was to be chosen.
    threshold: Threshold,
    /// How often each token stands in the text that was learned from, where that is known.
    learned: Option<Arc<[u64]>>,
}

/// The confidence below which answers are withheld, where it was to be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Threshold {
    Unknown,
    Known(f64),
    /// It is chosen on this very split.
    Own,
}

/// How far an evaluation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// What is counted.
    pub of: &'static str,
    /// How many of them are done.
    pub done: u64,
    /// How many there are.
    pub all: u64,
}

/// A source, what counts as right, and what was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// Where the source stands in its file, counted from 1.
    pub line: usize,
    /// The source.
    pub source: String,
    /// Further sources, by the names of their streams.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, String>,
    /// Which of the source's tokens, counted from 0, the tokenizer does not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<usize>,
    /// The same of further sources that have such tokens.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown_streams: BTreeMap<String, Vec<usize>>,
    /// What stands in the columns of `evaluate.by`, and in others that figures need: one value of each or, of a source in several rows, all that they have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, Vec<String>>,
    /// The answers that it may have; empty where it may have any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
    /// What counts as right.
    pub references: Vec<String>,
    /// Best first.
    pub answers: Vec<Answer>,
    /// Whether the search ran out of patience while something better might still have come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outscored: bool,
}

impl Answered {
    /// The best answer.
    pub fn best(&self) -> &str {
        self.answers.first().map_or("", |answer| answer.text.as_str())
    }

    /// The texts of the source, that of each stream.
    pub fn texts(&self) -> Vec<&str> {
        [&self.source].into_iter().chain(self.streams.values()).map(String::as_str).collect()
    }

    /// The source for people, its streams one behind the other but for empty ones.
    pub(crate) fn shown(&self) -> String {
        let texts: Vec<&str> = self.texts().into_iter().filter(|text| !text.is_empty()).collect();
        texts.join(" | ")
    }

    /// What stands in the columns of `evaluate.by`, for people: `case: acc, number: sg`.
    pub(crate) fn about(&self) -> String {
        // Places of supporting sentences are shown with these.
        let columns = self.columns.iter().filter(|(_, values)| values.iter().all(|value| !value.contains('\n')));
        let columns = columns.map(|(column, values)| format!("{column}: {}", values.join(" | ")));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// The best answer as metrics judge it.
    pub fn judged(&self) -> Judged {
        Judged { columns: self.columns.clone(), ..Judged::new(self.best(), &self.references) }
    }

    /// Whether its answer was withheld, because the model was not sure enough.
    pub fn is_withheld(&self) -> bool {
        self.answers.first().is_some_and(|best| best.withheld.is_some())
    }

    /// Whether the best answer matches a reference word for word, as the sequence error rate has it.
    pub fn is_correct(&self) -> bool {
        is_right(self.best(), &self.references)
    }
}

/// Whether a text matches a reference word for word.
pub(super) fn is_right(text: &str, references: &[String]) -> bool {
    references.iter().any(|reference| reference.split_whitespace().eq(text.split_whitespace()))
}

/// All that was found on a split.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Its figures.
    pub results: SplitResults,
    /// The answers, in the order of the file; empty without metrics.
    pub answers: Vec<Answered>,
    /// Of a language model, where its loss lies.
    pub token_losses: Option<TokenLosses>,
    /// How many sources have references that the target's normalization changes, and the first one's line.
    unlike: Option<(usize, usize)>,
    /// What to say of tokens that the tokenizers do not know.
    strangers: Vec<String>,
}

impl Evaluation {
    /// What to say of answers that never came to their end, of references that no answer can be like, and of text that the
    /// tokenizers do not know.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let cut = self.answers.iter().filter(|a| a.answers.first().is_some_and(|best| !best.finished)).count();
        let all = self.answers.len();
        let cut = (cut > 0).then(|| format!("{cut} of {all} answers were cut off at `search.max_length`"));
        let unlike = self.unlike.map(|(count, line)| {
            format!(
                "the references of {count} of {all} sources, the first in line {line}, are not written as the target's \
                 `normalization` has it: answers are, and metrics compare the two as they stand"
            )
        });
        cut.into_iter().chain(unlike).chain(self.strangers.iter().cloned())
    }
}

impl<'a> Evaluator<'a> {
    /// Reads the split. Sources over `data.max_source` are left out where the config says so.
    ///
    /// # Errors
    /// If the corpus cannot be read or cut.
    pub fn new(config: &'a ExperimentConfig, tokenizers: &'a Tokenizers, corpus: &Arc<Corpus>) -> Result<Self> {
        Self::judged_by(config, tokenizers, corpus, &[], Vec::new())
    }

    /// Reads the split, and judges by other references if there are any: line `n` of each file counts as right for the source in
    /// line `n` of the split, beside those of the lines with an equal source. The likelihood stays that of the corpus. What is over
    /// the limits of `others`, which answer together with the model of these settings, is over the limits.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if a file cannot be read, has a bad line, or has not as many lines as the split.
    pub fn judged_by(
        config: &'a ExperimentConfig,
        tokenizers: &'a Tokenizers,
        corpus: &Arc<Corpus>,
        references: &[PathBuf],
        others: Vec<Reader>,
    ) -> Result<Self> {
        let references =
            (!references.is_empty()).then(|| References::open(references, &config.data, corpus)).transpose()?;
        let encoded = Encoded::for_readers(corpus, tokenizers, config, &others)?;
        let (examples, temperature, learned) = (Vec::new(), None, None);
        let threshold = Threshold::Unknown;
        let mut evaluator =
            Self { config, tokenizers, others, encoded, examples, parts: 1, temperature, threshold, learned };
        match &evaluator.encoded {
            Encoded::Examples(_) => evaluator.examples = evaluator.grouped(references)?,
            Encoded::Stream(stream) if stream.is_empty() => {
                let message = "has no token to be judged: it is white space alone; give another file";
                return Err(Error::new(message).in_file(corpus.path()));
            }
            Encoded::Stream(_) => {}
        }
        Ok(evaluator)
    }

    /// Each distinct source with what counts as right: the corpus's targets, or other references.
    fn grouped(&self, references: Option<References>) -> Result<Vec<Example>> {
        let tokenizers = &self.config.tokenizer;
        let of_source = tokenizers.source.as_ref().or(tokenizers.shared.as_ref());
        let of_streams = self.config.streams.values().map(|stream| stream.own_tokenizer().or(of_source));
        let steps = [of_source].into_iter().chain(of_streams);
        let steps: Vec<_> = steps.map(|tokenizer| tokenizer.map_or(&[][..], |t| t.normalization())).collect();
        let mut groups = self.encoded.corpus().grouped(|k, text| normalize(steps[k], text).into_owned())?;
        if let Some(references) = references {
            groups = groups.judged_by(references);
        }
        let mut examples = Vec::new();
        // Only where something was too long can something have to be left out.
        let is_short = self.encoded.too_long().is_none();
        for example in groups.iter() {
            let example = example?;
            if is_short || self.fits(&example)? {
                examples.push(example);
            }
        }
        Ok(examples)
    }

    /// Whether a source is within the limits, in all of its streams.
    fn fits(&self, example: &Example) -> Result<bool> {
        for reader in &self.others {
            // Only its sources are asked about.
            if reader.fault(self.encoded.corpus(), example, 0)?.is_some() {
                return Ok(false);
            }
        }
        if let Some((frames, recording)) = self.encoded.corpus().frames().zip(example.recording) {
            return Ok(self.config.limits().check_frames(frames.frames(recording)).is_ok());
        }
        let texts = example.source.iter().chain(&example.further).zip(self.tokenizers.sources());
        let tokens = texts.map(|(text, tokenizer)| Ok(tokenizer.encode(text)?.len())).collect::<Result<Vec<_>>>()?;
        Ok(self.config.limits().check_sources(tokens).is_ok())
    }

    /// For validations while training: few sources are answered, and running text is read in several parts, as the config says.
    #[must_use]
    pub fn while_training(self) -> Self {
        let EvaluateConfig { validation_examples, parts, .. } = self.config.evaluate;
        Self { parts, ..self.with_examples(validation_examples) }
    }

    /// Judges a language model at a temperature too.
    #[must_use]
    pub fn with_temperature(self, temperature: Option<f64>) -> Self {
        Self { temperature, ..self }
    }

    /// Withholds the answers below this confidence, where one was to be chosen and is known.
    #[must_use]
    pub fn with_threshold(self, threshold: Option<f64>) -> Self {
        Self { threshold: threshold.map_or(Threshold::Unknown, Threshold::Known), ..self }
    }

    /// Chooses the confidence below which answers are withheld on these very answers, where one is to be chosen.
    #[must_use]
    pub fn choosing_threshold(self) -> Self {
        Self { threshold: Threshold::Own, ..self }
    }

    /// The confidence below which answers are withheld, chosen on this split, where one is to be chosen; `None` if `stop` was raised
    /// before the end.
    ///
    /// # Errors
    /// If the model fails.
    pub fn fit_threshold(
        &self,
        model: &dyn Answering,
        stop: &AtomicBool,
        progress: &mut (dyn FnMut(Pace) + Send),
    ) -> Result<Option<Option<f64>>> {
        let all = self.examples.len() as u64;
        let mut answered = |done: usize| progress(Pace { of: "sentences answered", done: done as u64, all });
        let Some(found) = self.answers(model, stop, &mut answered)? else { return Ok(None) };
        fitted(&found, &self.config.evaluate).map(Some)
    }

    /// Tells the losses of tokens apart by how often each stands in the corpus to learn from ([`token_counts`]).
    #[must_use]
    pub fn with_learned(self, learned: Option<Arc<[u64]>>) -> Self {
        Self { learned, ..self }
    }

    /// Keeps `count` sources, drawn by the seed; the likelihood is still that of all examples.
    #[must_use]
    pub fn with_examples(mut self, count: usize) -> Self {
        if count < self.examples.len() {
            let mut places: Vec<usize> = (0..self.examples.len()).collect();
            Key::from_seed(self.config.seed).named("validation examples").shuffle(&mut places);
            places.truncate(count);
            places.sort_unstable();
            self.examples = places.into_iter().map(|i| self.examples[i].clone()).collect();
        }
        self
    }

    /// See [`Evaluation`].
    fn unlike(&self) -> Option<(usize, usize)> {
        let tokenizers = &self.config.tokenizer;
        let steps = tokenizers.target.as_ref().or(tokenizers.shared.as_ref())?.normalization();
        let changed = |example: &&Example| example.targets.iter().any(|target| normalize(steps, target) != *target);
        let first = self.examples.iter().find(changed)?;
        Some((self.examples.iter().filter(changed).count(), first.line))
    }

    /// How many sources a search answers.
    pub fn sources(&self) -> usize {
        self.examples.len()
    }

    /// How probable the model finds the right answers (of several, the first); `None` if `stop` was raised before the end.
    ///
    /// Running text is read on from its beginning to its end, in one part but [while training](Self::while_training), and the
    /// state is carried throughout; each of its tokens counts once.
    ///
    /// The characters are the Unicode scalar values of the target texts as they stand in the corpus, and one more for each
    /// text's end, since the loss counts the end symbol too. With one token a character, both losses are then the same.
    ///
    /// # Errors
    /// If the corpus cannot be read or the model fails.
    pub fn likelihood(&self, model: &dyn Answering, stop: &AtomicBool) -> Result<Option<Likelihood>> {
        self.likelihood_at(&[1.0], model, stop, &mut |_| {}).map(|found| found.map(|mut found| found.swap_remove(0)))
    }

    /// The same at each of some temperatures; `progress` hears how many tokens are judged.
    fn likelihood_at(
        &self,
        temperatures: &[f64],
        model: &dyn Answering,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(Pace),
    ) -> Result<Option<Vec<Likelihood>>> {
        self.pass(model, stop, self.in_order(), temperatures, progress, &mut |_, _| {})
    }

    fn in_order(&self) -> Prefetch {
        self.encoded.in_order(&self.config.batch, self.parts)
    }

    /// The likelihood of batches that are the whole split, at each of some temperatures. `progress` hears how many tokens are judged,
    /// and `each` the scores at the first temperature.
    fn pass(
        &self,
        model: &dyn Answering,
        stop: &AtomicBool,
        batches: Prefetch,
        temperatures: &[f64],
        progress: &mut dyn FnMut(Pace),
        each: &mut dyn FnMut(&Batch, &TokenScores),
    ) -> Result<Option<Vec<Likelihood>>> {
        let (mut done, all) = (0, self.encoded.target_tokens());
        let Units { characters, words } = self.encoded.units();
        let mut sums = vec![Likelihood { characters, words, ..Likelihood::default() }; temperatures.len()];
        let (mut carries, readings): (Vec<Carry>, _) = (Vec::new(), model.readings());
        for batch in batches {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let mut batches = vec![batch?];
            for reading in &readings {
                batches.push(self.reread(&batches[0], reading)?);
            }
            let Judgement { scores, lost, ctc } = model.judge(&batches, &mut carries, temperatures)?;
            each(&batches[0], &scores[0]);
            let Batch { target, examples, .. } = &batches[0];
            let tokens = target.tokens() as u64;
            done += tokens;
            progress(Pace { of: "tokens judged", done, all });
            let tokens_of = |rows: &[bool]| -> u64 {
                target.lengths.iter().zip(rows).filter(|(_, lost)| **lost).map(|(&length, _)| u64::from(length)).sum()
            };
            let lost_tokens = tokens_of(&lost);
            let ctc = ctc.map(|ctc| CtcLikelihood { nats: ctc.nats, tokens: tokens - tokens_of(&ctc.lost) });
            for (sum, scores) in sums.iter_mut().zip(scores) {
                sum.merge(&Likelihood {
                    nats: scores.log_probs.iter().map(|&log_prob| -f64::from(log_prob)).sum(),
                    tokens: tokens - lost_tokens,
                    lost_tokens,
                    correct_tokens: scores.correct.iter().filter(|&&correct| correct).count() as u64,
                    ctc,
                    ..Likelihood::default()
                });
            }
            for (&example, _) in examples.iter().zip(&lost).filter(|(_, lost)| **lost) {
                let Units { characters, words } = self.encoded.units_of(example)?;
                sums.iter_mut()
                    .for_each(|sum| (sum.characters, sum.words) = (sum.characters - characters, sum.words - words));
            }
        }
        Ok(Some(sums))
    }

    /// The same batch with its sources as other tokenizers have them.
    fn reread(&self, batch: &Batch, tokenizers: &[Arc<dyn Tokenizer>]) -> Result<Batch> {
        let mut rows = vec![Vec::new(); tokenizers.len()];
        for &place in &batch.examples {
            let Example { source, further, .. } = self.encoded.corpus().get(place)?;
            let texts: Vec<String> = source.into_iter().chain(further).collect();
            rows.iter_mut().zip(encoded(tokenizers.iter(), &texts)?).for_each(|(rows, row)| rows.push(row));
        }
        let sources = rows.iter().map(|rows| SourceBatch::Tokens(TokenBatch::from_rows(rows))).collect();
        Ok(Batch { sources, ..batch.clone() })
    }

    /// The temperature of the softmax under which the model finds the split most probable, from 0.25 to 4; `None` if `stop` was
    /// raised before the end.
    ///
    /// # Errors
    /// As [`likelihood`](Self::likelihood).
    pub fn fit_temperature(
        &self,
        model: &dyn Answering,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(Pace),
    ) -> Result<Option<f64>> {
        best_temperature(|temperatures| {
            let found = self.likelihood_at(temperatures, model, stop, progress)?;
            Ok(found.map(|found| found.iter().map(|likelihood| likelihood.nats).collect()))
        })
    }

    /// Searches an answer to every source; `None` if `stop` was raised before the end. `progress` hears how many are done.
    ///
    /// # Errors
    /// If the model fails.
    pub fn answers(
        &self,
        model: &dyn Answering,
        stop: &AtomicBool,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Option<Vec<Answered>>> {
        self.answers_by(&self.config.search, self.config.reranking(), model, stop, progress)
    }

    /// The same by another search, and ranked in another way.
    ///
    /// # Errors
    /// If the model fails, or the search cannot work.
    pub fn answers_by(
        &self,
        search: &SearchConfig,
        rerank: Option<&RerankConfig>,
        model: &dyn Answering,
        stop: &AtomicBool,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Option<Vec<Answered>>> {
        let ExperimentConfig { seed, evaluate, .. } = self.config;
        let searcher = Searcher::new(model, self.tokenizers, search, *seed, evaluate.rows)?;
        let searcher = searcher.with_rerank(search, rerank)?;
        // Texts are searched by their lengths; of recordings not more are in memory than keep all threads busy.
        let most = match self.encoded.corpus().is_spoken() {
            true => evaluate.rows * RECORDINGS * rayon::current_num_threads(),
            false => self.examples.len().max(1),
        };
        let mut all = Vec::with_capacity(self.examples.len());
        for some in self.examples.chunks(most) {
            let before = all.len();
            let Some(found) = self.answers_to(some, &searcher, stop, &mut |done| progress(before + done))? else {
                return Ok(None);
            };
            all.extend(found);
        }
        Ok(Some(all))
    }

    /// The same for some of the sources.
    fn answers_to(
        &self,
        examples: &[Example],
        searcher: &Searcher<'_>,
        stop: &AtomicBool,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Option<Vec<Answered>>> {
        let frames = self.encoded.corpus().frames();
        let question = |example: &Example| {
            if let Some((frames, recording)) = frames.zip(example.recording) {
                let recording = Source::Frames { values: frames.read(recording)?, features: frames.width() };
                return Ok(Question::of_recording(example.line as u64, recording));
            }
            let texts: Vec<&String> = example.source.iter().chain(&example.further).collect();
            searcher.question_among(example.line as u64, &texts, &example.candidates)
        };
        let sources = examples.iter().map(question).collect::<Result<Vec<_>>>()?;
        let lines = |error| rename_sources(error, |i| format!("line {}", examples[i].line));
        let answers = searcher.answer(&sources, stop, progress);
        let answers = answers.map_err(|error| lines(error).in_file(self.encoded.corpus().path()))?;
        let Some(answers) = answers else { return Ok(None) };
        let answered = examples.iter().zip(sources.iter().zip(answers));
        let answered = answered.map(|(example, (question, Answers { answers, outscored })): (_, (&Question, _))| {
            let texts = example.source.iter().chain(&example.further).cloned();
            let (source, streams) = apart(&self.config.streams, texts);
            let strangers = question.sources.iter().map(|source| unknown::positions(source.ids()));
            let (unknown, unknown_streams) = unknown_apart(&self.config.streams, strangers);
            Answered {
                line: example.line,
                source: source.unwrap_or_default(),
                streams,
                unknown,
                unknown_streams,
                columns: self
                    .config
                    .evaluate
                    .kept_columns()
                    .into_iter()
                    .map(|(_, column)| column)
                    .zip(example.kept.iter().cloned())
                    .collect(),
                candidates: example.candidates.clone(),
                references: example.targets.clone(),
                answers,
                outscored,
            }
        });
        Ok(Some(answered.collect()))
    }

    /// The config's metrics over answers, by their labels.
    ///
    /// # Errors
    /// If there are no answers.
    pub fn metrics(&self, answers: &[Answered]) -> Result<BTreeMap<String, Score>> {
        let judged: Vec<Judged> = answers.iter().map(Answered::judged).collect();
        self.scores(&judged, &judged)
    }

    /// The metrics over some answers among all.
    fn scores(&self, some: &[Judged], all: &[Judged]) -> Result<BTreeMap<String, Score>> {
        let score =
            |(label, metric): (String, &antiphon_eval::MetricConfig)| Ok((label, metric.build_among(all).score(some)?));
        self.config.searched().map(score).collect()
    }

    /// The same for the answers of each value of the columns of `evaluate.by`.
    fn metrics_by(&self, answers: &[Answered]) -> Result<BTreeMap<String, Vec<OfValue>>> {
        let all: Vec<Judged> = answers.iter().map(Answered::judged).collect();
        let of_value = |(value, which): (&str, Vec<usize>)| {
            let judged: Vec<Judged> = which.into_iter().map(|i| all[i].clone()).collect();
            let scores = self.scores(&judged, &all)?.into_iter().map(|(label, score)| (label, score.value));
            Ok(OfValue { value: value.to_owned(), examples: judged.len() as u64, metrics: scores.collect() })
        };
        let of_column = |column: &String| {
            let values = answers.iter().map(|answered| answered.columns.get(column).map_or(&[][..], Vec::as_slice));
            let values = by_value(values).into_iter().map(of_value).collect::<Result<_>>()?;
            Ok((column.clone(), values))
        };
        self.config.evaluate.by.iter().map(of_column).collect()
    }

    /// How often the sentences that count most are those that support the answer, where a column names these.
    fn support(&self, model: &dyn Answering, answers: &[Answered]) -> Result<Option<Score>> {
        let column = self.config.evaluate.support.as_ref().filter(|_| self.config.sentences().1);
        let Some(column) = column else { return Ok(None) };
        let answers: Vec<&Answered> = answers.iter().collect();
        let readings = readings(model, self.tokenizers, &answers, Some(column))?;
        Ok(readings.and_then(|readings| support(&readings)))
    }

    /// What to say of candidates with tokens that the model does not know.
    fn strange_candidates(&self) -> Result<Option<String>> {
        let (mut all, mut strange, mut first) = (0, 0, None);
        for example in self.examples.iter().filter(|_| self.config.searches()) {
            for candidate in &example.candidates {
                let ids = self.tokenizers.target().encode(candidate)?;
                all += 1;
                if !unknown::positions(&ids).is_empty() {
                    strange += 1;
                    first.get_or_insert(example.line);
                }
            }
        }
        Ok(first.map(|line| {
            format!(
                "{strange} of {all} candidates, the first in line {line}, hold a token that the model does not know: two that are alike \
                 but for such tokens are the same to it, and the first of them is said"
            )
        }))
    }

    /// What the values of each column say together.
    fn over_values(&self, by: &BTreeMap<String, Vec<OfValue>>) -> BTreeMap<String, BTreeMap<String, OverValues>> {
        let of_metric = |values: &[OfValue], label: &String| {
            let figures: Vec<f64> = values.iter().filter_map(|of| of.metrics.get(label).copied()).collect();
            OverValues::of(&figures, self.config.evaluate.mark(label))
        };
        let labels: Vec<String> = self.config.searched().map(|(label, _)| label).collect();
        let of_column = |values: &Vec<OfValue>| {
            labels.iter().map(|label| (label.clone(), of_metric(values, label))).collect::<BTreeMap<_, _>>()
        };
        let told = by.iter().filter(|(_, values)| !values.is_empty());
        told.map(|(column, values)| (column.clone(), of_column(values))).collect()
    }

    /// Everything; `None` if `stop` was raised before the end. `progress` hears how far each part of it is.
    ///
    /// # Errors
    /// If the corpus cannot be read or the model fails.
    pub fn evaluate(
        &self,
        model: &dyn Answering,
        stop: &AtomicBool,
        progress: &mut (dyn FnMut(Pace) + Send),
    ) -> Result<Option<Evaluation>> {
        let has_source = self.config.data.has_source();
        let is_spoken = self.encoded.corpus().is_spoken();
        let (losses, token_losses) = if has_source {
            let Some(found) = self.likelihood_at(&[1.0], model, stop, progress)? else { return Ok(None) };
            (has_loss(&found[0]).then(|| losses_of(&found[0], None)), None)
        } else {
            let Some((found, tally)) = self.judge(model, stop, progress)? else { return Ok(None) };
            let tokenizer = self.tokenizers.target().as_ref();
            (Some(found), Some(tally.finish(&self.encoded, tokenizer, self.learned.as_deref())?))
        };
        let (mut answers, mut metrics, mut unlike, mut outscored) = (Vec::new(), BTreeMap::new(), None, None);
        let (mut by, mut selective) = (BTreeMap::new(), None);
        if self.config.searches() {
            let all = self.examples.len() as u64;
            let mut answered = |done: usize| progress(Pace { of: "sentences answered", done: done as u64, all });
            let Some(mut found) = self.answers(model, stop, &mut answered)? else { return Ok(None) };
            let threshold = match self.threshold {
                Threshold::Unknown => None,
                Threshold::Known(threshold) => Some(threshold),
                Threshold::Own => fitted(&found, &self.config.evaluate)?,
            };
            let withholding = self.config.evaluate.no_answer.withholding(threshold);
            selective = select(&mut found, withholding.as_ref(), &self.config.evaluate);
            metrics = self.metrics(&found)?;
            by = self.metrics_by(&found)?;
            metrics.extend(self.support(model, &found)?.map(|score| (SUPPORT.to_owned(), score)));
            outscored = Some(found.iter().filter(|answered| answered.outscored).count() as u64);
            (answers, unlike) = (found, self.unlike());
        }
        let (unknown, mut strangers) = (self.encoded.unknown(), unknown::warnings(&self.encoded, false));
        let without_path = self.encoded.without_path(self.config)?;
        strangers.extend(self.encoded.lost(without_path, self.config));
        strangers.extend(self.encoded.cut());
        let support = self.config.evaluate.support.as_ref();
        strangers.extend(support.and_then(|column| odd_support(&answers, column)));
        strangers.extend(self.strange_candidates()?);
        let Units { characters, words } = self.encoded.units();
        let left_out = self.encoded.corpus().skipped().total() + self.encoded.too_long().map_or(0, Skipped::total);
        let counts = Counts {
            examples: match &self.encoded {
                Encoded::Examples(_) => self.examples.len() as u64,
                Encoded::Stream(stream) => stream.corpus().len() as u64,
            },
            source_tokens: (has_source && !is_spoken).then(|| self.encoded.source_tokens()),
            source_frames: is_spoken.then(|| self.encoded.source_tokens()),
            unknown_source: (has_source && !is_spoken).then_some(unknown.source),
            streams: self.encoded.further().into_iter().map(counted).collect(),
            unknown_target: Some(unknown.target),
            outscored,
            target_tokens: self.encoded.target_tokens(),
            target_characters: Some(characters),
            target_words: (!has_source).then_some(words),
            skipped: left_out as u64,
            without_path: without_path.map(|lost| lost as u64),
        };
        Ok(Some(Evaluation {
            results: SplitResults { metrics, over_values: self.over_values(&by), by, selective, losses, counts },
            answers,
            token_losses,
            unlike,
            strangers,
        }))
    }

    /// The losses of a language model in all the ways that the config asks for, and where they lie.
    fn judge(
        &self,
        model: &dyn Answering,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(Pace),
    ) -> Result<Option<(Losses, Tally)>> {
        let temperatures: Vec<f64> = [1.0].into_iter().chain(self.temperature).collect();
        let mut tally = Tally::default();
        let mut add = |batch: &Batch, scores: &TokenScores| tally.add(batch, scores);
        let found = self.pass(model, stop, self.in_order(), &temperatures, progress, &mut add)?;
        let Some(found) = found else { return Ok(None) };
        let ways = |reset: Option<u64>, found: Vec<Likelihood>| {
            let temperatures = [None].into_iter().chain(self.temperature.map(Some));
            let way = move |(temperature, likelihood): (Option<f64>, Likelihood)| Beside {
                reset,
                temperature,
                per_token: likelihood.per_token(),
                per_character: likelihood.per_character(),
            };
            temperatures.zip(found).map(way)
        };
        let mut losses = losses_of(&found[0], Some(found[0].per_word()));
        losses.beside.extend(ways(None, found).skip(1));
        let reset = self.config.evaluate.reset;
        if let Some(windows) = (reset > 0).then(|| self.encoded.in_windows(reset)).flatten() {
            let mut add = |batch: &Batch, scores: &TokenScores| tally.add_windows(batch, scores);
            let found = self.pass(model, stop, windows, &temperatures, progress, &mut add)?;
            let Some(found) = found else { return Ok(None) };
            losses.beside.extend(ways(Some(reset as u64), found));
        }
        Ok(Some((losses, tally)))
    }
}

/// How often each token stands in a corpus.
///
/// # Errors
/// If it cannot be read or cut.
pub(crate) fn token_counts(
    config: &ExperimentConfig,
    tokenizers: &Tokenizers,
    corpus: &Arc<Corpus>,
) -> Result<Arc<[u64]>> {
    let encoded = Encoded::new(corpus, tokenizers, config)?;
    Ok(encoded.counts(tokenizers.target().size())?.into())
}

/// The temperature at which a language model is to be judged: none where its settings do not ask for one; that of figures of its
/// validation split where they have one; else it is fitted on that split, if it is there. `None` if `stop` was raised before the
/// end.
///
/// # Errors
/// If the corpus cannot be read or the model fails.
pub(crate) fn temperature(
    model: &dyn Answering,
    tokenizers: &Tokenizers,
    config: &ExperimentConfig,
    known: Option<&SplitResults>,
    validation: Option<&Arc<Corpus>>,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Pace),
) -> Result<Option<Option<f64>>> {
    let known = known.and_then(SplitResults::temperature);
    match (config.evaluate.temperature, known, validation) {
        (Temperature::None, ..) | (Temperature::Fit, None, None) => Ok(Some(None)),
        (Temperature::Fit, Some(known), _) => Ok(Some(Some(known))),
        (Temperature::Fit, None, Some(corpus)) => {
            let evaluator = Evaluator::new(config, tokenizers, corpus)?.while_training();
            Ok(evaluator.fit_temperature(model, stop, progress)?.map(Some))
        }
    }
}

/// The confidence below which answers are withheld, where it is to be chosen on the validation split: that of figures of this
/// split where they have one, else it is chosen there, if it is there. `None` if `stop` was raised before the end.
///
/// # Errors
/// If the corpus cannot be read or the model fails.
pub(crate) fn threshold(
    model: &dyn Answering,
    tokenizers: &Tokenizers,
    config: &ExperimentConfig,
    known: Option<&SplitResults>,
    validation: Option<&Arc<Corpus>>,
    stop: &AtomicBool,
    progress: &mut (dyn FnMut(Pace) + Send),
) -> Result<Option<Option<f64>>> {
    if !config.searches() {
        return Ok(Some(None));
    }
    let known = known.and_then(|known| known.selective?.threshold);
    match (&config.evaluate.no_answer, known, validation) {
        (NoAnswerConfig::Never(_) | NoAnswerConfig::Below(_), ..) | (_, None, None) => Ok(Some(None)),
        (NoAnswerConfig::Fitted(_), Some(known), _) => Ok(Some(Some(known))),
        (NoAnswerConfig::Fitted(_), None, Some(corpus)) => {
            Evaluator::new(config, tokenizers, corpus)?.fit_threshold(model, stop, progress)
        }
    }
}

/// The temperature from 0.25 to 4 whose loss is least; `losses` gives those of several, or `None` to end the search.
///
/// The loss of a softmax is convex in the temperature's inverse, so that there is one. Each pass narrows the range in which its
/// logarithm lies to a third, and a parabola through the best of the last losses and its neighbours ends the search.
fn best_temperature(mut losses: impl FnMut(&[f64]) -> Result<Option<Vec<f64>>>) -> Result<Option<f64>> {
    const POINTS: usize = 5;
    const PASSES: usize = 4;
    let (mut low, mut step) = (0.25_f64.ln(), 16_f64.ln() / (POINTS + 1) as f64);
    let mut fitted = 0.0;
    for _ in 0..PASSES {
        let points: Vec<f64> = (1..=POINTS).map(|i| low + step * i as f64).collect();
        let temperatures: Vec<f64> = points.iter().map(|point| point.exp()).collect();
        let Some(nats) = losses(&temperatures)? else { return Ok(None) };
        let best = (0..POINTS).min_by(|&a, &b| nats[a].total_cmp(&nats[b])).expect("there are points");
        fitted = points[best];
        if (1..POINTS - 1).contains(&best) {
            let (before, behind) = (nats[best - 1], nats[best + 1]);
            let bend = before + behind - 2.0 * nats[best];
            fitted += if bend > 0.0 { step * (before - behind) / (2.0 * bend) } else { 0.0 };
        }
        low = points[best] - step;
        step *= 2.0 / (POINTS + 1) as f64;
    }
    Ok(Some(fitted.exp()))
}

fn counted((name, FurtherTokens { tokens, unknown }): (&str, FurtherTokens)) -> (String, CountsOfStream) {
    (name.to_owned(), CountsOfStream { tokens, unknown })
}

fn losses_of(likelihood: &Likelihood, per_word: Option<f64>) -> Losses {
    Losses {
        per_token: likelihood.per_token(),
        per_character: Some(likelihood.per_character()),
        per_word,
        perplexity: likelihood.perplexity(),
        token_accuracy: likelihood.token_accuracy(),
        // There is none where no path says anything.
        ctc: likelihood.ctc_per_token().filter(|loss| !loss.is_nan()),
        beside: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use antiphon_data::Cut;
    use antiphon_model::Model;

    use super::*;
    use crate::device::{DeviceConfig, device};
    use crate::experiment::{Experiment, Loaded};

    /// An experiment over some running text, and a model that has learned nothing yet.
    fn experiment(folder: &std::path::Path, documents: &str) -> (Experiment, Tokenizers, Model) {
        let blank = |i: usize| if i % 7 == 6 { "\n" } else { "" };
        let line = |i: usize| format!("{} {}\n{}", "ab".repeat(i % 5), "c".repeat(i % 3), blank(i * i % 31));
        std::fs::write(folder.join("a.txt"), (0..300).map(line).collect::<String>()).unwrap();
        let data =
            format!("data = {{ kind = 'stream', train = 'a.txt', validation = 'a.txt', documents = '{documents}' }}\n");
        let config = "tokenizer.target.kind = 'character'\ntrain.epochs = 1\n[model]\nkind = 'language_model'\n\
                      target = { kind = 'embedding', size = 6 }\ndecoder = { kind = 'lstm', hidden = 9, layers = 2 }\n";
        let file = folder.join("a.toml");
        std::fs::write(&file, data + config).unwrap();
        let experiment = Experiment::open(Loaded::read(&file, &[]).unwrap(), folder).unwrap();
        let tokenizers = experiment.learned().unwrap().clone();
        let device = device(DeviceConfig::default()).unwrap();
        let model = experiment.config.init_model(&tokenizers.vocabularies(), Key::from_seed(5), &device).unwrap();
        (experiment, tokenizers, model)
    }

    #[test]
    fn running_text_that_is_cut_anywhere_is_as_probable_as_in_one_pass() {
        let folder = tempfile::tempdir().unwrap();
        let (experiment, tokenizers, model) = experiment(folder.path(), "none");
        let evaluator = Evaluator::new(&experiment.config, &tokenizers, &experiment.corpora.train).unwrap();
        let Encoded::Stream(stream) = &evaluator.encoded else { panic!("no running text") };
        let never = AtomicBool::new(false);
        let of = |cut: Cut| {
            let batches = Prefetch::of_stream(Arc::clone(stream), stream.steps(&cut), 2);
            evaluator
                .pass(&model, &never, batches, &[1.0], &mut |_| {}, &mut |_, _| {})
                .unwrap()
                .unwrap()
                .swap_remove(0)
        };
        let parts = |rows, length, jitter| of(Cut::Parts { rows, length, jitter });
        let whole = evaluator.likelihood(&model, &never).unwrap().unwrap();
        assert_eq!(whole.tokens, stream.len());
        let is_whole = |other: &Likelihood| {
            assert_eq!((other.tokens, other.correct_tokens), (whole.tokens, whole.correct_tokens));
            (other.nats - whole.nats).abs() < 1e-4 * whole.nats
        };
        let jitter = Some(Key::from_seed(1));
        for other in [parts(1, 1, None), parts(1, 7, None), parts(1, 97, jitter), parts(1, 1 << 20, None)] {
            assert!(is_whole(&other), "{other:?} {whole:?}");
        }
        assert!(is_whole(&of(Cut::Windows { rows: 3, length: 1 << 20 })));
        // Where the state is lost now and then, it is another.
        for other in [parts(40, 9, None), of(Cut::Windows { rows: 40, length: 9 })] {
            assert!(other.tokens == whole.tokens && (other.nats - whole.nats).abs() > 1e-3, "{other:?} {whole:?}");
        }
    }

    #[test]
    fn documents_side_by_side_are_as_probable_as_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let (experiment, tokenizers, model) = experiment(folder.path(), "blank_lines");
        let evaluator = Evaluator::new(&experiment.config, &tokenizers, &experiment.corpora.train).unwrap();
        let Encoded::Stream(stream) = &evaluator.encoded else { panic!("no running text") };
        assert!(stream.documents() > 20);
        let never = AtomicBool::new(false);
        let one_by_one = stream.steps(&Cut::Parts { rows: 1, length: 50, jitter: None });
        let batches = Prefetch::of_stream(Arc::clone(stream), one_by_one, 2);
        let expected = evaluator
            .pass(&model, &never, batches, &[1.0], &mut |_| {}, &mut |_, _| {})
            .unwrap()
            .unwrap()
            .swap_remove(0);
        let found = evaluator.likelihood(&model, &never).unwrap().unwrap();
        assert_eq!((found.tokens, found.correct_tokens), (expected.tokens, expected.correct_tokens));
        assert!((found.nats - expected.nats).abs() < 1e-5 * expected.nats, "{found:?} {expected:?}");
    }

    /// The loss of a softmax over two tokens whose logits differ by 1, of which the likelier is right so often.
    #[test]
    fn the_fitted_temperature_is_the_best_there_is() {
        for right in [0.6, 0.7, 0.731_058_578_6, 0.9] {
            let loss = |temperature: f64| {
                let log = |difference: f64| (1.0 + (-difference / temperature).exp()).ln();
                right * log(1.0) + (1.0 - right) * log(-1.0)
            };
            let best = best_temperature(|all| Ok(Some(all.iter().map(|&one| loss(one)).collect()))).unwrap().unwrap();
            // Where the softmax gives the frequencies.
            let expected = 1.0 / (right / (1.0 - right)).ln();
            assert!((best - expected).abs() < 1e-3 * expected, "{best} for {expected}");
        }
        let edge = |falls: f64| best_temperature(|all| Ok(Some(all.iter().map(|one| falls * one).collect()))).unwrap();
        assert!((3.8..=4.0).contains(&edge(-1.0).unwrap()) && (0.25..0.26).contains(&edge(1.0).unwrap()));
        assert_eq!(best_temperature(|_| Ok(None)).unwrap(), None);
    }
}
