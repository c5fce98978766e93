//! Metrics over texts and tokens.
