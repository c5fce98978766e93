//! What the page of a run shows beside its figures: examples with their attention, and errors.

use std::path::Path;
use std::sync::Arc;

use antiphon_core::{Judged, Result, Source, Special, TokenId, Tokenizer};
use antiphon_decode::{Finished, Hypothesis, SearchConfig};
use antiphon_eval::errors::{Confusions, Counted, Substitution, verdicts, worst};
use antiphon_eval::{Edit, MetricConfig, Unit, align};
use antiphon_lab::{Aligned, Candidate, Confusion, Errors, Example, Findings, Pair, SourceTokens};

use antiphon_model::encoder::SentenceSteps;

use super::answers::{Answer, Question, Searcher, written_with};
use super::evaluation::{Answered, is_right};
use super::listening::spoken_examples;
use super::no_answer::confidence;
use super::reading::readings;
use super::{ExperimentConfig, SavedModel};

/// How many answers to a source are shown, where the search finds as many.
const N_BEST: u32 = 5;
/// How many wrong answers are shown beside what was right.
const WORST: usize = 12;

/// What there is to see in a split's answers. The examples are searched once more, for their attention and the answers
/// behind the best; the model gives them as it gave them before. Recordings are heard once more for that, if they lie below
/// `data_dir`.
///
/// # Errors
/// If the model fails.
pub(crate) fn findings(split: &str, answered: &[Answered], saved: &SavedModel, data_dir: &Path) -> Result<Findings> {
    let chosen: Vec<&Answered> = spread(answered, saved.config.evaluate.show).collect();
    let (examples, note) = match saved.config.data.as_manifest() {
        Some(_) => spoken_examples(split, &chosen, saved, data_dir)?,
        None => (examples(&chosen, saved)?, None),
    };
    Ok(Findings {
        split: split.into(),
        note,
        examples,
        errors: errors(answered, Piece::by(&saved.config))?,
        confidence: confidence(answered, &saved.config.evaluate),
        losses: None,
    })
}

/// `count` answers from all over a split, or all of them.
pub(crate) fn spread(answered: &[Answered], count: usize) -> impl Iterator<Item = &Answered> {
    let count = count.min(answered.len());
    (0..count).map(move |i| &answered[i * answered.len() / count])
}

fn examples(chosen: &[&Answered], saved: &SavedModel) -> Result<Vec<Example>> {
    let SavedModel { config, tokenizers, model, .. } = saved;
    let rerank = config.reranking();
    let search = telling(&rerank.map_or_else(|| Ok(config.search.clone()), |rerank| rerank.widened(&config.search))?)?;
    let searcher = Searcher::new(model, tokenizers, &search, config.seed, config.evaluate.rows)?;
    let question =
        |answered: &&Answered| searcher.question_among(answered.line as u64, &answered.texts(), &answered.candidates);
    let sources = chosen.iter().map(question).collect::<Result<Vec<_>>>()?;
    let found = searcher.search(&sources.iter().map(|source| searcher.request(source)).collect::<Vec<_>>())?;
    let target = tokenizers.target().as_ref();
    // What one step of each memory stands for: so many tokens, or sentences.
    let steps: Vec<_> = config.reductions().into_iter().zip(config.sentences().0).collect();
    let written_source = |((source, tokenizer), (reduction, sentences)): ((&Source, &Arc<dyn Tokenizer>), &(_, _))| {
        let parts = match *sentences {
            None => written(tokenizer.as_ref(), source.ids()),
            Some(SentenceSteps { most }) => written_sentences(tokenizer.as_ref(), source.ids(), most),
        };
        parts.chunks(*reduction).map(|parts| parts.join(" ")).collect::<Vec<_>>()
    };
    let names = || ["source"].into_iter().chain(config.streams.keys().map(String::as_str));
    let candidate = |mut h: Hypothesis, question: &Question, references: &[String], steps: usize| {
        h.attention.iter_mut().for_each(|row| row.truncate(steps));
        let text = searcher.in_its_words(question, searcher.text(question, &h.tokens));
        candidate(h, text, references, target, question.slots())
    };
    let example = |((answered, question), mut found): ((&&Answered, Question), Finished)| {
        if rerank.is_some() {
            // The best is the one that was given, and those behind it are as the search ranks them.
            let text = |h: &Hypothesis| searcher.in_its_words(&question, searcher.text(&question, &h.tokens));
            found.hypotheses.sort_by_key(|h| text(h) != answered.best());
            found.hypotheses.truncate(N_BEST as usize);
        }
        let sources = question.sources.iter().zip(tokenizers.sources()).zip(&steps);
        let sources = names().zip(sources.map(written_source));
        let sources: Vec<_> = sources.map(|(name, tokens)| SourceTokens { name: name.into(), tokens }).collect();
        let steps = sources.iter().map(|source| source.tokens.len()).sum();
        let candidates = found.hypotheses.into_iter().map(|h| candidate(h, &question, &answered.references, steps));
        Example {
            source: answered.shown(),
            about: answered.about(),
            references: answered.references.clone(),
            candidates: candidates.collect(),
            sources,
            hearing: None,
            reading: None,
        }
    };
    let support = config.evaluate.support.as_deref();
    let readings = if config.sentences().1 { readings(model, tokenizers, chosen, support)? } else { None };
    let readings = readings.map_or_else(|| vec![None; chosen.len()], |all| all.into_iter().map(Some).collect());
    let examples = chosen.iter().zip(sources).zip(found).map(example).zip(readings);
    Ok(examples.map(|(example, reading)| Example { reading, ..example }).collect())
}

/// An example as it was answered, without what only a search tells.
pub(super) fn as_answered(answered: &Answered) -> Example {
    let candidate = |answer: &Answer| Candidate {
        text: answer.text.clone(),
        correct: is_right(&answer.text, &answered.references),
        score: answer.score,
        log_prob: answer.log_prob,
        finished: answer.finished,
        tokens: Vec::new(),
        attention: Vec::new(),
    };
    Example {
        source: answered.shown(),
        about: answered.about(),
        references: answered.references.clone(),
        candidates: answered.answers.iter().map(candidate).collect(),
        sources: Vec::new(),
        hearing: None,
        reading: None,
    }
}

/// The same search, telling where it looked and which answers came close.
pub(super) fn telling(search: &SearchConfig) -> Result<SearchConfig> {
    let search = search.clone().with_attention(true);
    match &search {
        // What is drawn is drawn again as it was, and more of it would be ranked among that.
        SearchConfig::Greedy(_) | SearchConfig::BestPath(_) | SearchConfig::Sample(_) => Ok(search),
        // Not more than settle a sentence: the best answer must stay the one that was given.
        SearchConfig::Beam(beam) => {
            let enough = (beam.patience * f64::from(beam.width)).ceil() as u32;
            let n = beam.n_best.max(N_BEST.min(beam.width).min(enough));
            search.with_n_best(n)
        }
    }
}

pub(super) fn candidate(
    hypothesis: Hypothesis,
    text: String,
    references: &[String],
    target: &dyn Tokenizer,
    slots: &[String],
) -> Candidate {
    let Hypothesis { mut tokens, log_prob, score, finished, stopped, attention, .. } = hypothesis;
    tokens.extend(finished.then_some(Special::End.id()));
    let tokens = tokens.iter().map(|&id| written_with(target, slots, id)).collect();
    let correct = is_right(&text, references);
    Candidate { text, correct, score, log_prob, finished: finished || stopped, tokens, attention }
}

fn written(tokenizer: &dyn Tokenizer, ids: &[TokenId]) -> Vec<String> {
    ids.iter().map(|&id| tokenizer.token(id).unwrap_or_default()).collect()
}

/// Of the sentences of ids, each closed by the end symbol, the last so many.
fn written_sentences(tokenizer: &dyn Tokenizer, ids: &[TokenId], most: Option<usize>) -> Vec<String> {
    let ids = ids.strip_suffix(&[Special::End.id()]).unwrap_or(ids);
    let sentences = ids.split(|&id| id == Special::End.id()).map(|words| written(tokenizer, words).join(" "));
    let sentences: Vec<String> = sentences.collect();
    let first = most.map_or(0, |most| sentences.len().saturating_sub(most));
    sentences[first..].to_vec()
}

/// What errors are counted in.
#[derive(Debug, Clone, Copy)]
struct Piece {
    unit: Unit,
    name: &'static str,
}

impl Piece {
    /// By the config's metrics: characters where it counts errors in these alone, phones where it counts these and no words.
    fn by(config: &ExperimentConfig) -> Self {
        let any = |what: fn(&MetricConfig) -> bool| config.evaluate.metrics.iter().any(what);
        let words = any(|metric| matches!(metric, MetricConfig::WordErrorRate(_) | MetricConfig::Bleu(_)));
        if !words && any(|metric| matches!(metric, MetricConfig::PhoneErrorRate(_))) {
            Self { unit: Unit::Word, name: "phone" }
        } else if !words && any(|metric| matches!(metric, MetricConfig::CharacterErrorRate(_))) {
            Self { unit: Unit::Character, name: "character" }
        } else {
            Self { unit: Unit::Word, name: "word" }
        }
    }
}

fn errors(answered: &[Answered], piece: Piece) -> Result<Option<Errors>> {
    let Piece { unit, name } = piece;
    // What was not said is no error.
    let answered: Vec<&Answered> = answered.iter().filter(|answered| !answered.is_withheld()).collect();
    if answered.is_empty() {
        return Ok(None);
    }
    let judged: Vec<Judged> = answered.iter().map(|answered| answered.judged()).collect();
    let verdicts = verdicts(&judged, unit)?;
    let worst = worst(&verdicts, WORST).into_iter().map(|verdict| {
        let (answered, judged) = (&answered[verdict.answer], &judged[verdict.answer]);
        let pairs = pairs(&judged.hypothesis, &judged.references[verdict.reference], unit);
        Aligned { line: answered.line, source: answered.shown(), about: answered.about(), pairs }
    });
    Ok(Some(Errors {
        unit: name.into(),
        answers: verdicts.len(),
        wrong: verdicts.iter().filter(|verdict| !verdict.is_correct()).count(),
        worst: worst.collect(),
        confusions: confusions(Confusions::of(&judged, unit)?),
    }))
}

/// What was right beside what was answered, along the fewest edits.
fn pairs(hypothesis: &str, reference: &str, unit: Unit) -> Vec<Pair> {
    let (hypotheses, references) = (unit.split(hypothesis), unit.split(reference));
    let right = |place: usize| Some(references[place].to_owned());
    let answered = |place: usize| Some(hypotheses[place].to_owned());
    let pair = |edit| match edit {
        Edit::Match { hypothesis, reference } | Edit::Substitute { hypothesis, reference } => {
            (right(reference), answered(hypothesis))
        }
        Edit::Insert { hypothesis } => (None, answered(hypothesis)),
        Edit::Delete { reference } => (right(reference), None),
    };
    align(&hypotheses, &references).into_iter().map(pair).collect()
}

/// All of them, the most frequent first.
fn confusions(found: Confusions) -> Vec<Confusion> {
    let Confusions { substitutions, insertions, deletions } = found;
    let substituted = substitutions.into_iter().map(|Substitution { reference, hypothesis, count }| Confusion {
        reference: Some(reference),
        hypothesis: Some(hypothesis),
        count,
    });
    let inserted = insertions.into_iter().map(|Counted { unit, count }| (None, Some(unit), count));
    let deleted = deletions.into_iter().map(|Counted { unit, count }| (Some(unit), None, count));
    let others =
        inserted.chain(deleted).map(|(reference, hypothesis, count)| Confusion { reference, hypothesis, count });
    let mut all: Vec<Confusion> = substituted.chain(others).collect();
    // Stable: equals stay as they were.
    all.sort_by_key(|confusion| std::cmp::Reverse(confusion.count));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use antiphon_core::random::Key;
    use antiphon_core::{Request, Selection, Source, StepOutput, Want};
    use antiphon_decode::search_all;
    use antiphon_model::{Model, ModelConfig, Streams, Vocabularies};

    use super::*;
    use crate::device::{DeviceConfig, device};

    fn model() -> Model {
        let config: ModelConfig = serde_json::from_str(
            r#"{"source": {"kind": "embedding", "size": 6}, "target": {"kind": "embedding", "size": 8},
                "encoder": {"kind": "gru", "hidden": 5},
                "decoder": {"kind": "lstm", "hidden": 10, "input_feeding": true,
                            "attention": {"kind": "additive", "width": 7}}}"#,
        )
        .unwrap();
        let vocabularies = Vocabularies { sources: vec![11], target: 9, shared: false };
        config
            .init(Streams::default(), &vocabularies, Key::from_seed(5), &device(DeviceConfig::default()).unwrap())
            .unwrap()
    }

    fn requests(sources: &[Vec<TokenId>]) -> Vec<Request> {
        sources.iter().map(|ids| Request::new(vec![Source::Tokens(ids.clone())])).collect()
    }

    /// What a single row gives when it is led along the tokens of an answer.
    fn led(model: &Model, source: &[TokenId], answer: &[TokenId]) -> (f64, Vec<Vec<f32>>) {
        let ready = model.for_search();
        let mut session = ready.begin(&requests(&[source.to_vec()])).unwrap();
        let (mut out, mut last, mut log_prob, mut attention) =
            (StepOutput::default(), Special::Begin.id(), 0.0, Vec::new());
        for &token in answer {
            let want = Want {
                selection: Selection::Given(vec![token]),
                banned: Vec::new(),
                masks: Vec::new(),
                attention: true,
            };
            session.step(&[last], &want, &mut out).unwrap();
            log_prob += f64::from(out.log_probs[0]);
            attention.push(out.attention.clone());
            last = token;
        }
        (log_prob, attention)
    }

    #[test]
    fn the_attention_of_every_answer_of_a_beam_is_that_of_its_own_tokens() {
        let model = model();
        let sources: Vec<Vec<TokenId>> = vec![vec![4, 5, 6, 7, 3], vec![8, 3], vec![10, 9, 10, 3]];
        let search: SearchConfig = serde_json::from_str(r#"{"kind": "beam", "width": 4}"#).unwrap();
        let strategy = telling(&search).unwrap().build().unwrap();
        let found = search_all(strategy.as_ref(), model.for_search(), &requests(&sources), 2, &mut |_| {}).unwrap();
        let mut compared = 0;
        for (source, found) in sources.iter().zip(&found) {
            for hypothesis in &found.hypotheses {
                let mut tokens = hypothesis.tokens.clone();
                tokens.extend(hypothesis.finished.then_some(Special::End.id()));
                let (log_prob, attention) = led(&model, source, &tokens);
                assert!((log_prob - hypothesis.log_prob).abs() < 1e-4, "{log_prob} {hypothesis:?}");
                assert_eq!(hypothesis.attention.len(), tokens.len());
                for (given, own) in hypothesis.attention.iter().zip(&attention) {
                    assert_eq!(given.len(), source.len());
                    assert!(given.iter().zip(own).all(|(a, b)| (a - b).abs() < 1e-5), "{given:?} {own:?}");
                    assert!((given.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                }
                compared += 1;
            }
        }
        assert!(compared > sources.len(), "{compared}");
    }

    #[test]
    fn telling_more_changes_no_answer() {
        let model = model();
        let sources: Vec<Vec<TokenId>> = (4..11).map(|id| vec![id, 14 - id.min(10), id, 3]).collect();
        let beams = [r#"{"kind": "beam", "width": 4}"#, r#"{"kind": "beam", "width": 5, "patience": 0.3}"#];
        let others = [r#"{"kind": "greedy"}"#, r#"{"kind": "sample", "draws": 3}"#];
        for text in beams.into_iter().chain(others) {
            let search: SearchConfig = serde_json::from_str(text).unwrap();
            let best = |search: &SearchConfig| {
                let strategy = search.build().unwrap();
                let found =
                    search_all(strategy.as_ref(), model.for_search(), &requests(&sources), 8, &mut |_| {}).unwrap();
                found.into_iter().map(|mut found| found.hypotheses.swap_remove(0).tokens).collect::<Vec<_>>()
            };
            assert_eq!(best(&search), best(&telling(&search).unwrap()), "{text}");
        }
    }

    #[test]
    fn errors_are_counted_once_and_aligned() {
        let answer = |line, text: &str, references: &[&str]| Answered {
            line,
            source: format!("s{line}"),
            streams: BTreeMap::new(),
            unknown: Vec::new(),
            unknown_streams: BTreeMap::new(),
            columns: BTreeMap::new(),
            candidates: Vec::new(),
            references: references.iter().map(ToString::to_string).collect(),
            outscored: false,
            answers: vec![super::super::Answer { text: text.into(), finished: true, ..Default::default() }],
        };
        let answered = [answer(1, "a b", &["a b"]), answer(4, "a c d", &["x y z", "a b"]), answer(9, "b", &["a b"])];
        let words = Piece { unit: Unit::Word, name: "word" };
        let found = errors(&answered, words).unwrap().unwrap();
        assert_eq!((found.answers, found.wrong), (3, 2));
        assert_eq!(found.worst.iter().map(|w| w.line).collect::<Vec<_>>(), [4, 9]);
        let unit = |text: &str| Some(text.to_owned());
        assert_eq!(found.worst[1].pairs, [(unit("a"), None), (unit("b"), unit("b"))]);
        assert_eq!(found.confusions.iter().map(|c| c.count).sum::<u64>(), 3);
        assert_eq!(errors(&[], words).unwrap(), None);
    }
}
