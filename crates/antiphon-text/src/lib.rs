//! Tokenizers, normalisation and vocabularies.
