//! Exports: forms that are named twice, and shapes that a form does not carry as they are.

use super::*;

fn said(text: &str) -> Vec<(String, String)> {
    let found = inspect_with(text, |_| {}).findings;
    found.into_iter().map(|f| (f.key.to_string(), f.message)).collect()
}

#[test]
fn a_form_is_exported_once() {
    let found = said("export.to = ['mlx', 'hf', 'mlx']\n");
    assert_eq!(found, [("export.to[2]".into(), "form \"mlx\" is listed twice".into())]);
}

#[test]
fn padding_is_warned_about_where_a_search_leaves_layers_different() {
    let stock = "export.to = ['stock']\n";
    let found = said(stock);
    assert!(found.len() == 1 && found[0].1.contains("fills every layer up"), "{found:?}");
    assert_eq!(said(&format!("{stock}sparsity.shape = 'uniform'\n")), []);
    let unsearched = said(&format!("{stock}search = {{ start = 'uniform', generations = 0 }}\n"));
    assert!(unsearched.iter().all(|(key, _)| key == "search.generations"), "{unsearched:?}");
    assert_eq!(said("export.to = ['mlx', 'hf', 'gguf']\n"), []);
}

#[test]
fn blocks_that_widths_need_not_divide_into_are_warned_about() {
    for (numbers, fits, other) in [("q8_0", 32, 16), ("q4_0", 64, 1), ("q4_k", 256, 128), ("q6_k", 512, 32)] {
        let text = |neurons: usize| {
            format!("export = {{ to = ['gguf'], gguf = '{numbers}' }}\nprune.align.neurons = {neurons}\n")
        };
        assert_eq!(said(&text(fits)), [], "{numbers}");
        let found = said(&text(other));
        assert!(found.len() == 1 && found[0].0 == "export.gguf" && found[0].1.contains(numbers), "{found:?}");
    }
    assert_eq!(said("export = { to = ['gguf'], gguf = 'f16' }\n"), []);
}
