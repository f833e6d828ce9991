//! placeholder
use crate::base::{Result, Watch};
use crate::model::{Config, Model, Source};
use crate::spec::{Form, Quantisation, Spec};
use std::path::Path;
/// Tokens that an export is compared on, at most; one sequence at least.
pub const COMPARED_TOKENS: usize = 1024;
/// o
pub struct Options<'a> {
    /// q
    pub quantisation: Quantisation,
    /// b
    pub gguf_base: Option<&'a Path>,
}
impl<'a> Options<'a> {
    /// Those of a spec.
    pub fn of(spec: &'a Spec) -> Self {
        Self { quantisation: spec.export.gguf, gguf_base: spec.export.gguf_base.as_deref() }
    }
}
/// e
#[derive(Debug)]
pub struct Exported {
    /// f
    pub files: Vec<String>,
    /// b
    pub bytes: u64,
    /// n
    pub notes: Vec<String>,
}
/// w
pub fn write(
    _model: &Model,
    _source: &Source,
    _form: Form,
    _options: &Options,
    _out: &Path,
    _watch: &dyn Watch,
) -> Result<Exported> {
    unimplemented!()
}
/// l
pub fn look(_config: &Config, _form: Form, _options: &Options) -> Result<Exported> {
    unimplemented!()
}
/// r
pub fn read_back(_form: Form, _folder: &Path, _into: &Path) -> Result<Model> {
    unimplemented!()
}
/// p
#[derive(Debug)]
pub struct Parity {
    /// m
    pub max_logit_difference: f64,
    /// p
    pub perplexity: [f64; 2],
    /// t
    pub tokens: usize,
}
/// p
pub fn parity(_model: &Model, _other: &Model, _sequences: &[&[u32]]) -> Result<Parity> {
    unimplemented!()
}
