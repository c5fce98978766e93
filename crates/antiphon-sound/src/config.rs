//! How features are made of sound, chosen by `kind`.

use antiphon_core::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mel::{Filterbank, TooNarrow};
use crate::spectrum::Framing;

/// What a model is shown of a recording: rows of numbers, a *frame* every `hop` milliseconds. The frames of a recording are those of
/// Kaldi without dither, computed in 64-bit numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FeaturesConfig {
    /// The logarithm of the energy in bands that are equally wide on the mel scale.
    LogMel(LogMelConfig),
    /// Cepstra of such bands: the first coefficients of their cosine transform (Davis and Mermelstein 1980).
    Mfcc(MfccConfig),
    /// What another program has made: an `.mfc` file of Sphinx or an `.npy` file of NumPy for each recording.
    Given(GivenConfig),
}

/// The sound, its frames and the bands. Sound comes from wav and flac files; several channels are mixed into one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogMelConfig {
    /// How many samples a second the recordings have.
    #[schemars(range(min = 4000, max = 192000))]
    pub rate: u32,
    /// Whether recordings of other rates are brought to `rate` (a windowed sinc, as torchaudio's `resample`). If not, one is an
    /// error.
    pub resample: bool,
    /// How long a frame is, in milliseconds.
    #[schemars(range(min = 10.0, max = 1000.0), extend("format" = "float"))]
    pub window: f64,
    /// How far a frame begins behind the one before, in milliseconds.
    #[schemars(range(min = 1.0, max = 1000.0), extend("format" = "float"))]
    pub hop: f64,
    /// By what a frame's samples are weighted.
    pub shape: WindowShape,
    /// How much of the sample before is taken from each sample, which raises high frequencies.
    #[schemars(range(min = 0.0, max = 1.0), extend("format" = "float"))]
    pub pre_emphasis: f64,
    /// How many bands there are.
    #[schemars(range(min = 1))]
    pub filters: usize,
    /// Where the lowest band begins, in Hz.
    #[schemars(range(min = 0.0), extend("format" = "float"))]
    pub low: f64,
    /// Where the highest band ends, in Hz; if unset, at half of `rate`.
    #[schemars(range(min = 1000.0), extend("format" = "float"))]
    pub high: Option<f64>,
    /// Whether a frame begins with the logarithm of its energy.
    pub energy: bool,
    /// How far energies may lie below the greatest one of their recording, in decibels: lower ones, which tell of the silence of a room
    /// rather than of what is said in it, are raised to that. If unset, as far as they do.
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<f64>,
    /// How many times the slope over five frames is added to each frame: its change, and the change of its change.
    #[schemars(range(min = 0, max = 2))]
    pub deltas: usize,
    /// What is made equal between recordings.
    pub normalize: Normalization,
    /// The longest recording, in seconds: longer ones are refused before they are in memory.
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    pub max_seconds: f64,
}

/// The sound, its frames, the bands and what is kept of them. Sound comes from wav and flac files; several channels are mixed into
/// one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MfccConfig {
    /// How many samples a second the recordings have.
    #[schemars(range(min = 4000, max = 192000))]
    pub rate: u32,
    /// Whether recordings of other rates are brought to `rate` (a windowed sinc, as torchaudio's `resample`). If not, one is an
    /// error.
    pub resample: bool,
    /// How long a frame is, in milliseconds.
    #[schemars(range(min = 10.0, max = 1000.0), extend("format" = "float"))]
    pub window: f64,
    /// How far a frame begins behind the one before, in milliseconds.
    #[schemars(range(min = 1.0, max = 1000.0), extend("format" = "float"))]
    pub hop: f64,
    /// By what a frame's samples are weighted.
    pub shape: WindowShape,
    /// How much of the sample before is taken from each sample, which raises high frequencies.
    #[schemars(range(min = 0.0, max = 1.0), extend("format" = "float"))]
    pub pre_emphasis: f64,
    /// How many bands there are.
    #[schemars(range(min = 1))]
    pub filters: usize,
    /// Where the lowest band begins, in Hz.
    #[schemars(range(min = 0.0), extend("format" = "float"))]
    pub low: f64,
    /// Where the highest band ends, in Hz; if unset, at half of `rate`.
    #[schemars(range(min = 1000.0), extend("format" = "float"))]
    pub high: Option<f64>,
    /// How many coefficients are kept; at most as many as there are bands.
    #[schemars(range(min = 1))]
    pub coefficients: usize,
    /// The period of the weights that raise higher coefficients: `1 + lifter / 2 * sin(pi * k / lifter)` for the one of index `k`;
    /// with 0, none is.
    #[schemars(range(min = 0.0), extend("format" = "float"))]
    pub lifter: f64,
    /// Whether the logarithm of a frame's energy takes the place of its first coefficient.
    pub energy: bool,
    /// How many times the slope over five frames is added to each frame: its change, and the change of its change.
    #[schemars(range(min = 0, max = 2))]
    pub deltas: usize,
    /// What is made equal between recordings.
    pub normalize: Normalization,
    /// The longest recording, in seconds: longer ones are refused before they are in memory.
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    pub max_seconds: f64,
}

/// Features from a file of another program. `.mfc` is Sphinx's: a count, then 32-bit numbers, big or little end first. `.npy` is
/// NumPy's: an array of frames by `width`, of 32-bit or 64-bit floating point numbers or 16-bit integers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GivenConfig {
    /// How many numbers a frame has in the file.
    #[schemars(range(min = 1), example = &13)]
    pub width: usize,
    /// How far a frame begins behind the one before, in milliseconds: what times in seconds are counted by.
    #[serde(default = "hop")]
    #[schemars(range(min = 1.0, max = 1000.0), extend("format" = "float"))]
    pub hop: f64,
    /// How many times the slope over five frames is added to each frame: its change, and the change of its change.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2))]
    pub deltas: usize,
    /// What is made equal between recordings.
    #[serde(default)]
    pub normalize: Normalization,
    /// The longest recording, in seconds: longer ones are refused before they are in memory.
    #[serde(default = "max_seconds")]
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    pub max_seconds: f64,
}

/// The weights of the `N` samples of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowShape {
    /// Kaldi's own: that of Hann to the power 0.85, which does not quite reach 0 at its ends.
    #[default]
    Povey,
    /// `0.5 - 0.5 * cos(2 * pi * n / (N - 1))`.
    Hann,
    /// `0.54 - 0.46 * cos(2 * pi * n / (N - 1))`.
    Hamming,
    /// All are 1.
    Rectangular,
}

/// What each column of a recording is freed of: how loud it is, and what the microphone adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// Nothing.
    None,
    /// Its mean over the frames becomes 0.
    Mean,
    /// Its mean over the frames becomes 0, and its variance 1.
    #[default]
    MeanAndVariance,
}

const fn hop() -> f64 {
    10.0
}

const fn max_seconds() -> f64 {
    60.0
}

impl Default for LogMelConfig {
    fn default() -> Self {
        Self {
            rate: 16_000,
            resample: false,
            window: 25.0,
            hop: hop(),
            shape: WindowShape::default(),
            pre_emphasis: 0.97,
            filters: 23,
            low: 20.0,
            high: None,
            energy: false,
            range: None,
            deltas: 0,
            normalize: Normalization::default(),
            max_seconds: max_seconds(),
        }
    }
}

impl Default for MfccConfig {
    fn default() -> Self {
        let LogMelConfig {
            rate,
            resample,
            window,
            hop,
            shape,
            pre_emphasis,
            filters,
            low,
            high,
            energy,
            range: _,
            deltas,
            normalize,
            max_seconds,
        } = LogMelConfig::default();
        Self {
            rate,
            resample,
            window,
            hop,
            shape,
            pre_emphasis,
            filters,
            low,
            high,
            coefficients: 13,
            lifter: 22.0,
            energy,
            deltas,
            normalize,
            max_seconds,
        }
    }
}

/// What both kinds that are made of sound have in common. Each spells its settings out: a struct of them, flattened into the two,
/// would lose which key is unknown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bands {
    pub(crate) framing: Framing,
    pub(crate) resample: bool,
    pub(crate) filters: usize,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) energy: bool,
}

impl Bands {
    pub(crate) fn filterbank(&self) -> Result<Filterbank, TooNarrow> {
        let Framing { rate, .. } = self.framing;
        Filterbank::new(self.filters, self.low, self.high, rate, self.framing.transform())
    }
}

impl FeaturesConfig {
    /// What is made of sound; `None` if features are given.
    pub(crate) fn bands(&self) -> Option<Bands> {
        let (rate, resample, window, hop, shape, pre_emphasis, filters, low, high, energy) = match *self {
            Self::LogMel(LogMelConfig {
                rate,
                resample,
                window,
                hop,
                shape,
                pre_emphasis,
                filters,
                low,
                high,
                energy,
                ..
            })
            | Self::Mfcc(MfccConfig {
                rate,
                resample,
                window,
                hop,
                shape,
                pre_emphasis,
                filters,
                low,
                high,
                energy,
                ..
            }) => (rate, resample, window, hop, shape, pre_emphasis, filters, low, high, energy),
            Self::Given(_) => return None,
        };
        let samples = |milliseconds: f64| (f64::from(rate) * milliseconds * 0.001) as usize;
        let framing = Framing { rate, window: samples(window), hop: samples(hop), shape, pre_emphasis };
        Some(Bands { framing, resample, filters, low, high: high.unwrap_or(f64::from(rate) / 2.0), energy })
    }

    /// How many numbers a frame has before deltas.
    fn columns(&self) -> usize {
        match self {
            Self::LogMel(config) => config.filters + usize::from(config.energy),
            Self::Mfcc(config) => config.coefficients,
            Self::Given(config) => config.width,
        }
    }

    /// Whether the columns of a block are known to be bands, each beside its neighbours, with or without energy before them.
    pub fn are_bands(&self) -> bool {
        matches!(self, Self::LogMel(_))
    }

    /// How far energies may lie below the greatest one of their recording, in decibels.
    pub(crate) fn range(&self) -> Option<f64> {
        match self {
            Self::LogMel(config) => config.range,
            Self::Mfcc(_) | Self::Given(_) => None,
        }
    }

    /// How many times [deltas](crate::deltas) are added.
    pub(crate) fn deltas(&self) -> usize {
        match *self {
            Self::LogMel(LogMelConfig { deltas, .. })
            | Self::Mfcc(MfccConfig { deltas, .. })
            | Self::Given(GivenConfig { deltas, .. }) => deltas,
        }
    }

    pub(crate) fn normalize(&self) -> Normalization {
        match *self {
            Self::LogMel(LogMelConfig { normalize, .. })
            | Self::Mfcc(MfccConfig { normalize, .. })
            | Self::Given(GivenConfig { normalize, .. }) => normalize,
        }
    }

    /// The longest recording, in seconds.
    pub fn max_seconds(&self) -> f64 {
        match *self {
            Self::LogMel(LogMelConfig { max_seconds, .. })
            | Self::Mfcc(MfccConfig { max_seconds, .. })
            | Self::Given(GivenConfig { max_seconds, .. }) => max_seconds,
        }
    }

    /// How many numbers a frame has.
    pub fn width(&self) -> usize {
        self.columns() * self.blocks()
    }

    /// Of how many equal parts a frame is made: the features themselves, and each order of deltas. Column `i` of each part is about
    /// the same band.
    pub fn blocks(&self) -> usize {
        1 + self.deltas()
    }

    /// How many seconds a frame begins behind the one before.
    pub fn hop_seconds(&self) -> f64 {
        match (self, self.bands()) {
            // Of whole samples.
            (_, Some(Bands { framing, .. })) => framing.hop as f64 / f64::from(framing.rate),
            (Self::Given(config), None) => config.hop * 0.001,
            (_, None) => unreachable!("what is not given is made of sound"),
        }
    }

    /// Every value that is out of range, and what contradicts what; places are keys below this table.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut demand = |holds: bool, place: &str, message: String| {
            if !holds {
                found.push(Problem { place: place.into(), message });
            }
        };
        let within = |value: f64, least: f64, most: f64| (least..=most).contains(&value);
        demand(self.deltas() <= 2, "deltas", format!("must be from 0 to 2, got {}", self.deltas()));
        let seconds = self.max_seconds();
        let is_time = seconds > 0.0 && seconds.is_finite();
        demand(is_time, "max_seconds", format!("must be above 0, got {seconds}"));
        let milliseconds = match self {
            Self::LogMel(LogMelConfig { hop, .. })
            | Self::Mfcc(MfccConfig { hop, .. })
            | Self::Given(GivenConfig { hop, .. }) => *hop,
        };
        demand(within(milliseconds, 1.0, 1000.0), "hop", format!("must be from 1 to 1000, got {milliseconds}"));
        match self {
            Self::LogMel(LogMelConfig { window, .. }) | Self::Mfcc(MfccConfig { window, .. }) => {
                demand(within(*window, 10.0, 1000.0), "window", format!("must be from 10 to 1000, got {window}"));
            }
            Self::Given(config) => demand(config.width >= 1, "width", "must be at least 1, got 0".into()),
        }
        if let Some(Bands { framing: Framing { rate, pre_emphasis, .. }, filters, low, high, .. }) = self.bands() {
            let half = f64::from(rate) / 2.0;
            demand((4000..=192_000).contains(&rate), "rate", format!("must be from 4000 to 192000, got {rate}"));
            demand(within(pre_emphasis, 0.0, 1.0), "pre_emphasis", format!("must be from 0 to 1, got {pre_emphasis}"));
            demand(filters >= 1, "filters", "must be at least 1, got 0".into());
            demand(low >= 0.0 && low < high, "low", format!("must be at least 0 and below `high` ({high}), got {low}"));
            let message = format!("must be from 1000 to half of `rate` ({half}), got {high}");
            demand(within(high, 1000.0, half), "high", message);
        }
        if let Self::LogMel(LogMelConfig { range: Some(range), .. }) = *self {
            demand(range > 0.0 && range.is_finite(), "range", format!("must be above 0, got {range}"));
        }
        if let Self::Mfcc(MfccConfig { coefficients, filters, lifter, .. }) = *self {
            let message = format!("must be from 1 to `filters` ({filters}), got {coefficients}");
            demand((1..=filters).contains(&coefficients), "coefficients", message);
            demand(lifter >= 0.0 && lifter.is_finite(), "lifter", format!("must be at least 0, got {lifter}"));
        }
        // Bands are made only of what is in range.
        if found.is_empty()
            && let Some(bands) = self.bands()
            && let Err(narrow) = bands.filterbank()
        {
            found.push(Problem { place: "filters".into(), message: narrow.to_string() });
        }
        found
    }
}
