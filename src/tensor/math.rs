//! Exponentials over slices, written so that the compiler vectorises them for the processor found at run
//! time.

use pulp::Arch;

/// Runs a loop compiled for the widest vectors that the processor has. The loops of this room have the same bits with
/// any: their sums have 16 partial ones, and no product is fused with a sum.
#[inline(always)]
pub(super) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { with_avx512(f) };
    }
    Arch::new().dispatch(f)
}

/// `pulp` goes no further than AVX2 in a stable build.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
fn with_avx512<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
}

/// eˣ to about 2 ulp: 2ⁿ·p(r) with r = x − n·ln 2 in [−ln2/2, ln2/2] and p of degree 6. Below −87 it gives 0,
/// above 88 e⁸⁸.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // 1.5·2²³: adding it pushes the fraction out and leaves n in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r / 720.0)))));
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { p * scale }
}

/// x·σ(x)
#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The largest element; −∞ for none.
#[inline(always)]
pub(super) fn max(xs: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = xs.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// Σ exp(x − shift), in 16 partial sums.
#[inline(always)]
pub(super) fn sum_exp(xs: &[f32], shift: f32) -> f32 {
    let mut lanes = [0f32; 16];
    let chunks = xs.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] += exp(chunk[i] - shift);
        }
    }
    rest.iter().fold(lanes.iter().sum(), |a, &x| a + exp(x - shift))
}

/// Replaces every x by exp(x − shift) and gives their sum, in 16 partial sums.
#[inline(always)]
pub(super) fn exp_in_place(xs: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0f32; 16];
    let mut chunks = xs.chunks_exact_mut(16);
    for chunk in &mut chunks {
        for i in 0..16 {
            chunk[i] = exp(chunk[i] - shift);
            lanes[i] += chunk[i];
        }
    }
    chunks.into_remainder().iter_mut().fold(lanes.iter().sum(), |total, x| {
        *x = exp(*x - shift);
        total + *x
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_standard_library() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let want = (x as f64).exp();
            let error = (exp(x) as f64 - want).abs() / want;
            assert!(error < 4e-7, "exp({x}) is off by {error}");
        }
        assert_eq!(exp(-1e9), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn loops_have_the_same_bits_for_any_processor() {
        let xs: Vec<f32> = (0..1037).map(|i| (i as f32 * 0.37).sin() * 20.0).collect();
        let all = |xs: &[f32]| {
            let mut powers = xs.to_vec();
            let total = exp_in_place(&mut powers, 3.0);
            powers.extend(xs.iter().map(|&x| silu(x)));
            powers.extend([total, sum_exp(xs, 1.0), max(xs)]);
            powers.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let plain = all(&xs);
        assert_eq!(vectorised(|| all(&xs)), plain);
        assert_eq!(Arch::new().dispatch(|| all(&xs)), plain);
    }

    #[test]
    fn max_and_sum_take_every_element() {
        let xs: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin()).collect();
        assert_eq!(max(&xs), xs.iter().copied().fold(f32::MIN, f32::max));
        let want: f64 = xs.iter().map(|&x| (x as f64 - 1.0).exp()).sum();
        assert!((sum_exp(&xs, 1.0) as f64 - want).abs() < 1e-5);
        assert_eq!(max(&[]), f32::NEG_INFINITY);
        let mut in_place = xs.clone();
        assert!((exp_in_place(&mut in_place, 1.0) as f64 - want).abs() < 1e-5);
        assert!(in_place.iter().zip(&xs).all(|(e, &x)| *e == exp(x - 1.0)));
    }
}
