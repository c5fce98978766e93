//! Burn's GPU backend takes the portable bodies as they are.
//!
//! A new operation lists `Cube: cfg(feature = "wgpu")` in its `backend_extension`, gives each method a default body made
//! of backend operations, and has a line here.

use burn::backend::Cube;

use crate::distillation::DistillationOps;
use crate::loss::LossOps;
use crate::recurrent::RecurrentOps;
use crate::tanh::TanhOps;
use crate::update::UpdateOps;

impl RecurrentOps for Cube {}
impl LossOps for Cube {}
impl DistillationOps for Cube {}
impl TanhOps for Cube {}
impl UpdateOps for Cube {}
