//! Bridges: the encoders' final states become the decoder's first.

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{linear, tanh};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::encoder::{Encoded, EncoderShape};
use crate::initial::{Initial, zeros};

/// How a decoder starts, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BridgeConfig {
    /// From zeros.
    Zero(ZeroBridgeConfig),
    /// From the final state of one encoder as it is; cells, layers and widths must agree. Where there are several sources, `of` must
    /// name it.
    Copy(CopyBridgeConfig),
    /// From `tanh(W s + b)` of the encoder's final state, for each layer of the decoder. Of several sources the states stand side by
    /// side in `s` (Zoph and Knight 2016).
    Linear(LinearBridgeConfig),
}

impl Default for BridgeConfig {
    fn default() -> Self {
        BridgeConfig::Linear(LinearBridgeConfig::default())
    }
}

/// Nothing to set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ZeroBridgeConfig {}

/// Whose state goes across.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CopyBridgeConfig {
    /// The source, `source` or the name of a stream, whose state it is. If unset: that of the only one.
    #[schemars(example = &"source")]
    pub of: Option<String>,
}

/// Whose states go across.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LinearBridgeConfig {
    /// The source, `source` or the name of a stream, whose state alone goes across. If unset: those of all.
    #[schemars(example = &"source")]
    pub of: Option<String>,
}

/// What a decoder's state looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecoderShape {
    /// `N`: state vectors a layer.
    pub(crate) states: usize,
    /// `H` of each layer.
    pub(crate) widths: Vec<usize>,
}

impl BridgeConfig {
    /// Whether anything of the encoders' states goes across.
    pub(crate) fn carries(&self) -> bool {
        match self {
            BridgeConfig::Zero(_) => false,
            BridgeConfig::Copy(_) | BridgeConfig::Linear(_) => true,
        }
    }

    /// The one source whose state goes across, if it says so.
    pub(crate) fn of(&self) -> Option<&str> {
        match self {
            BridgeConfig::Zero(_) => None,
            BridgeConfig::Copy(CopyBridgeConfig { of }) | BridgeConfig::Linear(LinearBridgeConfig { of }) => {
                of.as_deref()
            }
        }
    }

    /// Which of the sources' states go across.
    fn chosen(&self, sources: &[(&str, EncoderShape)]) -> Chosen {
        let place = |of: &str| sources.iter().position(|(name, _)| *name == of);
        self.of().and_then(place).map_or(Chosen::All, Chosen::One)
    }

    /// What cannot work from the encoders of these sources, by name.
    pub(crate) fn problems(&self, sources: &[(&str, EncoderShape)], decoder: &DecoderShape) -> Vec<Problem> {
        if let Some(of) = self.of().filter(|of| sources.iter().all(|(name, _)| name != of)) {
            let there: Vec<String> = sources.iter().map(|(name, _)| format!("`{name}`")).collect();
            let message = format!("there is no source `{of}`; there is {}", there.join(", "));
            return vec![Problem { place: "of".into(), message }];
        }
        let needs_equal_states = match self {
            BridgeConfig::Copy(_) => true,
            BridgeConfig::Zero(_) | BridgeConfig::Linear(_) => false,
        };
        let &[(_, encoder)] = self.chosen(sources).among(sources) else {
            let message = format!(
                "`copy` takes the state of one encoder, and there are {}; name its source in `of`, or use `linear`, which takes all \
                 of them",
                sources.len()
            );
            let problem = needs_equal_states.then(|| Problem { place: "kind".into(), message });
            return problem.into_iter().collect();
        };
        let widths = vec![encoder.state_width; encoder.layers];
        let wrong = needs_equal_states && (encoder.states != decoder.states || widths != decoder.widths);
        let side = |states: usize, widths: &[usize]| {
            let mut different: Vec<String> = widths.iter().map(usize::to_string).collect();
            different.dedup();
            let width = if different.len() == 1 { "width" } else { "widths" };
            format!("{} × {states} states of {width} {}", widths.len(), different.join(", "))
        };
        let message = format!(
            "`copy` needs equal states, but the encoder ends with {} and the decoder begins with {}; use `linear`, or \
             make cells, layers and widths agree",
            side(encoder.states, &widths),
            side(decoder.states, &decoder.widths),
        );
        wrong.then(|| Problem { place: "kind".into(), message }).into_iter().collect()
    }

    pub(crate) fn init(
        &self,
        sources: &[(&str, EncoderShape)],
        decoder: &DecoderShape,
        key: Key,
        device: &Device,
    ) -> Bridge {
        let of = self.chosen(sources);
        let from = of.among(sources).iter().map(|(_, encoder)| encoder.states * encoder.state_width).sum();
        let to = decoder.widths.iter().map(|width| decoder.states * width);
        match self {
            BridgeConfig::Zero(_) => Bridge::Zero(ZeroBridge { widths: to.collect() }),
            BridgeConfig::Copy(_) => Bridge::Copy(CopyBridge { of }),
            BridgeConfig::Linear(_) => {
                let layers = to.enumerate().map(|(l, to)| {
                    let key = key.numbered(l as u64);
                    BridgeLayer {
                        weight: Initial::GlorotUniform.weight([from, to], to, key, device),
                        bias: zeros(to, device),
                    }
                });
                Bridge::Linear(LinearBridge { layers: layers.collect(), of })
            }
        }
    }
}

/// Whose states go across.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Chosen {
    All,
    One(usize),
}

impl Chosen {
    fn among<T>(self, sources: &[T]) -> &[T] {
        match self {
            Chosen::All => sources,
            Chosen::One(i) => &sources[i..=i],
        }
    }
}

/// The way from state to state.
#[derive(Module, Debug)]
pub(crate) enum Bridge {
    Zero(ZeroBridge),
    Copy(CopyBridge),
    Linear(LinearBridge),
}

#[derive(Module, Debug)]
pub(crate) struct ZeroBridge {
    /// `N·H` of each layer.
    #[module(skip)]
    widths: Vec<usize>,
}

#[derive(Module, Debug)]
pub(crate) struct CopyBridge {
    #[module(skip)]
    of: Chosen,
}

#[derive(Module, Debug)]
pub(crate) struct LinearBridge {
    layers: Vec<BridgeLayer>,
    #[module(skip)]
    of: Chosen,
}

#[derive(Module, Debug)]
struct BridgeLayer {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Bridge {
    /// The layer states of each encoder, `[B, N·W]` → the decoder's, `[B, N·H]` each.
    pub(crate) fn cross(&self, sources: &[Encoded]) -> Vec<Tensor<2>> {
        match self {
            Bridge::Zero(bridge) => {
                let ([rows, ..], device) = (sources[0].memory.dims(), sources[0].memory.device().inner());
                bridge.widths.iter().map(|&width| Tensor::zeros([rows, width], &device)).collect()
            }
            Bridge::Copy(bridge) => bridge.of.among(sources)[0].states.clone(),
            Bridge::Linear(bridge) => {
                // Top layers face each other; a deeper decoder's lower layers share the encoder's first.
                let to = bridge.layers.len();
                let cross = |(l, layer): (usize, &BridgeLayer)| {
                    let facing = |source: &Encoded| source.states[(l + source.states.len()).saturating_sub(to)].clone();
                    let state = match bridge.of.among(sources) {
                        [only] => facing(only),
                        several => Tensor::cat(several.iter().map(facing).collect(), 1),
                    };
                    // As every product of a search: the same bits whatever rows stand beside.
                    let projected = linear(state.unsqueeze_dim(1), layer.weight.val()).squeeze_dim::<2>(1);
                    tanh(projected + layer.bias.val().unsqueeze())
                };
                bridge.layers.iter().enumerate().map(cross).collect()
            }
        }
    }
}
