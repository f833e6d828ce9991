//! Writes the inputs that fuzzing starts from to `fuzz/corpus/TARGET/`, all of them made here or taken from the
//! project's own specs and scripts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;
use tyr::model::LayerShape;
use tyr::model::pico::Pico;
use tyr::model::save::with_layers;
use tyr_fuzz::{found, model};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn seed(target: &str, name: &str, bytes: &[u8]) {
    let folder = root().join("corpus").join(target);
    found(fs::create_dir_all(&folder));
    found(fs::write(folder.join(name), bytes));
}

/// Every file of the project with an ending.
fn project(target: &str, folder: &Path, ending: &str) {
    for entry in found(fs::read_dir(folder)).flatten() {
        let path = entry.path();
        if path.is_dir() {
            project(target, &path, ending);
        } else if path.extension().is_some_and(|e| e == ending) {
            let name = path.strip_prefix(root().join("..")).unwrap_or(&path).display().to_string();
            seed(target, &name.replace('/', "-"), &found(fs::read(&path)));
        }
    }
}

fn configurations() {
    let common = json!({
        "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 64, "rms_norm_eps": 1e-5, "max_position_embeddings": 128, "bos_token_id": 0,
    });
    let own = [
        (
            "llama",
            json!({"rope_theta": 5e5, "eos_token_id": [1, 2], "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
        ),
        (
            "llama",
            json!({"head_dim": 16, "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true,
            "rope_scaling": {"type": "linear", "factor": 2.0}}),
        ),
        ("mistral", json!({"sliding_window": 32, "head_dim": 8})),
        ("qwen2", json!({"use_sliding_window": false, "sliding_window": 32, "max_window_layers": 2})),
    ];
    for (i, (kind, keys)) in own.into_iter().enumerate() {
        let mut config = common.clone();
        config["model_type"] = json!(kind);
        for (key, value) in keys.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        seed("config", &format!("{i}-{kind}.json"), config.to_string().as_bytes());
    }
}

/// A pruned model: a layer without heads, and one without neurons.
fn pruned() {
    let dense = found(Pico::default().config());
    let layers = [(vec![2, 2], 48), (vec![], 7), (vec![1], 0)];
    let layers = layers
        .map(|(query_heads_per_kv, intermediate_size)| LayerShape { query_heads_per_kv, intermediate_size });
    let config = found(with_layers(&dense, layers.to_vec()));
    seed("config", "pruned.json", found(serde_json::to_string(&config.raw)).as_bytes());
}

/// A tiny model's own files, and a subword tokenizer.
fn models() {
    let folder = found(tempfile::tempdir());
    model(folder.path());
    let file = |name: &str| found(fs::read(folder.path().join(name)));
    seed("config", "pico.json", &file("config.json"));
    seed("weights", "pico.safetensors", &file("model.safetensors"));
    seed("tokenizer", "bytes.json", &file("tokenizer.json"));
    let subwords = json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}, "padding": null,
        "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<s>", "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "vocab": {"<s>": 0, "▁": 1, "t": 2, "h": 3, "e": 4, "th": 5, "▁the": 6, "the": 7, "<0x0A>": 8}, "merges": [["t", "h"], ["th", "e"], ["▁", "the"]]},
    });
    seed("tokenizer", "subwords.json", subwords.to_string().as_bytes());
}

fn table(codec: Compression) -> Vec<u8> {
    let schema = "message m { optional binary text (UTF8); optional int64 id;
        optional group choices (LIST) { repeated group list { optional binary element (UTF8); } } }";
    let schema = Arc::new(found(parse_message_type(schema)));
    let properties = WriterProperties::builder().set_compression(codec).build();
    let mut bytes = Vec::new();
    let mut writer = found(SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)));
    let mut group = found(writer.next_row_group());
    let mut flat = [["One.", "Two é."], ["a", "b"]].into_iter();
    while let Some(mut column) = found(group.next_column()) {
        match column.untyped() {
            ColumnWriter::ByteArrayColumnWriter(w) => {
                let is_text = flat.len() == 2;
                let values: Vec<_> = flat.next().into_iter().flatten().map(ByteArray::from).collect();
                let (definitions, repetitions): (&[i16], Option<&[i16]>) =
                    if is_text { (&[1, 1], None) } else { (&[3, 3], Some(&[0, 0])) };
                found(w.write_batch(&values, Some(definitions), repetitions));
            }
            ColumnWriter::Int64ColumnWriter(w) => {
                found(w.write_batch(&[7], Some(&[1, 0]), None));
            }
            _ => {}
        }
        found(column.close());
    }
    found(group.close());
    found(writer.close());
    bytes
}

fn texts() {
    for (name, codec) in [
        ("plain", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("zstd", Compression::ZSTD(ZstdLevel::default())),
    ] {
        seed("parquet", name, &table(codec));
    }
    seed("lines", "rows", b"{\"text\": \"One.\", \"id\": 3}\n\n{\"text\": \"Two \\ud83d\\ude00\", \"text2\": [\"a\", \"b\"]}\r\n");
    seed("lines", "array", b"[{\"text\": \"One.\"}, {\"text\": \"Two.\"}]");
    seed("lines", "mark", b"\xef\xbb\xbf{\"text\": [\"a\"], \"id\": -1}\n");
    seed(
        "lines",
        "gzip",
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0xae, 5, 0, 0x43, 0xbf, 0xa6, 0xa3, 2, 0, 0, 0],
    );
}

fn requests() {
    let bodies = [
        json!({"prompt": "The cat", "max_tokens": 2, "temperature": 0.7, "top_p": 0.9, "seed": 1, "stop": ["."]}),
        json!({"prompt": [[1, 2, 3], [4]], "max_tokens": 1, "echo": true, "logprobs": 2, "temperature": 0}),
        json!({"prompt": ["a", "b"], "max_tokens": 2, "stream": true, "stream_options": {"include_usage": true}, "model": "fuzz"}),
    ];
    for (i, body) in bodies.into_iter().enumerate() {
        seed("request", &format!("body-{i}"), format!("1{body}").as_bytes());
    }
    for (i, path) in ["/health", "/v1/models", "/v1/models/fuzz", "/v1/models/%ff"].into_iter().enumerate() {
        seed(
            "request",
            &format!("get-{i}"),
            format!("0GET {path} HTTP/1.1\r\nhost: fuzz\r\n\r\n").as_bytes(),
        );
    }
    let chunked = "0POST /v1/completions HTTP/1.1\r\nhost: fuzz\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n\
        e\r\n{\"prompt\": \"a\"}\r\n0\r\n\r\n";
    seed("request", "chunked", chunked.as_bytes());
}

fn main() {
    let project_root = root().join("..");
    for folder in ["experiments", "tests/broken"] {
        project("spec", &project_root.join(folder), "toml");
        project("script", &project_root.join(folder), "rhai");
    }
    configurations();
    pruned();
    models();
    texts();
    requests();
}
