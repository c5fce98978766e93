//! Answers: source texts in, target texts out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use antiphon_core::random::Key;
use antiphon_core::{Copies, CtcOutput, Error, Place, Request, Result, Source, Special, StepModel, TokenId, Tokenizer};
use antiphon_decode::{
    Finished, Hypothesis, SearchConfig, Strategy, order_by_length, restore, score, search_all, search_overheard,
};
use antiphon_kernels::attentively;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::answering::Answering;
use super::fusion::language_model;
use super::generation::Failure;
use super::no_answer::Withholding;
use super::rerank::{RerankConfig, Reranker};
use super::speech::{Slotted, Speech, StopTexts, Telling};
use super::words::{Clock, Timeline, Word};
use super::{Tokenizers, unknown};
use crate::output::one_line;

/// One answer to a source.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The answer.
    pub text: String,
    /// What answers are ranked by: `log_prob`, and what else the search counts, under the length penalty; or what `[rerank]` makes of
    /// them.
    pub score: f64,
    /// Natural logarithm of the answer's probability.
    pub log_prob: f64,
    /// Whether it came to its end, by the end symbol or at one of `search.stop`; if not, the length limit cut it off.
    pub finished: bool,
    /// Which of its tokens, counted from 0, are the unknown symbol: a text that merely looks like it is not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<usize>,
    /// The attention weights of each token over the source, if `search.return_attention` asks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attention: Vec<Vec<f32>>,
    /// What it would have said, had it been sure enough: then its text is what is said instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
    /// Of an answer to a recording its words and when they are said, where that was asked and can be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
    /// Natural logarithm of what the model of `rerank.reverse` gives the source, if it has a say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse_log_prob: Option<f64>,
    /// The same of what that of `rerank.language_model` gives the answer, or its first tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_model_log_prob: Option<f64>,
    /// How many tokens it has without the end symbol, where answers are ranked anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
}

impl Answer {
    /// How sure the model is of it: its probability.
    pub fn confidence(&self) -> f64 {
        self.log_prob.exp()
    }
}

/// A source that is to be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The number of its line in its file: what is drawn for it is drawn under this number.
    pub line: u64,
    /// The source as ids, their end symbols included, that of each stream, or the frames of a recording; none where there are no
    /// sources.
    pub sources: Vec<Source>,
    /// The same in each other way in which models of an ensemble read it.
    pub readings: Vec<Vec<Source>>,
    /// The answers that it may have; empty where it may have any.
    pub candidates: Vec<CandidateText>,
    /// What its answers may copy of the sources; `None` of a model that copies nothing.
    pub copies: Option<Arc<Copies>>,
    /// The text of its first source as a corpus holds it; empty of a recording.
    pub text: String,
}

/// An answer that a question may have.
#[derive(Debug, Clone, PartialEq)]
pub struct CandidateText {
    /// As it was given.
    pub text: String,
    /// As ids, without the end symbol. What the tokenizer does not know is the unknown symbol, unless it can be copied.
    pub ids: Vec<TokenId>,
}

impl Question {
    /// About a recording, which all models of an ensemble hear alike.
    pub fn of_recording(line: u64, recording: Source) -> Self {
        let (readings, text) = (Vec::new(), String::new());
        Self { line, sources: vec![recording], readings, candidates: Vec::new(), copies: None, text }
    }

    /// The steps of its sources together, in the longest of their readings.
    fn length(&self) -> usize {
        let steps = |sources: &Vec<Source>| sources.iter().map(Source::len).sum();
        [&self.sources].into_iter().chain(&self.readings).map(steps).max().unwrap_or(0)
    }

    /// The words that its answers may copy and that the vocabulary lacks.
    pub fn slots(&self) -> &[String] {
        self.copies.as_ref().map_or(&[], |copies| &copies.slots)
    }

    /// In the `n`th of all ways in which it is read, counted from 0.
    pub fn reading(&self, n: usize) -> &[Source] {
        if n == 0 { &self.sources } else { &self.readings[n - 1] }
    }
}

/// What was found for one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// The answers, best first.
    pub answers: Vec<Answer>,
    /// Whether the search ran out of patience while something better might still have come: [`Finished::outscored`].
    pub outscored: bool,
}

/// A model with its tokenizers and a search strategy.
pub struct Searcher<'a> {
    model: Arc<dyn StepModel>,
    tokenizers: &'a Tokenizers,
    /// The tokenizers of the sources in each other way in which they are read.
    readings: Vec<Vec<Arc<dyn Tokenizer>>>,
    strategy: Box<dyn Strategy>,
    /// Of all random numbers.
    key: Key,
    /// Where answers end beside their end symbol.
    stops: StopTexts,
    /// Sentences a batch.
    rows: usize,
    /// By which words get their times; `None` if they need none.
    clock: Option<Clock>,
    /// What is withheld; `None`: nothing.
    withholding: Option<Withholding>,
    /// Who ranks what was found anew; `None`: nobody.
    reranker: Option<Reranker>,
}

impl<'a> Searcher<'a> {
    /// Answers with `model`, whose tokenizers these are, `rows` sentences at a time, or [several times](StepModel::batch_factor) as many; what is drawn is drawn under `seed`, unless the search has one of its own.
    ///
    /// # Errors
    /// If the search settings cannot work, or the language model that they name cannot be used.
    pub fn new(
        model: &dyn Answering,
        tokenizers: &'a Tokenizers,
        search: &SearchConfig,
        seed: u64,
        rows: usize,
    ) -> Result<Self> {
        let speech = Speech::of_texts(Arc::clone(tokenizers.target()));
        let stops = StopTexts::new(speech, search.stop());
        let strategy = search.build_with(|_| Arc::new(stops.clone()), language_model(search, tokenizers)?)?;
        let (model, readings) = (model.for_search(), model.readings());
        let rows = rows.saturating_mul(model.batch_factor());
        Ok(Self {
            model,
            tokenizers,
            readings,
            strategy,
            key: search.key(seed),
            stops,
            rows,
            clock: None,
            withholding: None,
            reranker: None,
        })
    }

    /// Ranks the answers of this search, which it was made with, anew.
    ///
    /// # Errors
    /// If the search has one answer, or a model that has a say cannot be used.
    pub(crate) fn with_rerank(self, search: &SearchConfig, rerank: Option<&RerankConfig>) -> Result<Self> {
        let Some(rerank) = rerank else { return Ok(self) };
        let wider = rerank.widened(search)?;
        let stops = self.stops.clone();
        let strategy = wider.build_with(|_| Arc::new(stops), language_model(search, self.tokenizers)?)?;
        Ok(Self { strategy, reranker: Some(Reranker::read(rerank, search)?), ..self })
    }

    /// Tells when the words of an answer are said, by this clock; several models together cannot tell.
    #[must_use]
    pub(crate) fn with_words(self, clock: Option<Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Withholds the answers that are not sure enough.
    #[must_use]
    pub(crate) fn with_no_answer(self, withholding: Option<Withholding>) -> Self {
        Self { withholding, ..self }
    }

    /// What is asked about the texts of a source, that of each stream, which stands in line `line`.
    ///
    /// # Errors
    /// If a text cannot be represented.
    pub fn question<S: AsRef<str>>(&self, line: u64, texts: &[S]) -> Result<Question> {
        let sources = |rows: Vec<Vec<TokenId>>| rows.into_iter().map(Source::Tokens).collect();
        let readings = self.readings.iter().map(|tokenizers| Ok(sources(encoded(tokenizers.iter(), texts)?)));
        let readings = readings.collect::<Result<_>>()?;
        let sources = sources(encoded(self.tokenizers.sources(), texts)?);
        let of_sources = || self.tokenizers.sources().zip(texts.iter().map(AsRef::as_ref));
        let copies = self.tokenizers.copying().map(|copying| copying.copies(of_sources())).transpose()?;
        let text = texts.first().map_or_else(String::new, |text| text.as_ref().to_owned());
        Ok(Question { line, sources, readings, candidates: Vec::new(), copies: copies.map(Arc::new), text })
    }

    /// The same, if only one of these answers may be given; if there are none, any may.
    ///
    /// # Errors
    /// As [`question`](Self::question).
    pub fn question_among<S: AsRef<str>>(&self, line: u64, texts: &[S], candidates: &[String]) -> Result<Question> {
        let question = self.question(line, texts)?;
        let candidate = |text: &String| Ok(CandidateText { text: text.clone(), ids: self.said(&question, text)? });
        let candidates = candidates.iter().map(candidate).collect::<Result<_>>()?;
        Ok(Question { candidates, ..question })
    }

    /// What was said of a question, in the words of the candidate that it is.
    pub(super) fn in_its_words(&self, question: &Question, said: String) -> String {
        let is_said = |candidate: &&CandidateText| self.text(question, &candidate.ids) == said;
        question.candidates.iter().find(is_said).map_or(said, |candidate| candidate.text.clone())
    }

    /// The answers to each source, best first; `None` if `stop` was raised before the end. `progress` hears how many
    /// sources have been answered.
    ///
    /// # Errors
    /// If the model fails: with the place in `sources`, as [`rename_sources`](antiphon_decode::rename_sources) reads it.
    pub fn answer(
        &self,
        sources: &[Question],
        stop: &AtomicBool,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Option<Vec<Answers>>> {
        self.answer_in(self.rows, sources, stop, progress)
    }

    /// The same with no more than so many sources in a batch.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub(crate) fn answer_in(
        &self,
        rows: usize,
        sources: &[Question],
        stop: &AtomicBool,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Option<Vec<Answers>>> {
        let rows = rows.min(self.rows);
        // Sentences of like length together, a batch a thread; between two batches there is a place to stop.
        let order = order_by_length(&sources.iter().map(Question::length).collect::<Vec<_>>());
        let progress = Mutex::new((0, progress));
        let answer = |places: &[usize]| {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let batch: Vec<Request> = places.iter().map(|&i| self.request(&sources[i])).collect();
            let questions: Vec<&Question> = places.iter().map(|&i| &sources[i]).collect();
            let mut found = self.answers_to(&questions, &batch).map_err(|error| placed(error, places))?;
            for (found, &place) in found.iter_mut().zip(places) {
                for answer in found.answers.iter_mut().filter(|_| !sources[place].candidates.is_empty()) {
                    answer.text = self.in_its_words(&sources[place], std::mem::take(&mut answer.text));
                }
            }
            if let Some(reranker) = &self.reranker {
                let mut answers: Vec<_> = found.iter_mut().map(|found| &mut found.answers).collect();
                reranker.rerank(&questions, &mut answers, rows)?;
            }
            if let Some(withholding) = &self.withholding {
                found.iter_mut().for_each(|found| withholding.apply(found));
            }
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.0 += places.len();
            let done = progress.0;
            (progress.1)(done);
            Ok(Some(found))
        };
        let found: Vec<Result<Option<_>>> = match order.len() <= rows {
            // All threads take part in each step of a lone batch.
            true => vec![attentively(|| answer(&order))],
            false => order.par_chunks(rows).map(answer).collect(),
        };
        let mut answers = Vec::with_capacity(sources.len());
        for batch in found {
            let Some(batch) = batch? else { return Ok(None) };
            answers.extend(batch);
        }
        Ok(Some(restore(&order, answers)))
    }

    /// The best answer to a question, heard as it comes: what of it is certain, piece by piece. Where answers are ranked anew or
    /// withheld, it is heard at its end. `None` if `stop` was raised before that.
    ///
    /// # Errors
    /// If the model fails, or whoever hears it.
    pub(crate) fn answer_telling<E>(
        &self,
        question: &Question,
        stop: &AtomicBool,
        hear: &mut dyn FnMut(&str) -> Result<(), E>,
    ) -> Result<Option<Answer>, Failure<E>> {
        if self.reranker.is_some() || self.withholding.is_some() || !question.candidates.is_empty() {
            let found = self.answer(std::slice::from_ref(question), stop, &mut |_| {}).map_err(Failure::Model)?;
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let best = found.into_iter().flatten().flat_map(|found| found.answers).next();
            best.iter().try_for_each(|best| hear(&best.text)).map_err(Failure::Hearer)?;
            return Ok(best);
        }
        let tokenizer = Arc::clone(self.tokenizers.target());
        let slotted = Slotted { tokenizer, slots: question.slots().to_vec() };
        let mut telling = Telling::new(Speech::of_texts(Arc::new(slotted)), self.stops.clone());
        let mut known = 0;
        let mut tell = |piece: String| if piece.is_empty() { Ok(()) } else { hear(&piece).map_err(Failure::Hearer) };
        let request = self.request(question);
        let request = std::slice::from_ref(&request);
        let mut search = self.strategy.begin(Arc::clone(&self.model), request).map_err(Failure::Model)?;
        let mut found = None;
        while !search.is_done() {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            found = search.advance().map_err(Failure::Model)?.pop().or(found);
            if let Some(more) = search.certain(0, known) {
                known += more.len();
                tell(telling.add(&more))?;
            }
        }
        let Some(found) = found else { return Ok(None) };
        let rest = found.hypotheses.first().and_then(|best| best.tokens.get(known..)).unwrap_or_default();
        tell(telling.add(rest) + &telling.finish())?;
        Ok(self.texts(question, found, None).answers.into_iter().next())
    }

    /// A target of a question as ids, its end symbol included; what can be copied and the vocabulary lacks is a slot.
    ///
    /// # Errors
    /// If the text cannot be represented.
    pub fn encode_target(&self, question: &Question, target: &str) -> Result<Vec<TokenId>> {
        let mut ids = self.said(question, target)?;
        ids.push(Special::End.id());
        Ok(ids)
    }

    /// An answer to a question as ids, without its end symbol.
    fn said(&self, question: &Question, text: &str) -> Result<Vec<TokenId>> {
        match self.tokenizers.copying().zip(question.copies.as_ref()) {
            Some((copying, copies)) => copying.labels(copies, text),
            None => self.tokenizers.target().encode(text),
        }
    }

    /// How a token of an answer to a question is written.
    pub fn token(&self, question: &Question, id: TokenId) -> String {
        written_with(self.tokenizers.target().as_ref(), question.slots(), id)
    }

    /// The natural logarithm of the probability of each token of each target, given its source.
    ///
    /// # Errors
    /// If the model fails.
    pub fn score(&self, pairs: &[(Question, Vec<TokenId>)]) -> Result<Vec<Vec<f32>>> {
        let order = order_by_length(&pairs.iter().map(|(_, target)| target.len()).collect::<Vec<_>>());
        let batch = |places: &[usize]| {
            let requests: Vec<Request> = places.iter().map(|&i| self.about(&pairs[i].0)).collect();
            let targets: Vec<&[TokenId]> = places.iter().map(|&i| pairs[i].1.as_slice()).collect();
            score(Arc::clone(&self.model), &requests, &targets).map_err(|error| placed(error, places))
        };
        let found: Vec<Result<_>> = order.par_chunks(self.rows).map(batch).collect();
        let scores: Vec<Vec<Vec<f32>>> = found.into_iter().collect::<Result<_>>()?;
        Ok(restore(&order, scores.concat()))
    }

    /// What is asked for a source.
    pub(super) fn request(&self, source: &Question) -> Request {
        Request { key: self.key.numbered(source.line), ..self.about(source) }
    }

    /// A request that nothing is drawn for.
    fn about(&self, source: &Question) -> Request {
        let candidates = source.candidates.iter().map(|candidate| candidate.ids.clone()).collect();
        let (readings, copies) = (source.readings.clone(), source.copies.clone());
        Request { readings, candidates, copies, ..Request::new(source.sources.clone()) }
    }

    /// What is found for some requests, in their order.
    ///
    /// # Errors
    /// If the model fails.
    pub(super) fn search(&self, requests: &[Request]) -> Result<Vec<Finished>> {
        search_all(self.strategy.as_ref(), Arc::clone(&self.model), requests, self.rows, &mut |_| {})
    }

    /// The answers to one batch of requests, in their order; the questions are those that they were made of.
    fn answers_to(&self, questions: &[&Question], batch: &[Request]) -> Result<Vec<Answers>> {
        let Some(clock) = self.clock else {
            let found = self.search(batch)?.into_iter().zip(questions);
            return Ok(found.map(|(found, question)| self.texts(question, found, None)).collect());
        };
        let found = search_overheard(self.strategy.as_ref(), Arc::clone(&self.model), batch)?;
        let answers = found.into_iter().zip(questions.iter().zip(batch)).map(|((found, said), (question, request))| {
            let line = said.map(|said| Timeline { clock, said, frames: request.length() });
            self.texts(question, found, line.as_ref())
        });
        Ok(answers.collect())
    }

    /// What is found for one request, and what its source says by itself, if that says something.
    ///
    /// # Errors
    /// If the model fails.
    pub(super) fn search_heard(&self, request: &Request) -> Result<(Finished, Option<CtcOutput>)> {
        let request = std::slice::from_ref(request);
        let mut found = search_overheard(self.strategy.as_ref(), Arc::clone(&self.model), request)?;
        Ok(found.swap_remove(0))
    }

    /// What an answer to a question says.
    pub(super) fn text(&self, question: &Question, tokens: &[TokenId]) -> String {
        self.stops.cut(self.tokenizers.target().decode_slots(tokens, question.slots()))
    }

    /// A source as the model sees it, its streams with tabs between them: what a tokenizer does not know is the unknown symbol.
    pub fn seen(&self, sources: &[Source]) -> String {
        let seen = self.tokenizers.sources().zip(sources);
        // A source of several sentences has several lines.
        let seen = seen.map(|(tokenizer, source)| one_line(&tokenizer.decode(source.ids())));
        seen.collect::<Vec<_>>().join("\t")
    }

    /// What was found for a question as texts, of a recording with the times of the words where it has a line of time.
    fn texts(&self, question: &Question, found: Finished, line: Option<&Timeline>) -> Answers {
        let text = |h: Hypothesis| {
            let text = self.text(question, &h.tokens);
            let words = line.map(|line| line.words(self.tokenizers.target().as_ref(), &h.tokens, &text));
            Answer {
                text,
                score: h.score,
                log_prob: h.log_prob,
                finished: h.finished || h.stopped,
                unknown: unknown::positions(&h.tokens),
                attention: h.attention,
                withheld: None,
                words: words.unwrap_or_default(),
                reverse_log_prob: None,
                language_model_log_prob: None,
                length: self.reranker.as_ref().map(|_| h.tokens.len()),
            }
        };
        Answers { answers: found.hypotheses.into_iter().map(text).collect(), outscored: found.outscored }
    }
}

/// How a token is written, where ids behind the vocabulary are these slots.
pub(super) fn written_with(tokenizer: &dyn Tokenizer, slots: &[String], id: TokenId) -> String {
    let slot = (id as usize).checked_sub(tokenizer.size()).and_then(|slot| slots.get(slot));
    slot.cloned().or_else(|| tokenizer.token(id)).unwrap_or_default()
}

/// Texts as ids, each with its end symbol.
pub(super) fn encoded<'t, S: AsRef<str>>(
    tokenizers: impl Iterator<Item = &'t Arc<dyn Tokenizer>>,
    texts: &[S],
) -> Result<Vec<Vec<TokenId>>> {
    tokenizers.zip(texts).map(|(tokenizer, text)| closed(tokenizer, text.as_ref())).collect()
}

pub(super) fn closed(tokenizer: &Arc<dyn Tokenizer>, text: &str) -> Result<Vec<TokenId>> {
    let mut ids = tokenizer.encode(text)?;
    ids.push(Special::End.id());
    Ok(ids)
}

/// The error of a batch, with its rows and sources named by their places among all.
fn placed(error: Error, places: &[usize]) -> Error {
    error.map_places(|place| match place {
        Place::Row { row: at, step } | Place::Source { source: at, step } => Place::Source { source: places[at], step },
        other => other,
    })
}
