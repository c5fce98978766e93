//! From files to batches.
//!
//! ```text
//! [data] ─▶ Corpus ─▶ Dataset ─▶ plan  ─▶ Prefetch ─▶ batches
//!            lines │   lengths    order     one thread ahead
//!                  └▶ Stream  ─▶ Steps ─▶
//!                      ids        places
//! ```
//!
//! All text is read by one [`LineReader`](lines::LineReader). A [`Corpus`] is one split on disk: an index of byte
//! offsets, never the text itself; its lines are pairs, texts or the rows of a table. A [`Dataset`] knows how long each example is in tokens and encodes a batch when it
//! is asked for one; a [`Stream`] is running text as ids, encoded once, and is read on in [`Steps`]. [`plan()`] decides which examples stand together: a pure function of lengths, settings and a
//! random key. [`Prefetch`] prepares batches one step ahead of the model. A [`recipe`] turns what somebody published
//! into the files that a corpus reads. [`vectors`] are those of words, as other programs read and write them.
//!
//! How text becomes ids is not known here: a [`Tokenizer`](antiphon_core::Tokenizer) is handed in.

#![forbid(unsafe_code)]

pub mod copying;
pub mod corpus;
pub mod dataset;
mod digest;
pub mod history;
mod kept;
pub mod lines;
pub mod overlap;
pub mod plan;
pub mod prefetch;
pub mod recipe;
pub mod stream;
mod units;
pub mod vectors;

pub use copying::Copying;
pub use corpus::{Corpus, CorpusConfig, Example, FurtherColumns, Grouped, InputRules, References, Split, Spoken};
pub use dataset::{Dataset, FurtherSource, FurtherTokens, Lengths, Reader, Unknown};
pub use history::{Histories, History};
pub use lines::{Fault, LineReader, Skipped};
pub use overlap::{Known, Overlap};
pub use plan::{BatchConfig, plan, plan_in_order};
pub use prefetch::Prefetch;
pub use stream::{Cut, Steps, Stream};
pub use units::Units;

#[cfg(test)]
mod bytes_tokenizer;
