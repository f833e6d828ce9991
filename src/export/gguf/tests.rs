//! GGUF files: their keys and tensors, the types of numbers, tokenizers, and files taken over.

mod tokenizers;

use candle_core::quantized::gguf_file::{Content, Value};
use safetensors::Dtype;

use crate::base::{Kind, Silent};
use crate::export::tests::subjects::{Subject, layer, random_tokens};
use crate::export::{Options, look, parity, read_back, write};
use crate::model::pico::Pico;
use crate::model::{LayerShape, Source};
use crate::spec::{Form, Quantisation};

fn options(quantisation: Quantisation) -> Options<'static> {
    Options { quantisation, gguf_base: None, stored: None, name: None }
}

/// Writes a file; its folder, its keys, and the name.
fn written(subject: &Subject, options: &Options) -> (tempfile::TempDir, Content, String) {
    let dir = tempfile::tempdir().unwrap();
    let exported = write(&subject.model, &subject.source, Form::Gguf, options, dir.path(), &Silent).unwrap();
    let content = super::base::open(&dir.path().join(&exported.files[0])).unwrap();
    (dir, content, exported.files[0].clone())
}

fn text(content: &Content, key: &str) -> String {
    content.metadata[key].to_string().unwrap().clone()
}

fn numbers(content: &Content, key: &str) -> Vec<i32> {
    content.metadata[key].to_vec().unwrap().iter().map(|v| v.to_i32().unwrap()).collect()
}

/// Every trap of `deci`: a first layer without heads, layers without neurons, a last one without either.
fn traps() -> Vec<LayerShape> {
    vec![layer(&[], 5), layer(&[4, 1], 0), layer(&[], 0), layer(&[], 9), layer(&[], 0)]
}

#[test]
fn the_traps_of_deci_are_avoided() {
    let subject = Subject::new(&traps(), |_| {});
    let (_dir, content, name) = written(&subject, &options(Quantisation::F32));
    assert_eq!((name.as_str(), text(&content, "general.architecture").as_str()), ("model-f32.gguf", "deci"));
    assert_eq!(numbers(&content, "deci.attention.head_count"), [1, 6, 0, 0, 0]);
    assert_eq!(numbers(&content, "deci.attention.head_count_kv"), [1, 3, 0, 0, 0]);
    assert_eq!(numbers(&content, "deci.feed_forward_length"), [5, 1, 0, 9, 1]);
    assert!(!content.tensor_infos.keys().any(|name| name.starts_with("blk.2.")));
    assert!(!content.tensor_infos.contains_key("blk.3.attn_norm.weight"));
    assert!(content.tensor_infos.contains_key("blk.3.ffn_norm.weight"));
}

#[test]
fn layers_that_are_alike_make_a_llama() {
    let subject = Subject::new(&vec![layer(&[3, 3], 5); 2], |_| {});
    let (_dir, content, _) = written(&subject, &options(Quantisation::F32));
    assert_eq!(text(&content, "general.architecture"), "llama");
    assert_eq!(content.metadata["llama.attention.head_count"].to_u32().unwrap(), 6);
    assert_eq!(content.metadata["llama.attention.key_length"].to_u32().unwrap(), 2);
}

/// A wide model: 256 channels, so that blocks of 256 fit somewhere.
fn wide() -> Subject {
    let layers = [layer(&[2, 2], 256), layer(&[1], 64), layer(&[2], 33)];
    let pico = Pico { hidden: 256, heads: 4, kv_heads: 2, neurons: 256, tied: false, ..Pico::of_bytes(256) };
    Subject::of(pico, &layers, 4, Dtype::F32, |_| {})
}

#[test]
fn types_fall_back_by_width_and_say_so() {
    use candle_core::quantized::GgmlDType::{F16, F32, Q4_0, Q4K, Q5_0, Q6K, Q8_0};
    let subject = wide();
    // The widths of o_proj are 256, 64 and 128, those of down_proj 256, 64 and 33.
    for (quantisation, plain, output, o, down) in [
        (Quantisation::Q8_0, Q8_0, Q8_0, [Q8_0; 3], [Q8_0, Q8_0, F16]),
        (Quantisation::Q4_0, Q4_0, Q6K, [Q4_0; 3], [Q4_0, Q4_0, F16]),
        (Quantisation::Q4K, Q4K, Q6K, [Q4K, Q5_0, Q5_0], [Q4K, Q5_0, F16]),
        (Quantisation::Q6K, Q6K, Q6K, [Q6K, Q8_0, Q8_0], [Q6K, Q8_0, F16]),
    ] {
        let options = options(quantisation);
        let (dir, content, name) = written(&subject, &options);
        let of = |name: &str| content.tensor_infos[name].ggml_dtype;
        let each = |kind: &str| [0, 1, 2].map(|l| of(&format!("blk.{l}.{kind}.weight")));
        assert_eq!((of("blk.0.attn_q.weight"), of("output.weight")), (plain, output));
        assert_eq!(of("blk.1.ffn_norm.weight"), F32);
        assert_eq!((each("attn_output"), each("ffn_down")), (o, down), "{quantisation:?}");
        let found = look(subject.model.config(), Form::Gguf, &options).unwrap();
        assert!(
            found
                .notes
                .iter()
                .any(|n| n.starts_with("stored as f16") && n.contains("1 down_proj, whose widths (33)")),
            "{found:?}"
        );
        let size = std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(found.bytes < size && size < found.bytes + 20_000, "{} {size}", found.bytes);
        let other = read_back(Form::Gguf, dir.path(), &dir.path().join("read")).unwrap();
        let tokens = random_tokens(40, 270);
        let found = parity(&subject.model, &other, &[&tokens]).unwrap();
        println!("{quantisation:?}: {found:?}");
        let [own, quantised] = found.perplexity;
        assert!(found.max_logit_difference > 0.0 && (quantised / own).ln().abs() < 0.3, "{found:?}");
    }
}

#[test]
fn zeros_stay_zeros_in_blocks() {
    let subject = Subject::new(&traps(), |_| {});
    for quantisation in [Quantisation::Q8_0, Quantisation::Q4_0, Quantisation::Q4K, Quantisation::Q6K] {
        let (dir, content, _) = written(&subject, &options(quantisation));
        assert_eq!(numbers(&content, "deci.feed_forward_length"), [5, 32, 0, 9, 32]);
        let other = read_back(Form::Gguf, dir.path(), &dir.path().join("read")).unwrap();
        let down = other.layer(4).unwrap().mlp.down.weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(down, vec![0.0; 32 * 32], "{quantisation:?}");
    }
}

#[test]
fn a_base_files_tokenizer_and_description_are_taken_over() {
    let base = Subject::new(&vec![layer(&[3, 3], 5); 2], |_| {});
    let (dir, expected, name) = written(&base, &options(Quantisation::F16));
    let path = dir.path().join(name);
    let subject = Subject::new(&traps(), |_| {});
    let taking =
        Options { quantisation: Quantisation::F32, gguf_base: Some(&path), stored: None, name: None };
    let (_out, content, _) = written(&subject, &taking);
    assert_eq!(text(&content, "general.architecture"), "deci");
    assert_eq!(content.metadata["general.file_type"].to_u32().unwrap(), 0);
    let of_tokenizer = |content: &Content| {
        let keys = content.metadata.iter().filter(|(key, _)| key.starts_with("tokenizer."));
        keys.map(|(key, value)| (key.clone(), format!("{value:?}")))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    assert!(of_tokenizer(&content).len() > 8);
    assert_eq!(of_tokenizer(&content), of_tokenizer(&expected));
    let other = Subject::new(&traps(), |pico| pico.vocabulary = 271);
    let out = tempfile::tempdir().unwrap();
    let e = write(&other.model, &other.source, Form::Gguf, &taking, out.path(), &Silent).unwrap_err();
    assert!(e.kind == Kind::Data && e.what.contains("270 tokens") && e.what.contains("271"), "{e}");
}

#[test]
fn a_file_of_another_architecture_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let architecture = ("general.architecture".to_string(), Value::String("gpt2".into()));
    super::file::write(&path, &[architecture], &[], |_| Ok(vec![])).unwrap();
    let e = read_back(Form::Gguf, dir.path(), &dir.path().join("read")).err().unwrap();
    assert!(e.what.contains("gpt2"), "{e}");
}

#[test]
fn divisors_of_frequencies_that_are_not_those_of_the_scaling_are_refused() {
    let scaling = serde_json::json!({"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
    let pico = Pico { hidden: 128, layers: 5, heads: 16, kv_heads: 4, ..Pico::of_bytes(256) };
    let subject =
        Subject::of(pico, &traps(), 4, Dtype::F32, |raw| drop(raw.insert("rope_scaling".into(), scaling)));
    let (dir, content, name) = written(&subject, &options(Quantisation::F32));
    assert_eq!(content.tensor_infos["rope_freqs.weight"].shape.dims(), [4]);
    let path = dir.path().join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(12).position(|part| part == b"\"factor\":4.0").unwrap();
    bytes[at + 9] = b'5';
    std::fs::write(&path, bytes).unwrap();
    let e = read_back(Form::Gguf, dir.path(), &dir.path().join("read")).err().unwrap();
    assert!(e.kind == Kind::Checkpoint && e.what.contains("rope_freqs.weight"), "{e}");
}

#[test]
fn the_built_in_model_is_written() {
    let source = Source::resolve("builtin:quickstart").unwrap();
    let model = crate::model::Model::open(&source, &candle_core::Device::Cpu).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let exported =
        write(&model, &source, Form::Gguf, &options(Quantisation::Auto), dir.path(), &Silent).unwrap();
    assert_eq!((exported.files, exported.notes), (vec!["model-bf16.gguf".to_string()], vec![]));
    let content = super::base::open(&dir.path().join("model-bf16.gguf")).unwrap();
    assert_eq!(text(&content, "general.name"), "quickstart");
    assert_eq!(text(&content, "tokenizer.ggml.pre"), "gpt-2");
    assert!(content.metadata["tokenizer.ggml.add_bos_token"].to_bool().unwrap());
}
