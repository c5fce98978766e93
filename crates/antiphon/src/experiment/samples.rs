//! What a language model writes at a validation of its training: a few texts for people to read. Nothing is judged by them.

use std::convert::Infallible;
use std::sync::atomic::AtomicBool;

use antiphon_core::Result;
use antiphon_decode::{SampleConfig, SearchConfig};
use antiphon_kernels::attentively;
use antiphon_model::Model;
use antiphon_text::TokenizerConfig;

use super::generation::{Asked, Failure, Generator, Heard};
use super::{ExperimentConfig, Tokenizers};

/// As many texts as `evaluate.samples` says, with nothing before them; none of a model that has sources. `None` if `stop` was raised
/// before the end.
///
/// They are drawn under the seed, the step and their number, so that a run that is resumed writes them again.
///
/// # Errors
/// If the model fails.
pub(super) fn samples(
    model: &Model,
    tokenizers: &Tokenizers,
    config: &ExperimentConfig,
    step: u64,
    stop: &AtomicBool,
) -> Result<Option<Vec<String>>> {
    let count = config.evaluate.samples as u64;
    if count == 0 || config.data.has_source() {
        return Ok(Some(Vec::new()));
    }
    let search = drawing(&config.search).with_n_best(1)?;
    let key = search.key(config.seed).named("samples").numbered(step);
    let generator = Generator::drawing_below(key, model, tokenizers, config, &search)?;
    let tokenizer = config.tokenizer.target.as_ref().or(config.tokenizer.shared.as_ref());
    let length = length(tokenizer.expect("a text has a tokenizer"));
    let asked = Asked { prompt: &generator.beginning(), draws: 0..count, length };
    let mut texts = Vec::new();
    let mut hear = |heard: Heard<'_>| {
        if let Heard::Text(text) = heard {
            texts.push(text.text);
        }
        Ok::<(), Infallible>(())
    };
    let whole = attentively(|| generator.generate(&asked, stop, &mut hear));
    match whole {
        Ok(whole) => Ok(whole.then_some(texts)),
        Err(Failure::Model(error)) => Err(error),
        Err(Failure::Hearer(never)) => match never {},
    }
}

/// The search of a run if it samples, else plain sampling.
fn drawing(search: &SearchConfig) -> SearchConfig {
    match search {
        SearchConfig::Sample(_) => search.clone(),
        SearchConfig::Greedy(_) | SearchConfig::Beam(_) | SearchConfig::BestPath(_) => {
            SearchConfig::Sample(SampleConfig::default())
        }
    }
}

/// How many tokens make a few lines.
fn length(tokenizer: &TokenizerConfig) -> usize {
    match tokenizer {
        TokenizerConfig::Character(_) | TokenizerConfig::Byte(_) => 200,
        TokenizerConfig::Bpe(_)
        | TokenizerConfig::WordPiece(_)
        | TokenizerConfig::Unigram(_)
        | TokenizerConfig::File(_)
        | TokenizerConfig::Model(_) => 60,
        TokenizerConfig::Word(_) => 40,
    }
}
