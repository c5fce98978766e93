//! The tokenizers of an experiment: learned from its corpus, saved with its model.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use antiphon_core::{Error, Result, Tokenizer};
use antiphon_data::{Example, Split};
use antiphon_lab::sha256_file;
use antiphon_model::Vocabularies;
use antiphon_text::{TokenizerConfig, from_json};
use serde::{Deserialize, Serialize};

use super::config::{LearnFrom, TokenizersConfig};
use super::data::{Corpora, named};

/// The tokenizers of both sides.
#[derive(Clone)]
pub struct Tokenizers {
    sides: Sides,
}

#[derive(Clone)]
enum Sides {
    Shared(Arc<dyn Tokenizer>),
    Separate {
        source: Arc<dyn Tokenizer>,
        target: Arc<dyn Tokenizer>,
    },
    /// Of texts without sources.
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
}

/// Which texts of an example a tokenizer learns from.
#[derive(Clone, Copy, PartialEq)]
enum Texts {
    Sources,
    Targets,
    Both,
}

impl Texts {
    fn of(self, example: Example) -> Vec<String> {
        let sources = example.source.filter(|_| self != Texts::Targets);
        let targets = if self == Texts::Sources { Vec::new() } else { example.targets };
        sources.into_iter().chain(targets).collect()
    }
}

impl Tokenizers {
    /// Learns (or loads) the tokenizers. The same corpus gives the same tokenizers, byte for byte.
    ///
    /// # Errors
    /// If a tokenizer cannot be learned from this corpus, or a file of one cannot be used.
    pub(super) fn learn(config: &TokenizersConfig, corpora: &Corpora, data_dir: &Path) -> Result<Self> {
        let learn = |side: &str, tokenizer: &TokenizerConfig, texts: Texts| {
            let splits = config.learn_from.iter().map(|split| match split {
                LearnFrom::Train => Split::Train,
                LearnFrom::Validation => Split::Validation,
            });
            let examples = splits.filter_map(|split| corpora.get(split)).flat_map(|corpus| corpus.iter());
            let mut texts = examples.flat_map(|example| match example {
                Ok(example) => texts.of(example).into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            });
            let tokenizer = tokenizer.clone().resolved(|path| data_dir.join(path)).train(&mut texts);
            let placed = |error: Error| {
                let error = error.at(format!("tokenizer.{side}"));
                if error.file.is_some() { error } else { error.in_file(corpora.train.path()) }
            };
            tokenizer.map(Arc::from).map_err(placed)
        };
        let sides = match (&config.shared, &config.source, &config.target) {
            // A tokenizer for both sides serves the one that there is.
            (shared, _, target) if !corpora.train.has_source() => {
                let (side, tokenizer) = match (shared, target) {
                    (Some(shared), _) => ("shared", shared),
                    (None, Some(target)) => ("target", target),
                    (None, None) => return Err(Error::new("set `target`").at("tokenizer")),
                };
                Sides::Target(learn(side, tokenizer, Texts::Targets)?)
            }
            (Some(shared), ..) => Sides::Shared(learn("shared", shared, Texts::Both)?),
            (None, Some(source), Some(target)) => Sides::Separate {
                source: learn("source", source, Texts::Sources)?,
                target: learn("target", target, Texts::Targets)?,
            },
            _ => return Err(Error::new("set `source` and `target`, or `shared` for both").at("tokenizer")),
        };
        Ok(Self { sides })
    }

    pub(super) fn from_saved(saved: &SavedTokenizers) -> Result<Self> {
        let read = |json: &str| from_json(json).map(Arc::from);
        let sides = match saved {
            SavedTokenizers { shared: Some(shared), source: None, target: None } => Sides::Shared(read(shared)?),
            SavedTokenizers { shared: None, source: Some(source), target: Some(target) } => {
                Sides::Separate { source: read(source)?, target: read(target)? }
            }
            SavedTokenizers { shared: None, source: None, target: Some(target) } => Sides::Target(read(target)?),
            _ => return Err(Error::new("the tokenizers are neither one for both sides nor one for each")),
        };
        Ok(Self { sides })
    }

    pub(super) fn to_saved(&self) -> SavedTokenizers {
        match &self.sides {
            Sides::Shared(shared) => SavedTokenizers { shared: Some(shared.to_json()), source: None, target: None },
            Sides::Separate { source, target } => {
                SavedTokenizers { shared: None, source: Some(source.to_json()), target: Some(target.to_json()) }
            }
            Sides::Target(target) => SavedTokenizers { shared: None, source: None, target: Some(target.to_json()) },
        }
    }

    /// The tokenizer of the sources; `None` where there are none.
    pub fn source(&self) -> Option<&Arc<dyn Tokenizer>> {
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

    /// How many ids there are on both sides.
    pub fn vocabularies(&self) -> Vocabularies {
        let target = self.target().size();
        match &self.sides {
            Sides::Shared(_) => Vocabularies { sources: vec![target], target, shared: true },
            Sides::Separate { source, .. } => Vocabularies { sources: vec![source.size()], target, shared: false },
            Sides::Target(_) => Vocabularies { sources: Vec::new(), target, shared: false },
        }
    }
}

impl fmt::Debug for Tokenizers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizers").field("vocabularies", &self.vocabularies()).finish_non_exhaustive()
    }
}

impl TokenizersConfig {
    /// The tokenizer files that the config names: the setting, and where each lies.
    pub(crate) fn files(&self, data_dir: &Path) -> Vec<(String, PathBuf)> {
        let sides = [("source", &self.source), ("target", &self.target), ("shared", &self.shared)];
        let file = |(side, tokenizer): (&str, &Option<TokenizerConfig>)| match tokenizer {
            Some(TokenizerConfig::File(file)) => Some((format!("tokenizer.{side}.path"), data_dir.join(&file.path))),
            _ => None,
        };
        sides.into_iter().filter_map(file).collect()
    }

    /// The tokenizer files that the config names, with their SHA-256.
    pub(super) fn digests(&self, data_dir: &Path) -> Result<BTreeMap<String, String>> {
        let mut digests = BTreeMap::new();
        for tokenizer in [&self.source, &self.target, &self.shared].into_iter().flatten() {
            if let TokenizerConfig::File(file) = tokenizer {
                let path: PathBuf = data_dir.join(&file.path);
                digests.insert(named(&path, data_dir), sha256_file(&path)?);
            }
        }
        Ok(digests)
    }
}
