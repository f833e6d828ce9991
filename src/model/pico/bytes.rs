//! The tiny byte-level tokenizer: every text survives it, and some pairs are joined, so that tokens are not
//! characters.

use serde_json::{Map, json};

/// Pairs that the tokenizer joins, besides single bytes; `Ġ` stands for the space.
const MERGES: [(&str, &str); 12] = [
    ("Ġ", "t"),
    ("h", "e"),
    ("Ġt", "he"),
    ("i", "n"),
    ("e", "r"),
    ("a", "n"),
    ("Ġ", "A"),
    ("Ġ", "B"),
    ("Ġ", "C"),
    ("Ġ", "D"),
    ("Ġ", "s"),
    ("o", "n"),
];

/// Tokens: `<s>` (0), `</s>` (1), 256 bytes, and the joined pairs.
pub const VOCABULARY: usize = 2 + 256 + MERGES.len();

/// The visible character that stands for a byte in byte-level vocabularies: itself where it is printable
/// Latin-1, else the next free one.
fn stand_in(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    match printable(byte) {
        true => char::from(byte),
        false => char::from_u32(256 + (0..byte).filter(|&b| !printable(b)).count() as u32)
            .unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

/// Its tokenizer.json.
pub fn tokenizer() -> serde_json::Value {
    let mut vocabulary = Map::new();
    let bytes = (0..=255u8).map(|b| stand_in(b).to_string());
    let tokens = ["<s>", "</s>"]
        .map(String::from)
        .into_iter()
        .chain(bytes)
        .chain(MERGES.iter().map(|(a, b)| format!("{a}{b}")));
    tokens.enumerate().for_each(|(id, token)| drop(vocabulary.insert(token, json!(id))));
    let special = |id: usize, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0, "<s>"), special(1, "</s>")],
        "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": MERGES.map(|(a, b)| format!("{a} {b}"))},
    })
}
