//! What the processor can do: kernels are chosen by it, so figures may depend on it in their last bits.

/// The vector extensions of this processor that kernels are chosen by.
pub fn cpu_features() -> Vec<String> {
    /// Pairs each name with whether the processor has it.
    macro_rules! ask {
        ($detected:ident: $($name:tt)*) => { vec![$(($name, std::arch::$detected!($name))),*] };
    }
    #[cfg(target_arch = "x86_64")]
    let features = ask!(is_x86_feature_detected: "avx" "avx2" "fma" "avx512f" "avx512bw" "avx512dq" "avx512vl");
    #[cfg(target_arch = "aarch64")]
    let features = ask!(is_aarch64_feature_detected: "neon" "fp16" "dotprod" "sve");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let features = Vec::<(&str, bool)>::new();
    features.into_iter().filter(|(_, present)| *present).map(|(name, _)| name.to_string()).collect()
}
