//! Tensors of the Flex backend as plain slices.

use burn::backend::flex::FlexTensor;
use burn::backend::{Shape, TensorMetadata};
use burn::tensor::{DType, Device, Tensor, TensorData};

/// The same numbers without gaps or permuted axes, so that [`slice`] works.
pub(crate) fn dense(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// The numbers of a [`dense`] `f32` tensor.
pub(crate) fn slice(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("a dense f32 tensor")
}

/// The numbers of a [`dense`] tensor to write over: its own buffer if nobody else reads it, else a copy.
pub(crate) fn into_owned(tensor: FlexTensor) -> FlexTensor {
    let whole = tensor.shape().num_elements() * size_of::<f32>() == tensor.bytes().len();
    if whole && tensor.is_unique() { tensor } else { wrap(slice(&tensor).to_vec(), tensor.shape()) }
}

/// The buffer of a tensor from [`into_owned`].
pub(crate) fn slice_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    tensor.storage_mut::<f32>()
}

/// A tensor around a vector; nothing is copied.
pub(crate) fn wrap(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// Whether the slice bodies can serve this tensor.
pub(crate) fn is_f32(tensor: &FlexTensor) -> bool {
    tensor.dtype() == DType::F32
}

/// Whether the slice bodies can serve what is computed from this tensor.
pub(crate) fn serves<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && tensor.device().inner() == Device::flex()
}

/// Whether the slice bodies, or the kernels on a GPU, can serve what is computed from this tensor.
pub(crate) fn serves_kernels<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && (cfg!(feature = "wgpu") || serves(tensor))
}

/// Stands where nothing is to be handed over.
pub(crate) fn dummy() -> FlexTensor {
    wrap(vec![0.0], [1])
}
