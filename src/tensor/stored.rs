//! Products of a few rows with a matrix as it is stored: what writing a token costs is reading the weights, so
//! they are read once for all rows, in their storage dtype, and widened to f32 in the processor's first cache.
//!
//! A row's bits depend on nothing else in the batch: every dot product sums in the same order, whatever stands
//! beside it.

use candle_core::{Device, Tensor};
use half::f16;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use safetensors::Dtype;

use super::math::vectorised;
use super::with_slice;
use crate::base::Result;

/// Rows up to which reading the weights takes longer than multiplying with them.
pub const FEW: usize = 16;

/// Rows of the matrix that are widened and multiplied at once.
const TILE: usize = 3;
/// Rows of the input that meet a tile at once: with [`TILE`], as many sums as there are registers for.
const TOGETHER: usize = 4;
/// Weights that one parallel task takes at least.
const GRAIN: usize = 1 << 15;

/// A matrix [rows, columns] as it is stored: little-endian f32, f16 or bf16, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    dtype: Dtype,
    bytes: &'a [u8],
    rows: usize,
    columns: usize,
}

impl<'a> Stored<'a> {
    /// From a tensor's bytes.
    ///
    /// # Errors
    /// Another number of bytes than `rows`·`columns` have, or a dtype that is none of the three.
    pub fn new(dtype: Dtype, bytes: &'a [u8], rows: usize, columns: usize) -> Result<Self> {
        let width = match dtype {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            other => return Err(candle_core::Error::Msg(format!("a matrix stored as {other:?}")).into()),
        };
        if bytes.len() != rows * columns * width {
            let what = format!("a matrix [{rows}, {columns}] of {dtype:?} in {} bytes", bytes.len());
            return Err(candle_core::Error::Msg(what).into());
        }
        Ok(Self { dtype, bytes, rows, columns })
    }

    /// Bytes of one row.
    fn stride(&self) -> usize {
        self.bytes.len() / self.rows.max(1)
    }
}

/// y = x·wᵀ for `x` [n, columns] on the host: [n, rows].
pub fn linear_stored(x: &Tensor, w: &Stored) -> Result<Tensor> {
    let (n, k) = x.dims2()?;
    if k != w.columns {
        let what = format!("linear: input has {k} columns, weight has {}", w.columns);
        return Err(candle_core::Error::Msg(what).into());
    }
    let mut out = vec![0f32; n * w.rows];
    if k > 0 && !out.is_empty() {
        with_slice(x, |x| {
            multiply(x, w, &mut out);
            Ok(())
        })?;
    }
    Ok(Tensor::from_vec(out, (n, w.rows), &Device::Cpu)?)
}

/// Fills `out` [n, rows].
fn multiply(x: &[f32], w: &Stored, out: &mut [f32]) {
    let per_task = (GRAIN / w.columns).next_multiple_of(TILE).max(TILE);
    let tasks = w.bytes.par_chunks(per_task * w.stride());
    let parts: Vec<Vec<f32>> = tasks.map(|rows| task(x, w, rows)).collect();
    let mut first = 0;
    for part in parts {
        let count = part.len() * w.columns / x.len();
        for (out, sums) in out.chunks_exact_mut(w.rows).zip(part.chunks_exact(count)) {
            out[first..first + count].copy_from_slice(sums);
        }
        first += count;
    }
}

/// Products of all inputs with some rows of the matrix: [n, those rows].
fn task(x: &[f32], w: &Stored, bytes: &[u8]) -> Vec<f32> {
    let n = x.len() / w.columns;
    let rows = bytes.len() / w.stride();
    let mut out = vec![0f32; n * rows];
    let mut wide = vec![0f32; TILE * w.columns];
    let step = TILE * w.stride();
    for (i, tile) in bytes.chunks(step).enumerate() {
        let next = ((i + 1) * step).min(bytes.len());
        // In two parts, as the processor waits for only so many lines at a time.
        let soon = &bytes[next..(next + step).min(bytes.len())];
        let (first, rest) = soon.split_at(soon.len() / 2);
        let height = tile.len() / w.stride();
        let wide = &mut wide[..height * w.columns];
        prefetch(first);
        widen(w.dtype, tile, wide);
        prefetch(rest);
        let products = Products { x, w: wide, columns: w.columns, out: &mut out[i * TILE..], stride: rows };
        Arch::new().dispatch(products);
    }
    out
}

/// Asks for bytes that will be read soon: what is computed before hides the wait for them.
#[inline(always)]
fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, and it takes any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// Stored numbers as f32; all three conversions are exact.
fn widen(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    let pairs = bytes.as_chunks::<2>().0;
    match dtype {
        Dtype::BF16 => widen_bf16(pairs, out),
        Dtype::F16 => {
            let done = widen_halves(pairs, out);
            for (wide, narrow) in out.iter_mut().zip(pairs).skip(done) {
                *wide = f16::from_le_bytes(*narrow).to_f32();
            }
        }
        _ => read_singles(bytes.as_chunks::<4>().0, out),
    }
}

vectorised! {
    fn widen_bf16(narrow: &[[u8; 2]], out: &mut [f32]) {
        for (wide, narrow) in out.iter_mut().zip(narrow) {
            *wide = f32::from_bits((u16::from_le_bytes(*narrow) as u32) << 16);
        }
    }
}

vectorised! {
    fn read_singles(stored: &[[u8; 4]], out: &mut [f32]) {
        for (single, stored) in out.iter_mut().zip(stored) {
            *single = f32::from_le_bytes(*stored);
        }
    }
}

/// Widens as many f16 as the processor does eight at a time, and gives their number: `half` converts them one by
/// one through memory.
#[cfg(target_arch = "x86_64")]
fn widen_halves(narrow: &[[u8; 2]], out: &mut [f32]) -> usize {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};

    #[target_feature(enable = "avx,f16c")]
    fn eights(narrow: &[[u8; 2]], out: &mut [f32]) -> usize {
        let narrow = narrow.as_chunks::<8>().0;
        let out = out.as_chunks_mut::<8>().0;
        for (wide, narrow) in out.iter_mut().zip(narrow) {
            // SAFETY: both point to eight numbers, and neither instruction asks for more alignment than theirs.
            unsafe {
                let bits = _mm_loadu_si128(narrow.as_ptr().cast::<__m128i>());
                _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(bits));
            }
        }
        8 * narrow.len()
    }

    if is_x86_feature_detected!("avx") && is_x86_feature_detected!("f16c") {
        // SAFETY: the processor has both.
        unsafe { eights(narrow, out) }
    } else {
        0
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn widen_halves(_: &[[u8; 2]], _: &mut [f32]) -> usize {
    0
}

/// The products of all inputs [n, columns] with a tile of rows `w`; the input's row j fills `out[j·stride..]`.
struct Products<'a> {
    x: &'a [f32],
    w: &'a [f32],
    columns: usize,
    out: &'a mut [f32],
    stride: usize,
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, w, columns, out, stride } = self;
        let height = w.len() / columns;
        for (j, x) in x.chunks(TOGETHER * columns).enumerate() {
            let out = &mut out[j * TOGETHER * stride..];
            let sums = Sums { x, w, columns, out, stride };
            match (height, x.len() / columns) {
                (TILE, TOGETHER) => sums.fill::<S, TILE, TOGETHER>(simd),
                (TILE, 3) => sums.fill::<S, TILE, 3>(simd),
                (TILE, 2) => sums.fill::<S, TILE, 2>(simd),
                (TILE, _) => sums.fill::<S, TILE, 1>(simd),
                (2, TOGETHER) => sums.fill::<S, 2, TOGETHER>(simd),
                (2, 3) => sums.fill::<S, 2, 3>(simd),
                (2, 2) => sums.fill::<S, 2, 2>(simd),
                (2, _) => sums.fill::<S, 2, 1>(simd),
                (_, TOGETHER) => sums.fill::<S, 1, TOGETHER>(simd),
                (_, 3) => sums.fill::<S, 1, 3>(simd),
                (_, 2) => sums.fill::<S, 1, 2>(simd),
                (_, _) => sums.fill::<S, 1, 1>(simd),
            }
        }
    }
}

/// As many sums as are kept in registers.
struct Sums<'a> {
    x: &'a [f32],
    w: &'a [f32],
    columns: usize,
    out: &'a mut [f32],
    stride: usize,
}

impl Sums<'_> {
    /// R rows of the matrix with N of the input: each pair is one sum of vectors, in order, then its lanes, then
    /// what is left over.
    // Iterators over the arrays would hide from the compiler that they fit into registers.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn fill<S: Simd, const R: usize, const N: usize>(self, simd: S) {
        let mut w: [(&[S::f32s], &[f32]); R] = [(&[], &[]); R];
        let mut x: [(&[S::f32s], &[f32]); N] = [(&[], &[]); N];
        for r in 0..R {
            w[r] = S::as_simd_f32s(&self.w[r * self.columns..][..self.columns]);
        }
        for j in 0..N {
            x[j] = S::as_simd_f32s(&self.x[j * self.columns..][..self.columns]);
        }
        let mut sums = [[simd.splat_f32s(0.0); N]; R];
        for i in 0..w[0].0.len() {
            let mut weights = [simd.splat_f32s(0.0); R];
            for r in 0..R {
                // SAFETY: all rows have `columns` elements, and so as many vectors as the first.
                weights[r] = unsafe { *w[r].0.get_unchecked(i) };
            }
            for j in 0..N {
                // SAFETY: the same.
                let input = unsafe { *x[j].0.get_unchecked(i) };
                for r in 0..R {
                    sums[r][j] = simd.mul_add_e_f32s(weights[r], input, sums[r][j]);
                }
            }
        }
        for r in 0..R {
            for j in 0..N {
                let rest: f32 = w[r].1.iter().zip(x[j].1).map(|(w, x)| w * x).sum();
                self.out[j * self.stride + r] = simd.reduce_sum_f32s(sums[r][j]) + rest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;

    use super::*;
    use crate::base::rng;
    use crate::tensor::{Backend, linear_on};

    fn random(rows: usize, cols: usize, name: &str) -> Vec<f32> {
        let mut rng = rng::stream(5, name);
        (0..rows * cols).map(|_| f16::from_f32(rng.random_range(-1.0f32..1.0)).to_f32()).collect()
    }

    fn bytes(dtype: Dtype, values: &[f32]) -> Vec<u8> {
        match dtype {
            Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        }
    }

    fn product(x: &[f32], w: &Stored) -> Vec<Vec<f32>> {
        let x = Tensor::from_slice(x, (x.len() / w.columns, w.columns), &Device::Cpu).unwrap();
        linear_stored(&x, w).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn a_product_is_candle_s_for_every_dtype_and_shape() {
        for (n, k, m) in
            [(1, 7, 1), (2, 64, 3), (3, 65, 4), (4, 33, 5), (5, 300, 400), (16, 576, 62), (9, 1, 2)]
        {
            let x = random(n, k, "x");
            let values = random(m, k, "w");
            for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
                let kept = crate::model::checkpoint::to_f32(dtype, &bytes(dtype, &values));
                let w = Tensor::from_vec(kept, (m, k), &Device::Cpu).unwrap();
                let xs = Tensor::from_slice(&x, (n, k), &Device::Cpu).unwrap();
                let want = linear_on(Backend::Candle, &xs, &w).unwrap().to_vec2::<f32>().unwrap();
                let stored = bytes(dtype, &values);
                let got = product(&x, &Stored::new(dtype, &stored, m, k).unwrap());
                for (got, want) in got.concat().iter().zip(want.concat()) {
                    assert!((got - want).abs() < 2e-5, "{dtype:?} [{n}, {k}]·[{m}, {k}]: {got} for {want}");
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_whatever_stands_beside_it_and_however_its_weights_are_stored() {
        let (n, k, m) = (11, 203, 190);
        let x = random(n, k, "x");
        let values = random(m, k, "w");
        let narrow = bytes(Dtype::F16, &values);
        let wide = bytes(Dtype::F32, &values);
        let w = Stored::new(Dtype::F16, &narrow, m, k).unwrap();
        let all = product(&x, &w);
        assert_eq!(all, product(&x, &Stored::new(Dtype::F32, &wide, m, k).unwrap()));
        for count in 1..n {
            for first in [0, n - count] {
                let some = product(&x[first * k..][..count * k], &w);
                assert_eq!(some, all[first..first + count], "{count} rows from {first}");
            }
        }
    }

    #[test]
    fn bytes_need_not_be_aligned_and_empty_matrices_have_empty_products() {
        let values = random(4, 9, "w");
        for dtype in [Dtype::F32, Dtype::F16] {
            let aligned = bytes(dtype, &values);
            let shifted = [&[0], aligned.as_slice()].concat();
            let x = random(2, 9, "x");
            let of = |bytes| product(&x, &Stored::new(dtype, bytes, 4, 9).unwrap());
            assert_eq!(of(&shifted[1..]), of(&aligned));
        }
        let none = Stored::new(Dtype::F16, &[], 0, 9).unwrap();
        let x = Tensor::zeros((2, 9), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert_eq!(linear_stored(&x, &none).unwrap().dims(), [2, 0]);
        let narrow = Stored::new(Dtype::F16, &[], 5, 0).unwrap();
        let x = Tensor::zeros((2, 0), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert_eq!(linear_stored(&x, &narrow).unwrap().to_vec2::<f32>().unwrap(), [[0.0; 5]; 2]);
    }

    #[test]
    fn bytes_that_do_not_fit_the_shape_are_refused() {
        assert!(Stored::new(Dtype::F16, &[0; 10], 2, 3).is_err());
        assert!(Stored::new(Dtype::I64, &[0; 48], 2, 3).is_err());
        let x = Tensor::zeros((1, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(linear_stored(&x, &Stored::new(Dtype::F16, &[0; 12], 2, 3).unwrap()).is_err());
    }
}
