//! The reference page of a small type, whole.

use std::collections::BTreeMap;

use antiphon_config::reference;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An experiment.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Experiment {
    /// The encoder.
    encoder: Encoder,
    /// Another.
    #[serde(default)]
    other: Encoder,
    /// More of them,
    /// from the bottom up.
    #[serde(default)]
    #[schemars(length(min = 1))]
    layers: Option<Vec<Encoder>>,
    /// How the rate moves.
    #[serde(default)]
    schedule: Option<Schedule>,
    /// Shares.
    #[serde(default)]
    shares: BTreeMap<String, Share>,
}

/// Reads a source.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Encoder {
    /// Long short-term memory.
    Lstm(Recurrent),
    /// Gated recurrent units.
    Gru(Recurrent),
    /// Nothing.
    Empty(Empty),
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder::Gru(Recurrent::default())
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Recurrent {
    /// Units | cells.
    #[schemars(range(min = 1))]
    hidden: u32,
    /// Share dropped.
    #[schemars(range(min = 0.0, max = 0.9))]
    dropout: f32,
}

impl Default for Recurrent {
    fn default() -> Self {
        Self { hidden: 256, dropout: 0.3 }
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Schedule {
    /// Always the same.
    Constant,
    /// Half a cosine.
    Cosine,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Share {
    /// Of the whole.
    part: f64,
    /// What is added, in single precision.
    #[schemars(extend("format" = "float"))]
    bias: f64,
    /// Names of parts.
    #[schemars(length(max = 3), extend("uniqueItems" = true))]
    names: Vec<String>,
}

#[test]
fn every_key_has_its_row() {
    let page = reference::<Experiment>("Settings");
    assert_eq!(page, include_str!("reference.md"));
    assert_eq!(page, reference::<Experiment>("Settings"));
}
