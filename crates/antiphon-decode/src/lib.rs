//! Search over step models: greedy, beam.
