//! Experiments and figures for the tests of this crate.

use std::cell::Cell;
use std::collections::BTreeMap;

use antiphon_core::Score;

use crate::identity::Identity;
use crate::results::{Counts, Losses, ModelSize, Results, SplitResults};

thread_local! {
    static MANIFESTS: Cell<usize> = const { Cell::new(0) };
}

/// Counts one more manifest that this thread has read.
pub(crate) fn note_manifest() {
    MANIFESTS.set(MANIFESTS.get() + 1);
}

/// How many manifests this thread has read.
pub(crate) fn manifests_read() -> usize {
    MANIFESTS.get()
}

pub(crate) fn identity(name: &str) -> Identity {
    Identity {
        name: name.into(),
        config: serde_json::json!({
            "tokenizer": { "kind": "character" }, "seed": 17, "model": { "kind": "lstm", "hidden": 8 },
        }),
        uncounted: Vec::new(),
        data: BTreeMap::from([("train.tsv".into(), "0".into())]),
        version: "0.1.0".into(),
        device: "flex".into(),
        threads: 2,
        parent: None,
        revision: None,
    }
}

/// A test split with this share of answers wrong, and a validation split one point better.
pub(crate) fn results(wrong: f64) -> Results {
    let split = |wrong: f64| {
        let score = |metric: &str, value, signature: &str| {
            (
                metric.to_string(),
                Score { metric: metric.into(), value, signature: signature.into(), parts: BTreeMap::new() },
            )
        };
        SplitResults {
            metrics: BTreeMap::from([
                score("sequence_error_rate", wrong, ""),
                score("bleu", 100.0 - wrong, "nrefs:1|case:lc|tok:none"),
            ]),
            by: BTreeMap::new(),
            over_values: BTreeMap::new(),
            selective: None,
            losses: Some(Losses {
                per_token: 0.25,
                per_character: Some(0.125),
                per_word: None,
                perplexity: 0.25_f64.exp(),
                token_accuracy: 93.5,
                ctc: None,
                beside: Vec::new(),
            }),
            counts: Counts {
                examples: 1000,
                source_tokens: Some(9000),
                source_frames: None,
                streams: BTreeMap::new(),
                unknown_source: Some(12),
                target_tokens: 8000,
                unknown_target: Some(0),
                target_characters: Some(16_000),
                target_words: None,
                skipped: 1,
                without_path: None,
                outscored: Some(3),
            },
        }
    };
    Results {
        validation: Some(split(wrong - 1.0)),
        test: Some(split(wrong)),
        model: ModelSize { parameters: 1_234_567, bytes: 4_938_268 },
        steps: 5000,
        cpu_seconds: 330.0,
        wall_seconds: 171.0,
    }
}
