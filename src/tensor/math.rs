//! Loops over slices that are compiled for each width of vectors, and the exponentials in them.

/// Vectors that a processor may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vectors {
    /// What every processor of the target has.
    Plain,
    /// 256 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Vectors {
    /// The widest that this processor has.
    #[inline(always)]
    pub(super) fn widest() -> Self {
        #[cfg(test)]
        if let Some(forced) = FORCED.get() {
            return forced;
        }
        #[cfg(target_arch = "x86_64")]
        if has_avx2() {
            return if has_avx512() { Self::Avx512 } else { Self::Avx2 };
        }
        Self::Plain
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// Defines a function whose body is compiled once for each of [`Vectors`]; a call takes the widest. The body has the
/// same bits with any: its sums have 16 partial ones, and no product is fused with a sum.
///
/// What the body calls has to be `#[inline(always)]`, and its closures small: what is not inlined is compiled for
/// plain vectors.
macro_rules! vectorised {
    (
        $(#[$about:meta])*
        $vis:vis fn $name:ident($($argument:ident: $of:ty),* $(,)?) $(-> $result:ty)? $body:block
    ) => {
        $(#[$about])*
        $vis fn $name($($argument: $of),*) $(-> $result)? {
            use $crate::tensor::math::Vectors;

            #[inline(always)]
            fn plain($($argument: $of),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
            fn avx2($($argument: $of),*) $(-> $result)? {
                plain($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi1,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
            fn avx512($($argument: $of),*) $(-> $result)? {
                plain($($argument),*)
            }

            match Vectors::widest() {
                Vectors::Plain => plain($($argument),*),
                // SAFETY: the processor has what the function is compiled for.
                #[cfg(target_arch = "x86_64")]
                Vectors::Avx2 => unsafe { avx2($($argument),*) },
                // SAFETY: the same.
                #[cfg(target_arch = "x86_64")]
                Vectors::Avx512 => unsafe { avx512($($argument),*) },
            }
        }
    };
}
pub(super) use vectorised;

/// Elements that a loop takes at once, and partial sums of one.
pub(super) const LANES: usize = 16;

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

/// The largest element, of two zeros the positive one; −∞ for none.
#[inline(always)]
pub(super) fn max(xs: &[f32]) -> f32 {
    // Integers, whose maxima may be taken in any order.
    let mut largest = ordered(f32::NEG_INFINITY);
    for &x in xs {
        let key = ordered(x);
        largest = if key > largest { key } else { largest };
    }
    f32::from_bits(toggled(largest) as u32)
}

/// An integer that is larger where `x` is.
#[inline(always)]
fn ordered(x: f32) -> i32 {
    toggled(x.to_bits() as i32)
}

/// Turns the bits after the sign of what is negative.
#[inline(always)]
fn toggled(bits: i32) -> i32 {
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// Σ exp(x − shift), in 16 partial sums.
#[inline(always)]
pub(super) fn sum_exp(xs: &[f32], shift: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = xs.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += exp(chunk[i] - shift);
        }
    }
    let mut total: f32 = lanes.iter().sum();
    for &x in rest {
        total += exp(x - shift);
    }
    total
}

#[cfg(test)]
std::thread_local! {
    /// What [`Vectors::widest`] gives on this thread.
    static FORCED: std::cell::Cell<Option<Vectors>> = const { std::cell::Cell::new(None) };
}

/// What `f` gives with each of the vectors that this processor has.
#[cfg(test)]
pub(super) fn with_each<R>(f: impl Fn() -> R) -> Vec<R> {
    let available = match Vectors::widest() {
        Vectors::Plain => &[Vectors::Plain][..],
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx2 => &[Vectors::Plain, Vectors::Avx2],
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx512 => &[Vectors::Plain, Vectors::Avx2, Vectors::Avx512],
    };
    let with = |&vectors: &Vectors| {
        FORCED.set(Some(vectors));
        let result = f();
        FORCED.set(None);
        result
    };
    available.iter().map(with).collect()
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

    vectorised! {
        fn all(xs: &[f32]) -> Vec<u32> {
            let mut found: Vec<f32> = xs.iter().map(|&x| silu(x)).collect();
            found.extend([sum_exp(xs, 1.0), max(xs)]);
            found.into_iter().map(f32::to_bits).collect()
        }
    }

    #[test]
    fn loops_have_the_same_bits_with_any_vectors() {
        let xs: Vec<f32> = (0..1037).map(|i| (i as f32 * 0.37).sin() * 20.0).collect();
        let found = with_each(|| all(&xs));
        assert!(found.iter().all(|bits| *bits == found[0]));
    }

    #[test]
    fn max_and_sum_take_every_element() {
        let xs: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin()).collect();
        assert_eq!(max(&xs), xs.iter().copied().fold(f32::MIN, f32::max));
        let want: f64 = xs.iter().map(|&x| (x as f64 - 1.0).exp()).sum();
        assert!((sum_exp(&xs, 1.0) as f64 - want).abs() < 1e-5);
        assert_eq!(max(&[]), f32::NEG_INFINITY);
        assert_eq!(max(&[-3.0, -2.0, -2.5]), -2.0);
    }
}
