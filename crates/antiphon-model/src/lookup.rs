//! Ids on a device, and whether a table holds them.

use antiphon_core::{Error, Result, TokenId};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Ids on the device (never on the graph).
pub(crate) fn ids(ids: &[TokenId], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let n = ids.len();
    Tensor::from_data(TensorData::new(ids, [n]), &device.clone().inner())
}

/// An id that no table holds would be a panic deep inside.
pub(crate) fn check_ids(ids: &[TokenId], vocabulary: usize, side: &str) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= vocabulary) {
        None => Ok(()),
        Some(id) => Err(Error::new(format!("the {side} id {id} lies outside the vocabulary of {vocabulary}"))),
    }
}
