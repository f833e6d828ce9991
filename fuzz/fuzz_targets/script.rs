//! Fitness scripts: refused, or ended within their limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tyr::fitness::check;
use tyr_fuzz::{begin, run, write};

fuzz_target!(
    init: begin(),
    |text: &str| {
        run(|| {
            let path = write("fitness.rhai", text.as_bytes());
            let _ = check(&path, &["quickstart".into()]);
        });
    }
);
