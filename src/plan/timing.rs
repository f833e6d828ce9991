//! The step that times modules of several sizes: what it takes, and what it found where it was taken. A plan times
//! nothing, so that until then operations stand for time.

use super::estimator::{Cost, Estimator};
use super::known_model::bytes_of;
use crate::base::{Result, files};
use crate::bench::{Latencies, modules};
use crate::trial::{LATENCIES, StepName, keys};

impl Estimator<'_, '_> {
    /// Plans it; gives what was measured, or an estimate.
    pub(super) fn timing(&mut self) -> Result<Latencies> {
        let spec = self.spec;
        let model = self.model.clone();
        let (unit, pass) = (spec.prune.unit.attention, spec.sparsity.latency);
        let dtype = model.storage(spec.model.dtype);
        let stored = bytes_of(dtype);
        let cost = Cost {
            work: modules::work(&model.config, unit, pass, stored),
            memory: self.resident() + modules::memory(&model.config, pass, stored),
            mapped: self.checkpoint(),
            meanwhile: modules::disk(&model.config, unit, stored),
            ..Cost::default()
        };
        let key = keys::latencies(&self.input_hashes, dtype, spec);
        let placed = self.place(StepName::Latencies, &key, self.missing.clone(), cost)?;
        let measured = placed.folder.and_then(|folder| files::read_json(&folder.join(LATENCIES)).ok());
        let latencies = measured.unwrap_or_else(|| {
            self.untimed = Some(placed.address);
            Latencies::estimated(&model.config, unit, pass)
        });
        let measured_elsewhere = latencies.foreign().filter(|_| !latencies.is_estimate());
        self.notes.extend(measured_elsewhere);
        self.notes.push(match &self.untimed {
            None => latencies.summary(&self.shape),
            Some(_) => "modules are not timed yet: operations stand for time in what is removed of each kind, and the \
                        run says what this machine takes"
                .into(),
        });
        self.latencies = Some(latencies.clone());
        Ok(latencies)
    }
}
