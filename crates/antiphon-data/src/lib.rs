//! Corpora, length bucketing and batches.
