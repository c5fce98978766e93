//! How probable a model found the right answers.

use serde::{Deserialize, Serialize};

/// Sums over scored tokens. All figures are NaN where nothing was counted.
///
/// Floating-point sums depend on their order: merge in a fixed one, so that a repeated run gives the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Likelihood {
    /// Negative log-likelihood of the targets, in nats, without label smoothing or penalties.
    pub nats: f64,
    /// Real target tokens, end symbols included, padding excluded.
    pub tokens: u64,
    /// Characters (Unicode scalar values) of the target texts, and one more for the end of each.
    pub characters: u64,
    /// Words of the target texts (what stands between white space), and one more for the end of each, as it is counted where
    /// perplexities of running text are published.
    pub words: u64,
    /// Tokens that the model held most probable, given the right tokens before them.
    pub correct_tokens: u64,
    /// What connectionist temporal classification lost of the same targets, in nats, where a model has it.
    pub ctc_nats: Option<f64>,
}

impl Likelihood {
    /// Adds what another part of the corpus gave.
    pub fn merge(&mut self, other: &Self) {
        self.nats += other.nats;
        self.tokens += other.tokens;
        self.characters += other.characters;
        self.words += other.words;
        self.correct_tokens += other.correct_tokens;
        if let Some(nats) = other.ctc_nats {
            self.ctc_nats = Some(self.ctc_nats.unwrap_or_default() + nats);
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

    /// Loss of connectionist temporal classification in nats per token, the end symbol counted though it has none to say.
    pub fn ctc_per_token(&self) -> Option<f64> {
        self.ctc_nats.map(|nats| nats / self.tokens as f64)
    }

    /// `exp(per_token)`, and so as little comparable between tokenizers.
    pub fn perplexity(&self) -> f64 {
        self.per_token().exp()
    }

    /// [`per_character`](Self::per_character) in bits.
    pub fn bits_per_character(&self) -> f64 {
        self.per_character() / std::f64::consts::LN_2
    }

    /// Percent of tokens that the model held most probable, given the right tokens before them.
    pub fn token_accuracy(&self) -> f64 {
        100.0 * self.correct_tokens as f64 / self.tokens as f64
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
                ctc_nats: None,
            });
        }
        assert!((all.perplexity() - 8.0).abs() < 1e-12);
        assert!((all.bits_per_character() - 1.5).abs() < 1e-12);
        assert!((all.per_character() - all.per_token() / 2.0).abs() < 1e-12);
        assert_eq!((all.tokens, all.characters, all.token_accuracy()), (8, 16, 25.0));
        assert_eq!(all.per_word(), all.per_token());
    }
}
