//! CPU kernels over slices.

use candle_core::{CpuStorage, Device, Storage, Tensor};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::attention::Part;
use super::math::{silu, vectorised};
use super::with_slice;
use crate::base::Result;

/// Elements that one parallel task of elementwise work takes at least.
const GRAIN: usize = 1 << 14;
/// Operations that a part of a product has at least.
const PART_FLOPS: usize = 1 << 24;
/// Fewest rows of a part: each part arranges the weights anew.
const PART_ROWS: usize = 256;
/// Outputs of a product whose weights are met by all rows before the next ones are.
const PANEL: usize = 384;

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

/// A row-major [rows, cols] block that is written before it is read.
struct Unwritten {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl Unwritten {
    fn new(rows: usize, cols: usize) -> Self {
        Self { data: Vec::with_capacity(rows * cols), rows, cols }
    }

    /// The block's numbers, once `write` has written all of them.
    fn written(mut self, write: impl FnOnce(MatMut<'_, f32>)) -> Vec<f32> {
        let start = self.data.as_mut_ptr();
        // SAFETY: the vector has room for all elements, and rows do not overlap.
        write(unsafe { MatMut::from_raw_parts_mut(start, self.rows, self.cols, self.cols as isize, 1) });
        // SAFETY: a product that replaces reads nothing of its destination and writes every element.
        unsafe { self.data.set_len(self.rows * self.cols) };
        self.data
    }
}

/// Rows [n, columns] that are made part by part.
pub(super) fn stacked(
    parts: &[Part],
    columns: usize,
    make: impl Fn(&Part) -> Result<Tensor> + Sync,
) -> Result<Tensor> {
    let rows: usize = parts.iter().map(|part| part.rows.len()).sum();
    let mut data = Vec::with_capacity(rows * columns);
    let mut free = data.spare_capacity_mut();
    let mut places = Vec::with_capacity(parts.len());
    for part in parts {
        let (place, others) = free.split_at_mut(part.rows.len() * columns);
        places.push((part, place));
        free = others;
    }
    places.into_par_iter().try_for_each(|(part, place)| {
        with_slice(&make(part)?, |made| {
            if made.len() != place.len() {
                return Err(candle_core::Error::Msg(format!("a part has {} elements", made.len())).into());
            }
            place.iter_mut().zip(made).for_each(|(to, from)| {
                to.write(*from);
            });
            Ok(())
        })
    })?;
    // SAFETY: every part has written all elements of its place, and the places are all there is.
    unsafe { data.set_len(rows * columns) };
    Ok(Tensor::from_vec(data, (rows, columns), &Device::Cpu)?)
}

/// x·wᵀ, row-major.
pub(super) fn product(x: &Tensor, w: &Tensor) -> Result<Vec<f32>> {
    let (n, k) = x.dims2()?;
    let (m, wk) = w.dims2()?;
    if k != wk {
        return Err(candle_core::Error::Msg(format!("linear: input has {k} columns, weight has {wk}")).into());
    }
    if n == 0 || m == 0 || k == 0 {
        return Ok(vec![0.0; n * m]);
    }
    with_rows(x, |xs, x_stride| {
        with_rows(w, |ws, w_stride| {
            let xs = matrix(xs, n, k, x_stride);
            let ws = matrix(ws, m, k, w_stride);
            Ok(Unwritten::new(n, m).written(|out| multiply(out, xs, ws)))
        })
    })
}

/// Fills `out` [n, m] with x·wᵀ, in parts that threads share as they come: no thread waits for another within a
/// product, and inside of a parallel task, whose threads are busy, the parts run one after the other. Every
/// element is the same sum however the parts are cut.
fn multiply(out: MatMut<'_, f32>, x: MatRef<'_, f32>, w: MatRef<'_, f32>) {
    let (n, m) = (out.nrows(), out.ncols());
    if 2 * n * m * x.ncols() < 2 * PART_FLOPS {
        return multiply_alone(out, x, w);
    }
    if n >= 2 * PART_ROWS {
        let half = n / 2 / PART_ROWS * PART_ROWS;
        let (first, second) = out.split_at_row_mut(half);
        let (x_first, x_second) = x.split_at_row(half);
        rayon::join(|| multiply(first, x_first, w), || multiply(second, x_second, w));
    } else if m >= 2 * PANEL {
        let half = m / 2 / PANEL * PANEL;
        let (first, second) = out.split_at_col_mut(half);
        let (w_first, w_second) = w.split_at_row(half);
        rayon::join(|| multiply(first, x, w_first), || multiply(second, x, w_second));
    } else {
        multiply_alone(out, x, w);
    }
}

/// The same on this thread, by panels of `w` that its second cache holds while all of `x` meets them.
fn multiply_alone(mut out: MatMut<'_, f32>, x: MatRef<'_, f32>, mut w: MatRef<'_, f32>) {
    // A product of fewer than 4096 terms in all is summed in another order.
    while w.nrows() >= 2 * PANEL && x.nrows() * x.ncols() * PANEL > 4096 {
        let (panel, rest) = w.split_at_row(PANEL);
        let (part, others) = out.split_at_col_mut(PANEL);
        matmul(part, Accum::Replace, x, panel.transpose(), 1.0, Par::Seq);
        (w, out) = (rest, others);
    }
    matmul(out, Accum::Replace, x, w.transpose(), 1.0, Par::Seq);
}

pub(super) fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let shape = (x.dim(0)?, w.dim(0)?);
    Ok(Tensor::from_vec(product(x, w)?, shape, &Device::Cpu)?)
}

/// residual + (x·wᵀ + bias), the product's own buffer taking the sum.
pub(super) fn linear_onto(
    residual: &Tensor,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let mut out = product(x, w)?;
    add_to_rows(&mut out, bias)?;
    added(out, residual)
}

/// silu(x·gateᵀ + bias)·(x·upᵀ + bias), the gate's own buffer taking the result.
pub(super) fn gated(
    x: &Tensor,
    gate: (&Tensor, Option<&Tensor>),
    up: (&Tensor, Option<&Tensor>),
) -> Result<Tensor> {
    let shape = (x.dim(0)?, gate.0.dim(0)?);
    let mut out = product(x, gate.0)?;
    add_to_rows(&mut out, gate.1)?;
    let mut other = product(x, up.0)?;
    add_to_rows(&mut other, up.1)?;
    silu_times(&mut out, &other);
    Ok(Tensor::from_vec(out, shape, &Device::Cpu)?)
}

/// Makes silu(gate)·up of every gate.
fn silu_times(gates: &mut [f32], up: &[f32]) {
    gates.par_chunks_mut(GRAIN).zip(up.par_chunks(GRAIN)).for_each(|(g, u)| {
        silu_times_alone(g, u);
    });
}

vectorised! {
    /// The same on this thread.
    fn silu_times_alone(gates: &mut [f32], up: &[f32]) {
        for (gate, up) in gates.iter_mut().zip(up) {
            *gate = silu(*gate) * up;
        }
    }
}

/// a + b, element by element.
pub(super) fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    added(with_slice(a, |a| Ok(a.to_vec()))?, b)
}

/// y + (a − b), element by element.
pub(super) fn add_difference(y: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut out = with_slice(a, |a| Ok(a.to_vec()))?;
    with_slice(b, |b| {
        out.par_chunks_mut(GRAIN).zip(b.par_chunks(GRAIN)).for_each(|(out, b)| {
            subtract(out, b);
        });
        Ok(())
    })?;
    added(out, y)
}

vectorised! {
    fn subtract(out: &mut [f32], x: &[f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out -= x;
        }
    }
}

vectorised! {
    fn add_to(out: &mut [f32], x: &[f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out += x;
        }
    }
}

/// `out` + x, where `x` has as many elements, in the shape of `x`.
fn added(mut out: Vec<f32>, x: &Tensor) -> Result<Tensor> {
    with_slice(x, |x| {
        out.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(|(out, x)| {
            add_to(out, x);
        });
        Ok(())
    })?;
    Ok(Tensor::from_vec(out, x.shape(), &Device::Cpu)?)
}

/// Adds a bias, where there is one, to every row.
fn add_to_rows(rows: &mut [f32], bias: Option<&Tensor>) -> Result<()> {
    let Some(bias) = bias else { return Ok(()) };
    with_slice(bias, |bias| {
        if bias.is_empty() {
            return Ok(());
        }
        let together = (GRAIN / bias.len()).max(1) * bias.len();
        rows.par_chunks_mut(together).flat_map_iter(|rows| rows.chunks_exact_mut(bias.len())).for_each(
            |row| {
                row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            },
        );
        Ok(())
    })
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
                norm_rows(out, x, w, epsilon);
            });
            Ok(())
        })
    })?;
    Ok(Tensor::from_vec(out, (n, d), &Device::Cpu)?)
}

vectorised! {
    /// Norms of rows as wide as `weight`.
    fn norm_rows(out: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
        for (out, x) in out.chunks_exact_mut(weight.len()).zip(x.chunks_exact(weight.len())) {
            norm_row(out, x, weight, epsilon);
        }
    }
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
    let mut out = with_slice(gate, |g| Ok(g.to_vec()))?;
    with_slice(up, |u| {
        silu_times(&mut out, u);
        Ok(())
    })?;
    Ok(Tensor::from_vec(out, gate.shape(), &Device::Cpu)?)
}
