//! Runs on disk: folders, manifests, results.
