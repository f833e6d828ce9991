//! tokenizer.json: refused, or texts come out as tokens below the vocabulary and back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tyr::data::Tokenizer;
use tyr::model::Source;
use tyr_fuzz::{begin, folder, run, write};

const TEXTS: [&str; 4] = ["", "The cat sat.", " a\u{0}é\n\n  漢字 <s></s>", "ffffffffffffffffffff"];

fuzz_target!(
    init: begin(),
    |bytes: &[u8]| {
        run(|| {
            write("tokenizer.json", bytes);
            let Ok(tokenizer) = Tokenizer::open(&Source::Folder(folder())) else { return };
            for text in TEXTS {
                if let Ok(tokens) = tokenizer.encode(text) {
                    let _ = tokenizer.decode(&tokens);
                }
            }
        });
    }
);
