//! A script and what it is given: which measurements to make for it, and how they become the metrics that it
//! reads.

use std::path::Path;

use rhai::{Dynamic, Map};

use super::counts::Counts;
use super::metric::Metric;
use super::population::{Measured, Wanted};
use super::script::{Metrics, Script};
use crate::base::{Error, Kind, Result};
use crate::model::pico::Pico;
use crate::model::{Config, LayerShape};
use crate::spec::nearest;

/// Layers of the model that a script is tried on before the real one is known.
const STUB_LAYERS: usize = 256;

/// Compiles a script and runs it once on made-up values, of a model with many layers and with the given
/// corpora.
///
/// # Errors
/// As [`Script::load`] and [`Script::call`], or a corpus that is not among `corpora`.
pub fn check(path: &Path, corpora: &[String]) -> Result<()> {
    let config = Pico { layers: STUB_LAYERS, ..Pico::default() }.config()?;
    Scripted::new(Script::load(path)?, corpora, 0, &config, 256).map(drop)
}

/// What is known of one candidate.
pub(super) struct Known<'a> {
    /// Measured on the search set, as [`Scripted::wanted`] asks.
    pub measured: &'a Measured,
    /// Mean −ln p on every corpus of [`Scripted::corpora`].
    pub nll: &'a [f64],
    /// Present if [`Scripted::counts_wanted`].
    pub counts: Option<Counts>,
    /// Removed fraction of the prunable parameters.
    pub sparsity: f64,
    /// Variance of the modules' sparsities.
    pub variance: f64,
}

/// A script with the model that it is for.
pub(super) struct Scripted {
    script: Script,
    wanted: Wanted,
    corpora: Vec<String>,
    layers: usize,
    dense: Counts,
    config: Config,
    length: usize,
}

impl Scripted {
    /// Tries the script on made-up values before it is used.
    pub(crate) fn new(
        script: Script,
        corpora: &[String],
        top_k: usize,
        config: &Config,
        length: usize,
    ) -> Result<Self> {
        let layers = config.layers.len();
        let wanted = wanted(&script, top_k, layers);
        let corpora = wanted_corpora(&script, corpora)?;
        let dense =
            Counts::of(&Config { layers: vec![config.dense_layer(); layers], ..config.clone() }, length);
        let mut scripted = Self { script, wanted, corpora, layers, dense, config: config.clone(), length };
        scripted.dry_run().map_err(|e| Error { what: format!("{} (on made-up metrics)", e.what), ..e })?;
        Ok(scripted)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    pub(crate) fn corpora(&self) -> &[String] {
        &self.corpora
    }

    /// Whether the candidate's layer sizes matter.
    pub(crate) fn counts_wanted(&self) -> bool {
        self.script.reads().metrics.iter().any(|m| m.is_count())
    }

    /// The counts of a candidate's layers.
    pub(crate) fn counts(&mut self, layers: Vec<LayerShape>) -> Counts {
        self.config.layers = layers;
        Counts::of(&self.config, self.length)
    }

    /// The script's value.
    pub(crate) fn value(&self, known: &Known) -> Result<f64> {
        let metrics = &self.script.reads().metrics;
        let values = metrics.iter().filter_map(|&m| Some((m, self.metric(m, known)?))).collect();
        self.script.call(Metrics::new(values))
    }

    /// A metric's value; `None` where it was not requested.
    fn metric(&self, metric: Metric, known: &Known) -> Option<Dynamic> {
        let own = |f: fn(&Counts) -> Dynamic| known.counts.as_ref().map(f);
        Some(match metric {
            Metric::Kl => (*known.measured.kl.first()?).into(),
            Metric::KlTopK => (*known.measured.kl.last()?).into(),
            Metric::Perplexity => self.perplexity(known.nll),
            Metric::Distance => self.distances(&known.measured.distances),
            Metric::Layers => (self.layers as i64).into(),
            Metric::Sparsity => known.sparsity.into(),
            Metric::SparsityVariance => known.variance.into(),
            Metric::Parameters => own(|c| c.parameters.into())?,
            Metric::Flops => own(|c| c.flops.into())?,
            Metric::KvBytes => own(|c| c.kv_bytes.into())?,
            Metric::Heads => own(|c| array(&c.heads))?,
            Metric::KvHeads => own(|c| array(&c.kv_heads))?,
            Metric::Neurons => own(|c| array(&c.neurons))?,
            Metric::DenseParameters => self.dense.parameters.into(),
            Metric::DenseFlops => self.dense.flops.into(),
            Metric::DenseKvBytes => self.dense.kv_bytes.into(),
            Metric::DenseHeads => array(&self.dense.heads),
            Metric::DenseKvHeads => array(&self.dense.kv_heads),
            Metric::DenseNeurons => array(&self.dense.neurons),
        })
    }

    fn perplexity(&self, nll: &[f64]) -> Dynamic {
        self.corpora
            .iter()
            .zip(nll)
            .map(|(name, nll)| (name.as_str().into(), nll.exp().into()))
            .collect::<Map>()
            .into()
    }

    /// One entry per layer; those that nobody reads are no numbers.
    fn distances(&self, measured: &[f64]) -> Dynamic {
        let mut all = vec![Dynamic::UNIT; self.layers];
        self.wanted.layers.iter().zip(measured).for_each(|(&l, &d)| all[l] = d.into());
        all.into()
    }

    /// One run on the model with half of everything removed.
    fn dry_run(&mut self) -> Result<()> {
        let half = |n: usize| n.div_ceil(2);
        let dense = self.config.dense_layer();
        let layers = self.layers;
        let kv = dense.query_heads_per_kv[..half(dense.kv_heads())].to_vec();
        let layer = LayerShape { query_heads_per_kv: kv, intermediate_size: half(dense.intermediate_size) };
        let rising = |n: usize| (1..=n).map(|i| 0.1 * i as f64).collect::<Vec<_>>();
        let measured = Measured {
            kl: rising(self.wanted.kl.len()),
            nll: 0.0,
            distances: rising(self.wanted.layers.len()),
        };
        let counts = self.counts_wanted().then(|| self.counts(vec![layer; layers]));
        let nll = vec![2.0; self.corpora.len()];
        self.value(&Known { measured: &measured, nll: &nll, counts, sparsity: 0.5, variance: 0.01 }).map(drop)
    }
}

fn array(values: &[f64]) -> Dynamic {
    values.iter().map(|&v| Dynamic::from_float(v)).collect::<rhai::Array>().into()
}

/// What to measure on the search set: the first KL is the whole one if both are read.
fn wanted(script: &Script, top_k: usize, layers: usize) -> Wanted {
    let reads = script.reads();
    let kl = [(Metric::Kl, 0), (Metric::KlTopK, top_k)]
        .into_iter()
        .filter(|(m, _)| reads.metrics.contains(m))
        .map(|(_, k)| k);
    let mut kl: Vec<usize> = kl.collect();
    kl.dedup();
    let read = |&l: &usize| reads.layers.has(&(l as i64)) || reads.layers.has(&(l as i64 - layers as i64));
    Wanted { kl, nll: false, layers: (0..layers).filter(read).collect() }
}

/// The corpora that are read, in the spec's order.
fn wanted_corpora(script: &Script, corpora: &[String]) -> Result<Vec<String>> {
    let reads = script.reads();
    if let super::reads::Part::Named(names) = &reads.corpora {
        names.iter().try_for_each(|name| known_corpus(script, name, corpora))?;
    }
    Ok(corpora.iter().filter(|name| reads.corpora.has(name)).cloned().collect())
}

fn known_corpus(script: &Script, name: &str, corpora: &[String]) -> Result<()> {
    if corpora.iter().any(|c| c == name) {
        return Ok(());
    }
    let hint = match nearest(name, corpora.iter().map(String::as_str)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("add \"{name}\" to `fitness.corpora`"),
    };
    Err(Error::new(
        Kind::Spec,
        format!("`m.perplexity[\"{name}\"]` reads a corpus that `fitness.corpora` does not list"),
    )
    .at(script.name())
    .hint(hint))
}
