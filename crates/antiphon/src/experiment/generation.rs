//! Texts that a language model goes on with, told as they come.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use antiphon_core::random::Key;
use antiphon_core::{LengthLimits, Request, Result, Special, StepModel, TokenId, Tokenizer};
use antiphon_data::CorpusConfig;
use antiphon_data::corpus::Documents;
use antiphon_decode::{Finished, Hypothesis, SearchConfig, Strategy};

use super::answering::Answering;
use super::speech::{Speech, StopTexts, Telling};
use super::{ExperimentConfig, SavedModel, SavedModels, Tokenizers};

/// A language model with a way to choose what comes next.
pub(crate) struct Generator {
    model: Arc<dyn StepModel>,
    strategy: Box<dyn Strategy>,
    /// Of all random numbers.
    key: Key,
    speech: Speech,
    stops: StopTexts,
    /// Whether the end symbol stands for the end of a line, and texts go on behind it.
    endless: bool,
    /// Whether it has learned from a text without documents.
    goes_on: bool,
}

/// What is asked of a generator.
pub(crate) struct Asked<'a> {
    /// The tokens that every text goes on behind.
    pub(crate) prompt: &'a [TokenId],
    /// The numbers of the texts: each is drawn under its own.
    pub(crate) draws: Range<u64>,
    /// The most tokens of a text, its end symbol included.
    pub(crate) length: usize,
}

/// What is heard of the texts, one after the other.
pub(crate) enum Heard<'a> {
    /// What comes next in a text.
    Piece(&'a str),
    /// The whole of it, at its end.
    Text(Text),
}

/// What was generated behind a prompt.
pub(crate) struct Text {
    /// Its number.
    pub(crate) draw: u64,
    /// What it says, up to the first of `search.stop`.
    pub(crate) text: String,
    /// The tokens that were chosen, those of a stop among them.
    pub(crate) tokens: Vec<TokenId>,
    /// Natural logarithm of their probability behind the prompt, that of the end symbol included if it was reached.
    pub(crate) log_prob: f64,
    /// Whether it came to its end, and was not cut off at its length.
    pub(crate) finished: bool,
}

/// Why no more is heard.
pub(crate) enum Failure<E> {
    /// The model failed.
    Model(antiphon_core::Error),
    /// Who hears it did.
    Hearer(E),
}

impl Generator {
    /// Models without sources, with a search; `seed` is that of the draws, unless the search has one of its own.
    ///
    /// # Errors
    /// If the search settings cannot work.
    pub(crate) fn new(models: &SavedModels, search: &SearchConfig) -> Result<Self> {
        let SavedModel { config, tokenizers, .. } = models.first();
        Self::drawing_below(search.key(config.seed), models, tokenizers, config, search)
    }

    /// The same of a model that need not be at its end; all random numbers are made below `key`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(super) fn drawing_below(
        key: Key,
        model: &dyn Answering,
        tokenizers: &Tokenizers,
        config: &ExperimentConfig,
        search: &SearchConfig,
    ) -> Result<Self> {
        let endless = is_endless(&config.data);
        let speech = Speech::new(Arc::clone(tokenizers.target()), endless);
        let stops = StopTexts::new(speech.clone(), search.stop());
        let strategy = search.build_with(|_| Arc::new(stops.clone()), None)?;
        let goes_on = matches!(&config.data, CorpusConfig::Stream(stream) if stream.documents == Documents::None);
        Ok(Self { model: model.for_search(), strategy, key, speech, stops, endless, goes_on })
    }

    /// Whether a text may have several lines.
    pub(crate) fn is_endless(&self) -> bool {
        self.endless
    }

    /// What a text begins behind that has no prompt. Running text is one, unless its documents are marked, and the begin symbol stands
    /// anywhere in it: there a line end makes a beginning.
    pub(crate) fn beginning(&self) -> Vec<TokenId> {
        if self.goes_on { vec![Special::End.id()] } else { Vec::new() }
    }

    /// The tokens of a prompt.
    ///
    /// # Errors
    /// If it cannot be represented.
    pub(crate) fn tokens(&self, prompt: &str) -> Result<Vec<TokenId>> {
        self.speech.tokens(prompt)
    }

    /// What the tokens are those of.
    pub(crate) fn tokenizer(&self) -> &dyn Tokenizer {
        self.speech.tokenizer()
    }

    /// Generates texts side by side, and lets them be heard in the order of their numbers, the first as it comes. `false` if `stop`
    /// was raised before the end.
    ///
    /// # Errors
    /// If the model fails, or who hears it.
    pub(crate) fn generate<E>(
        &self,
        asked: &Asked<'_>,
        stop: &AtomicBool,
        hear: &mut dyn FnMut(Heard<'_>) -> Result<(), E>,
    ) -> Result<bool, Failure<E>> {
        let Asked { prompt, draws, length } = asked;
        let limits = LengthLimits {
            max_length: Some(prompt.len().saturating_add(*length)),
            min_length: None,
            endless: self.endless,
        };
        let request = |draw| Request {
            key: self.key.numbered(draw),
            prefix: prompt.to_vec(),
            limits,
            ..Request::new(Vec::new())
        };
        let requests: Vec<Request> = draws.clone().map(request).collect();
        let mut search = self.strategy.begin(Arc::clone(&self.model), &requests).map_err(Failure::Model)?;
        let mut ended: Vec<Option<Hypothesis>> = requests.iter().map(|_| None).collect();
        let mut told = Told { row: 0, known: prompt.len(), telling: self.telling() };
        while !search.is_done() {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            for Finished { row, mut hypotheses, .. } in search.advance().map_err(Failure::Model)? {
                ended[row] = Some(hypotheses.swap_remove(0));
            }
            while let Some(hypothesis) = ended.get_mut(told.row).and_then(Option::take) {
                let last =
                    told.telling.add(hypothesis.tokens.get(told.known..).unwrap_or_default()) + &told.telling.finish();
                self.piece(&last, hear)?;
                let text = self.text(draws.start + told.row as u64, hypothesis, prompt.len());
                hear(Heard::Text(text)).map_err(Failure::Hearer)?;
                told = Told { row: told.row + 1, known: prompt.len(), telling: self.telling() };
            }
            if let Some(more) = search.certain(told.row, told.known) {
                told.known += more.len();
                self.piece(&told.telling.add(&more), hear)?;
            }
        }
        Ok(true)
    }

    fn piece<E>(&self, piece: &str, hear: &mut dyn FnMut(Heard<'_>) -> Result<(), E>) -> Result<(), Failure<E>> {
        if piece.is_empty() { Ok(()) } else { hear(Heard::Piece(piece)).map_err(Failure::Hearer) }
    }

    fn telling(&self) -> Telling {
        Telling::new(self.speech.clone(), self.stops.clone())
    }

    fn text(&self, draw: u64, hypothesis: Hypothesis, prompt: usize) -> Text {
        let Hypothesis { tokens, log_prob, prefix_log_prob, finished, stopped, .. } = hypothesis;
        // Behind a prompt that a damaged model thinks impossible there is nothing.
        let tokens = tokens.get(prompt..).unwrap_or_default().to_vec();
        Text {
            draw,
            text: self.stops.cut(self.speech.text(&tokens)),
            tokens,
            log_prob: log_prob - prefix_log_prob,
            finished: finished || stopped,
        }
    }
}

/// How far the texts have been told.
struct Told {
    /// The one that is being told.
    row: usize,
    /// How many of its tokens are known, the prompt's among them.
    known: usize,
    telling: Telling,
}

/// Whether a model of such a corpus takes the end symbol for the end of a line, behind which a text goes on.
fn is_endless(data: &CorpusConfig) -> bool {
    match data {
        CorpusConfig::Pairs(_)
        | CorpusConfig::Parallel(_)
        | CorpusConfig::Table(_)
        | CorpusConfig::Manifest(_)
        | CorpusConfig::Text(_) => false,
        CorpusConfig::Stream(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use antiphon_model::{ModelConfig, Streams, Vocabularies};
    use antiphon_text::{ByteConfig, TokenizerConfig};

    use super::*;
    use crate::device::{DeviceConfig, device};

    /// A small model of bytes that has learned nothing, and so says anything.
    fn generator(search: &str, endless: bool) -> Generator {
        let config: ModelConfig = serde_json::from_str(
            r#"{"kind": "language_model", "target": {"kind": "embedding", "size": 6},
                "decoder": {"kind": "gru", "hidden": 9, "layers": 2}}"#,
        )
        .unwrap();
        let tokenizer = TokenizerConfig::Byte(ByteConfig::default()).train(&mut std::iter::empty()).unwrap();
        let tokenizer: Arc<dyn Tokenizer> = Arc::from(tokenizer);
        let vocabularies = Vocabularies { sources: vec![], target: tokenizer.size(), shared: false };
        let model = config
            .init(Streams::default(), &vocabularies, Key::from_seed(5), &device(DeviceConfig::default()).unwrap())
            .unwrap();
        let search: SearchConfig = serde_json::from_str(search).unwrap();
        let speech = Speech::new(tokenizer, endless);
        let stops = StopTexts::new(speech.clone(), search.stop());
        let strategy = search.build_with(|_| Arc::new(stops.clone()), None).unwrap();
        Generator { model: model.for_search(), strategy, key: search.key(1), speech, stops, endless, goes_on: false }
    }

    /// What is told piece by piece, and the texts.
    fn heard(generator: &Generator, prompt: &str, draws: Range<u64>, length: usize) -> (String, Vec<Text>) {
        let (mut pieces, mut texts) = (String::new(), Vec::new());
        let prompt = generator.tokens(prompt).unwrap();
        let asked = Asked { prompt: &prompt, draws, length };
        let mut hear = |heard: Heard<'_>| {
            match heard {
                Heard::Piece(piece) => pieces += piece,
                Heard::Text(text) => {
                    pieces += "|";
                    texts.push(text);
                }
            }
            Ok::<(), ()>(())
        };
        assert!(generator.generate(&asked, &AtomicBool::new(false), &mut hear).is_ok_and(|whole| whole));
        (pieces, texts)
    }

    #[test]
    fn texts_are_told_in_their_order_as_they_come() {
        for (search, endless) in [
            (r#"{"kind": "sample"}"#, false),
            (r#"{"kind": "sample"}"#, true),
            (r#"{"kind": "sample", "temperature": 0.5, "stop": ["a", "xyz", "\n"]}"#, true),
            (r#"{"kind": "greedy"}"#, true),
            (r#"{"kind": "beam", "width": 3}"#, false),
        ] {
            let generator = generator(search, endless);
            for prompt in ["", "\u{e9}t\u{e9}", "one\ntwo\n"] {
                let (pieces, texts) = heard(&generator, prompt, 3..10, 40);
                let whole: String = texts.iter().map(|text| text.text.clone() + "|").collect();
                assert_eq!(pieces, whole, "{search} {prompt:?}");
                assert!(texts.iter().map(|text| text.draw).eq(3..10));
                assert!(texts.iter().all(|text| text.log_prob < 0.0 && text.tokens.len() <= 40));
                if endless {
                    assert!(texts.iter().all(|text| text.finished || text.tokens.len() == 40));
                }
                // Whatever stands beside it.
                let (_, alone) = heard(&generator, prompt, 7..8, 40);
                assert_eq!((&alone[0].text, alone[0].log_prob), (&texts[4].text, texts[4].log_prob));
            }
        }
    }

    #[test]
    fn a_prompt_is_what_a_text_goes_on_behind() {
        let generator = generator(r#"{"kind": "greedy"}"#, true);
        // The most probable goes on as it would have.
        let (whole, texts) = heard(&generator, "be", 0..1, 30);
        let (begun, rest) = texts[0].tokens.split_at(12);
        let prompt = [&generator.tokens("be").unwrap()[..], begun].concat();
        let mut found = Vec::new();
        let asked = Asked { prompt: &prompt, draws: 0..1, length: 18 };
        let mut hear = |heard: Heard<'_>| {
            if let Heard::Text(text) = heard {
                found.push(text);
            }
            Ok::<(), ()>(())
        };
        assert!(generator.generate(&asked, &AtomicBool::new(false), &mut hear).is_ok());
        assert_eq!(found[0].tokens, rest, "{whole}");
        // Nothing more is heard behind a stop, nor when the hearer has had enough.
        assert!(matches!(generator.generate(&asked, &AtomicBool::new(true), &mut |_| Err(())), Ok(false)));
        let never = AtomicBool::new(false);
        assert!(matches!(generator.generate(&asked, &never, &mut |_| Err(7)), Err(Failure::Hearer(7))));
    }
}
