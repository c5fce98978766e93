//! `[rerank]`: the answers of a search, ranked anew by what other models say of them.
//!
//! A model that answers finds safe answers probable, whatever was asked. Li, Galley, Brockett, Gao and Dolan 2016 (*A diversity-promoting
//! objective function for neural conversation models*) rank its best answers again by how much they have to do with the source:
//!
//! `score = ln p(T | S) + reverse_weight · ln p(S | T) - language_model_weight · ln p(first k tokens of T) + length_bonus · |T|`
//!
//! where `ln p(S | T)` is that of a model which says the source of an answer (their MMI-bidi), and `ln p(T)` that of a language model
//! (their MMI-antiLM). `|T|` counts the answer's tokens without the end symbol. `ln p(T | S)` is the model's own; what else a search
//! counts, under a length penalty, only chooses the answers that are ranked.

use std::path::{Path, PathBuf};

use antiphon_core::{Error, Problem, Request, Result, TokenId};
use antiphon_data::CorpusConfig;
use antiphon_data::lines::file_fault;
use antiphon_decode::{GreedyConfig, SearchConfig, score};
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answering::Answering;
use super::answers::{Answer, Question, Searcher, closed};
use super::fusion::of_single_texts;
use super::saved::{NAME_A_MODEL, model_file};
use super::{ExperimentConfig, SavedModels};

/// How the answers of a search are ranked anew. Answers that are chosen by `tune` with several weights are searched once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RerankConfig {
    /// How many answers are ranked: so many of the best of a beam, or so many draws. As many as before are then given.
    #[schemars(range(min = 2, max = 65536))]
    pub candidates: u32,
    /// A model that says what was said of what is answered: a model file, or the folder of a run that is trained, from where the program
    /// is called. Its sources are the answers of this model. Its SHA-256 is part of the run's identity. If unset: none has a say.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["runs/reverse"]))]
    pub reverse: Option<PathBuf>,
    /// What of the source it is to say.
    pub reverse_of: ReverseOf,
    /// How much it counts: so many times the logarithm of what it gives the source is added. 0: it is not read.
    #[schemars(range(min = 0.0))]
    pub reverse_weight: f64,
    /// A language model of single texts, whose opinion is taken off: what is said whatever was asked is probable to it. Named as
    /// `reverse` is; it reads texts by its own tokenizer. If unset: none has a say.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["runs/lm"]))]
    pub language_model: Option<PathBuf>,
    /// How much it counts: so many times the logarithm of what it gives the answer is taken off. 0: it is not read.
    #[schemars(range(min = 0.0))]
    pub language_model_weight: f64,
    /// Of how many of the answer's first tokens that is, as the language model has them: what comes later it judges by what stands
    /// before, and to take that off makes answers ungrammatical. If unset: of all, with the end symbol.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub language_model_tokens: Option<usize>,
    /// What each token of an answer is worth. Below 0, short answers are preferred.
    pub length_bonus: f64,
}

/// What a reverse model says of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReverseOf {
    /// The last turn of a history, or the last line of a source of several; of other sources all.
    #[default]
    LastTurn,
    /// All of the source, its lines one behind the other.
    Source,
}

impl Default for RerankConfig {
    fn default() -> Self {
        Self {
            candidates: 10,
            reverse: None,
            reverse_of: ReverseOf::default(),
            reverse_weight: 0.5,
            language_model: None,
            language_model_weight: 0.3,
            language_model_tokens: None,
            length_bonus: 0.0,
        }
    }
}

impl RerankConfig {
    /// The reverse model, if it has a say.
    pub(crate) fn used_reverse(&self) -> Option<&Path> {
        self.reverse.as_deref().filter(|_| self.reverse_weight > 0.0)
    }

    /// The language model, if it has a say.
    pub(crate) fn used_language_model(&self) -> Option<&Path> {
        self.language_model.as_deref().filter(|_| self.language_model_weight > 0.0)
    }

    /// The files of the models that have a say: the setting, and where each lies.
    pub(super) fn files(&self) -> Vec<(String, PathBuf)> {
        let models = [("reverse", self.used_reverse()), ("language_model", self.used_language_model())];
        models.into_iter().filter_map(|(key, model)| Some((format!("rerank.{key}"), model_file(model?)))).collect()
    }

    /// The same search, giving all that is to be ranked.
    ///
    /// # Errors
    /// If it has but one answer.
    pub(crate) fn widened(&self, search: &SearchConfig) -> Result<SearchConfig> {
        let widened = search.clone().with_n_best(self.candidates.max(wanted(search)));
        widened.map_err(|_| Error::new(ONE_ANSWER).at("rerank"))
    }

    /// What of it cannot work, with places below it.
    pub(super) fn problems(&self, search: Option<&SearchConfig>, data: Option<&CorpusConfig>) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut demand = |holds: bool, place: &str, message: String| {
            if !holds {
                found.push(Problem { place: place.into(), message });
            }
        };
        let candidates = self.candidates;
        demand((2..=65536).contains(&candidates), "candidates", format!("must be from 2 to 65536, got {candidates}"));
        for (weight, place) in
            [(self.reverse_weight, "reverse_weight"), (self.language_model_weight, "language_model_weight")]
        {
            demand(weight.is_finite() && weight >= 0.0, place, format!("must be at least 0, got {weight}"));
        }
        demand(self.length_bonus.is_finite(), "length_bonus", format!("must be finite, got {}", self.length_bonus));
        demand(self.language_model_tokens != Some(0), "language_model_tokens", "must be at least 1, got 0".into());
        for (model, place) in [(&self.reverse, "reverse"), (&self.language_model, "language_model")] {
            let is_named = model.as_ref().is_none_or(|model| !model.as_os_str().is_empty());
            demand(is_named, place, "must name a model, but is empty".into());
        }
        let has_one = matches!(search, Some(SearchConfig::Greedy(_) | SearchConfig::BestPath(_)));
        demand(!has_one, "", ONE_ANSWER.into());
        match data {
            Some(CorpusConfig::Manifest(_)) => {
                let message = "no model says a recording of its text; answers to recordings are ranked by `search.language_model`";
                demand(false, "", message.into());
            }
            Some(data) if !data.has_source() => {
                demand(false, "", "a text corpus has no sources to answer; leave `[rerank]` out".into());
            }
            _ => {}
        }
        found
    }

    /// What of it has no effect, with places below it: the setting, and why.
    pub(super) fn idle(&self) -> Vec<(&'static str, &'static str)> {
        let mut idle = Vec::new();
        match &self.reverse {
            None => idle.extend(["reverse_of", "reverse_weight"].map(|key| (key, "no `reverse` model is named"))),
            Some(_) if self.reverse_weight == 0.0 => {
                idle.extend(["reverse", "reverse_of"].map(|key| (key, "`reverse_weight` is 0")));
            }
            Some(_) => {}
        }
        match &self.language_model {
            None => {
                let keys = ["language_model_weight", "language_model_tokens"];
                idle.extend(keys.map(|key| (key, "no `language_model` is named")));
            }
            Some(_) if self.language_model_weight == 0.0 => {
                let keys = ["language_model", "language_model_tokens"];
                idle.extend(keys.map(|key| (key, "`language_model_weight` is 0")));
            }
            Some(_) => {}
        }
        idle
    }

    /// What an answer is worth, of which the parts are known that these weights need.
    fn worth(&self, answer: &Answer) -> f64 {
        let of = |part: Option<f64>, weight: f64| if weight == 0.0 { 0.0 } else { weight * part.unwrap_or(0.0) };
        let worth = answer.log_prob + of(answer.reverse_log_prob, self.reverse_weight)
            - of(answer.language_model_log_prob, self.language_model_weight)
            + self.length_bonus * answer.length.unwrap_or(0) as f64;
        // What a model holds to be impossible is not ranked by that.
        if worth.is_finite() { worth } else { f64::NEG_INFINITY }
    }

    /// The same ranking, with these weights where they are more: all that any of both needs is known.
    pub(crate) fn with_larger_weights(&self, other: &Self) -> Self {
        Self {
            reverse_weight: self.reverse_weight.max(other.reverse_weight),
            language_model_weight: self.language_model_weight.max(other.language_model_weight),
            ..self.clone()
        }
    }

    /// Whether both need the same to be known of the same answers, and only weigh it differently.
    pub(crate) fn asks_the_same(&self, other: &Self) -> bool {
        let bare = |config: &Self| Self {
            reverse_weight: 0.0,
            language_model_weight: 0.0,
            length_bonus: 0.0,
            ..config.clone()
        };
        bare(self) == bare(other)
    }

    /// Ranks answers whose parts are known; of equal ones those stay first that were.
    pub(crate) fn rank(&self, answers: &mut [Answer]) {
        answers.iter_mut().for_each(|answer| answer.score = self.worth(answer));
        answers.sort_by(|a, b| b.score.total_cmp(&a.score));
    }
}

const ONE_ANSWER: &str =
    "this search has one answer, and none to rank beside it; use `search.kind = \"beam\"` or `\"sample\"`";

/// How many answers a search gives.
fn wanted(search: &SearchConfig) -> u32 {
    match search {
        SearchConfig::Greedy(_) | SearchConfig::BestPath(_) => 1,
        SearchConfig::Beam(beam) => beam.n_best,
        SearchConfig::Sample(sample) => sample.draws,
    }
}

impl ExperimentConfig {
    /// How answers are ranked anew, if they are.
    pub(crate) fn reranking(&self) -> Option<&RerankConfig> {
        self.rerank.as_ref().filter(|_| self.data.has_source())
    }
}

/// The models that rank answers.
pub(super) struct Reranker {
    config: RerankConfig,
    reverse: Option<SavedModels>,
    language_model: Option<SavedModels>,
    /// How many answers are given in the end.
    wanted: usize,
}

impl Reranker {
    /// Reads the models that have a say. They compute on the CPU.
    ///
    /// # Errors
    /// If one cannot be read, or is of another kind.
    pub(super) fn read(config: &RerankConfig, search: &SearchConfig) -> Result<Self> {
        let read = |key: &str, model: Option<&Path>, check: fn(&SavedModels) -> Result<()>| {
            let Some(model) = model else { return Ok(None) };
            let (file, key) = (model_file(model), format!("rerank.{key}"));
            if let Some(fault) = file_fault(&file) {
                return Err(Error::new(format!("{fault}; {}", remedy(&key))).in_file(file).at(key.as_str()));
            }
            let found = SavedModels::read(&file, &Device::flex());
            let found = found.and_then(|models| check(&models).map(|()| models));
            let found = found.map_err(|error| if error.file.is_some() { error } else { error.in_file(&file) });
            found.map(Some).map_err(|error| error.at(key.as_str()))
        };
        Ok(Self {
            reverse: read("reverse", config.used_reverse(), answers_one_source)?,
            language_model: read("language_model", config.used_language_model(), |models| {
                of_single_texts(&models.first().config.data)
            })?,
            config: config.clone(),
            wanted: wanted(search) as usize,
        })
    }

    /// Ranks what was found for these questions anew; `rows` sources are scored together.
    ///
    /// # Errors
    /// If a model fails.
    pub(super) fn rerank(&self, questions: &[&Question], found: &mut [&mut Vec<Answer>], rows: usize) -> Result<()> {
        let texts: Vec<String> =
            found.iter().flat_map(|answers| answers.iter().map(|answer| answer.text.clone())).collect();
        if let Some(models) = &self.reverse {
            let counts = found.iter().map(|answers| answers.len());
            let wanted = questions.iter().zip(counts).flat_map(|(question, count)| vec![self.to_say(question); count]);
            let said = said_of(models, &texts, wanted, rows)?;
            let answers = found.iter_mut().flat_map(|answers| answers.iter_mut());
            answers.zip(said).for_each(|(answer, said)| answer.reverse_log_prob = Some(said));
        }
        if let Some(models) = &self.language_model {
            let said = probable(models, &texts, self.config.language_model_tokens, rows)?;
            let answers = found.iter_mut().flat_map(|answers| answers.iter_mut());
            answers.zip(said).for_each(|(answer, said)| answer.language_model_log_prob = Some(said));
        }
        for answers in found {
            self.config.rank(answers);
            answers.truncate(self.wanted);
        }
        Ok(())
    }

    /// What the reverse model is to say of an answer to a question.
    fn to_say(&self, question: &Question) -> String {
        match self.config.reverse_of {
            ReverseOf::LastTurn => question.text.rsplit('\n').next().unwrap_or_default().to_owned(),
            ReverseOf::Source => question.text.replace('\n', " "),
        }
    }
}

fn remedy(key: &str) -> String {
    format!("{NAME_A_MODEL}, or rank without it: `{key}_weight=0`")
}

/// What helps where a file that `key` names is not there.
pub(super) fn remedy_of(key: &str) -> Option<String> {
    key.starts_with("rerank.").then(|| remedy(key))
}

/// That a model answers texts, one source each.
fn answers_one_source(models: &SavedModels) -> Result<()> {
    for (_, saved) in models.members() {
        let config = &saved.config;
        let message = if !config.data.has_source() {
            "is a language model, which answers no sources; name a model that was trained to say the source of an answer, or name this one \
             in `rerank.language_model`"
        } else if config.data.as_manifest().is_some() {
            "answers recordings; name a model that was trained to say the source of an answer"
        } else if !config.streams.is_empty() {
            "reads streams beside its source, and an answer is one text; name a model of one source"
        } else {
            continue;
        };
        return Err(Error::new(message));
    }
    Ok(())
}

/// The logarithm of how probable each wanted text is to a model, of the text as its source.
fn said_of(
    models: &SavedModels,
    texts: &[String],
    wanted: impl Iterator<Item = String>,
    rows: usize,
) -> Result<Vec<f64>> {
    let tokenizers = &models.first().tokenizers;
    // Nothing is searched.
    let search = SearchConfig::Greedy(GreedyConfig::default());
    let searcher = Searcher::new(models, tokenizers, &search, 0, rows)?;
    let pair = |(text, wanted): (&String, String)| {
        let question = searcher.question(1, &[text])?;
        let wanted = searcher.encode_target(&question, &wanted)?;
        Ok((question, wanted))
    };
    let pairs = texts.iter().zip(wanted).map(pair).collect::<Result<Vec<_>>>()?;
    Ok(sums(&searcher.score(&pairs)?))
}

/// The logarithm of how probable the first so many tokens of each text are to a language model, or all of them with the end symbol.
fn probable(models: &SavedModels, texts: &[String], first: Option<usize>, rows: usize) -> Result<Vec<f64>> {
    let tokenizer = models.first().tokenizers.target();
    let tokens = |text: &String| {
        let mut ids = closed(tokenizer, text)?;
        ids.truncate(first.unwrap_or(usize::MAX));
        Ok(ids)
    };
    let targets = texts.iter().map(tokens).collect::<Result<Vec<Vec<TokenId>>>>()?;
    let mut found = Vec::with_capacity(targets.len());
    for targets in targets.chunks(rows.max(1)) {
        let requests = vec![Request::new(Vec::new()); targets.len()];
        found.extend(sums(&score(models.for_search(), &requests, targets)?));
    }
    Ok(found)
}

fn sums(scores: &[Vec<f32>]) -> Vec<f64> {
    scores.iter().map(|tokens| tokens.iter().map(|&log_prob| f64::from(log_prob)).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(log_prob: f64, reverse: f64, language_model: f64, length: usize) -> Answer {
        Answer {
            text: format!("{log_prob}"),
            log_prob,
            reverse_log_prob: Some(reverse),
            language_model_log_prob: Some(language_model),
            length: Some(length),
            ..Answer::default()
        }
    }

    #[test]
    fn each_weight_turns_the_ranking_its_own_way() {
        let all = || vec![answer(-1.0, -9.0, -1.0, 2), answer(-2.0, -3.0, -8.0, 2), answer(-3.0, -3.0, -2.0, 9)];
        let first = |config: RerankConfig| {
            let mut answers = all();
            config.rank(&mut answers);
            assert!(answers.is_sorted_by(|a, b| a.score >= b.score));
            answers[0].text.clone()
        };
        let plain = RerankConfig { reverse_weight: 0.0, language_model_weight: 0.0, ..RerankConfig::default() };
        assert_eq!(first(plain.clone()), "-1");
        assert_eq!(first(RerankConfig { reverse_weight: 0.5, ..plain.clone() }), "-2");
        assert_eq!(first(RerankConfig { language_model_weight: 0.5, ..plain.clone() }), "-2");
        assert_eq!(first(RerankConfig { length_bonus: 0.5, ..plain.clone() }), "-3");
        assert_eq!(first(RerankConfig { length_bonus: -1.0, reverse_weight: 0.5, ..plain.clone() }), "-2");
        // What is not known and has no weight is not asked for, were it impossible.
        let mut impossible = vec![answer(-1.0, f64::NEG_INFINITY, f64::NEG_INFINITY, 1)];
        plain.rank(&mut impossible);
        assert_eq!(impossible[0].score, -1.0);
        // Of equals the first stays it.
        let mut equal = vec![answer(-1.0, -2.0, 0.0, 1), answer(-2.0, -1.0, 0.0, 1)];
        RerankConfig { reverse_weight: 1.0, ..plain }.rank(&mut equal);
        assert_eq!(equal[0].text, "-1");
    }

    #[test]
    fn a_model_without_a_weight_is_not_read() {
        let named = |reverse_weight, language_model_weight| RerankConfig {
            reverse: Some("a".into()),
            language_model: Some("b".into()),
            reverse_weight,
            language_model_weight,
            ..RerankConfig::default()
        };
        let keys = |config: RerankConfig| config.files().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(named(0.5, 0.5)), ["rerank.reverse", "rerank.language_model"]);
        assert_eq!(keys(named(0.0, 0.5)), ["rerank.language_model"]);
        assert_eq!(keys(RerankConfig::default()), [""; 0]);
        let search = SearchConfig::default();
        let widened = RerankConfig { candidates: 7, ..RerankConfig::default() }.widened(&search).unwrap();
        assert_eq!(super::wanted(&widened), 7);
    }
}
