//! Penalties on what a decoder puts out (Merity et al. 2017), and on where it looks again (See et al. 2017).

use std::sync::Arc;

use antiphon_kernels::{Term, activation_penalty, temporal_penalty};
use burn::tensor::{Tensor, TensorData};

/// How much each penalty counts beside the loss per token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Penalties {
    /// Of the mean square of outputs, dropout included (AR).
    pub(crate) activation: f64,
    /// Of the mean square of the change of outputs from step to step, without dropout (TAR).
    pub(crate) temporal: f64,
    /// Of what is looked at again.
    pub(crate) coverage: f64,
}

impl Penalties {
    /// Whether outputs without dropout are looked at.
    pub(crate) fn needs_undropped(self) -> bool {
        self.temporal > 0.0
    }

    /// Whether it matters what is looked at again.
    pub(crate) fn needs_again(self) -> bool {
        self.coverage > 0.0
    }

    /// Those that count, over outputs `[N, R]` of all real tokens and the same without dropout `[B, T, R]`, and over what was looked
    /// at again `[B, T]`, with `lengths` `[B]` real steps.
    pub(crate) fn terms(
        self,
        outputs: &Tensor<2>,
        undropped: Option<Tensor<3>>,
        again: Option<Tensor<2>>,
        lengths: Arc<[u32]>,
    ) -> Vec<Term> {
        let mut terms = Vec::new();
        if self.activation > 0.0 {
            let loss = activation_penalty(outputs.clone());
            terms.push(Term::Sum { name: "activation penalty", loss, weight: self.activation });
        }
        if let Some(undropped) = undropped.filter(|_| self.temporal > 0.0) {
            let loss = temporal_penalty(undropped, lengths.clone());
            terms.push(Term::Sum { name: "temporal penalty", loss, weight: self.temporal });
        }
        if let Some(again) = again.filter(|_| self.needs_again()) {
            let [_, steps] = again.dims();
            let real = lengths.iter().flat_map(|&n| (0..steps).map(move |t| f32::from(t < n as usize)));
            let real = TensorData::new(real.collect::<Vec<f32>>(), again.dims());
            let real = Tensor::<2>::from_data(real, &again.device().inner()).cast(again.dtype());
            terms.push(Term::Sum { name: "coverage penalty", loss: (again * real).sum(), weight: self.coverage });
        }
        terms
    }
}
