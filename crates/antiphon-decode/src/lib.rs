//! Search over step models: greedy, beam, sampling.
//!
//! A model gives, for each row in flight, the log-probability of every next token. A [`Strategy`] decides which tokens
//! to follow, and hands back the best [`Hypothesis`]es, or what it drew, of each [`Request`](antiphon_core::Request):
//!
//! ```text
//! SearchConfig ─ build ─▶ Strategy ─ begin(model, requests) ─▶ Search ─ advance, advance, … ─▶ Finished { row, hypotheses }
//! ```
//!
//! A [`Search`] is a value that can be left and resumed after any step; each step yields the sentences that it finished.
//! [`Strategy::run`] does all steps of one batch, [`search_all`] those of a whole corpus, [`score`] follows given
//! targets instead of choosing. An [`Ensemble`] is a model made of models, which all of them take for one; a [`LanguageModel`]
//! beside the model has a say in what answers are ranked by. [`align`] says when the labels of an answer are said, by what
//! [`search_overheard`] hears of its source.
//!
//! This crate knows a model only as [`StepModel`](antiphon_core::StepModel). Rows, steps and sources (requests) are counted from 0
//! in its errors.

#![forbid(unsafe_code)]

mod alignment;
mod beam;
mod best_path;
mod candidates;
mod config;
mod corpus;
mod ensemble;
mod forced;
mod fused;
mod greedy;
mod joint;
mod length;
mod overheard;
mod rescored;
mod sample;
mod sampler;
mod search;
mod stepper;
mod trail;

pub use alignment::{Aligned, align};
pub use beam::BeamConfig;
pub use best_path::BestPathConfig;
pub use config::SearchConfig;
pub use corpus::{order_by_length, restore, search_all};
pub use ensemble::{Combination, Ensemble, Member, Mixture};
pub use forced::score;
pub use fused::{FusionConfig, LanguageModel};
pub use greedy::GreedyConfig;
pub use length::{AverageLength, GnmtPenalty, LengthPenalty, MaxLength, NoPenalty};
pub use overheard::search_overheard;
pub use sample::SampleConfig;
pub use search::{Ending, Finished, Hypothesis, Search, Strategy};
pub use stepper::rename_sources;
