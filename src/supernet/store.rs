//! The supernet on disk: one safetensors file per module with the order of survival and every level's kept
//! columns, in the model's storage dtype, and a hash beside each. The dense level is the checkpoint itself
//! unless it was refitted; the fully removed one is empty.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::accumulate::add_level;
use crate::base::{Error, Kind, Result, ResultExt, files, hash};
use crate::model::checkpoint::{Bytes, from_f32, to_f32};
use crate::model::matrix::Part;
use crate::model::{Layer, Matrix, Model};
use crate::prune::Pruned;
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

/// What is written beside a module's file once it is whole.
#[derive(Debug, Serialize, Deserialize)]
struct Seal {
    version: u32,
    hash: String,
}

/// A module's file, opened.
struct Module {
    bytes: Bytes,
    order: Vec<u32>,
    /// Each stored level's weight, by removed units.
    levels: BTreeMap<usize, (Dtype, std::ops::Range<usize>)>,
}

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

    /// Whether a module's file is there and whole. A damaged one counts as absent, and `damaged` is told.
    pub fn has(&self, module: ModuleId, damaged: impl Fn(&Error)) -> bool {
        if !self.path(module, "json").exists() {
            return false;
        }
        self.module(module).inspect_err(|e| damaged(e)).is_ok()
    }

    /// Writes a module's levels, then its seal. A dense level that was not refitted is left to the
    /// checkpoint.
    pub(super) fn write(
        &self,
        module: ModuleId,
        pruned: &Pruned,
        dtype: Dtype,
        refitted: bool,
    ) -> Result<()> {
        let stored = pruned.levels.iter().filter(|l| refitted || l.removed > 0);
        let rows = |level: &crate::prune::Level| vec![level.weight.nrows(), level.weight.ncols()];
        let data: Vec<_> = stored
            .map(|l| (format!("weight.{}", l.removed), rows(l), from_f32(dtype, &l.row_major())))
            .collect();
        let order: Vec<u8> = pruned.order.iter().flat_map(|u| u.to_le_bytes()).collect();
        let mut views =
            vec![("order".to_string(), TensorView::new(Dtype::U32, vec![pruned.order.len()], &order))];
        views.extend(
            data.iter()
                .map(|(name, shape, bytes)| (name.clone(), TensorView::new(dtype, shape.clone(), bytes))),
        );
        let views = views
            .into_iter()
            .map(|(n, v)| v.map(|v| (n, v)))
            .collect::<Result<Vec<_>, _>>()
            .or_error(Kind::Internal, "a level makes no tensor")?;
        let bytes = safetensors::serialize(views, None)
            .or_error(Kind::Internal, "levels make no safetensors file")?;
        files::write(&self.path(module, "safetensors"), &bytes)?;
        files::write_json(
            &self.path(module, "json"),
            &Seal { version: VERSION, hash: hash::of_bytes(&bytes) },
        )
    }

    fn module(&self, module: ModuleId) -> Result<&Module> {
        let slot = &self.modules[module.index()];
        if slot.get().is_none() {
            let path = self.path(module, "safetensors");
            let opened = self.open(module, &path).map_err(|e| e.at(path.display()))?;
            let _ = slot.set(opened); // another thread may have opened the same file
        }
        Ok(slot.get().expect("set above"))
    }

    fn open(&self, module: ModuleId, path: &Path) -> Result<Module> {
        let damaged = |what: String| {
            Error::new(Kind::Disk, what).hint("delete the file and run again: it will be made anew")
        };
        let seal: Seal = files::read_json(&self.path(module, "json"))?;
        if seal.version > VERSION {
            return Err(damaged(format!("made by a newer tyr (format {})", seal.version)));
        }
        let bytes = Bytes::map(path)?;
        if hash::of_bytes(&bytes) != seal.hash {
            return Err(damaged("the file is damaged: its hash differs from the one written with it".into()));
        }
        self.index(module, bytes).ok_or_else(|| damaged("the file is not what this version writes".into()))
    }

    fn index(&self, module: ModuleId, bytes: Bytes) -> Option<Module> {
        let mut order = vec![];
        let mut levels = BTreeMap::new();
        let tensors = SafeTensors::deserialize(&bytes).ok()?;
        for (name, view) in tensors.iter() {
            let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
            match name.strip_prefix("weight.") {
                Some(removed) => drop(
                    levels.insert(removed.parse().ok()?, (view.dtype(), start..start + view.data().len())),
                ),
                None => {
                    order = view.data().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
                }
            }
        }
        drop(tensors);
        (order.len() == self.space.shape.units(module.kind).units).then_some(Module { bytes, order, levels })
    }

    /// A module's units in order of survival.
    pub fn order(&self, module: ModuleId) -> Result<&[u32]> {
        Ok(&self.module(module)?.order)
    }

    /// The units kept with `removed` gone, in order of survival.
    pub fn kept(&self, module: ModuleId, removed: usize) -> Result<&[u32]> {
        let order = self.order(module)?;
        Ok(&order[..order.len() - removed])
    }

    /// A level's weight [d, kept·width] in order of survival, row-major.
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

    /// The bias [d] of a module's output at a level, if it has one: the dense model's.
    pub fn bias(&self, module: ModuleId, _removed: usize) -> Result<Option<Vec<f32>>> {
        let matrix = Matrix::output_of(module.kind);
        let place = self.model.config().place(matrix, Part::Bias, module.layer);
        place.map(|place| self.model.checkpoint().values(&place)).transpose()
    }

    /// The checkpoint's own weight, its columns in order of survival.
    fn dense(&self, module: ModuleId) -> Result<Vec<f32>> {
        let unit = self.space.shape.units(module.kind);
        let layer = self.model.layer(module.layer)?;
        let weight = with_slice(module_weight(&layer, module.kind), |w| Ok(w.to_vec()))?;
        let order = self.order(module)?;
        let rows = weight.chunks_exact(unit.units * unit.width);
        Ok(rows
            .flat_map(|row| order.iter().flat_map(move |&u| &row[u as usize * unit.width..][..unit.width]))
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

    /// Σ share · weight over levels, in the dense layout [d_out, d_in], row-major.
    pub(super) fn mean_weight(&self, module: ModuleId, shares: &[(usize, f64)]) -> Result<Tensor> {
        let unit = self.space.shape.units(module.kind);
        let shape = (self.model.config().hidden, unit.units * unit.width);
        let mut dense = vec![0f32; shape.0 * shape.1];
        for &(removed, share) in shares {
            add_level(
                &mut dense,
                &self.weight(module, removed)?,
                share,
                self.order(module)?,
                unit.units - removed,
                unit.width,
            )?;
        }
        Ok(Tensor::from_vec(dense, shape, &Device::Cpu)?.to_device(self.model.device())?)
    }
}

/// The weight [d, d_in] of a module.
pub(super) fn module_weight(layer: &Layer, kind: ModuleKind) -> &Tensor {
    match kind {
        ModuleKind::Attention => &layer.attention.o.weight,
        ModuleKind::Mlp => &layer.mlp.down.weight,
    }
}
