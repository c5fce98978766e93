//! Encoder–decoder models: how a batch becomes predictions.
//!
//! ```text
//! source ids ─▶ embedding ─▶ encoder ─▶ memory [B,S,M] ──▶ attention ◀── query ── decoder ◀─ embedding ◀─ target ids
//!                               └─ state ─▶ bridge ─▶ initial state ────────────────▲  └─▶ readout ─▶ projection
//! ```
//!
//! Further sources ([`Streams`]) are read beside it, and looked at as [`MemoriesConfig`] says.
//!
//! A [`Model`] is the whole, an encoder–decoder, an encoder that says the target by CTC, or a language model:
//! [`terms`](Model::terms) and [`scores`](Model::scores) run a sequence at a time for training and scoring; what
//! [`for_search`](Model::for_search) hands out runs a step at a time for search, with the same numbers.
//! Each part has a config (what a person chooses by `kind`) beside the module that it builds. This crate knows no optimizer, no
//! search and no file.

#![forbid(unsafe_code)]

pub mod attention;
pub mod bridge;
pub mod ctc;
pub mod ctc_model;
pub mod decoder;
mod dropout;
pub mod embedding;
pub mod encoder;
pub mod encoder_decoder;
pub mod head;
mod hiding;
pub mod initial;
pub mod language_model;
mod lookup;
mod model;
mod penalty;
mod prefix;
pub mod recurrent;
mod session;
pub mod source;
pub mod stream;
mod target;

pub use attention::{AttentionConfig, MemoriesConfig};
pub use bridge::BridgeConfig;
pub use ctc::CtcConfig;
pub use ctc_model::CtcModelConfig;
pub use decoder::DecoderConfig;
pub use embedding::EmbeddingConfig;
pub use encoder::EncoderConfig;
pub use encoder_decoder::EncoderDecoderConfig;
pub use head::{CopyHeadConfig, HeadConfig};
pub use language_model::LanguageModelConfig;
pub use model::{CtcJudgement, Judgement, Model, ModelConfig, SourceLooks, Vocabularies};
pub use source::{FramesConfig, SourceConfig};
pub use stream::{StreamModelConfig, Streams};
pub use target::{Distributions, Tied};
