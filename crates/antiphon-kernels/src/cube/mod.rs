//! The operations on Burn's GPU backend: kernels in CubeCL for what a step of training spends its time on, the portable bodies
//! for the rest.
//!
//! Every kernel computes in `f32`, uses no operations of subgroups and some 16 KiB of shared memory, so that WGSL can express it,
//! and sums in an order that depends on the sizes and the device alone, so that the bits are the same from run to run. An adapter
//! needs ten storage buffers a launch, more than WebGPU promises and less than GPUs have; what takes all steps in one launch, and more
//! buffers, is for SPIR-V alone.
//!
//! - [`tile`]: what a step multiplies, sixteen rows by some columns, inside a kernel that goes on with the sums;
//! - [`product`]: large products of matrices, and sums of columns;
//! - [`recurrent`]: a layer in one launch where cubes can meet, else a launch a step, forward and backward;
//! - [`attention`]: scores, softmax and context in one launch;
//! - [`feeding`]: the decoder with input feeding, in one launch where cubes can meet, else a few a step;
//! - [`search`]: the best tokens of a state;
//! - [`sums`]: what all units of a cube have in common;
//! - [`meeting`]: cubes that wait for each other, where a GPU lets them;
//! - [`cell`]: the arithmetic of the units;
//! - [`loss`]: the output layer's loss and its gradients, a few launches for a chunk of tokens;
//! - [`update`]: the steps of an optimizer over several parameters in a launch, and the norm of their gradients;
//! - [`dropout`], [`rows`], [`tanh`], [`linear`]: what stands between the layers.
//!
//! A new operation with a portable body lists `Cube: cfg(feature = "wgpu")` in its `backend_extension` and has a line here until it
//! has a kernel.

pub(crate) mod attention;
mod cell;
mod dropout;
mod feeding;
mod linear;
mod loss;
pub(crate) mod meeting;
pub(crate) mod product;
mod recurrent;
mod rows;
mod search;
mod sums;
mod tanh;
pub(crate) mod tile;
mod update;

use burn::backend::{Cube, DType, Shape};
use burn::tensor::Tensor;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::{empty_device_contiguous_dtype, zeros_client};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::{CubeCount, CubeElement};

use crate::distillation::DistillationOps;
pub(crate) use update::{Queue, scaling};

impl DistillationOps for Cube {}

/// Units (threads) of a cube (workgroup), in every kernel here.
pub(crate) const UNITS: usize = 256;

/// Whether the kernels serve this tensor.
pub(crate) fn is_f32(tensor: &CubeTensor) -> bool {
    tensor.dtype == DType::F32
}

/// The GPU's tensor behind one of any device, if it is one.
pub(crate) fn primitive(tensor: Tensor<1>) -> Option<CubeTensor> {
    tensor.try_into_primitive::<Cube>().ok()
}

/// Whether the kernels serve this tensor, which may be on any device.
pub(crate) fn serves(tensor: &Tensor<1>) -> bool {
    primitive(tensor.clone()).is_some_and(|tensor| is_f32(&tensor))
}

/// Cubes with a unit for each of so many numbers, and perhaps more.
pub(crate) fn cubes(count: usize) -> CubeCount {
    // WebGPU's bound on a dimension is 65,535.
    let cubes = count.div_ceil(UNITS).max(1);
    let rows = cubes.div_ceil(65_535);
    CubeCount::Static(cubes.div_ceil(rows) as u32, rows as u32, 1)
}

/// The same numbers in rows without gaps.
pub(crate) fn dense(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}

/// The numbers of a [`dense`] tensor to write over: its own buffer if nobody else reads it, else a copy.
pub(crate) fn into_owned(tensor: CubeTensor) -> CubeTensor {
    if tensor.handle.can_mut() { tensor } else { tensor.copy() }
}

/// A tensor of that shape beside another one, whose numbers are not written yet.
pub(crate) fn unwritten(like: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), DType::F32)
}

/// `[N]`: numbers brought to the device of a tensor.
pub(crate) fn upload(numbers: &[u32], beside: &CubeTensor) -> CubeTensor {
    let handle = beside.client.create_from_slice(u32::as_bytes(numbers));
    let (client, device, shape) = (beside.client.clone(), beside.device.clone(), Shape::new([numbers.len()]));
    CubeTensor::new_contiguous(client, device, shape, handle, DType::U32)
}

/// Counters that nobody has reached.
pub(crate) fn zeros(like: &CubeTensor, count: usize) -> CubeTensor {
    zeros_client(like.client.clone(), like.device.clone(), Shape::new([count]), DType::U32)
}

/// Stands where nothing is to be handed over.
pub(crate) fn dummy(like: &CubeTensor) -> CubeTensor {
    unwritten(like, [1])
}
