//! Tensors by name from safetensors files that stay on disk: mapped, checked once against their headers,
//! converted when used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use candle_core::{Device, Tensor};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::family::Place;
use super::source::Source;
use crate::base::{Error, Kind, Result, files};

/// Bytes of a file that are not copied.
pub enum Bytes {
    /// Mapped from disk.
    Mapped(Mmap),
    /// Part of the program.
    Embedded(&'static [u8]),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(m) => m,
            Bytes::Embedded(b) => b,
        }
    }
}

impl Bytes {
    /// Maps a file.
    pub fn map(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| files::io_error(path, "open", &e))?;
        // SAFETY: the map is read only; a file that others change while we read it gives wrong numbers, which
        // a hash would show, but nothing relies on its contents for memory safety.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| files::io_error(path, "map", &e))?;
        Ok(Bytes::Mapped(map))
    }
}

/// Where one tensor lies.
#[derive(Debug, Clone)]
struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: std::ops::Range<usize>,
}

struct Shard {
    name: String,
    bytes: Bytes,
}

/// The tensors of a checkpoint.
pub struct Checkpoint {
    shards: Vec<Shard>,
    entries: BTreeMap<String, Entry>,
}

/// Name of the single weights file.
pub const SINGLE: &str = "model.safetensors";
/// Name of the shard index.
pub const INDEX: &str = "model.safetensors.index.json";

#[derive(serde::Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// The weight files that an index names, without repeats, in name order.
pub(super) fn shard_names(index: &str) -> Result<Vec<String>> {
    let index: ShardIndex =
        serde_json::from_str(index).map_err(|e| broken(INDEX, format!("not a shard index: {e}")))?;
    let mut names: Vec<_> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    match names.iter().find(|n| n.contains(['/', '\\'])) {
        Some(name) => Err(broken(INDEX, format!("names a file outside the folder: {name}"))),
        None => Ok(names),
    }
}

fn broken(file: &str, what: impl Into<String>) -> Error {
    Error::new(Kind::Checkpoint, what)
        .at(file)
        .hint("the file may be damaged or only partly downloaded: fetch it again")
}

impl Checkpoint {
    /// Opens a source's weights: one file, or the shards that its index names.
    ///
    /// # Errors
    /// A file that is missing, truncated or no safetensors file; a tensor that two shards hold.
    pub fn open(source: &Source) -> Result<Self> {
        let names = match source.optional(INDEX)? {
            Some(index) => shard_names(&String::from_utf8_lossy(&index))?,
            None => vec![SINGLE.to_string()],
        };
        Self::of_files(
            names.into_iter().map(|name| Ok((name.clone(), source.file(&name)?))).collect::<Result<_>>()?,
        )
    }

    /// Opens named files.
    pub fn of_files(named: Vec<(String, Bytes)>) -> Result<Self> {
        let mut checkpoint = Self { shards: vec![], entries: BTreeMap::new() };
        for (name, bytes) in named {
            checkpoint.add(Shard { name, bytes })?;
        }
        Ok(checkpoint)
    }

    fn add(&mut self, shard: Shard) -> Result<()> {
        let tensors = SafeTensors::deserialize(&shard.bytes)
            .map_err(|e| broken(&shard.name, format!("not a complete safetensors file: {e}")))?;
        let base = shard.bytes.as_ptr() as usize;
        let at = self.shards.len();
        for (name, view) in tensors.iter() {
            let start = view.data().as_ptr() as usize - base;
            let entry = Entry {
                shard: at,
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                range: start..start + view.data().len(),
            };
            if self.entries.insert(name.to_string(), entry).is_some() {
                return Err(broken(&shard.name, format!("tensor `{name}` is in two files")));
            }
        }
        self.shards.push(shard);
        Ok(())
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether a tensor is there.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Elements of all tensors.
    pub fn parameters(&self) -> usize {
        self.entries.values().map(|e| e.shape.iter().product::<usize>()).sum()
    }

    /// Storage dtype of a tensor.
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        Ok(self.entry(name)?.dtype)
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| {
            Error::new(Kind::Checkpoint, format!("tensor `{name}` is missing")).hint(
                "config.json and the weights must belong to the same model, and every shard must be there",
            )
        })
    }

    /// A tensor's raw bytes after checking that it has `shape` and a float dtype.
    pub fn raw(&self, name: &str, shape: &[usize]) -> Result<(Dtype, &[u8])> {
        let entry = self.entry(name)?;
        let shard = &self.shards[entry.shard];
        if entry.shape != shape {
            let what = format!("tensor `{name}` has shape {:?}, config.json asks for {shape:?}", entry.shape);
            return Err(Error::new(Kind::Checkpoint, what)
                .at(&shard.name)
                .hint("config.json and the weights must belong to the same model"));
        }
        if !matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            let what = format!("tensor `{name}` is stored as {:?}", entry.dtype);
            return Err(Error::new(Kind::Checkpoint, what)
                .at(&shard.name)
                .hint("convert the checkpoint to f32, f16 or bf16"));
        }
        Ok((entry.dtype, &shard.bytes[entry.range.clone()]))
    }

    /// The raw bytes of a matrix, checked in the same way; in a fused tensor, of its rows.
    pub fn rows(&self, place: &Place) -> Result<(Dtype, &[u8])> {
        let (dtype, bytes) = self.raw(&place.name, &place.tensor)?;
        let row = bytes.len().checked_div(place.tensor[0]).unwrap_or(0);
        Ok((dtype, &bytes[place.rows.start * row..place.rows.end * row]))
    }

    /// A matrix as f32 on a device.
    pub fn tensor(&self, place: &Place, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.values(place)?, place.shape(), &Device::Cpu)?.to_device(device)?)
    }

    /// A matrix as f32, row-major.
    pub fn values(&self, place: &Place) -> Result<Vec<f32>> {
        let (dtype, bytes) = self.rows(place)?;
        Ok(to_f32(dtype, bytes))
    }

    /// Forgets all tensors but the `named`: the names of what is forgotten, sorted.
    pub fn keep_only(&mut self, named: BTreeSet<String>) -> Vec<String> {
        let others: Vec<String> = self.names().filter(|n| !named.contains(*n)).map(String::from).collect();
        self.entries.retain(|name, _| named.contains(name));
        others
    }
}

/// Little-endian floats of a storage dtype as f32.
pub fn to_f32(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        Dtype::BF16 => pairs().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F16 => pairs().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    }
}

/// f32 values in a storage dtype, little-endian, rounded to nearest even.
pub fn from_f32(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    match dtype {
        Dtype::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}
