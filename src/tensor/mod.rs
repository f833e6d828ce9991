//! The few operations that must be fast, over candle tensors: products, norms, gated units, attention,
//! losses.
//!
//! On the CPU each runs our kernel (products by faer, other loops compiled for each width of vectors, rows in
//! parallel by rayon); on any other device, and in tests as the second opinion, it is composed of candle operations.
//! Compute is in f32 everywhere.

pub mod attention;
pub mod cached;
mod cpu;
mod isa;
pub mod loss;
mod math;
mod segments;
mod softmax;
pub mod stored;

pub use isa::isa;

use candle_core::{CpuStorage, D, Device, Storage, Tensor};
use rayon::prelude::*;

use crate::base::Result;

/// Which implementation runs an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Our kernels over slices of host memory.
    Cpu,
    /// candle's operations.
    Candle,
}

/// The backend of a tensor's device.
pub fn backend(x: &Tensor) -> Backend {
    match x.device() {
        Device::Cpu => Backend::Cpu,
        _ => Backend::Candle,
    }
}

/// y = x·wᵀ. `x` is [n, k] (its rows may be a part of wider ones), `w` is [m, k]; gives [n, m].
pub fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    linear_on(backend(x), x, w)
}

fn linear_on(backend: Backend, x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let n = x.dim(0)?;
    let m = w.dim(0)?;
    if n == 0 || m == 0 || x.dim(1)? == 0 {
        return Ok(Tensor::zeros((n, m), candle_core::DType::F32, x.device())?);
    }
    match backend {
        Backend::Cpu => cpu::linear(x, w),
        Backend::Candle => Ok(x.contiguous()?.matmul(&w.t()?)?),
    }
}

/// residual + (x·wᵀ + bias): what a module adds to the residual stream [n, m].
pub fn linear_onto(residual: &Tensor, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    linear_onto_on(backend(x), residual, x, w, bias)
}

fn linear_onto_on(
    backend: Backend,
    residual: &Tensor,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    match backend {
        Backend::Cpu => cpu::linear_onto(residual, x, w, bias),
        Backend::Candle => Ok((residual + add_bias(linear_on(backend, x, w)?, bias)?)?),
    }
}

/// a + b, for two tensors of one shape.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match backend(a) {
        Backend::Cpu if a.dims() == b.dims() => cpu::add(a, b),
        _ => Ok((a + b)?),
    }
}

/// y + (a − b), for three tensors of one shape.
pub fn add_difference(y: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match backend(y) {
        Backend::Cpu if y.dims() == a.dims() && a.dims() == b.dims() => cpu::add_difference(y, a, b),
        _ => Ok((y + (a - b)?)?),
    }
}

/// silu(x·gateᵀ)·(x·upᵀ), with a bias [m] for each where there is one: the activations [n, m] of gated units.
pub fn gated(x: &Tensor, gate: (&Tensor, Option<&Tensor>), up: (&Tensor, Option<&Tensor>)) -> Result<Tensor> {
    gated_on(backend(x), x, gate, up)
}

fn gated_on(
    backend: Backend,
    x: &Tensor,
    gate: (&Tensor, Option<&Tensor>),
    up: (&Tensor, Option<&Tensor>),
) -> Result<Tensor> {
    let product = |(w, bias)| add_bias(linear_on(backend, x, w)?, bias);
    match backend {
        Backend::Cpu => cpu::gated(x, gate, up),
        Backend::Candle => swiglu_on(backend, product(gate)?, &product(up)?),
    }
}

/// Adds a bias [m] to every row of [n, m], where there is one.
pub fn add_bias(y: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(b) => Ok(y.broadcast_add(b)?),
        None => Ok(y),
    }
}

/// Root-mean-square norm of each row of [n, d], scaled by `weight` [d].
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    rms_norm_on(backend(x), x, weight, epsilon)
}

fn rms_norm_on(backend: Backend, x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    match backend {
        Backend::Cpu => cpu::rms_norm(x, weight, epsilon as f32),
        Backend::Candle => {
            let mean = (x.sqr()?.sum_keepdim(D::Minus1)? / x.dim(1)? as f64)?;
            Ok(x.broadcast_div(&(mean + epsilon)?.sqrt()?)?.broadcast_mul(weight)?)
        }
    }
}

/// silu(gate)·up, elementwise, for two tensors [n, m].
pub fn swiglu(gate: Tensor, up: &Tensor) -> Result<Tensor> {
    swiglu_on(backend(&gate), gate, up)
}

fn swiglu_on(backend: Backend, gate: Tensor, up: &Tensor) -> Result<Tensor> {
    match backend {
        Backend::Cpu => cpu::swiglu(&gate, up),
        Backend::Candle => Ok((gate.silu()? * up)?),
    }
}

/// Rows [n, columns] that are made part by part, the parts one below the other: threads take them as they come. What
/// is one part is not copied.
pub fn stacked(
    parts: &[attention::Part],
    columns: usize,
    make: impl Fn(&attention::Part) -> Result<Tensor> + Sync,
) -> Result<Tensor> {
    match parts {
        [whole] => make(whole),
        _ => cpu::stacked(parts, columns, make),
    }
}

/// A tensor's elements in row-major order, without a copy when it is contiguous on the host.
pub fn with_slice<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let x = x.contiguous()?.to_device(&Device::Cpu)?;
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(data)) => {
            let start = layout.start_offset();
            f(&data[start..start + layout.shape().elem_count()])
        }
        _ => Err(candle_core::Error::Msg(format!("expected f32 on the host, got {:?}", x.dtype())).into()),
    }
}

/// Whether every element is a number, neither NaN nor infinite.
pub fn is_finite(x: &Tensor) -> Result<bool> {
    match backend(x) {
        Backend::Cpu => with_slice(x, |data| Ok(data.par_chunks(FINITE_CHUNK).all(all_finite))),
        // What is none stays none in a sum.
        Backend::Candle => Ok(x.sum_all()?.to_scalar::<f32>()?.is_finite()),
    }
}

math::vectorised! {
    fn all_finite(values: &[f32]) -> bool {
        // Without a way out, so that elements are taken together.
        values.iter().fold(true, |all, value| all & value.is_finite())
    }
}

/// Elements that one thread looks at.
const FINITE_CHUNK: usize = 1 << 16;

/// The device a spec asks for.
///
/// # Errors
/// The build lacks the backend, or the machine has no such device.
pub fn device(choice: crate::spec::DeviceChoice) -> Result<Device> {
    use crate::base::{Kind, ResultExt};
    use crate::spec::DeviceChoice::*;
    match choice {
        Cpu => Ok(Device::Cpu),
        Cuda => Device::new_cuda(0).or_error(Kind::Spec, "model.device = \"cuda\" is not available"),
        Metal => Device::new_metal(0).or_error(Kind::Spec, "model.device = \"metal\" is not available"),
        Auto if candle_core::utils::cuda_is_available() => device(Cuda),
        Auto if candle_core::utils::metal_is_available() => device(Metal),
        Auto => Ok(Device::Cpu),
    }
}

#[cfg(test)]
mod tests;
