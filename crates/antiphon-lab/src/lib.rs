//! Runs on disk.
//!
//! A run is one experiment, done once, in a folder of its own that nothing ever overwrites:
//!
//! ```text
//! runs/cmudict-1f0c66a2/       the config's name and the start of the experiment's digest
//!   config.toml                every setting, resolved
//!   manifest.json              what ran, where, when, and how it ended
//!   tokenizers.json            left there by training
//!   metrics.jsonl              a line for each report of training and validation
//!   checkpoints/               left there by training
//!   model.safetensors          the chosen model
//!   predictions-test.jsonl     its answers
//!   losses-test.json           of a language model, where its loss lies
//!   results.json               its figures
//!   report.html                all of it for a browser
//!   run.lock                   held while a process trains here
//! ```
//!
//! An [`Identity`] says when two experiments are the same, [`Runs`] finds or creates the folder, [`Run`] names its parts,
//! [`results_page`], [`compare`], [`report_page`] and [`comparison_page`] tell people what came out, [`sweep`] runs a config
//! in many variations, [`ExpectConfig`] holds a run against what its config promises. This crate knows neither models nor
//! Burn.

#![forbid(unsafe_code)]

mod clock;
mod compare;
mod expect;
mod identity;
mod listing;
mod lock;
mod machine;
mod manifest;
mod metrics_log;
mod report;
mod results;
mod results_page;
mod run;
mod runs;
pub mod sweep;
mod table;
#[cfg(test)]
mod testing;
mod words;

use antiphon_core::disk;

pub use clock::{Spent, Stopwatch, rfc3339};
pub use compare::compare;
pub use expect::{ExpectConfig, ExpectedFigure, ExpectedSplit, ExpectedTime, Verdict, verdict_table};
pub use identity::{Identity, Parent, digest_of, leave_out, sha256_file};
pub use listing::{Filter, Listing, UnknownKey};
pub use lock::RunLock;
pub use machine::cpu_features;
pub use manifest::{BestValidation, EndReason, Manifest, MeanOfModels, Revision, Share, Start, Status, TrainingEnd};
pub use metrics_log::{MetricsLog, lost_steps};
pub use report::{
    Aligned, Candidate, Chosen, Confidence, Confusion, Errors, Example, Findings, Hearing, LossBin, Pair, Reading,
    Said, SourceTokens, TokenLosses, WorstToken, comparison_page, report_page,
};
pub use results::{
    Beside, Counts, CountsOfStream, Losses, ModelSize, OfValue, OverValues, PassMark, Passed, Results, Selective,
    SplitResults, labels_of_quality,
};
pub use results_page::results_page;
pub use run::Run;
pub use runs::{RunIndex, Runs};
pub use words::{CALLED_AS, command_line, shell};
