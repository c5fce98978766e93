//! Elementary functions that the compiler can vectorise, and loops compiled once for each instruction set.
//!
//! `multiversion!` compiles a loop for AVX-512, for AVX2 and for the baseline, and picks at run time. The choice depends
//! on the CPU alone, so the same machine gives the same bits. Fused multiply–add is used only where the CPU has it (a
//! call into the C library otherwise), which is why the functions carry it as a constant parameter.

/// `a · b + c`, fused if `FMA`.
#[inline(always)]
pub(crate) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `eˣ` to 2 units in the last place between −87.3 and 88.3; clamped outside, NaN for NaN.
///
/// Range reduction `x = n ln 2 + r` with `ln 2` in two parts (those of Cephes' `expf`), a minimax polynomial of degree 6
/// for `eʳ`, and `2ⁿ` by building its bits.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves the nearest integer in the low bits
    let x = if x > 88.3 { 88.3 } else { x };
    let x = if x < -87.3 { -87.3 } else { x };
    let shifted = multiply_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<FMA>(n, -0.693_359_4, x);
    let r = multiply_add::<FMA>(n, 2.121_944_4e-4, r);
    let p = multiply_add::<FMA>(1.381_454e-3, r, 8.368_745e-3);
    let p = multiply_add::<FMA>(p, r, 4.166_839e-2);
    let p = multiply_add::<FMA>(p, r, 1.666_652e-1);
    let p = multiply_add::<FMA>(p, r, 4.999_999_3e-1);
    let e = multiply_add::<FMA>(p, r * r, r + 1.0);
    e * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// The logistic function `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// The hyperbolic tangent to 4 units in the last place: `x P(x²) / Q(x²)`, the minimax quotient of degrees 4 and 4 for the
/// relative error up to 9.02, where the nearest number is 1.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let x = clamp(x, 9.02);
    let z = x * x;
    let p = multiply_add::<FMA>(1.331_897_1e-8, z, 2.058_340_6e-5);
    let p = multiply_add::<FMA>(p, z, 3.494_03e-3);
    let p = multiply_add::<FMA>(p, z, 1.337_971_4e-1);
    let p = multiply_add::<FMA>(p, z, 1.0);
    let q = multiply_add::<FMA>(7.761_977_3e-7, z, 3.283_085_3e-4);
    let q = multiply_add::<FMA>(q, z, 2.587_105_6e-2);
    let q = multiply_add::<FMA>(q, z, 4.671_303e-1);
    let q = multiply_add::<FMA>(q, z, 1.0);
    // Rounding may lead one unit beyond 1.
    clamp(x * p / q, 1.0)
}

/// `x` between `−limit` and `limit`; NaN stays.
#[inline(always)]
fn clamp(x: f32, limit: f32) -> f32 {
    let x = if x > limit { limit } else { x };
    if x < -limit { -limit } else { x }
}

/// Declares `fn $name(args)`, which runs `$body::<FMA>(args)` compiled for the best instruction set that the CPU has.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $ty),*) $(-> $ret)? { $body::<true>($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $ret)? { $body::<true>($($arg),*) }
                match $crate::vector::instruction_set() {
                    // SAFETY: the CPU has these instructions.
                    $crate::vector::InstructionSet::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: the CPU has these instructions.
                    $crate::vector::InstructionSet::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::vector::InstructionSet::Portable => {}
                }
            }
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// What the loops can be compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) enum InstructionSet {
    Avx512,
    Avx2,
    Portable,
}

/// The best that this CPU has (the standard library caches the question).
#[cfg(target_arch = "x86_64")]
pub(crate) fn instruction_set() -> InstructionSet {
    use std::arch::is_x86_feature_detected as has;
    if has!("avx512f") && has!("avx512dq") && has!("avx512bw") && has!("avx512vl") && has!("fma") {
        InstructionSet::Avx512
    } else if has!("avx2") && has!("fma") {
        InstructionSet::Avx2
    } else {
        InstructionSet::Portable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(always)]
    fn evaluate<const FMA: bool>(x: &[f32], y: &mut [f32], function: usize) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = match function {
                0 => exp::<FMA>(x),
                1 => sigmoid::<FMA>(x),
                _ => tanh::<FMA>(x),
            };
        }
    }
    multiversion!(fn evaluate_best(x: &[f32], y: &mut [f32], function: usize) = evaluate);

    /// The largest error in units of `2⁻²³ · max(|true value|, floor)`.
    fn worst(function: usize, truth: impl Fn(f64) -> f64, range: (f32, f32), floor: f64) -> f64 {
        let n = 400_001;
        let x: Vec<f32> = (0..n).map(|i| range.0 + (range.1 - range.0) * i as f32 / (n - 1) as f32).collect();
        let mut y = vec![0.0; n];
        let mut worst = 0.0_f64;
        for best in [true, false] {
            if best {
                evaluate_best(&x, &mut y, function)
            } else {
                evaluate::<false>(&x, &mut y, function)
            }
            for (&x, &y) in x.iter().zip(&y) {
                let t = truth(f64::from(x));
                worst = worst.max((f64::from(y) - t).abs() / t.abs().max(floor) * f64::from(1 << 23));
            }
        }
        worst
    }

    #[test]
    fn elementary_functions_are_within_a_few_units_in_the_last_place() {
        assert!(worst(0, f64::exp, (-87.0, 88.0), 1e-37) < 2.5);
        assert!(worst(1, |x| 1.0 / (1.0 + (-x).exp()), (-80.0, 30.0), 1e-37) < 4.0);
        assert!(worst(2, f64::tanh, (-12.0, 12.0), 1e-37) < 4.0);
        assert!(worst(2, f64::tanh, (-1e-3, 1e-3), 1e-37) < 4.0);
    }

    #[test]
    fn extremes_saturate_and_nan_stays() {
        let x = [f32::NEG_INFINITY, -1000.0, 1000.0, f32::INFINITY, f32::NAN];
        let mut y = [0.0; 5];
        evaluate_best(&x, &mut y, 1);
        assert!(y[0] < 1e-37 && y[1] < 1e-37 && y[2] == 1.0 && y[3] == 1.0 && y[4].is_nan());
        evaluate_best(&x, &mut y, 2);
        assert!(y[0] == -1.0 && y[1] == -1.0 && y[2] == 1.0 && y[3] == 1.0 && y[4].is_nan());
    }
}
