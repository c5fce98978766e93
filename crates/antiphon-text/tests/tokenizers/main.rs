//! What every tokenizer must do, whatever its kind.

mod determinism;
mod errors;
mod files;
mod laws;

use antiphon_core::random::Key;
use antiphon_core::{Result, Tokenizer};
use antiphon_text::{
    BpeConfig, ByteConfig, CharacterConfig, Normalization, TokenizerConfig, UnigramConfig, WordConfig, WordPieceConfig,
};

/// Trains on lines.
fn train<S: AsRef<str>>(config: &TokenizerConfig, lines: &[S]) -> Result<Box<dyn Tokenizer>> {
    config.train(&mut lines.iter().map(|line| Ok(line.as_ref().to_string())))
}

/// One config of every trained kind, with room for `size` ids where there is a size.
fn every_kind(size: usize, normalization: &[Normalization]) -> Vec<TokenizerConfig> {
    let normalization = || normalization.to_vec();
    vec![
        TokenizerConfig::Word(WordConfig { normalization: normalization(), ..WordConfig::default() }),
        TokenizerConfig::Character(CharacterConfig { normalization: normalization(), ..CharacterConfig::default() }),
        TokenizerConfig::Byte(ByteConfig { normalization: normalization() }),
        TokenizerConfig::Bpe(BpeConfig { size, normalization: normalization(), ..BpeConfig::default() }),
        TokenizerConfig::Bpe(BpeConfig {
            size: size + 256,
            byte_level: true,
            normalization: normalization(),
            ..BpeConfig::default()
        }),
        TokenizerConfig::WordPiece(WordPieceConfig {
            size,
            normalization: normalization(),
            ..WordPieceConfig::default()
        }),
        TokenizerConfig::Unigram(UnigramConfig { size, normalization: normalization(), ..UnigramConfig::default() }),
    ]
}

/// Lines of made-up words: stems and endings drawn by rank, so that few words are frequent and many are rare.
fn made_up_lines(lines: u64) -> Vec<String> {
    const ENDINGS: [&str; 8] = ["", "s", "ed", "ing", "er", "ness", "ly", "é"];
    let word = |key: Key| {
        let stem = Key::from_seed(3).numbered((key.uniform(0).powi(3) * 2000.0) as u64);
        let mut word: String = (0..2 + stem.below(0, 3))
            .flat_map(|i| {
                let pick = |from: &'static [u8], at| char::from(from[stem.below(at, from.len() as u64) as usize]);
                [pick(b"bcdfghklmnprstvw", 2 * i + 1), pick(b"aeiou", 2 * i + 2)]
            })
            .collect();
        word.push_str(ENDINGS[key.below(1, 8) as usize]);
        word
    };
    (0..lines)
        .map(|line| {
            let key = Key::from_seed(1).numbered(line);
            let words: Vec<String> = (0..4 + key.below(0, 12)).map(|i| word(key.numbered(i))).collect();
            words.join(" ")
        })
        .collect()
}
