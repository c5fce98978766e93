//! The tokenizers of an experiment: learned from its corpus, saved with its model.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use antiphon_core::{Error, Result, Tokenizer};
use antiphon_data::{Copying, Example, Histories, History, Split};
use antiphon_lab::sha256_file;
use antiphon_model::Vocabularies;
use antiphon_text::{OfModelConfig, TokenizerConfig, from_json};
use serde::{Deserialize, Serialize};

use super::config::{LearnFrom, TokenizersConfig};
use super::data::{Corpora, named};
use super::saved::{NAME_A_MODEL, digest_of_model, model_file};
use super::start::sides;
use super::{ExperimentConfig, SavedModel, SourceStreamConfig};

/// The tokenizers of both sides, and of further sources.
#[derive(Clone)]
pub struct Tokenizers {
    sides: Sides,
    /// Those of further sources, by the names of their streams.
    streams: BTreeMap<String, Arc<dyn Tokenizer>>,
    /// That of the source, where this is a history.
    histories: Option<Arc<dyn Tokenizer>>,
    /// What of the sources is copied; `None`: nothing.
    copying: Option<Copying>,
}

#[derive(Clone)]
enum Sides {
    Shared(Arc<dyn Tokenizer>),
    Separate {
        source: Arc<dyn Tokenizer>,
        target: Arc<dyn Tokenizer>,
    },
    /// Of texts without sources, or with recordings as such.
    Target(Arc<dyn Tokenizer>),
}

/// The tokenizers as they are saved: each as the text of [`Tokenizer::to_json`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedTokenizers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shared: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    streams: BTreeMap<String, String>,
}

/// Which texts of an example a tokenizer learns from.
#[derive(Clone, Copy, PartialEq)]
enum Texts {
    /// Those of the first source, and of the further ones that share its tokenizer.
    Sources,
    /// Those of a further source, by its place among them.
    Further(usize),
    Targets,
    /// Those of the sources, and the targets.
    Both,
}

impl Texts {
    /// Those of an example; `sharing`: which of its further sources share the tokenizer of the first, `history`: how its source is read,
    /// if that is a history.
    fn of(self, example: Example, sharing: &[bool], history: Option<&History>) -> Vec<String> {
        let Example { source, mut further, targets, .. } = example;
        let read = |source: String| history.map(|history| history.text(&History::turns(&source))).unwrap_or(source);
        let source = source.map(read);
        let sources = |further: Vec<String>| {
            let sharing = further.into_iter().zip(sharing).filter_map(|(text, shares)| shares.then_some(text));
            source.into_iter().chain(sharing)
        };
        match self {
            Texts::Sources => sources(further).collect(),
            Texts::Further(k) => vec![further.swap_remove(k)],
            Texts::Targets => targets,
            Texts::Both => sources(further).chain(targets).collect(),
        }
    }
}

impl Tokenizers {
    /// Learns (or loads) the tokenizers. The same corpus gives the same tokenizers, byte for byte.
    ///
    /// # Errors
    /// If a tokenizer cannot be learned from this corpus, or a file of one cannot be used.
    pub(super) fn learn(config: &ExperimentConfig, corpora: &Corpora, data_dir: &Path) -> Result<Self> {
        let ExperimentConfig { tokenizer: config, streams, data, .. } = config;
        let sharing: Vec<bool> = streams.values().map(|stream| stream.shared).collect();
        let learn = |key: String, tokenizer: &TokenizerConfig, texts: Texts| {
            let splits = config.learn_from.iter().map(|split| match split {
                LearnFrom::Train => Split::Train,
                LearnFrom::Validation => Split::Validation,
            });
            let examples = splits.filter_map(|split| corpora.get(split)).flat_map(|corpus| corpus.iter());
            let mut texts = examples.flat_map(|example| match example {
                Ok(example) => texts.of(example, &sharing, data.history()).into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            });
            let tokenizer = match tokenizer {
                TokenizerConfig::Model(of) => of_model(of, &key),
                other => other.clone().resolved(|path| data_dir.join(path)).train(&mut texts).map(Arc::from),
            };
            let placed = |error: Error| {
                let error = error.at(key.clone());
                if error.file.is_some() { error } else { error.in_file(corpora.train.path()) }
            };
            tokenizer.map_err(placed)
        };
        let learn_side = |side: &str, tokenizer, texts| learn(format!("tokenizer.{side}"), tokenizer, texts);
        let sides = match (&config.shared, &config.source, &config.target) {
            // A tokenizer for both sides serves the one that there is.
            (shared, _, target) if !corpora.train.has_source() || corpora.train.is_spoken() => {
                let (side, tokenizer) = match (shared, target) {
                    (Some(shared), _) => ("shared", shared),
                    (None, Some(target)) => ("target", target),
                    (None, None) => return Err(Error::new("set `target`").at("tokenizer")),
                };
                Sides::Target(learn_side(side, tokenizer, Texts::Targets)?)
            }
            (Some(shared), ..) => Sides::Shared(learn_side("shared", shared, Texts::Both)?),
            (None, Some(source), Some(target)) => Sides::Separate {
                source: learn_side("source", source, Texts::Sources)?,
                target: learn_side("target", target, Texts::Targets)?,
            },
            _ => return Err(Error::new("set `source` and `target`, or `shared` for both").at("tokenizer")),
        };
        let stream = |(k, (name, stream)): (usize, (&String, &SourceStreamConfig))| {
            let tokenizer = match (stream.own_tokenizer(), &sides) {
                (Some(own), _) => learn(format!("streams.{name}.tokenizer"), own, Texts::Further(k))?,
                (None, Sides::Shared(source) | Sides::Separate { source, .. }) => Arc::clone(source),
                (None, Sides::Target(_)) => {
                    return Err(Error::new("the source has no tokenizer to share").at(format!("streams.{name}.shared")));
                }
            };
            Ok((name.clone(), tokenizer))
        };
        let streams = streams.iter().enumerate().map(stream).collect::<Result<_>>()?;
        Ok(Self { sides, streams, histories: None, copying: None })
    }

    pub(super) fn from_saved(saved: &SavedTokenizers) -> Result<Self> {
        let read = |json: &str| from_json(json).map(Arc::from);
        let sides = match saved {
            SavedTokenizers { shared: Some(shared), source: None, target: None, .. } => Sides::Shared(read(shared)?),
            SavedTokenizers { shared: None, source: Some(source), target: Some(target), .. } => {
                Sides::Separate { source: read(source)?, target: read(target)? }
            }
            SavedTokenizers { shared: None, source: None, target: Some(target), .. } => Sides::Target(read(target)?),
            _ => return Err(Error::new("the tokenizers are neither one for both sides nor one for each")),
        };
        let stream = |(name, json): (&String, &String)| Ok((name.clone(), read(json)?));
        let streams = saved.streams.iter().map(stream).collect::<Result<_>>()?;
        Ok(Self { sides, streams, histories: None, copying: None })
    }

    /// The same, reading sources as these settings say: a history as one, and what is copied of them.
    #[must_use]
    pub(crate) fn reading(self, config: &ExperimentConfig) -> Self {
        let histories = config.data.history().zip(self.own_source()).map(|(history, own)| {
            let max = config.data.limits().max_source;
            Arc::new(Histories::new(history.clone(), Arc::clone(own), max)) as Arc<dyn Tokenizer>
        });
        let copying = config.copies_from().map(|from| Copying::new(from, Arc::clone(self.target())));
        Self { histories, copying, ..self }
    }

    pub(super) fn to_saved(&self) -> SavedTokenizers {
        let (shared, source, target) = match &self.sides {
            Sides::Shared(shared) => (Some(shared.to_json()), None, None),
            Sides::Separate { source, target } => (None, Some(source.to_json()), Some(target.to_json())),
            Sides::Target(target) => (None, None, Some(target.to_json())),
        };
        let streams = self.streams.iter().map(|(name, tokenizer)| (name.clone(), tokenizer.to_json())).collect();
        SavedTokenizers { shared, source, target, streams }
    }

    /// The tokenizers of all sources: of the first, then of each stream in the order of their names.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<dyn Tokenizer>> {
        self.source().into_iter().chain(self.streams.values())
    }

    /// The tokenizers of further sources, by the names of their streams, in their order.
    pub fn streams(&self) -> impl Iterator<Item = (&String, &Arc<dyn Tokenizer>)> {
        self.streams.iter()
    }

    /// The tokenizer of the sources; `None` where there are none, or none of text. That of histories takes the turns of each, a line each
    /// as [`History::source`] writes them, and cuts what is too long.
    pub fn source(&self) -> Option<&Arc<dyn Tokenizer>> {
        self.histories.as_ref().or_else(|| self.own_source())
    }

    /// What of the sources is copied; `None`: nothing.
    pub(crate) fn copying(&self) -> Option<&Copying> {
        self.copying.as_ref()
    }

    /// The tokenizer of the sources, which takes texts as they are.
    pub(crate) fn own_source(&self) -> Option<&Arc<dyn Tokenizer>> {
        match &self.sides {
            Sides::Shared(shared) => Some(shared),
            Sides::Separate { source, .. } => Some(source),
            Sides::Target(_) => None,
        }
    }

    /// The tokenizer of the targets.
    pub fn target(&self) -> &Arc<dyn Tokenizer> {
        match &self.sides {
            Sides::Shared(target) | Sides::Separate { target, .. } | Sides::Target(target) => target,
        }
    }

    /// How many ids there are on both sides; further sources stand behind the first.
    pub fn vocabularies(&self) -> Vocabularies {
        let sources = self.sources().map(|tokenizer| tokenizer.size()).collect();
        Vocabularies { sources, target: self.target().size(), shared: matches!(self.sides, Sides::Shared(_)) }
    }
}

impl fmt::Debug for Tokenizers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizers").field("vocabularies", &self.vocabularies()).finish_non_exhaustive()
    }
}

impl ExperimentConfig {
    /// The files of tokenizers, and of models that have some, that the config names: the setting, and where each lies.
    pub(crate) fn files_of_tokenizers(&self, data_dir: &Path) -> Vec<(String, PathBuf)> {
        let TokenizersConfig { source, target, shared, .. } = &self.tokenizer;
        let sides = [("source", source), ("target", target), ("shared", shared)].into_iter();
        let sides = sides.filter_map(|(side, one)| Some((format!("tokenizer.{side}"), one.as_ref()?)));
        let streams = self.streams.iter().filter_map(|(name, one)| Some((name, one.own_tokenizer()?)));
        let streams = streams.map(|(name, tokenizer)| (format!("streams.{name}.tokenizer"), tokenizer));
        let file = |(key, tokenizer): (String, &TokenizerConfig)| match tokenizer {
            TokenizerConfig::File(file) => Some((format!("{key}.path"), data_dir.join(&file.path))),
            TokenizerConfig::Model(of) => Some((format!("{key}.model"), model_file(&of.model))),
            _ => None,
        };
        sides.chain(streams).filter_map(file).collect()
    }

    /// The same files with their SHA-256.
    pub(super) fn digests_of_tokenizers(&self, data_dir: &Path) -> Result<BTreeMap<String, String>> {
        let files = self.files_of_tokenizers(data_dir).into_iter();
        let digest = |(key, path): (String, PathBuf)| match key.ends_with(".model") {
            true => digest_of_model(&key, &path, data_dir, NAME_A_MODEL),
            false => Ok((named(&path, data_dir), sha256_file(&path)?)),
        };
        files.map(digest).collect()
    }
}

/// The tokenizer that a model has for the side that `key` names: `tokenizer.source`, `streams.case.tokenizer`.
fn of_model(of: &OfModelConfig, key: &str) -> Result<Arc<dyn Tokenizer>> {
    let file = model_file(&of.model);
    let theirs = SavedModel::tokenizers_of(&file)?;
    let is_shared = theirs.vocabularies().shared;
    let found = match key.split('.').collect::<Vec<_>>()[..] {
        ["tokenizer", "source"] => theirs.source(),
        ["tokenizer", "target"] => Some(theirs.target()),
        // What serves one side alone may lack tokens of the other.
        ["tokenizer", "shared"] => Some(theirs.target()).filter(|_| is_shared || theirs.source().is_none()),
        ["streams", name, _] => theirs.streams().find(|(other, _)| *other == name).map(|(_, tokenizer)| tokenizer),
        _ => None,
    };
    found.cloned().ok_or_else(|| {
        let has: Vec<String> = sides(&theirs).into_iter().map(|(side, _)| format!("`{side}`")).collect();
        let shared = if is_shared { ", which are one" } else { "" };
        Error::new(format!("that model has no such tokenizer; it has those of {}{shared}", has.join(" and ")))
            .in_file(file)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use antiphon_core::{
        Batch, PrefixOutput, Request, Selection, SourceBatch, Special, StepModel, StepOutput, StepSession, TokenId,
        Want,
    };
    use antiphon_decode::SearchConfig;
    use antiphon_kernels::Carry;
    use antiphon_model::{Judgement, SourceLooks};

    use super::*;
    use crate::experiment::answering::Answering;
    use crate::experiment::data::Encoded;
    use crate::experiment::{Experiment, Loaded, Question, Searcher};

    #[test]
    fn each_stream_has_a_tokenizer_of_its_own_which_is_saved_with_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.csv", "lemma,form,tags,case\nab,xyz,N;SG,acc\nc,x,V,\n");
        write("b.csv", "lemma,form,tags,case\nab,xyz,N;DU,\n");
        write(
            "a.toml",
            "data = { kind = 'table', train = 'a.csv', validation = 'b.csv', source = 'lemma', target = 'form' }\n\
             train.epochs = 1\n\
             [streams.features]\ncolumn = 'tags'\ntokenizer = { kind = 'word', separator = ';' }\n\
             [streams.case]\nmax_length = 9\n",
        );
        let experiment =
            Experiment::open(Loaded::read(&folder.path().join("a.toml"), &[]).unwrap(), folder.path()).unwrap();
        let tokenizers = experiment.learned().unwrap();
        // a, b, c; x, y, z; a, c of `acc`; N, SG, V: each beside the four special symbols.
        let vocabularies = tokenizers.vocabularies();
        assert_eq!((vocabularies.sources, vocabularies.target, vocabularies.shared), (vec![7, 6, 7], 7, false));
        let json = serde_json::to_string(&tokenizers.to_saved()).unwrap();
        let again = Tokenizers::from_saved(&serde_json::from_str(&json).unwrap()).unwrap();
        assert_eq!(again.streams().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["case", "features"]);
        assert_eq!(again.to_saved(), tokenizers.to_saved());
        // Those of before have none.
        let old = SavedTokenizers { streams: BTreeMap::new(), ..tokenizers.to_saved() };
        let json = serde_json::to_string(&old).unwrap();
        assert!(!json.contains("streams"));
        assert_eq!(Tokenizers::from_saved(&serde_json::from_str(&json).unwrap()).unwrap().sources().count(), 1);

        let validation = experiment.corpora.validation.as_ref().unwrap();
        let encoded = Encoded::new(validation, tokenizers, &experiment.config).unwrap();
        let counts: Vec<_> = encoded.further().into_iter().map(|(name, of)| (name, of.tokens, of.unknown)).collect();
        assert_eq!(counts, [("case", 1, 0), ("features", 3, 1)]);
    }

    #[test]
    fn a_stream_that_shares_is_read_as_the_source_is() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "a.jsonl",
            "{\"story\": [\"Zug left.\", \"Zug came.\"], \"question\": \"Who came?\", \"note\": \"x y\", \"answer\": 1}\n",
        );
        let open = |name: &str, extra: &str| {
            let text = format!(
                "data = {{ kind = 'table', train = 'a.jsonl', source = 'story', target = 'answer' }}\ntrain.epochs = 1\n\
                 [streams]\nquestion = {{ shared = true }}\nnote = {{ tokenizer = {{ kind = 'word' }} }}\n{extra}"
            );
            write(name, &text);
            let loaded = Loaded::read(&folder.path().join(name), &[]).map_err(|error| error.to_string())?;
            Ok::<_, String>(Experiment::open(loaded, folder.path()).unwrap())
        };
        let word = "kind = 'word'\nsentences = true\nnormalization = ['punctuation']";
        for (tokenizer, size, target) in [
            // Zug, left, came, Who; the marks `.` and `?`.
            (format!("[tokenizer.source]\n{word}\n[tokenizer.target]\nkind = 'word'\n"), 10, 5),
            ("[tokenizer.shared]\nkind = 'word'\n".to_owned(), 10, 10),
        ] {
            let experiment = open("a.toml", &tokenizer).unwrap();
            let tokenizers = experiment.learned().unwrap();
            let vocabularies = tokenizers.vocabularies();
            assert_eq!((vocabularies.sources, vocabularies.target), (vec![size, 6, size], target), "{tokenizer}");
            let again = Tokenizers::from_saved(&tokenizers.to_saved()).unwrap();
            let read =
                |tokenizers: &Tokenizers, k| tokenizers.sources().nth(k).unwrap().encode("Who came?\nZug").unwrap();
            assert!(
                [read(tokenizers, 2), read(&again, 0), read(&again, 2)].iter().all(|ids| *ids == read(tokenizers, 0))
            );
            assert!(!read(tokenizers, 0).contains(&1));
        }
        for (extra, place, message) in [
            ("[tokenizer.target]\nkind = 'word'\nsentences = true", "tokenizer.target", "a target ends with"),
            ("[tokenizer.shared]\nkind = 'word'\nsentences = true", "tokenizer.shared", "a target ends with"),
            ("[streams.question.tokenizer]\nkind = 'word'", "streams.question.tokenizer", "is `shared`: the source's"),
            ("[streams.question.input]\nsize = 9", "streams.question.input", "is `shared`: its tokens become"),
        ] {
            let shared = if extra.starts_with("[streams.question") { "streams.question.shared = true\n" } else { "" };
            write(
                "b.toml",
                &format!(
                    "data = {{ kind = 'table', train = 'a.jsonl', source = 'story', target = 'answer' }}\ntrain.epochs = 1\n{shared}{extra}"
                ),
            );
            let error = Loaded::read(&folder.path().join("b.toml"), &[]).unwrap_err().to_string();
            assert!(error.lines().any(|line| line.contains(place) && line.contains(message)), "{error}");
        }
    }

    /// Says what it can copy of its first source, step by step.
    #[derive(Clone)]
    struct Parrot {
        vocabulary: usize,
        says: Vec<Vec<TokenId>>,
        step: usize,
    }

    impl StepModel for Parrot {
        fn begin(self: Arc<Self>, requests: &[Request]) -> Result<Box<dyn StepSession>> {
            let says = |request: &Request| request.copies.as_ref().expect("what may be copied").says[0].clone();
            Ok(Box::new(Self { says: requests.iter().map(says).collect(), ..(*self).clone() }))
        }

        fn vocabulary(&self) -> usize {
            self.vocabulary
        }

        fn copies(&self) -> bool {
            true
        }
    }

    impl StepSession for Parrot {
        fn rows(&self) -> usize {
            self.says.len()
        }

        fn take_prefixes(&mut self) -> Vec<PrefixOutput> {
            vec![PrefixOutput::default(); self.rows()]
        }

        fn step(&mut self, _: &[TokenId], want: &Want, out: &mut StepOutput) -> Result<()> {
            self.step += 1;
            self.again(&(0..self.rows() as u32).collect::<Vec<_>>(), want, out)
        }

        fn again(&mut self, rows: &[u32], want: &Want, out: &mut StepOutput) -> Result<()> {
            *out = StepOutput::default();
            for (i, &row) in rows.iter().enumerate() {
                let said = match self.says[row as usize].get(self.step - 1) {
                    None | Some(0) => Special::End.id(),
                    Some(&id) => id,
                };
                let tokens: Vec<TokenId> = match &want.selection {
                    Selection::Top(k) => [said].into_iter().chain((0..).filter(|id| *id != said)).take(*k).collect(),
                    Selection::Given(given) => {
                        let each = given.len() / rows.len();
                        given[i * each..][..each].to_vec()
                    }
                    Selection::All => panic!("nobody asks for all"),
                };
                out.per_row = tokens.len();
                out.log_probs.extend(tokens.iter().map(|id| if *id == said { -0.25 } else { -9.0 }));
                out.tokens.extend(tokens);
            }
            Ok(())
        }

        fn select(&mut self, rows: &[u32]) {
            self.says = rows.iter().map(|&row| self.says[row as usize].clone()).collect();
        }
    }

    impl Answering for Parrot {
        fn for_search(&self) -> Arc<dyn StepModel> {
            Arc::new(self.clone())
        }

        fn readings(&self) -> Vec<Vec<Arc<dyn Tokenizer>>> {
            Vec::new()
        }

        fn judge(&self, _: &[Batch], _: &mut Vec<Carry>, _: &[f64]) -> Result<Judgement> {
            panic!("nobody judges")
        }

        fn looks(&self, _: &[SourceBatch]) -> Result<Option<SourceLooks>> {
            Ok(None)
        }
    }

    /// Tokenizers of which the target knows two words, and a parrot of its vocabulary.
    fn copied() -> (Tokenizers, Parrot) {
        let learn = |text: &str| {
            let words: TokenizerConfig = serde_json::from_str(r#"{"kind": "word"}"#).unwrap();
            Arc::<dyn Tokenizer>::from(words.train(&mut [Ok(text.to_owned())].into_iter()).unwrap())
        };
        let (source, target) = (learn("a"), learn("sees and"));
        let copying = Some(Copying::new(vec![true], Arc::clone(&target)));
        let parrot = Parrot { vocabulary: target.size(), says: Vec::new(), step: 0 };
        let sides = Sides::Separate { source, target };
        (Tokenizers { sides, streams: BTreeMap::new(), histories: None, copying }, parrot)
    }

    const TEXTS: [&str; 3] = ["zug sees pim and pim", "pim sees zug", "sees"];

    #[test]
    fn what_can_be_copied_is_written_in_its_own_words() {
        let (tokenizers, parrot) = copied();
        let searcher = Searcher::new(&parrot, &tokenizers, &SearchConfig::default(), 1, 8).unwrap();
        for text in TEXTS {
            let question = searcher.question(1, &[text]).unwrap();
            let target = searcher.encode_target(&question, text).unwrap();
            assert!(!target.contains(&Special::Unknown.id()));
            let written: Vec<String> = target.iter().map(|&id| searcher.token(&question, id)).collect();
            assert_eq!(written.join(" "), format!("{text} </s>"));
            assert_eq!(searcher.text(&question, &target), text);
            assert_eq!(searcher.request(&question).copies, question.copies);
            // What stands in no source is unknown.
            let other = searcher.encode_target(&question, "tom").unwrap();
            assert_eq!(other, [Special::Unknown.id(), Special::End.id()]);
        }
        // Of candidates that differ in unknown words, the one that is said.
        let candidates = ["pim sees pim", "pim sees zug", "pim sees tom"].map(str::to_owned);
        let among = searcher.question_among(1, &["pim sees zug"], &candidates).unwrap();
        assert_ne!(among.candidates[0].ids, among.candidates[1].ids);
        for candidate in &among.candidates {
            let said = searcher.text(&among, &candidate.ids);
            assert_eq!(searcher.in_its_words(&among, said), candidate.text);
        }
    }

    #[test]
    fn what_is_copied_is_said_and_scored_in_its_own_words() {
        let (tokenizers, parrot) = copied();
        for search in [r#"{"kind": "greedy"}"#, r#"{"kind": "beam", "width": 2}"#] {
            let search = serde_json::from_str(search).unwrap();
            let searcher = Searcher::new(&parrot, &tokenizers, &search, 1, 8).unwrap();
            let questions: Vec<Question> =
                (1..).zip(TEXTS).map(|(line, text)| searcher.question(line, &[text]).unwrap()).collect();
            let found = searcher.answer(&questions, &AtomicBool::new(false), &mut |_| {}).unwrap().unwrap();
            for ((text, question), found) in TEXTS.iter().zip(&questions).zip(found) {
                let best = &found.answers[0];
                assert_eq!((best.text.as_str(), best.unknown.as_slice(), best.finished), (*text, &[][..], true));
                let target = searcher.encode_target(question, text).unwrap();
                let scores = searcher.score(&[(question.clone(), target.clone())]).unwrap();
                assert!(scores[0].iter().all(|score| *score == -0.25), "{scores:?}");
                assert!((best.log_prob - -0.25 * target.len() as f64).abs() < 1e-6);
            }
        }
    }
}
