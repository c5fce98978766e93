//! Reading TOML experiments: layers, provenance and exact errors.
