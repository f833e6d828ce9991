//! The metrics that a fitness script reads: names, units and formulas. The manual's table is made of them.

use crate::spec::nearest;

/// One metric of a candidate, or of the dense model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // `meaning` says what each is
pub enum Metric {
    Kl,
    KlTopK,
    Perplexity,
    Distance,
    Layers,
    Parameters,
    Flops,
    KvBytes,
    Heads,
    KvHeads,
    Neurons,
    Sparsity,
    SparsityVariance,
    DenseParameters,
    DenseFlops,
    DenseKvBytes,
    DenseHeads,
    DenseKvHeads,
    DenseNeurons,
}

/// Name, unit, and formula or meaning.
type Row = (Metric, &'static str, &'static str, &'static str);

const ROWS: [Row; 19] = [
    (
        Metric::Kl,
        "kl",
        "nats per token",
        "KL(dense ‖ candidate) over the whole vocabulary, mean over positions",
    ),
    (
        Metric::KlTopK,
        "kl_top_k",
        "nats per token",
        "the same over the dense model's `fitness.top_k` likeliest tokens (0: all)",
    ),
    (
        Metric::Perplexity,
        "perplexity[name]",
        "",
        "exp of the mean −ln p(next token) on the search text of a corpus in `fitness.corpora`",
    ),
    (
        Metric::Distance,
        "distance[l]",
        "",
        "‖h dense − h candidate‖² of the output of layer l, mean over positions",
    ),
    (Metric::Layers, "layers", "layers", "number of layers L, an integer"),
    (
        Metric::Parameters,
        "parameters",
        "parameters",
        "all that the candidate's model has, embeddings included",
    ),
    (
        Metric::Flops,
        "flops",
        "FLOP per token",
        "2·(Σ_l [2·c·d·(heads_l + kv_heads_l) + 3·d·neurons_l] + V·d) + 4·c·n·Σ_l heads_l",
    ),
    (Metric::KvBytes, "kv_bytes", "bytes per token", "Σ_l kv_heads_l · c · 2 (key and value) · 2 bytes"),
    (Metric::Heads, "heads[l]", "heads", "query heads that layer l keeps"),
    (
        Metric::KvHeads,
        "kv_heads[l]",
        "heads",
        "key/value heads that layer l keeps: those with a query head left",
    ),
    (Metric::Neurons, "neurons[l]", "neurons", "neurons that the MLP of layer l keeps"),
    (Metric::Sparsity, "sparsity", "fraction", "removed fraction of the prunable parameters"),
    (Metric::SparsityVariance, "sparsity_variance", "", "variance of the 2L modules' own sparsities"),
    (Metric::DenseParameters, "dense_parameters", "parameters", "`parameters` of the dense model"),
    (Metric::DenseFlops, "dense_flops", "FLOP per token", "`flops` of the dense model"),
    (Metric::DenseKvBytes, "dense_kv_bytes", "bytes per token", "`kv_bytes` of the dense model"),
    (Metric::DenseHeads, "dense_heads[l]", "heads", "`heads[l]` of the dense model"),
    (Metric::DenseKvHeads, "dense_kv_heads[l]", "heads", "`kv_heads[l]` of the dense model"),
    (Metric::DenseNeurons, "dense_neurons[l]", "neurons", "`neurons[l]` of the dense model"),
];

impl Metric {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Metric> {
        ROWS.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The property's name in a script, without an index.
    pub fn name(self) -> &'static str {
        self.written().split('[').next().unwrap_or_default()
    }

    /// As scripts write it: `kl`, `heads[l]`.
    pub fn written(self) -> &'static str {
        self.row().1
    }

    /// Its unit; empty where it has none.
    pub fn unit(self) -> &'static str {
        self.row().2
    }

    /// Formula or meaning.
    pub fn meaning(self) -> &'static str {
        self.row().3
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|m| m.name() == name)
    }

    /// Whether it is read off the sizes of the candidate's layers.
    pub fn is_count(self) -> bool {
        (Metric::Parameters..=Metric::Neurons).contains(&self)
    }

    /// The hint for somebody who wrote `name`.
    pub fn hint(name: &str) -> String {
        match nearest(name, Self::all().map(Metric::name)) {
            Some(near) => format!("did you mean `m.{near}`?"),
            None => {
                format!("the metrics are {}", Self::all().map(Metric::name).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// The table of the manual, in Markdown.
    pub fn table() -> String {
        let row = |m: Metric| format!("| `m.{}` | {} | {} |\n", m.written(), m.unit(), m.meaning());
        let head = "| Metric | Unit | Meaning |\n| --- | --- | --- |\n".to_owned();
        Self::all().map(row).fold(head, |table, row| format!("{table}{row}"))
    }
}
