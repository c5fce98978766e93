//! The words that all of Antiphon shares.
//!
//! A sentence enters as text, becomes [`TokenId`]s through a [`Tokenizer`], travels to the model in a
//! [`Batch`], is answered by a [`StepModel`] under a search, becomes text again and is
//! judged by a [`Metric`]. This crate holds these seams, the [`Error`] that every crate returns and the
//! [counter-based random numbers](random) that every crate draws. It knows no implementation and no file format.

#![forbid(unsafe_code)]

pub mod batch;
mod copies;
pub mod ctc;
pub mod disk;
pub mod error;
mod frames;
mod hex;
pub mod metric;
mod nearest;
pub mod printable;
pub mod random;
pub mod step;
pub mod token;

pub use batch::{Batch, FrameBatch, SourceBatch, Target, TokenBatch};
pub use copies::{Copies, CopyBatch};
pub use ctc::{CtcOutput, CtcPrefix, steps_of_path};
pub use error::{Error, Place, Problem, Result};
pub use frames::Frames;
pub use hex::hex;
pub use metric::{Judged, Metric, Score};
pub use nearest::nearest;
pub use printable::printable;
pub use step::{
    LengthLimits, Mask, PrefixOutput, Request, Selection, Source, StepModel, StepOutput, StepSession, Want,
    source_batches,
};
pub use token::{Special, TokenId, Tokenizer};
