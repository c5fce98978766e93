//! The arithmetic of the recurrent units on a GPU, as `recurrent/gates.rs` has it for the CPU.
//!
//! The exponential's argument is bounded, so that no infinity is ever made: a shader compiler may take for granted that there is
//! none.

use cubecl::prelude::*;

/// The logistic function.
#[cube]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0f32 / (1.0f32 + (-clamp_nan(x, -80.0f32, 80.0f32)).exp())
}

/// The hyperbolic tangent.
#[cube]
pub(crate) fn tangent(x: f32) -> f32 {
    let x = clamp_nan(x, -10.0f32, 10.0f32);
    // Near nought the quotient would lose what `x` itself has.
    let square = x * x;
    let small = x * (1.0f32 - square * (0.33333334f32 - square * 0.13333334f32));
    let large = 1.0f32 - 2.0f32 / ((2.0f32 * x).exp() + 1.0f32);
    select(square < 0.0025f32, small, large)
}
