//! GGUF files of version 3, written tensor by tensor: what is in memory is one of them.

use std::io::{Result as IoResult, Write};
use std::path::Path;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;

use super::numbers;
use crate::base::{Error, Kind, Result, files};

/// Every tensor begins at a multiple of this many bytes.
const ALIGNMENT: u64 = 32;

/// What a file says beside its tensors, in order.
pub(super) type Metadata = Vec<(String, Value)>;

/// A text of the metadata.
pub(super) fn text(value: impl Into<String>) -> Value {
    Value::String(value.into())
}

/// A tensor of the file.
#[derive(Debug, Clone)]
pub(super) struct Info {
    /// Its name.
    pub name: String,
    /// Its sizes, the one that lies together last.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub numbers: GgmlDType,
}

impl Info {
    /// Its bytes in the file, without padding.
    pub(super) fn bytes(&self) -> u64 {
        let elements: usize = self.shape.iter().product();
        (elements / self.numbers.block_size() * self.numbers.type_size()) as u64
    }
}

/// Writes a file whole; `data` gives the bytes of each tensor, in order.
///
/// # Errors
/// Those of `data`, bytes of another length than the tensor's, a disk failure.
pub(super) fn write(
    path: &Path,
    metadata: &[(String, Value)],
    tensors: &[Info],
    mut data: impl FnMut(usize) -> Result<Vec<u8>>,
) -> Result<()> {
    let header = header(metadata, tensors)?;
    let mut failure = None;
    let written = files::write_with(path, |out| {
        out.write_all(&header)?;
        for (index, tensor) in tensors.iter().enumerate() {
            match data(index).and_then(|bytes| checked(tensor, bytes)) {
                Ok(bytes) => out.write_all(&bytes)?,
                Err(e) => {
                    failure = Some(e);
                    return Err(std::io::Error::other("no tensor to write"));
                }
            }
        }
        Ok(())
    });
    failure.map_or(written, Err)
}

/// A tensor's bytes with their padding.
fn checked(tensor: &Info, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    if bytes.len() as u64 != tensor.bytes() {
        let what = format!(
            "tensor `{}` has {} bytes, its shape asks for {}",
            tensor.name,
            bytes.len(),
            tensor.bytes()
        );
        return Err(Error::new(Kind::Internal, what));
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
    Ok(bytes)
}

fn header(metadata: &[(String, Value)], tensors: &[Info]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let written = write_header(&mut out, metadata, tensors);
    written.map_err(|e| Error::new(Kind::Internal, format!("the header of the GGUF file: {e}")))?;
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    Ok(out)
}

fn write_header(out: &mut Vec<u8>, metadata: &[(String, Value)], tensors: &[Info]) -> IoResult<()> {
    out.write_all(b"GGUF")?;
    out.write_all(&3u32.to_le_bytes())?;
    out.write_all(&(tensors.len() as u64).to_le_bytes())?;
    out.write_all(&(metadata.len() as u64).to_le_bytes())?;
    for (key, value) in metadata {
        write_text(out, key)?;
        out.write_all(&type_number(value).to_le_bytes())?;
        write_value(out, value)?;
    }
    let mut at = 0u64;
    for tensor in tensors {
        write_text(out, &tensor.name)?;
        out.write_all(&(tensor.shape.len() as u32).to_le_bytes())?;
        for &size in tensor.shape.iter().rev() {
            out.write_all(&(size as u64).to_le_bytes())?;
        }
        out.write_all(&numbers::type_number(tensor.numbers).to_le_bytes())?;
        out.write_all(&at.to_le_bytes())?;
        at += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    Ok(())
}

fn write_text(out: &mut Vec<u8>, text: &str) -> IoResult<()> {
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

/// GGUF's number of a type of values.
fn type_number(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn write_value(out: &mut Vec<u8>, value: &Value) -> IoResult<()> {
    match value {
        Value::U8(v) => out.write_all(&v.to_le_bytes()),
        Value::I8(v) => out.write_all(&v.to_le_bytes()),
        Value::U16(v) => out.write_all(&v.to_le_bytes()),
        Value::I16(v) => out.write_all(&v.to_le_bytes()),
        Value::U32(v) => out.write_all(&v.to_le_bytes()),
        Value::I32(v) => out.write_all(&v.to_le_bytes()),
        Value::F32(v) => out.write_all(&v.to_le_bytes()),
        Value::U64(v) => out.write_all(&v.to_le_bytes()),
        Value::I64(v) => out.write_all(&v.to_le_bytes()),
        Value::F64(v) => out.write_all(&v.to_le_bytes()),
        Value::Bool(v) => out.write_all(&[u8::from(*v)]),
        Value::String(v) => write_text(out, v),
        Value::Array(all) => {
            // Of an empty array the type is not known; texts are what the format's empty ones hold.
            let number = all.first().map_or(8, type_number);
            out.write_all(&number.to_le_bytes())?;
            out.write_all(&(all.len() as u64).to_le_bytes())?;
            all.iter().try_for_each(|one| write_value(out, one))
        }
    }
}
