//! The supernet on disk: one safetensors file per module with the keep order and every level's kept columns
//! and its bias, if it has one, in the model's storage dtype, and a hash beside each. The dense level is the
//! checkpoint itself unless it was refitted; the fully removed one is empty.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::accumulate::{add_bias, add_level};
use crate::base::{self, Error, Kind, Result, ResultExt, files, hash};
use crate::model::checkpoint::{Bytes, narrowed, to_f32};
use crate::model::matrix::Part;
use crate::model::{Layer, Linear, Matrix, Model};
use crate::prune::{PrunedLevel, PrunedModule};
use crate::space::{ModuleId, ModuleKind, Space};
use crate::spec;
use crate::tensor::with_slice;

/// Version of the stored format; a newer one is refused.
const VERSION: u32 = 1;

/// The storage dtype that a spec asks for, for a model.
pub fn storage_dtype(dtype: spec::Dtype, model: &Model) -> Result<Dtype> {
    match dtype {
        spec::Dtype::F32 => Ok(Dtype::F32),
        spec::Dtype::F16 => Ok(Dtype::F16),
        spec::Dtype::Bf16 => Ok(Dtype::BF16),
        spec::Dtype::Auto => model.dtype(),
    }
}

/// The record beside a module's file, written once the file is complete.
#[derive(Debug, Serialize, Deserialize)]
struct ModuleRecord {
    version: u32,
    hash: String,
}

/// A module's file, opened.
struct Module {
    bytes: Bytes,
    keep_order: Vec<u32>,
    /// Each stored level's weight, by removed units.
    levels: BTreeMap<usize, Stored>,
    /// The biases of those that have one.
    biases: BTreeMap<usize, Stored>,
}

/// A tensor in a module's file.
type Stored = (Dtype, std::ops::Range<usize>);

/// The levels of all modules of a space.
pub struct Supernet<'m> {
    model: &'m Model,
    folder: PathBuf,
    space: Space,
    modules: Vec<OnceLock<Module>>,
}

impl<'m> Supernet<'m> {
    /// The supernet of `space` in `folder`, which may hold all modules, some or none.
    pub fn at(model: &'m Model, folder: &Path, space: Space) -> Self {
        let modules = (0..space.shape.modules()).map(|_| OnceLock::new()).collect();
        Self { model, folder: folder.to_path_buf(), space, modules }
    }

    /// Its space.
    pub fn space(&self) -> &Space {
        &self.space
    }

    fn path(&self, module: ModuleId, suffix: &str) -> PathBuf {
        let kind = match module.kind {
            ModuleKind::Attention => "attention",
            ModuleKind::Mlp => "mlp",
        };
        self.folder.join(format!("layer-{:03}-{kind}.{suffix}", module.layer))
    }

    /// Names of all files of a complete supernet.
    pub fn files(&self) -> Vec<String> {
        let modules = (0..self.space.shape.modules()).map(ModuleId::from_index);
        let paths = modules.flat_map(|m| [self.path(m, "safetensors"), self.path(m, "json")]);
        paths.filter_map(|p| Some(p.file_name()?.to_str()?.to_string())).collect()
    }

    /// Whether a module's file is there and whole. A damaged one counts as absent, and `damaged` is called
    /// with the error.
    pub fn has(&self, module: ModuleId, damaged: impl Fn(&Error)) -> bool {
        if !self.path(module, "json").exists() {
            return false;
        }
        self.module(module).inspect_err(|e| damaged(e)).is_ok()
    }

    /// Writes a module's levels, then its record. A dense level that was not refitted is left to the
    /// checkpoint.
    pub(super) fn write(
        &self,
        module: ModuleId,
        pruned: &PrunedModule,
        dtype: Dtype,
        refitted: bool,
    ) -> Result<()> {
        let is_stored = |level: &&PrunedLevel| refitted || level.removed > 0;
        if pruned.levels.iter().any(|level| !is_stored(&level) && level.bias.is_some()) {
            return Err(Error::new(Kind::Internal, format!("the dense level of {module} has a bias")));
        }
        let levels = pruned.levels.iter().filter(is_stored);
        let data = levels.map(|level| tensors(module, level, dtype)).collect::<Result<Vec<_>>>()?.concat();
        let keep_order: Vec<u8> = pruned.keep_order.iter().flat_map(|u| u.to_le_bytes()).collect();
        let mut views = vec![(
            "order".to_string(),
            TensorView::new(Dtype::U32, vec![pruned.keep_order.len()], &keep_order),
        )];
        views.extend(
            data.iter()
                .map(|(name, shape, bytes)| (name.clone(), TensorView::new(dtype, shape.clone(), bytes))),
        );
        let views = views
            .into_iter()
            .map(|(n, v)| v.map(|v| (n, v)))
            .collect::<Result<Vec<_>, _>>()
            .or_error(Kind::Internal, "a level cannot be written as a tensor")?;
        let bytes = safetensors::serialize(views, None)
            .or_error(Kind::Internal, "the levels cannot be written as a safetensors file")?;
        files::write(&self.path(module, "safetensors"), &bytes)?;
        files::write_json(
            &self.path(module, "json"),
            &ModuleRecord { version: VERSION, hash: hash::of_bytes(&bytes) },
        )
    }

    fn module(&self, module: ModuleId) -> Result<&Module> {
        // Another thread may open the same file first.
        base::get_or_try_init(&self.modules[module.index()], || {
            let path = self.path(module, "safetensors");
            self.open(module, &path).map_err(|e| e.at(path.display()))
        })
    }

    fn open(&self, module: ModuleId, path: &Path) -> Result<Module> {
        let damaged = |what: String| {
            Error::new(Kind::Disk, what).hint("delete the file and run again: it will be rebuilt")
        };
        let record: ModuleRecord = files::read_json(&self.path(module, "json"))?;
        if record.version > VERSION {
            return Err(damaged(format!("made by a newer tyr (format {})", record.version)));
        }
        let bytes = Bytes::map(path)?;
        if hash::of_bytes(&bytes) != record.hash {
            return Err(damaged("the file is damaged: its hash differs from the one written with it".into()));
        }
        self.index(module, bytes).ok_or_else(|| damaged("the file is not what this version writes".into()))
    }

    fn index(&self, module: ModuleId, bytes: Bytes) -> Option<Module> {
        let mut keep_order = vec![];
        let mut levels = BTreeMap::new();
        let mut biases = BTreeMap::new();
        let tensors = SafeTensors::deserialize(&bytes).ok()?;
        for (name, view) in tensors.iter() {
            let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
            let stored = (view.dtype(), start..start + view.data().len());
            match name.split_once('.') {
                Some(("weight", removed)) => drop(levels.insert(removed.parse().ok()?, stored)),
                Some(("bias", removed)) => drop(biases.insert(removed.parse().ok()?, stored)),
                Some(_) => return None,
                None => {
                    keep_order =
                        view.data().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
                }
            }
        }
        drop(tensors);
        (keep_order.len() == self.space.shape.units(module.kind).units).then_some(Module {
            bytes,
            keep_order,
            levels,
            biases,
        })
    }

    /// A module's units in keep order.
    pub fn keep_order(&self, module: ModuleId) -> Result<&[u32]> {
        Ok(&self.module(module)?.keep_order)
    }

    /// The units kept when `removed` are removed, in keep order.
    pub fn kept(&self, module: ModuleId, removed: usize) -> Result<&[u32]> {
        let keep_order = self.keep_order(module)?;
        Ok(&keep_order[..keep_order.len() - removed])
    }

    /// A level's weight [d, kept·width] in keep order, row-major.
    pub fn weight(&self, module: ModuleId, removed: usize) -> Result<Vec<f32>> {
        let opened = self.module(module)?;
        match opened.levels.get(&removed) {
            Some((dtype, range)) => Ok(to_f32(*dtype, &opened.bytes[range.clone()])),
            None if removed == 0 => self.dense(module),
            None => {
                Err(Error::new(Kind::Internal, format!("{module} has no level with {removed} units removed"))
                    .at(self.folder.display()))
            }
        }
    }

    /// The bias [d] of a module's output at a level, if it has one: the dense model's and what the level
    /// adds.
    pub fn bias(&self, module: ModuleId, removed: usize) -> Result<Option<Vec<f32>>> {
        let matrix = Matrix::output_of(module.kind);
        let place = self.model.config().place(matrix, Part::Bias, module.layer);
        let dense = place.map(|place| self.model.checkpoint().values(&place)).transpose()?;
        Ok(match (dense, self.added_bias(module, removed)?) {
            (Some(dense), Some(added)) => Some(dense.iter().zip(&added).map(|(a, b)| a + b).collect()),
            (dense, added) => dense.or(added),
        })
    }

    /// What a level adds to the output beside the module's own bias, [d]; `None` for a level without.
    fn added_bias(&self, module: ModuleId, removed: usize) -> Result<Option<Vec<f32>>> {
        let opened = self.module(module)?;
        Ok(opened.biases.get(&removed).map(|(dtype, range)| to_f32(*dtype, &opened.bytes[range.clone()])))
    }

    /// The same as [`Supernet::bias`] as a tensor on the model's device, for a caller that holds the module's
    /// own bias.
    pub fn bias_tensor(
        &self,
        module: ModuleId,
        removed: usize,
        own: Option<&Tensor>,
    ) -> Result<Option<Tensor>> {
        self.with_own_bias(self.added_bias(module, removed)?, own)
    }

    /// The sum of what is added and of a module's own bias, as far as they are there.
    fn with_own_bias(&self, added: Option<Vec<f32>>, own: Option<&Tensor>) -> Result<Option<Tensor>> {
        let Some(added) = added else { return Ok(own.cloned()) };
        let added = Tensor::from_vec(added, self.model.config().hidden, &Device::Cpu)?;
        let added = added.to_device(self.model.device())?;
        Ok(Some(match own {
            Some(own) => (own + added)?,
            None => added,
        }))
    }

    /// The checkpoint's own weight, its columns in keep order.
    fn dense(&self, module: ModuleId) -> Result<Vec<f32>> {
        let unit = self.space.shape.units(module.kind);
        let layer = self.model.layer(module.layer)?;
        let weight = with_slice(module_weight(&layer, module.kind), |w| Ok(w.to_vec()))?;
        let keep_order = self.keep_order(module)?;
        let rows = weight.chunks_exact(unit.units * unit.width);
        Ok(rows
            .flat_map(|row| {
                keep_order.iter().flat_map(move |&u| &row[u as usize * unit.width..][..unit.width])
            })
            .copied()
            .collect())
    }

    /// The same as a tensor on the model's device.
    pub fn weight_tensor(&self, module: ModuleId, removed: usize) -> Result<Tensor> {
        let unit = self.space.shape.units(module.kind);
        let shape = (self.model.config().hidden, (unit.units - removed) * unit.width);
        Ok(Tensor::from_vec(self.weight(module, removed)?, shape, &Device::Cpu)?
            .to_device(self.model.device())?)
    }

    /// The weighted mean of some levels, w being each level's coefficient: Σ w · weight in the dense layout
    /// [d_out, d_in], and Σ w · bias beside the bias of the `dense` module.
    pub(super) fn mean(
        &self,
        module: ModuleId,
        level_weights: &[(usize, f64)],
        dense: &Linear,
    ) -> Result<Linear> {
        let unit = self.space.shape.units(module.kind);
        let shape = (self.model.config().hidden, unit.units * unit.width);
        let mut weight = vec![0f32; shape.0 * shape.1];
        let mut bias = None;
        for &(removed, level_weight) in level_weights {
            add_level(
                &mut weight,
                &self.weight(module, removed)?,
                level_weight,
                self.keep_order(module)?,
                unit.units - removed,
                unit.width,
            )?;
            if let Some(level) = self.added_bias(module, removed)? {
                add_bias(bias.get_or_insert_with(|| vec![0.0; level.len()]), &level, level_weight);
            }
        }
        let weight = Tensor::from_vec(weight, shape, &Device::Cpu)?.to_device(self.model.device())?;
        Ok(Linear { weight, bias: self.with_own_bias(bias, dense.bias.as_ref())? })
    }
}

/// A tensor of a module's file: name, shape and bytes.
type Named = (String, Vec<usize>, Vec<u8>);

/// The tensors of a level.
///
/// # Errors
/// A number that the dtype cannot hold.
fn tensors(module: ModuleId, level: &PrunedLevel, dtype: Dtype) -> Result<Vec<Named>> {
    let narrow = |part: &str, shape: Vec<usize>, values: &[f32]| {
        let name = format!("{part}.{}", level.removed);
        let bytes = narrowed(&format!("{module}: {name}"), dtype, values)?;
        Ok((name, shape, bytes))
    };
    let shape = vec![level.weight.nrows(), level.weight.ncols()];
    let weight = narrow("weight", shape, &level.row_major());
    let bias = level.bias.as_ref().map(|bias| narrow("bias", vec![bias.len()], bias));
    std::iter::once(weight).chain(bias).collect()
}

/// The weight [d, d_in] of a module.
pub(super) fn module_weight(layer: &Layer, kind: ModuleKind) -> &Tensor {
    &module_output(layer, kind).weight
}

/// The output projection that is a module: `o_proj` or `down_proj`.
pub(super) fn module_output(layer: &Layer, kind: ModuleKind) -> &Linear {
    match kind {
        ModuleKind::Attention => &layer.attention.o,
        ModuleKind::Mlp => &layer.mlp.down,
    }
}
