//! Models of every shape that pruning leaves, written in every form and read back: their logits are the
//! model's.

mod carried;
pub mod subjects;

use safetensors::Dtype;

use super::*;
use crate::base::Silent;
use crate::model::matrix::{Axis, Part};
use crate::model::{LayerShape, Matrix};
use subjects::{Subject, layer, random_tokens};

/// Largest difference of logits that sums in another order may make.
const CLOSE: f64 = 1e-5;

const PLAIN: Options<'static> =
    Options { quantisation: Quantisation::F32, gguf_base: None, stored: None, name: None };

/// Writes the subject in a form, reads it back, and compares.
fn round_trip(subject: &Subject, form: Form) -> (Exported, Parity) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let exported = write(&subject.model, &subject.source, form, &PLAIN, &out, &Silent).unwrap();
    let other = read_back(form, &out, &dir.path().join("read")).unwrap();
    let tokens = random_tokens(24, subject.model.config().vocabulary);
    (exported, parity(&subject.model, &other, &[&tokens, &tokens[..1]]).unwrap())
}

fn assert_same(subject: &Subject, form: Form) -> Exported {
    let (exported, found) = round_trip(subject, form);
    let [own, other] = found.perplexity;
    assert_eq!(found.tokens, 25);
    assert!(found.max_logit_difference < CLOSE, "{form:?} {subject:?}: {found:?}");
    assert!((own - other).abs() < 1e-4 * own, "{form:?} {subject:?}: {found:?}");
    exported
}

/// Irregular groups, with the sub-layers whose bit is set removed.
fn emptied(bits: u32) -> Vec<LayerShape> {
    let own = [layer(&[4, 4, 2, 1], 33), layer(&[1, 3], 7), layer(&[2, 4, 1], 40)];
    let groups = |l: usize| if bits >> (2 * l) & 1 == 1 { vec![] } else { own[l].query_heads_per_kv.clone() };
    let neurons = |l: usize| if bits >> (2 * l + 1) & 1 == 1 { 0 } else { own[l].intermediate_size };
    (0..3).map(|l| layer(&groups(l), neurons(l))).collect()
}

#[test]
fn every_form_gives_the_logits_of_the_model_whatever_was_removed() {
    for bits in 0..64u32 {
        // Every sub-layer alone, and a part of their combinations.
        let forms: &[Form] = match bits {
            _ if bits % 16 == 5 => &[Form::Gguf, Form::Mlx, Form::Stock, Form::Hf],
            _ if bits % 7 == 0 || bits.is_power_of_two() => &[Form::Gguf],
            _ => continue,
        };
        let subject = Subject::new(&emptied(bits), |_| {});
        forms.iter().for_each(|form| drop(assert_same(&subject, *form)));
    }
}

#[test]
fn biases_survive_also_of_sub_layers_that_are_gone() {
    for (bits, tied) in [(0, true), (1, false), (2, true), (16, true), (32, false), (42, true), (63, false)] {
        let subject = Subject::new(&emptied(bits), |pico| (pico.bias, pico.tied) = (true, tied));
        for form in [Form::Gguf, Form::Stock, Form::Hf] {
            assert_same(&subject, form);
        }
    }
}

#[test]
fn a_model_whose_layers_are_all_alike_is_written_as_it_is() {
    let same = vec![layer(&[2, 2], 20); 3];
    let subject = Subject::new(&same, |pico| pico.tied = false);
    let parameters = subject.model.config().parameters().total();
    for form in [Form::Gguf, Form::Mlx, Form::Stock] {
        let exported = assert_same(&subject, form);
        assert_eq!(exported.notes, Vec::<String>::new(), "{form:?}");
        let look = look(subject.model.config(), form, &PLAIN).unwrap();
        assert_eq!(look.bytes, 4 * parameters as u64, "{form:?}");
    }
}

/// Every entry of what is written is one of the model's, bit for bit, or zero; and all that were there are.
#[test]
fn what_a_layer_becomes_has_the_models_own_numbers_and_zeros() {
    for bits in [0, 0b000110, 0b011001, 0b111111] {
        let subject = Subject::new(&emptied(bits), |pico| pico.bias = true);
        let config = subject.model.config();
        for layout in [Layout::regular(config), Layout::alike(config, |_| true).unwrap()] {
            let rewritten = Rewritten { model: &subject.model, layout: &layout };
            for (matrix, part, rule) in config.pieces().filter(|(.., rule)| rule.is_of_layer()) {
                for l in 0..config.layers.len() {
                    let place = config.place(matrix, part, l).unwrap();
                    let own = subject.model.checkpoint().values(&place).unwrap();
                    let written = rewritten.matrix(matrix, part, Some(l)).unwrap();
                    assert_eq!(written.len(), matrix.elements(part, config, &layout.layers[l].shape()));
                    let bits = |values: &[f32]| {
                        let all = values.iter().filter(|v| **v != 0.0).map(|v| v.to_bits());
                        all.collect::<std::collections::BTreeSet<_>>()
                    };
                    assert_eq!(bits(&own), bits(&written), "{} of layer {l}", rule.name);
                    if matrix.axes().0 != Axis::KvHeads {
                        let count = |values: &[f32]| values.iter().filter(|v| **v != 0.0).count();
                        assert_eq!(count(&own), count(&written), "{} of layer {l}", rule.name);
                    }
                }
            }
        }
    }
}

#[test]
fn a_bias_that_the_model_lacks_is_zeros() {
    let subject = Subject::new(&emptied(0), |_| {});
    let layout = Layout::regular(subject.model.config());
    let rewritten = Rewritten { model: &subject.model, layout: &layout };
    assert_eq!(rewritten.matrix(Matrix::Down, Part::Bias, Some(1)).unwrap(), [0.0; 32]);
}

#[test]
fn parity_sees_a_difference_and_refuses_another_vocabulary() {
    let same = vec![layer(&[2, 2], 20); 3];
    let subject = Subject::new(&same, |_| {});
    let other = Subject::seeded(&same, 9, |_| {});
    let tokens = random_tokens(12, 64);
    let found = parity(&subject.model, &other.model, &[&tokens]).unwrap();
    assert!(found.max_logit_difference > 0.1 && found.perplexity[0] != found.perplexity[1], "{found:?}");
    let small = Subject::new(&same, |pico| pico.vocabulary = 280);
    assert_eq!(parity(&subject.model, &small.model, &[&tokens]).unwrap_err().kind, Kind::Checkpoint);
}

#[test]
fn a_small_dtype_is_kept() {
    let subject = Subject::stored(&emptied(0b000110), Dtype::BF16);
    let auto = Options { quantisation: Quantisation::Auto, ..PLAIN };
    for form in [Form::Gguf, Form::Mlx, Form::Stock, Form::Hf] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let exported = write(&subject.model, &subject.source, form, &auto, &out, &Silent).unwrap();
        let other = read_back(form, &out, &dir.path().join("read")).unwrap();
        let tokens = random_tokens(24, 64);
        let found = parity(&subject.model, &other, &[&tokens]).unwrap();
        assert!(found.max_logit_difference < CLOSE, "{form:?}: {found:?}");
        let weights = look(subject.model.config(), form, &auto).unwrap().bytes;
        assert!(
            weights < exported.bytes && exported.bytes < weights + 40_000,
            "{form:?} {weights} {exported:?}"
        );
    }
}
