//! What the processor computes with, by name.

/// The widest vectors that the operations of this room are run with: `AVX-512`, `AVX2`, `NEON`, or the name of an
/// architecture whose vectors are not told apart. `+BF16` says that the processor multiplies bfloat16 too.
pub fn isa() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    return match (super::math::has_avx512(), is_x86_feature_detected!("avx512bf16")) {
        (true, true) => "AVX-512+BF16",
        (true, false) => "AVX-512",
        (false, _) if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => "AVX2",
        (false, _) => "x86-64",
    };
    #[cfg(target_arch = "aarch64")]
    return "NEON";
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return std::env::consts::ARCH;
}
