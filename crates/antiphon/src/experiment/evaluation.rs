//! How good a model is on a split: its losses under teacher forcing, and metrics over what it answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use antiphon_core::random::Key;
use antiphon_core::{Judged, Result, Score};
use antiphon_data::{Corpus, Dataset, Example, Prefetch, References, plan_in_order};
use antiphon_decode::rename_sources;
use antiphon_eval::Likelihood;
use antiphon_kernels::Carry;
use antiphon_lab::{Counts, Losses, SplitResults};
use antiphon_model::Model;
use antiphon_text::normalize;
use serde::{Deserialize, Serialize};

use super::answers::{Answer, Answers, Searcher};
use super::data::{AHEAD, dataset};
use super::{ExperimentConfig, Tokenizers, unknown};

/// A figure of the likelihood.
type Figure = fn(&Likelihood) -> f64;

/// The name of the loss in nats per real target token.
pub(super) const LOSS: &str = "loss";

/// What is known about a model without any search: name, figure, and whether smaller is better.
const FIGURES: [(&str, Figure, bool); 4] = [
    (LOSS, Likelihood::per_token, true),
    ("loss_per_character", Likelihood::per_character, true),
    ("perplexity", Likelihood::perplexity, true),
    ("token_accuracy", Likelihood::token_accuracy, false),
];

/// The names of the figures that need no search, and whether smaller is better.
pub(super) fn figures_of_likelihood() -> impl Iterator<Item = (&'static str, bool)> {
    FIGURES.into_iter().map(|(name, _, lower)| (name, lower))
}

/// The labels of all figures that a validation may have, and whether smaller is better.
pub(crate) fn figures_of_validation(config: &ExperimentConfig) -> Vec<(String, bool)> {
    let of_search = config.searched().map(|(label, metric)| (label, metric.lower_is_better()));
    figures_of_likelihood().map(|(name, lower)| (name.to_owned(), lower)).chain(of_search).collect()
}

/// Those figures of a likelihood.
pub(super) fn values(likelihood: &Likelihood) -> BTreeMap<String, f64> {
    FIGURES.into_iter().map(|(name, figure, _)| (name.into(), figure(likelihood))).collect()
}

/// One split, ready to judge models on.
pub struct Evaluator<'a> {
    config: &'a ExperimentConfig,
    tokenizers: &'a Tokenizers,
    dataset: Arc<Dataset>,
    /// Each distinct source with all that counts as right.
    examples: Vec<Example>,
}

/// A source, what counts as right, and what was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// Where the source stands in its file, counted from 1.
    pub line: usize,
    /// The source.
    pub source: String,
    /// Which of the source's tokens, counted from 0, the tokenizer does not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<usize>,
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
        Self::judged_by(config, tokenizers, corpus, &[])
    }

    /// Reads the split, and judges by other references if there are any: line `n` of each file counts as right for the source in
    /// line `n` of the split, beside those of the lines with an equal source. The likelihood stays that of the corpus.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if a file cannot be read, has a bad line, or has not as many lines as the split.
    pub fn judged_by(
        config: &'a ExperimentConfig,
        tokenizers: &'a Tokenizers,
        corpus: &Arc<Corpus>,
        references: &[PathBuf],
    ) -> Result<Self> {
        let references =
            (!references.is_empty()).then(|| References::open(references, &config.data, corpus)).transpose()?;
        let dataset = dataset(corpus, tokenizers, &config.data)?;
        let mut evaluator = Self { config, tokenizers, dataset, examples: Vec::new() };
        evaluator.examples = evaluator.grouped(references)?;
        Ok(evaluator)
    }

    /// Each distinct source with what counts as right: the corpus's targets, or other references.
    fn grouped(&self, references: Option<References>) -> Result<Vec<Example>> {
        let tokenizers = &self.config.tokenizer;
        let steps = tokenizers.source.as_ref().or(tokenizers.shared.as_ref()).map_or(&[][..], |t| t.normalization());
        let mut groups = self.dataset.corpus().grouped(|source| normalize(steps, source).into_owned())?;
        if let Some(references) = references {
            groups = groups.judged_by(references);
        }
        let mut examples = Vec::new();
        // Only where something was too long can something have to be left out.
        let longest = (!self.dataset.skipped().is_empty()).then(|| self.config.data.limits().max_source);
        for example in groups.iter() {
            let example = example?;
            let fits = match (longest, &example.source, self.tokenizers.source()) {
                (Some(longest), Some(source), Some(tokenizer)) => tokenizer.encode(source)?.len() <= longest,
                _ => true,
            };
            if fits {
                examples.push(example);
            }
        }
        Ok(examples)
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
    /// The characters are the Unicode scalar values of the target texts as they stand in the corpus, and one more for each
    /// text's end, since the loss counts the end symbol too. With one token a character, both losses are then the same.
    ///
    /// # Errors
    /// If the corpus cannot be read or the model fails.
    pub fn likelihood(&self, model: &Model, stop: &AtomicBool) -> Result<Option<Likelihood>> {
        let (mut sum, mut carry) = (Likelihood::default(), Carry::default());
        let plan = plan_in_order(self.dataset.lengths(), &self.config.batch);
        for batch in Prefetch::new(Arc::clone(&self.dataset), plan, AHEAD) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let batch = batch?;
            let mut characters = 0;
            for &i in &batch.examples {
                characters += self.dataset.corpus().get(i)?.targets[0].chars().count() as u64 + 1;
            }
            let scores = model.scores(&batch, &mut carry)?;
            sum.merge(&Likelihood {
                nats: scores.log_probs.iter().map(|&log_prob| -f64::from(log_prob)).sum(),
                tokens: scores.log_probs.len() as u64,
                characters,
                correct_tokens: scores.correct.iter().filter(|&&correct| correct).count() as u64,
            });
        }
        Ok(Some(sum))
    }

    /// Searches an answer to every source; `None` if `stop` was raised before the end. `progress` hears how many are done.
    ///
    /// # Errors
    /// If the model fails.
    pub fn answers(
        &self,
        model: &Model,
        stop: &AtomicBool,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Option<Vec<Answered>>> {
        let searcher =
            Searcher::new(model.for_search(), self.tokenizers, &self.config.search, self.config.evaluate.rows)?;
        let source = |example: &Example| example.source.clone().unwrap_or_default();
        let sources = self.examples.iter().map(|example| searcher.encode(&source(example)));
        let sources = sources.collect::<Result<Vec<_>>>()?;
        let lines = |error| rename_sources(error, |i| format!("line {}", self.examples[i].line));
        let answers = searcher.answer(&sources, stop, progress);
        let answers = answers.map_err(|error| lines(error).in_file(self.dataset.corpus().path()))?;
        let Some(answers) = answers else { return Ok(None) };
        let answered = self.examples.iter().zip(sources.iter().zip(answers));
        let answered = answered.map(|(example, (ids, Answers { answers, outscored }))| Answered {
            line: example.line,
            source: source(example),
            unknown: unknown::positions(ids),
            references: example.targets.clone(),
            answers,
            outscored,
        });
        Ok(Some(answered.collect()))
    }

    /// The config's metrics over answers, by their labels.
    ///
    /// # Errors
    /// If there are no answers.
    pub fn metrics(&self, answers: &[Answered]) -> Result<BTreeMap<String, Score>> {
        let judge = |a: &Answered| Judged { hypothesis: a.best().into(), references: a.references.clone() };
        let judged: Vec<Judged> = answers.iter().map(judge).collect();
        let score =
            |(label, metric): (String, &antiphon_eval::MetricConfig)| Ok((label, metric.build().score(&judged)?));
        self.config.searched().map(score).collect()
    }

    /// Everything; `None` if `stop` was raised before the end.
    ///
    /// # Errors
    /// If the corpus cannot be read or the model fails.
    pub fn evaluate(
        &self,
        model: &Model,
        stop: &AtomicBool,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Option<Evaluation>> {
        let Some(likelihood) = self.likelihood(model, stop)? else { return Ok(None) };
        let (mut answers, mut metrics, mut unlike, mut outscored) = (Vec::new(), BTreeMap::new(), None, None);
        if self.config.searches() {
            let Some(found) = self.answers(model, stop, progress)? else { return Ok(None) };
            metrics = self.metrics(&found)?;
            outscored = Some(found.iter().filter(|answered| answered.outscored).count() as u64);
            (answers, unlike) = (found, self.unlike());
        }
        let losses = Losses {
            per_token: likelihood.per_token(),
            per_character: Some(likelihood.per_character()),
            perplexity: likelihood.perplexity(),
            token_accuracy: likelihood.token_accuracy(),
        };
        let (unknown, strangers) = (self.dataset.unknown(), unknown::warnings(&self.dataset));
        let has_source = self.tokenizers.source().is_some();
        let counts = Counts {
            examples: self.examples.len() as u64,
            source_tokens: has_source.then(|| self.dataset.source_tokens()),
            unknown_source: has_source.then_some(unknown.source),
            unknown_target: Some(unknown.target),
            outscored,
            target_tokens: likelihood.tokens,
            target_characters: Some(likelihood.characters),
            skipped: (self.dataset.corpus().skipped().total() + self.dataset.skipped().total()) as u64,
        };
        Ok(Some(Evaluation {
            results: SplitResults { metrics, losses: Some(losses), counts },
            answers,
            unlike,
            strangers,
        }))
    }
}
