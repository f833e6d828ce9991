//! The tables: every tensor is claimed exactly once, counts equal files, and a family needs no more than its
//! table.

use std::collections::BTreeSet;

use safetensors::Dtype;

use super::super::families::{FAMILIES, LLAMA, MISTRAL, PRUNED_LLAMA, QWEN2};
use super::super::family::When::*;
use super::super::family::{BiasKeys, Biases, Family, Given, TensorRule, Windows, bias, weight};
use super::super::kept::Kept;
use super::super::keys::Role;
use super::super::matrix::Matrix::*;
use super::super::matrix::{Axis, Part};
use super::super::save::with_layers_and_biases;
use super::*;
use crate::base::Watch;
use crate::space::ModuleKind;
use crate::spec::AttentionUnit;

const NO_BIASES: BiasKeys = BiasKeys {
    qkv: Given::Never,
    attention_output: Given::Never,
    gate_up: Given::Never,
    mlp_output: Given::Never,
};

/// Phi-3, by its table alone: queries, keys and values in one tensor, gates and ups in another.
pub(crate) static PHI3: Family = Family {
    model_type: "phi3",
    per_layer: false,
    windows: Windows::Everywhere,
    biases: NO_BIASES,
    defaults: &[],
    keys: &[],
    tensors: &[
        weight("model.embed_tokens.weight", &[Embedding], Always),
        weight("model.norm.weight", &[FinalNorm], Always),
        weight("lm_head.weight", &[Output], Untied),
        weight("model.layers.{layer}.input_layernorm.weight", &[AttentionNorm], Always),
        weight("model.layers.{layer}.post_attention_layernorm.weight", &[MlpNorm], Always),
        weight("model.layers.{layer}.self_attn.qkv_proj.weight", &[Query, Key, Value], Always),
        weight("model.layers.{layer}.self_attn.o_proj.weight", &[AttentionOutput], Always),
        weight("model.layers.{layer}.mlp.gate_up_proj.weight", &[Gate, Up], Always),
        weight("model.layers.{layer}.mlp.down_proj.weight", &[Down], Always),
    ],
    pruned: Some(&PRUNED_LLAMA),
};

/// Qwen 3: norms of queries and keys, one for all heads.
static QWEN3: Family = Family {
    model_type: "qwen3",
    per_layer: false,
    windows: Windows::Switched,
    biases: BiasKeys {
        qkv: Given::Keys(&["attention_bias"]),
        attention_output: Given::Keys(&["attention_bias"]),
        ..NO_BIASES
    },
    defaults: &[],
    keys: &[],
    tensors: &[
        weight("model.embed_tokens.weight", &[Embedding], Always),
        weight("model.norm.weight", &[FinalNorm], Always),
        weight("lm_head.weight", &[Output], Untied),
        weight("model.layers.{layer}.input_layernorm.weight", &[AttentionNorm], Always),
        weight("model.layers.{layer}.post_attention_layernorm.weight", &[MlpNorm], Always),
        weight("model.layers.{layer}.self_attn.q_proj.weight", &[Query], Always),
        bias("model.layers.{layer}.self_attn.q_proj.bias", &[Query], QkvBias),
        weight("model.layers.{layer}.self_attn.k_proj.weight", &[Key], Always),
        bias("model.layers.{layer}.self_attn.k_proj.bias", &[Key], QkvBias),
        weight("model.layers.{layer}.self_attn.v_proj.weight", &[Value], Always),
        bias("model.layers.{layer}.self_attn.v_proj.bias", &[Value], QkvBias),
        weight("model.layers.{layer}.self_attn.o_proj.weight", &[AttentionOutput], Always),
        bias("model.layers.{layer}.self_attn.o_proj.bias", &[AttentionOutput], AttentionOutputBias),
        weight("model.layers.{layer}.self_attn.q_norm.weight", &[QueryNorm], Always),
        weight("model.layers.{layer}.self_attn.k_norm.weight", &[KeyNorm], Always),
        weight("model.layers.{layer}.mlp.gate_proj.weight", &[Gate], Always),
        weight("model.layers.{layer}.mlp.up_proj.weight", &[Up], Always),
        weight("model.layers.{layer}.mlp.down_proj.weight", &[Down], Always),
    ],
    pruned: Some(&PRUNED_LLAMA),
};

/// Gemma 2: norms before and after both halves of a layer.
static GEMMA2: Family = Family {
    model_type: "gemma2",
    per_layer: false,
    windows: Windows::Ignored,
    biases: NO_BIASES,
    defaults: &[],
    keys: &[
        ("attn_logit_softcapping", Role::Harmless),
        ("final_logit_softcapping", Role::Harmless),
        ("query_pre_attn_scalar", Role::Harmless),
    ],
    tensors: &[
        weight("model.embed_tokens.weight", &[Embedding], Always),
        weight("model.norm.weight", &[FinalNorm], Always),
        weight("lm_head.weight", &[Output], Untied),
        weight("model.layers.{layer}.input_layernorm.weight", &[AttentionNorm], Always),
        weight("model.layers.{layer}.post_attention_layernorm.weight", &[AttentionOutputNorm], Always),
        weight("model.layers.{layer}.pre_feedforward_layernorm.weight", &[MlpNorm], Always),
        weight("model.layers.{layer}.post_feedforward_layernorm.weight", &[MlpOutputNorm], Always),
        weight("model.layers.{layer}.self_attn.q_proj.weight", &[Query], Always),
        weight("model.layers.{layer}.self_attn.k_proj.weight", &[Key], Always),
        weight("model.layers.{layer}.self_attn.v_proj.weight", &[Value], Always),
        weight("model.layers.{layer}.self_attn.o_proj.weight", &[AttentionOutput], Always),
        weight("model.layers.{layer}.mlp.gate_proj.weight", &[Gate], Always),
        weight("model.layers.{layer}.mlp.up_proj.weight", &[Up], Always),
        weight("model.layers.{layer}.mlp.down_proj.weight", &[Down], Always),
    ],
    pruned: None,
};

/// Llama with norms that a key of its own switches on.
static SWITCHED: Family = Family {
    model_type: "switched",
    per_layer: false,
    windows: Windows::Ignored,
    biases: NO_BIASES,
    defaults: &[],
    keys: &[("use_qk_norm", Role::Read)],
    tensors: &[
        weight("embedding", &[Embedding], Always),
        weight("layer.{layer}.q_norm", &[QueryNorm], Set("use_qk_norm")),
    ],
    pruned: None,
};

/// Every table that is known here.
static TABLES: [&Family; 7] = [&LLAMA, &MISTRAL, &QWEN2, &PRUNED_LLAMA, &PHI3, &QWEN3, &GEMMA2];

/// A configuration with sizes that tell all axes apart.
fn config(family: &'static Family, change: impl FnOnce(&mut serde_json::Value)) -> Config {
    let mut raw = serde_json::json!({
        "model_type": family.model_type, "hidden_size": 40, "intermediate_size": 22, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 30,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 64,
        "per_layer_config": {
            "0": {"num_attention_heads": 3, "num_key_value_heads": 2, "query_heads_per_kv": [2, 1], "intermediate_size": 5},
            "1": {"num_attention_heads": 0, "num_key_value_heads": 0, "query_heads_per_kv": [], "intermediate_size": 0},
        },
    });
    change(&mut raw);
    Config::parse_with(&[family], &raw.to_string()).unwrap()
}

fn names(rules: &[TensorRule]) -> Vec<&'static str> {
    rules.iter().map(|rule| rule.name).collect()
}

#[test]
fn every_matrix_lies_in_one_tensor_of_one_name() {
    for family in TABLES {
        let unique: BTreeSet<_> = names(family.tensors).into_iter().collect();
        assert_eq!(unique.len(), family.tensors.len(), "{}", family.model_type);
        let pieces: Vec<_> =
            family.tensors.iter().flat_map(|r| r.holds.iter().map(|&m| (m, r.part == Part::Bias))).collect();
        assert_eq!(pieces.iter().collect::<BTreeSet<_>>().len(), pieces.len(), "{}", family.model_type);
        let has = |matrix: &Matrix| pieces.contains(&(*matrix, false));
        assert!(Matrix::ALL[..12].iter().all(has), "{}", family.model_type);
        for rule in family.tensors {
            let columns: Vec<_> = rule.holds.iter().map(|m| m.axes().1).collect();
            assert!(columns.iter().all(|c| *c == columns[0]), "{} stacks unlike matrices", rule.name);
        }
    }
    assert!(FAMILIES.iter().all(|family| TABLES.contains(family)));
}

#[test]
fn matrices_are_counted_by_their_place_in_the_list() {
    assert!(Matrix::ALL.iter().enumerate().all(|(i, m)| *m as usize == i));
    assert!(ModuleKind::ALL.iter().all(|&kind| Matrix::output_of(kind).module() == Some(kind)));
}

#[test]
fn tables_name_the_very_tensors_of_checkpoints_in_their_shapes() {
    let Some(root) = shared("golden/architectures") else { return };
    let mut seen = BTreeSet::new();
    for folder in std::fs::read_dir(&root).unwrap().flatten() {
        let source = Source::folder(&folder.path()).unwrap();
        let mut raw: serde_json::Value = serde_json::from_str(&source.text("config.json").unwrap()).unwrap();
        if raw["model_type"] == "gemma2" {
            raw["tie_word_embeddings"] = true.into(); // what its class assumes
        }
        let config = Config::parse_with(&TABLES, &raw.to_string()).unwrap();
        let checkpoint = Checkpoint::open(&source).unwrap();
        let place = folder.path();
        let tensors = config.tensors();
        for tensor in &tensors {
            checkpoint.raw(&tensor.name, &tensor.shape).unwrap();
        }
        let claimed: BTreeSet<_> = tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(claimed, checkpoint.names().collect(), "{}", place.display());
        assert_eq!(claimed.len(), tensors.len(), "{}", place.display());
        assert_eq!(config.parameters().total(), checkpoint.parameters(), "{}", place.display());
        seen.insert(config.family.model_type);
    }
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        ["gemma2", "llama", "mistral", "phi3", "qwen2", "qwen3"]
    );
}

#[test]
fn counts_from_tables_equal_counts_of_files() {
    for family in [&LLAMA, &MISTRAL, &QWEN2, &PHI3] {
        for (bias, tied, kv_heads) in [(false, true, 2), (true, false, 1), (true, true, 4)] {
            let dir = tempfile::tempdir().unwrap();
            let pico = Pico { family, bias, tied, kv_heads, ..Pico::default() };
            let source = pico.write(dir.path(), 1).unwrap();
            let config = pico.config().unwrap();
            let counted = config.parameters();
            assert_eq!(counted.total(), Checkpoint::open(&source).unwrap().parameters());
            assert_eq!(counted.by_kind().iter().map(|(_, n)| n).sum::<usize>(), counted.total());
            let layers: usize = config.layers.iter().map(|shape| config.layer_parameters(shape)).sum();
            let outside = counted.of(Embedding) + counted.of(Output) + counted.of(FinalNorm);
            assert_eq!(layers + outside, counted.total());
            assert_eq!(counted.of(Output) == 0, tied);
        }
    }
}

#[test]
fn units_own_what_leaves_with_them_in_every_family() {
    for family in TABLES.into_iter().filter(|family| !family.per_layer) {
        for bias in [false, true] {
            let config =
                config(family, |raw| (raw["attention_bias"], raw["mlp_bias"]) = (bias.into(), bias.into()));
            let less = |groups: Vec<usize>, neurons: usize| {
                let left = LayerShape { query_heads_per_kv: groups, intermediate_size: neurons };
                config.layer_parameters(&config.dense_layer()) - config.layer_parameters(&left)
            };
            let name = family.model_type;
            assert_eq!(
                less(vec![3, 2], 22),
                config.shape(AttentionUnit::Head).attention.parameters,
                "{name}"
            );
            assert_eq!(
                less(vec![3], 22),
                config.shape(AttentionUnit::KvGroup).attention.parameters,
                "{name}"
            );
            assert_eq!(less(vec![3, 3], 21), config.shape(AttentionUnit::Head).mlp.parameters, "{name}");
        }
    }
}

#[test]
fn logits_of_families_given_by_a_table_equal_those_of_transformers() {
    let Some(root) = shared("golden/architectures") else { return };
    for (name, families) in [("qwen2-bias-tied", &[&QWEN2]), ("phi3-fused", &[&PHI3])] {
        let expected =
            candle_core::safetensors::load(root.join(name).join("expected.safetensors"), &Device::Cpu)
                .unwrap();
        let model =
            Model::open_with(families, &Source::folder(&root.join(name)).unwrap(), &Device::Cpu).unwrap();
        assert!(model.unclaimed().is_empty());
        let ids: Vec<u32> =
            expected["input_ids"].flatten_all().unwrap().to_dtype(DType::U32).unwrap().to_vec1().unwrap();
        let logits = model.logits(&model.hidden(&ids, &Segments::sequences(2, 48)).unwrap()).unwrap();
        let difference = worst(&logits, &expected["logits"].flatten_to(1).unwrap());
        eprintln!("{name}: logits differ by at most {difference}");
        assert!(difference <= 1e-4, "{name}: logits differ by {difference}");
    }
}

#[test]
fn norms_of_queries_and_keys_stay_whole_whatever_leaves() {
    let config = config(&QWEN3, |_| {});
    let norms: Vec<_> = config.tensors().into_iter().filter(|t| t.name.contains("q_norm")).collect();
    assert_eq!(norms.iter().map(|t| t.shape.clone()).collect::<Vec<_>>(), [[8], [8]]);
    let unit = config.shape(AttentionUnit::Head).attention;
    let kept = Kept::units(&config, unit, &[4, 1, 3], &[7, 2]);
    for matrix in [QueryNorm, KeyNorm, AttentionNorm, MlpOutputNorm, FinalNorm, AttentionOutput, Down] {
        assert_eq!(kept.entries(matrix.axes().0, &config), None, "{matrix:?}");
    }
    assert_eq!(kept.entries(Axis::Neurons, &config).unwrap(), [7, 2]);
    let heads: Vec<usize> = (32..40).chain(8..16).chain(24..32).collect();
    assert_eq!(kept.entries(Axis::QueryHeads, &config).unwrap(), heads);
    assert_eq!(kept.entries(Axis::KvHeads, &config).unwrap(), (0..16).collect::<Vec<_>>());
    assert_eq!(kept.kv_of(&config), [1, 0, 1]);
    assert_eq!(kept.shape(&config).query_heads_per_kv, [1, 2]);
    let last = Kept::units(&config, unit, &[5, 3], &[]);
    assert_eq!(last.entries(Axis::KvHeads, &config).unwrap(), (8..16).collect::<Vec<_>>());
    assert_eq!((last.kv_of(&config), last.shape(&config).query_heads_per_kv), (vec![0, 0], vec![2]));
}

#[test]
fn fused_matrices_lie_one_below_the_other() {
    let config = config(&PHI3, |_| {});
    let rows = |matrix| config.place(matrix, Part::Weight, 1).unwrap().rows;
    assert_eq!([rows(Query), rows(Key), rows(Value)], [0..48, 48..64, 64..80]);
    assert_eq!([rows(Gate), rows(Up), rows(Down)], [0..22, 22..44, 0..40]);
    let place = config.place(Value, Part::Weight, 1).unwrap();
    assert_eq!(place.name, "model.layers.1.self_attn.qkv_proj.weight");
    assert_eq!((place.tensor.clone(), place.shape()), (vec![80, 40], vec![16, 40]));
    assert_eq!(config.place(Query, Part::Bias, 0), None);
}

#[test]
fn a_tensor_may_hang_on_a_key_of_its_own() {
    let count = |set: bool| config(&SWITCHED, |raw| raw["use_qk_norm"] = set.into()).tensors().len();
    assert_eq!((count(false), count(true)), (1, 3));
}

#[test]
fn a_family_with_tensors_that_the_decoder_or_the_pruned_form_lacks_is_refused_by_name() {
    let Some(root) = shared("golden/architectures") else { return };
    let source = Source::folder(&root.join("qwen3-qk-norm")).unwrap();
    let e = Model::open_with(&[&QWEN3], &source, &Device::Cpu).err().unwrap();
    assert!(e.to_string().contains("q_norm.weight"), "{e}");
    let config = config(&QWEN3, |_| {});
    let e = with_layers(&config, config.layers.clone()).unwrap_err();
    assert!(
        e.to_string().contains("`pruned_llama` has no place for") && e.to_string().contains("q_norm"),
        "{e}"
    );
}

#[test]
fn biases_of_a_pruned_model_are_read_back_as_they_were_written() {
    let bits = |i: u32| Biases {
        qkv: i & 1 > 0,
        attention_output: i & 2 > 0,
        gate_up: i & 4 > 0,
        mlp_output: i & 8 > 0,
    };
    for family in [&LLAMA, &QWEN2, &PHI3] {
        for i in 0..16 {
            let base = config(family, |_| {});
            let written = with_layers_and_biases(&base, base.layers.clone(), bits(i));
            if family == &QWEN2 && i & 1 == 0 {
                assert!(written.unwrap_err().to_string().contains("q_proj.bias"));
                continue;
            }
            let written = written.unwrap();
            let read = Config::parse(&serde_json::to_string(&written.raw).unwrap()).unwrap();
            assert_eq!(read, written);
            assert_eq!(read.biases, bits(i));
        }
    }
}

#[test]
fn a_pruned_llama_has_the_keys_that_it_always_had() {
    for bias in [false, true] {
        let base = Pico { bias, ..Pico::default() }.config().unwrap();
        let mut layers = base.layers.clone();
        layers[0].intermediate_size -= 1;
        let written = with_layers(&base, layers).unwrap();
        let new: BTreeSet<_> = written.raw.keys().filter(|key| !base.raw.contains_key(*key)).collect();
        let keys = ["auto_map", "head_dim", "per_layer_config", "sliding_window"];
        assert_eq!(new.into_iter().collect::<Vec<_>>(), keys);
    }
}

#[test]
fn biases_that_are_no_booleans_and_sequences_of_some_layers_are_refused() {
    let refused = |family: &'static Family, change: &dyn Fn(&mut serde_json::Value)| {
        let mut raw = serde_json::Value::Object(config(family, |_| {}).raw);
        change(&mut raw);
        Config::parse_with(&[family], &raw.to_string()).unwrap_err().to_string()
    };
    assert!(refused(&LLAMA, &|raw| raw["mlp_bias"] = "yes".into()).contains("`mlp_bias` is \"yes\""));
    let switched = |raw: &mut serde_json::Value, first: usize| {
        raw["use_sliding_window"] = true.into();
        raw["sliding_window"] = 16.into();
        raw["max_window_layers"] = first.into();
    };
    assert!(refused(&QWEN2, &|raw| switched(raw, 1)).contains("1 of 2 layers have a sliding window"));
    assert_eq!(config(&QWEN2, |raw| switched(raw, 0)).window, Some(16));
    assert_eq!(config(&QWEN2, |raw| switched(raw, 2)).window, None);
    assert_eq!(config(&QWEN2, |raw| raw["sliding_window"] = 16.into()).window, None);
    assert_eq!(config(&LLAMA, |raw| raw["sliding_window"] = 16.into()).window, None);
    assert_eq!(config(&MISTRAL, |raw| raw["sliding_window"] = 16.into()).window, Some(16));
}

#[derive(Default)]
struct Notes(std::sync::Mutex<Vec<String>>);

impl Watch for Notes {
    fn begin(&self, _what: &str, _units: u64) {}

    fn advance(&self, _units: u64) {}

    fn end(&self) {}

    fn stopped(&self) -> bool {
        false
    }

    fn note(&self, message: &str) {
        self.0.lock().unwrap().push(message.into());
    }
}

#[test]
fn tensors_that_no_row_claims_are_named_and_neither_counted_nor_read() {
    let dir = tempfile::tempdir().unwrap();
    let source = Pico::default().write(dir.path(), 1).unwrap();
    let path = dir.path().join("model.safetensors");
    let whole = open(dir.path());
    let notes = Notes::default();
    whole.tell(&notes);
    assert!(notes.0.lock().unwrap().is_empty() && whole.unclaimed().is_empty());
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let extra =
        ["lm_head.weight", "model.layers.0.self_attn.q_proj.bias", "model.layers.3.mlp.up_proj.weight"];
    for name in extra.into_iter().chain(["model.layers.0.self_attn.rotary_emb.inv_freq"]) {
        tensors.insert(name.into(), Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap());
    }
    drop(whole);
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let model = Model::open(&source, &Device::Cpu).unwrap();
    assert_eq!(model.unclaimed(), extra);
    assert_eq!(model.checkpoint().parameters(), model.config().parameters().total());
    assert_eq!(Checkpoint::open(&source).unwrap().parameters(), model.checkpoint().parameters() + 16);
    assert!(!model.checkpoint().contains(extra[0]));
    model.tell(&notes);
    let declared = notes.0.lock().unwrap().concat();
    assert!(extra.iter().all(|name| declared.contains(name)) && !declared.contains("inv_freq"), "{declared}");
}

#[test]
fn a_pruned_model_of_a_fused_family_is_written_apart() {
    let dir = tempfile::tempdir().unwrap();
    let source = Pico { family: &PHI3, ..Pico::default() }.write(dir.path(), 1).unwrap();
    let fused = Model::open_with(&[&PHI3], &source, &Device::Cpu).unwrap();
    let config = with_layers(fused.config(), fused.config().layers.clone()).unwrap();
    let folder = dir.path().join("apart");
    save(&folder, &config, &source, Dtype::F32, |tensor| {
        let place = fused.config().place(tensor.rule.holds[0], tensor.rule.part, tensor.layer.unwrap_or(0));
        fused.checkpoint().values(&place.unwrap())
    })
    .unwrap();
    let apart = open(&folder);
    assert!(apart.checkpoint().contains("model.layers.0.self_attn.v_proj.weight"));
    let logits = |model: &Model| {
        model.logits(&model.hidden(&[3, 1, 4, 1, 5], &Segments::sequences(1, 5)).unwrap()).unwrap()
    };
    assert_eq!(worst(&logits(&fused), &logits(&apart)), 0.0);
}
