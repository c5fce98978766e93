//! From sound to features.
//!
//! ```text
//! wav, flac ─▶ Sound ─▶ Resampler ─▶ frames ─▶ log-mel ─▶ cepstra ─▶ deltas ─▶ normalisation ─▶ FeatureCache
//!              samples                 power spectra                    ▲                            one file
//! .mfc, .npy ───────────────────────────────────────────────────────────┘
//! ```
//!
//! A [`Recording`] is a file, or a part of one. [`FeaturesConfig`] says what is made of it, and an [`Extractor`] makes it: the numbers
//! of Kaldi without dither, in 64 bits up to the last step, since a loud frame has bins 10^11 times weaker than its peak. A
//! [`FeatureCache`] holds the features of a corpus on disk, made once, and hands out those of single recordings. [`Statistics`] are means and
//! variances over a corpus; [`Pieces`] are those of a recording that is too long to be heard at once; [`SpecAugmentConfig`] draws what is
//! changed and hidden while a model learns.
//!
//! What is said in a recording, and who reads its features, is not known here.

#![forbid(unsafe_code)]

mod cache;
mod cepstrum;
mod config;
mod deform;
mod deltas;
mod extract;
mod flow;
mod given;
mod kinds;
mod mel;
mod normalize;
mod pieces;
mod read;
mod resample;
mod spec_augment;
mod spectrum;

pub use cache::{FeatureCache, Listener};
pub use config::{FeaturesConfig, GivenConfig, LogMelConfig, MfccConfig, Normalization, WindowShape};
pub use deltas::with_deltas;
pub use extract::{Extracted, Extractor};
pub use kinds::counted_as;
pub use normalize::Statistics;
pub use pieces::{LEAST as SHORTEST_LIMIT, Piece, Pieces};
pub use read::{Recording, Sound, read};
pub use resample::Resampler;
pub use spec_augment::{Masks, SpecAugmentConfig};
