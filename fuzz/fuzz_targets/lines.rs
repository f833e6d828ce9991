//! JSON lines, plain or compressed: rows, or one error that ends them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tyr_fuzz::{begin, rows, run};

fuzz_target!(
    init: begin(),
    |bytes: &[u8]| {
        run(|| rows("rows.jsonl", bytes));
    }
);
