//! `search.language_model`: a language model that has a say in what another model answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Result, Special, TokenId};
use antiphon_data::CorpusConfig;
use antiphon_data::lines::file_fault;
use antiphon_decode::{LanguageModel, SearchConfig};
use burn::tensor::Device;

use super::answering::Answering;
use super::rerank::{RerankConfig, Reranker, remedy_of};
use super::saved::{NAME_A_MODEL, digest_of_model, model_file};
use super::start::rows_of;
use super::{Experiment, ExperimentConfig, SavedModels, Tokenizers};

/// The setting that names it.
const KEY: &str = "search.language_model.model";

/// How many tokens an error names.
const NAMED: usize = 8;

impl ExperimentConfig {
    /// The files of the models that have a say in how answers are searched and ranked: the setting, and where each lies.
    pub(crate) fn files_of_search(&self) -> Vec<(String, PathBuf)> {
        let model = self.search.language_model().filter(|_| self.data.has_source());
        let rerank = self.reranking().into_iter().flat_map(RerankConfig::files);
        model.map(|fusion| (KEY.to_owned(), model_file(&fusion.model))).into_iter().chain(rerank).collect()
    }

    /// The same files with their SHA-256.
    ///
    /// # Errors
    /// If one is not there.
    pub(crate) fn digests_of_search(&self, data_dir: &Path) -> Result<BTreeMap<String, String>> {
        let files = self.files_of_search().into_iter();
        let remedy = |key: &str| remedy_of(key).unwrap_or_else(remedy);
        files.map(|(key, file)| digest_of_model(&key, &file, data_dir, &remedy(&key))).collect()
    }
}

impl Experiment {
    /// Checks that the models that have a say in how answers are searched and ranked fit, before a run begins.
    ///
    /// # Errors
    /// If one does not, or cannot be read.
    pub(crate) fn check_search(&self) -> Result<()> {
        let ExperimentConfig { search, data, .. } = &self.config;
        if search.language_model().is_some() && data.has_source() {
            language_model(search, self.learned()?)?;
        }
        self.config.reranking().map_or(Ok(()), |rerank| Reranker::read(rerank, search).map(drop))
    }
}

fn remedy() -> String {
    format!("{NAME_A_MODEL}, or search without it: `search.language_model.weight=0`")
}

/// The language model that a search names, if it has a say, for targets of these tokenizers. It computes on the CPU.
///
/// # Errors
/// If it cannot be read, reads sources, is one of running text, or lacks a token.
pub(super) fn language_model(search: &SearchConfig, tokenizers: &Tokenizers) -> Result<Option<LanguageModel>> {
    let Some(fusion) = search.language_model() else { return Ok(None) };
    let file = model_file(&fusion.model);
    if let Some(fault) = file_fault(&file) {
        return Err(Error::new(format!("{fault}; {}", remedy())).in_file(file).at(KEY));
    }
    let read = || {
        let models = SavedModels::read(&file, &Device::flex())?;
        of_single_texts(&models.first().config.data)?;
        let ids = ids(tokenizers, &models.first().tokenizers)?;
        LanguageModel::new(models.for_search(), ids)
    };
    let found = read().map_err(|error| if error.file.is_some() { error } else { error.in_file(&file) });
    found.map(Some).map_err(|error| error.at(KEY))
}

/// That the model of such a corpus is a language model of single texts.
pub(super) fn of_single_texts(data: &CorpusConfig) -> Result<()> {
    let message = match data {
        CorpusConfig::Text(_) => return Ok(()),
        CorpusConfig::Stream(_) => {
            "is a model of running text, which knows no text by itself; train one of single texts: `data.kind = \"text\"`"
        }
        CorpusConfig::Pairs(_) | CorpusConfig::Parallel(_) | CorpusConfig::Table(_) | CorpusConfig::Manifest(_) => {
            "answers sources, and is no language model; train one: `model.kind = \"language_model\"`"
        }
    };
    Err(Error::new(message))
}

/// What each target token is called in a language model's vocabulary.
fn ids(own: &Tokenizers, theirs: &Tokenizers) -> Result<Vec<TokenId>> {
    let (own, theirs) = (own.target().as_ref(), theirs.target().as_ref());
    let rows = rows_of(own, theirs);
    let lacking: Vec<String> =
        (0..).zip(&rows).filter(|(_, row)| row.is_none()).map(|(id, _)| shown(own.token(id))).collect();
    if lacking.is_empty() {
        return Ok(rows.into_iter().flatten().map(|row| row as TokenId).collect());
    }
    let named = lacking[..lacking.len().min(NAMED)].join(", ");
    let more = if lacking.len() > NAMED { ", …" } else { "" };
    Err(Error::new(format!(
        "does not know {} of {} target tokens ({named}{more}): train it over the tokens of the model that it is to help, with \
         `tokenizer.target = {{ kind = \"model\", model = … }}`",
        lacking.len(),
        own.size() - Special::COUNT,
    )))
}

fn shown(token: Option<String>) -> String {
    format!("`{}`", token.unwrap_or_default().escape_debug())
}
