//! CPU kernels over slices.

use candle_core::{CpuStorage, Device, Storage, Tensor};
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::math::{silu, vectorised};
use super::with_slice;
use crate::base::Result;

/// Elements that one parallel task of elementwise work takes at least.
const GRAIN: usize = 1 << 14;

/// A row-major [rows, cols] block whose rows lie `stride` elements apart, as a faer matrix.
pub(super) fn matrix(data: &[f32], rows: usize, cols: usize, stride: usize) -> MatRef<'_, f32> {
    assert!(rows == 0 || (rows - 1) * stride + cols <= data.len());
    // SAFETY: the assertion keeps every element inside `data`, which outlives the view.
    unsafe { MatRef::from_raw_parts(data.as_ptr(), rows, cols, stride as isize, 1) }
}

/// The same, mutable.
pub(super) fn matrix_mut(data: &mut [f32], rows: usize, cols: usize, stride: usize) -> MatMut<'_, f32> {
    assert!(rows == 0 || (rows - 1) * stride + cols <= data.len());
    assert!(stride >= cols);
    // SAFETY: as above, and rows do not overlap.
    unsafe { MatMut::from_raw_parts_mut(data.as_mut_ptr(), rows, cols, stride as isize, 1) }
}

/// The threads of the current rayon pool, as faer takes them.
pub(super) fn threads() -> Par {
    Par::rayon(0)
}

pub(super) fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (n, k) = x.dims2()?;
    let (m, wk) = w.dims2()?;
    if k != wk {
        return Err(candle_core::Error::Msg(format!("linear: input has {k} columns, weight has {wk}")).into());
    }
    let mut out = vec![0f32; n * m];
    with_rows(x, |xs, x_stride| {
        with_rows(w, |ws, w_stride| {
            let xs = matrix(xs, n, k, x_stride);
            let ws = matrix(ws, m, k, w_stride);
            faer::linalg::matmul::matmul(
                matrix_mut(&mut out, n, m, m),
                Accum::Replace,
                xs,
                ws.transpose(),
                1.0,
                threads(),
            );
            Ok(())
        })
    })?;
    Ok(Tensor::from_vec(out, (n, m), &Device::Cpu)?)
}

/// Elements from the first on and the distance between rows, of a [n, k] tensor whose rows are contiguous;
/// others are copied first.
fn with_rows<T>(x: &Tensor, f: impl FnOnce(&[f32], usize) -> Result<T>) -> Result<T> {
    let strides = x.stride();
    if strides[1] != 1 || strides[0] < x.dim(1)? {
        let width = x.dim(1)?;
        return with_slice(x, |data| f(data, width));
    }
    let stride = strides[0];
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(data)) => f(&data[layout.start_offset()..], stride),
        _ => Err(candle_core::Error::Msg(format!("expected f32 on the host, got {:?}", x.dtype())).into()),
    }
}

pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let mut out = vec![0f32; n * d];
    with_slice(x, |x| {
        with_slice(weight, |w| {
            let rows = (GRAIN / d).max(1);
            out.par_chunks_mut(rows * d).zip(x.par_chunks(rows * d)).for_each(|(out, x)| {
                vectorised(|| {
                    out.chunks_exact_mut(d)
                        .zip(x.chunks_exact(d))
                        .for_each(|(o, x)| norm_row(o, x, w, epsilon))
                });
            });
            Ok(())
        })
    })?;
    Ok(Tensor::from_vec(out, (n, d), &Device::Cpu)?)
}

#[inline(always)]
fn norm_row(out: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let scale = 1.0 / (sum_of_squares(x) / x.len() as f32 + epsilon).sqrt();
    for ((o, x), w) in out.iter_mut().zip(x).zip(weight) {
        *o = x * scale * w;
    }
}

#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let chunks = x.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().map(|v| v * v).sum();
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] += chunk[i] * chunk[i];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

pub(super) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let mut out = vec![0f32; gate.elem_count()];
    with_slice(gate, |g| {
        with_slice(up, |u| {
            out.par_chunks_mut(GRAIN).zip(g.par_chunks(GRAIN)).zip(u.par_chunks(GRAIN)).for_each(
                |((o, g), u)| {
                    vectorised(|| o.iter_mut().zip(g).zip(u).for_each(|((o, g), u)| *o = silu(*g) * u));
                },
            );
            Ok(())
        })
    })?;
    Ok(Tensor::from_vec(out, gate.shape(), &Device::Cpu)?)
}
