//! How probable a model found the right answers.

use serde::{Deserialize, Serialize};

/// Sums over scored tokens. All figures are NaN where nothing was counted.
///
/// Floating-point sums depend on their order: merge in a fixed one, so that a repeated run gives the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Likelihood {
    /// Negative log-likelihood of the targets, in nats, without label smoothing or penalties.
    pub nats: f64,
    /// Real target tokens, end symbols included, padding excluded, whose likelihood is counted.
    pub tokens: u64,
    /// Real target tokens beside these: those of texts that the model cannot say, since no path of connectionist temporal
    /// classification does. No loss counts them, and none is right.
    pub lost_tokens: u64,
    /// Characters (Unicode scalar values) of the target texts whose likelihood is counted, and one more for the end of each.
    pub characters: u64,
    /// Words of the target texts (what stands between white space), and one more for the end of each, as it is counted where
    /// perplexities of running text are published.
    pub words: u64,
    /// Tokens that the model held most probable, given the right tokens before them.
    pub correct_tokens: u64,
    /// What connectionist temporal classification beside a decoder lost, where a model has it.
    pub ctc: Option<CtcLikelihood>,
}

/// The same of connectionist temporal classification beside a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct CtcLikelihood {
    /// Negative log-likelihood of the targets that a path says, in nats.
    pub nats: f64,
    /// The real tokens of these, the end symbols counted though they have none to say.
    pub tokens: u64,
}

impl Likelihood {
    /// Adds what another part of the corpus gave.
    pub fn merge(&mut self, other: &Self) {
        self.nats += other.nats;
        self.tokens += other.tokens;
        self.lost_tokens += other.lost_tokens;
        self.characters += other.characters;
        self.words += other.words;
        self.correct_tokens += other.correct_tokens;
        if let Some(other) = other.ctc {
            let sum = self.ctc.get_or_insert_default();
            sum.nats += other.nats;
            sum.tokens += other.tokens;
        }
    }

    /// Loss in nats per token.
    ///
    /// Never compare it between models with different tokenizers: the same text is then divided by different numbers
    /// of tokens, and the model with the shorter tokens looks better. Their losses
    /// [per character](Self::per_character) can be compared.
    pub fn per_token(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// Loss in nats per character of the target text, an end counting as one: with a token for each character it is the
    /// loss per token.
    pub fn per_character(&self) -> f64 {
        self.nats / self.characters as f64
    }

    /// Loss in nats per word of the target text, an end counting as one; with a token for each word it is the loss per token.
    pub fn per_word(&self) -> f64 {
        self.nats / self.words as f64
    }

    /// Loss of connectionist temporal classification beside a decoder, in nats per token of the targets that a path says.
    pub fn ctc_per_token(&self) -> Option<f64> {
        self.ctc.map(|CtcLikelihood { nats, tokens }| nats / tokens as f64)
    }

    /// `exp(per_token)`, and so as little comparable between tokenizers.
    pub fn perplexity(&self) -> f64 {
        self.per_token().exp()
    }

    /// [`per_character`](Self::per_character) in bits.
    pub fn bits_per_character(&self) -> f64 {
        self.per_character() / std::f64::consts::LN_2
    }

    /// Percent of all tokens that the model held most probable, given the right tokens before them.
    pub fn token_accuracy(&self) -> f64 {
        100.0 * self.correct_tokens as f64 / (self.tokens + self.lost_tokens) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_model_has_its_vocabulary_as_perplexity() {
        let mut all = Likelihood::default();
        assert!(all.per_token().is_nan() && all.token_accuracy().is_nan());
        for tokens in [3, 5] {
            let nats = tokens as f64 * 8.0_f64.ln();
            all.merge(&Likelihood {
                nats,
                tokens,
                characters: 2 * tokens,
                words: tokens,
                correct_tokens: 1,
                ..Likelihood::default()
            });
        }
        assert!((all.perplexity() - 8.0).abs() < 1e-12);
        assert!((all.bits_per_character() - 1.5).abs() < 1e-12);
        assert!((all.per_character() - all.per_token() / 2.0).abs() < 1e-12);
        assert_eq!((all.tokens, all.characters, all.token_accuracy()), (8, 16, 25.0));
        assert_eq!(all.per_word(), all.per_token());
    }

    /// What cannot be said is in no loss, and is not right.
    #[test]
    fn lost_tokens_are_wrong_and_cost_nothing() {
        let said = Likelihood { nats: 6.0, tokens: 4, characters: 8, correct_tokens: 3, ..Likelihood::default() };
        let mut all = said;
        let ctc = |nats, tokens| Some(CtcLikelihood { nats, tokens });
        all.merge(&Likelihood { lost_tokens: 4, ctc: ctc(3.0, 2), ..Likelihood::default() });
        assert_eq!((all.per_token(), all.per_character(), all.perplexity()), (1.5, 0.75, said.perplexity()));
        assert_eq!((said.token_accuracy(), all.token_accuracy()), (75.0, 37.5));
        all.merge(&Likelihood { ctc: ctc(1.0, 6), ..Likelihood::default() });
        assert_eq!((said.ctc_per_token(), all.ctc_per_token()), (None, Some(0.5)));
    }
}
