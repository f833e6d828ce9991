//! Tensors by name from safetensors files that stay on disk: mapped, checked once against their headers,
//! converted when used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use candle_core::{Device, Tensor};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::diagnose;
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
    /// What its user should know of it.
    pub notes: Vec<String>,
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
        let files = source.weight_files()?.ok_or_else(|| diagnose::missing(source, SINGLE))?;
        let named = files.names.into_iter().map(|name| Ok((name.clone(), source.file(&name)?)));
        let opened = Self::of_files(named.collect::<Result<_>>()?);
        let mut checkpoint = opened.map_err(|e| e.at(source.place()))?;
        if files.beside_index {
            checkpoint.notes.push(format!(
                "the folder has {SINGLE} and {INDEX}; the single file is read, as transformers does, and what \
                 the index names is not"
            ));
        }
        Ok(checkpoint)
    }

    /// Opens named files.
    pub fn of_files(named: Vec<(String, Bytes)>) -> Result<Self> {
        let mut checkpoint = Self { shards: vec![], entries: BTreeMap::new(), notes: vec![] };
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

    /// The bytes of each tensor as it is stored.
    pub fn stored(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.values().map(|e| &self.shards[e.shard].bytes[e.range.clone()])
    }

    /// Bytes of all tensors as they are stored.
    pub fn bytes(&self) -> usize {
        self.entries.values().map(|e| e.range.len()).sum()
    }

    /// Storage dtype of a tensor.
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        Ok(self.entry(name)?.dtype)
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| diagnose::missing_tensor(self.names(), name))
    }

    /// A tensor's raw bytes after checking that it has `shape` and a float dtype.
    pub fn raw(&self, name: &str, shape: &[usize]) -> Result<(Dtype, &[u8])> {
        let entry = self.entry(name)?;
        let shard = &self.shards[entry.shard];
        if !matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            let what = format!("tensor `{name}` is stored as {:?}", entry.dtype);
            return Err(Error::new(Kind::Checkpoint, what)
                .at(&shard.name)
                .hint("convert the checkpoint to f32, f16 or bf16; a quantised one is not supported"));
        }
        if entry.shape != shape {
            let what = format!("tensor `{name}` has shape {:?}, config.json asks for {shape:?}", entry.shape);
            return Err(Error::new(Kind::Checkpoint, what)
                .at(&shard.name)
                .hint("config.json and the weights must belong to the same model"));
        }
        Ok((entry.dtype, &shard.bytes[entry.range.clone()]))
    }

    /// The raw bytes of a matrix, checked in the same way; in a fused tensor, of its rows. One without elements
    /// need not be there.
    pub fn rows(&self, place: &Place) -> Result<(Dtype, &[u8])> {
        if place.tensor.contains(&0) {
            return Ok((Dtype::F32, &[]));
        }
        let (dtype, bytes) = self.raw(&place.name, &place.tensor)?;
        let row = bytes.len().checked_div(place.tensor[0]).unwrap_or(0);
        Ok((dtype, &bytes[place.rows.start * row..place.rows.end * row]))
    }

    /// A matrix as f32 on a device.
    pub fn tensor(&self, place: &Place, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.values(place)?, place.shape(), &Device::Cpu)?.to_device(device)?)
    }

    /// A matrix as f32, row-major.
    ///
    /// # Errors
    /// It is not there in its shape, or holds NaN or infinity.
    pub fn values(&self, place: &Place) -> Result<Vec<f32>> {
        let (dtype, bytes) = self.rows(place)?;
        let values = to_f32(dtype, bytes);
        finite(&place.name, &values)?;
        Ok(values)
    }

    /// Forgets all tensors but the `named`: the names of what is forgotten and has any elements, sorted.
    pub fn keep_only(&mut self, named: BTreeSet<String>) -> Vec<String> {
        let is_other =
            |(name, entry): &(&String, &Entry)| !named.contains(*name) && !entry.shape.contains(&0);
        let others: Vec<String> = self.entries.iter().filter(is_other).map(|(n, _)| n.clone()).collect();
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

/// Refuses values of a tensor that are no numbers: what a model makes of them would look like a figure.
///
/// # Errors
/// NaN or infinity, of kind [`Kind::Numeric`].
pub fn finite(name: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let what = format!("tensor `{name}` holds {} (entry {at} of {})", values[at], values.len());
            Err(Error::new(Kind::Numeric, what).hint("the checkpoint is damaged: save or download it again"))
        }
    }
}

/// The values of a tensor in a storage dtype, as [`from_f32`].
///
/// # Errors
/// A number that the dtype cannot hold, or that is none, of kind [`Kind::Numeric`].
pub fn narrowed(name: &str, dtype: Dtype, values: &[f32]) -> Result<Vec<u8>> {
    finite(name, values)?;
    let largest = match dtype {
        Dtype::F16 => half::f16::MAX.to_f32(),
        Dtype::BF16 => half::bf16::MAX.to_f32(),
        _ => f32::MAX,
    };
    let bytes = from_f32(dtype, values);
    // Only what lies above the largest number may round to infinity.
    match values.iter().find(|v| v.abs() > largest && !to_f32(dtype, &from_f32(dtype, &[**v]))[0].is_finite())
    {
        None => Ok(bytes),
        Some(value) => {
            let dtype = format!("{dtype:?}").to_lowercase();
            let what = format!("tensor `{name}` holds {value}, which is too large for {dtype}");
            Err(Error::new(Kind::Numeric, what).hint("set model.dtype to bf16 or f32"))
        }
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
