//! Specs: whatever stands in the file, there are findings or trials, and both can be shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tyr::spec::{Known, Source, Style, inspect};
use tyr_fuzz::{begin, run, write};

const KNOWN: Known =
    Known { corpora: &["quickstart"], tasks: &["arc_easy", "puzzles"], script: |_, _| Ok(()) };

fuzz_target!(
    init: begin(),
    |bytes: &[u8]| {
        run(|| {
            let path = write("fuzz.toml", bytes);
            let Ok(checked) = inspect(&Source { path, ..Source::default() }, &KNOWN) else { return };
            let shown = checked.render(Style::Plain);
            checked.render(Style::Colour);
            match checked.loaded {
                Some(loaded) => assert!(!loaded.trials.is_empty(), "no trial and no finding"),
                None => assert!(shown.contains("fuzz.toml"), "no finding says where"),
            }
        });
    }
);
