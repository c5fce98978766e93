//! Pages for a browser: one run in full, or several beside each other. Each is one file that reaches for nothing else.
//!
//! ```text
//! manifest, config, results, metrics.jsonl ─▶ Curves ─▶ Chart ─┐
//! Findings (examples, errors, losses)       ─▶ heatmaps, tables ─┴▶ HTML
//! ```

mod chart;
mod comparison;
mod confidence;
mod curves;
mod errors;
mod examples;
mod findings;
mod hearing;
mod heatmap;
mod html;
mod losses;
mod parallel;
mod raster;
mod reading;
mod run_page;
mod samples;
mod scale;
#[cfg(test)]
mod tests;

pub use comparison::{Chosen, comparison_page};
pub use findings::{
    Aligned, Candidate, Confidence, Confusion, Errors, Example, Findings, Hearing, LossBin, Pair, Reading, Said,
    SourceTokens, TokenLosses, WorstToken,
};
pub use run_page::report_page;
