//! What a form carries, what it says of it, and what it refuses.

use serde_json::json;

use super::*;
use crate::model::families::{LLAMA, MISTRAL, QWEN2};
use crate::model::family::Family;
use crate::model::pico::Pico;

const GROUPS: &[usize] = &[4, 2];

/// A model of a family whose config.json says more.
fn of(family: &'static Family, more: serde_json::Value) -> Subject {
    let pico = Pico { hidden: 128, heads: 16, kv_heads: 4, family, ..Pico::of_bytes(256) };
    let layers = [layer(GROUPS, 20), layer(&[], 7), layer(&[1, 1, 1], 0)];
    Subject::of(pico, &layers, 8, Dtype::F32, |raw| raw.extend(more.as_object().unwrap().clone()))
}

fn refused(subject: &Subject, form: Form) -> String {
    let by_look = look(subject.model.config(), form, &PLAIN).unwrap_err();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let e = write(&subject.model, &subject.source, form, &PLAIN, &out, &Silent).unwrap_err();
    assert_eq!(e, by_look);
    assert!(!out.exists() && e.kind == Kind::Checkpoint && e.hint.is_some());
    e.to_string()
}

fn scaled(kind: &str) -> serde_json::Value {
    json!({"rope_scaling": {
        "rope_type": kind, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }})
}

#[test]
fn scaled_rotary_embeddings_survive() {
    let linear = json!({"rope_scaling": {"rope_type": "linear", "factor": 4.0}});
    for scaling in [scaled("llama3"), linear] {
        let subject = of(&LLAMA, scaling);
        assert!(subject.model.config().rope_scaling.is_some());
        assert_same(&subject, Form::Gguf);
        assert_same(&subject, Form::Stock);
        assert!(refused(&subject, Form::Mlx).contains("RoPE scaling"));
    }
}

#[test]
fn windows_that_hide_tokens_are_refused_where_there_are_none() {
    let window = |window: usize| of(&MISTRAL, json!({"sliding_window": window}));
    assert_same(&window(9), Form::Stock);
    for form in [Form::Gguf, Form::Mlx] {
        assert_same(&window(256), form);
        let message = refused(&window(9), form);
        assert!(message.contains("last 9 tokens") && message.contains("layers 0 to 2"), "{message}");
    }
}

#[test]
fn every_plain_family_is_found_for_stock() {
    let named = |subject: &Subject| {
        let dir = tempfile::tempdir().unwrap();
        write(&subject.model, &subject.source, Form::Stock, &PLAIN, dir.path(), &Silent).unwrap();
        let config: serde_json::Value = files::read_json(&dir.path().join("config.json")).unwrap();
        config["model_type"].as_str().unwrap().to_string()
    };
    let qwen = of(&QWEN2, json!({}));
    assert_same(&qwen, Form::Stock);
    assert_same(&qwen, Form::Gguf);
    assert_eq!(named(&qwen), "qwen2");
    let biased = of(&LLAMA, json!({"mlp_bias": true, "attention_bias": false}));
    assert_same(&biased, Form::Stock);
    assert!(refused(&biased, Form::Mlx).contains("biases"));
    assert_eq!(named(&of(&MISTRAL, json!({"sliding_window": 5}))), "mistral");
}

#[test]
fn notes_name_layers_reasons_and_keys() {
    let layers = [layer(&[], 5), layer(&[4, 4, 2, 1], 0), layer(&[2, 2], 0)];
    let subject = Subject::new(&layers, |_| {});
    let notes = |form| look(subject.model.config(), form, &PLAIN).unwrap().notes.join("\n");
    let gguf = notes(Form::Gguf);
    for part in [
        "layer 1: key/value heads",
        "2 key/value heads are repeated, 1 query heads of zeros are added; layer 1",
        "[4, 4, 2, 1] as 6 x 2",
        "attention of layer 0, MLP of layers 1, 2",
        "% more",
        "prune.keep_at_least",
        "prune.unit.attention",
    ] {
        assert!(gguf.contains(part), "{part}: {gguf}");
    }
    let stock = notes(Form::Stock);
    assert!(stock.contains("layers 0, 1, 2: filled up") && stock.contains("sparsity.shape"), "{stock}");
    assert_eq!(notes(Form::Hf), "");
}

#[test]
fn what_fills_a_model_up_whose_layers_are_alike_does_not_advise_to_make_them_alike() {
    let note = |pico: fn(&mut Pico), own: LayerShape| {
        let subject = Subject::new(&vec![own; 2], pico);
        look(subject.model.config(), Form::Stock, &PLAIN).unwrap().notes.join("\n")
    };
    let cases = [
        (note(|_| {}, layer(&[4, 2], 9)), "prune.align.heads"),
        (note(|_| {}, layer(&[], 9)), "prune.keep_at_least"),
        (note(|_| {}, layer(&[2, 2], 0)), "prune.keep_at_least"),
        (note(|pico| pico.bias = true, layer(&[3, 3], 9)), "6"),
    ];
    for (note, words) in cases {
        assert!(note.contains("filled up") && note.contains(words), "{words}: {note}");
        assert!(!note.contains("sparsity.shape"), "{note}");
    }
}

#[test]
fn what_is_written_has_the_sizes_that_are_read_back() {
    let layers = [layer(&[], 5), layer(&[4, 4, 2, 1], 0), layer(&[2, 2], 9)];
    let subject = Subject::new(&layers, |_| {});
    let config = subject.model.config();
    for form in Form::ALL {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        write(&subject.model, &subject.source, form, &PLAIN, &out, &Silent).unwrap();
        let other = read_back(form, &out, &dir.path().join("read")).unwrap();
        let said = written(config, form, &PLAIN).unwrap();
        assert_eq!(said.layers, other.config().layers, "{form}");
        assert_eq!(said.layers == config.layers, form == Form::Hf);
        let copied = dir.path().join("read/model.safetensors");
        let expected = read_back_bytes(config, form, &PLAIN).unwrap();
        // MLX's weights get a second name there, which takes no room.
        let bytes = match form {
            Form::Gguf => std::fs::metadata(copied).unwrap().len(),
            Form::Mlx | Form::Hf | Form::Stock => 0,
        };
        assert!((expected..expected + 8000).contains(&bytes), "{form}: {expected} {bytes}");
    }
}

#[test]
fn a_folder_for_mlx_names_a_class_that_opens_its_tokenizer() {
    let file = "tokenizer_config.json";
    for (own, class) in [
        (None, "PreTrainedTokenizerFast"),
        (Some(json!({"bos_token": "<s>"})), "PreTrainedTokenizerFast"),
        (Some(json!({"bos_token": "<s>", "tokenizer_class": "LlamaTokenizerFast"})), "LlamaTokenizerFast"),
    ] {
        let subject = Subject::new(&[layer(&[2, 1], 9)], |_| {});
        let path = std::path::PathBuf::from(subject.source.place()).join(file);
        std::fs::remove_file(&path).unwrap();
        own.iter().for_each(|own| std::fs::write(&path, own.to_string()).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let exported =
            write(&subject.model, &subject.source, Form::Mlx, &PLAIN, dir.path(), &Silent).unwrap();
        let settings: serde_json::Value = files::read_json(&dir.path().join(file)).unwrap();
        assert_eq!(settings["tokenizer_class"], class);
        assert_eq!(settings.get("bos_token"), own.as_ref().map(|own| &own["bos_token"]));
        assert_eq!(exported.files.iter().filter(|name| *name == file).count(), 1);
        let sizes = exported.files.iter().map(|name| dir.path().join(name).metadata().unwrap().len());
        assert_eq!(sizes.sum::<u64>(), exported.bytes);
    }
}

#[test]
fn a_missing_folder_and_a_file_that_is_none_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none");
    for form in [Form::Gguf, Form::Mlx, Form::Hf, Form::Stock] {
        let e = read_back(form, &missing, &dir.path().join("into")).err().unwrap();
        assert!(e.to_string().contains("none"), "{form:?}: {e}");
    }
    std::fs::write(dir.path().join("x.gguf"), b"GGUF").unwrap();
    let e = read_back(Form::Gguf, dir.path(), &dir.path().join("into")).err().unwrap();
    assert!(e.kind == Kind::Checkpoint && e.to_string().contains("x.gguf"), "{e}");
}
