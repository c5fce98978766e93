//! What is carried from batch to batch, as named arrays on the host, and back.

use antiphon_core::{Error, Problem, Result};
use antiphon_kernels::Carry;
use burn::tensor::{Device, Tensor, TensorData};

use crate::Weight;

/// The arrays of a carry, in the order of their names.
pub(crate) fn save_carry(carry: &Carry) -> Vec<Weight> {
    let array = |(name, array): (&str, &Tensor<2>)| Weight {
        path: name.to_owned(),
        dims: array.dims().to_vec(),
        values: array.clone().try_into_vec_as::<f32>().expect("a carry can be read back"),
    };
    carry.iter().map(array).collect()
}

/// Takes up what [`save_carry`] gave, on a device without autodiff.
///
/// # Errors
/// If an array is not of rows.
pub(crate) fn load_carry(arrays: Vec<Weight>, device: &Device) -> Result<Carry> {
    let load = |Weight { path, dims, values }: Weight| match <[usize; 2]>::try_from(dims) {
        Ok(dims) => Ok((path, Tensor::<2>::from_data(TensorData::new(values, dims), device))),
        Err(dims) => {
            let message = format!("has the shape {dims:?}, and what is carried is made of rows");
            let place = format!("carry.{path}").into();
            Err(Error { file: None, problems: vec![Problem { place, message }] })
        }
    };
    Ok(Carry::new(arrays.into_iter().map(load).collect::<Result<Vec<_>>>()?))
}
