//! Metrics over texts: figures for a corpus of answers, and what lies behind them.
//!
//! A metric is chosen by `kind` ([`MetricConfig`]) and built into an [`antiphon_core::Metric`]:
//!
//! ```
//! use antiphon_core::Judged;
//! use antiphon_eval::MetricConfig;
//!
//! let answers = [Judged::new("k ae t", ["k ae t s", "k ah t"])];
//! let score = MetricConfig::PhoneErrorRate(Default::default()).build().score(&answers)?;
//! assert_eq!(score.value, 25.0);
//! # Ok::<(), antiphon_core::Error>(())
//! ```
//!
//! | module | answers the question |
//! |---|---|
//! | [`error_rate`], [`bleu`], [`chrf`], [`squad`] | how good are these answers? |
//! | [`dialog`], [`entities`] | how good are replies, and whole dialogs? |
//! | [`distinct`], [`length`], [`repeated`] | how much is said, and how often the same? |
//! | [`mod@detokenize`] | what would these tokens be as running text? |
//! | [`likelihood`] | how probable did the model find the right ones? |
//! | [`errors`] | where is it wrong, and what does it take for what? |
//! | [`significance`] | is one system better than another, or was it luck? |
//! | [`selective`] | how often is it wrong where it is sure, and when had it better be silent? |
//! | [`summary`] | what do several seeds say together? |
//! | [`mod@distance`], [`alignment`] | how far apart are two sequences, and along which edits? |
//!
//! Every metric here is *additive*: an answer gives a few counts, and the figure is a function of the corpus's sums.
//! So resampling a corpus adds rows of counts and never reads a text twice. Where it matters how many different things there are, an
//! answer gives their numbers too; where a dialog counts as a whole, its answers give one row of counts.

#![forbid(unsafe_code)]

mod additive;
pub mod alignment;
pub mod bleu;
pub mod by_value;
pub mod chrf;
pub mod detokenize;
pub mod dialog;
pub mod distance;
pub mod distinct;
pub mod entities;
pub mod error_rate;
pub mod errors;
pub mod length;
pub mod likelihood;
pub mod metric;
mod ngrams;
pub mod repeated;
mod sacrebleu;
pub mod selective;
pub mod significance;
pub mod squad;
pub mod summary;
pub mod unit;

pub use alignment::{Edit, align};
pub use by_value::by_value;
pub use distance::distance;
pub use likelihood::{CtcLikelihood, Likelihood};
pub use metric::MetricConfig;
pub use summary::{Interval, Summary};
pub use unit::Unit;
