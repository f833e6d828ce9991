//! Parquet files: rows, or one error that ends them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tyr::data::rows;
use tyr_fuzz::{begin, run, write};

/// Rows read of one input; a few bytes can stand for many.
const ROWS: usize = 1000;

fuzz_target!(
    init: begin(),
    |bytes: &[u8]| {
        run(|| {
            let path = write("rows.parquet", bytes);
            for columns in [None, Some(&["text"][..])] {
                let Ok(rows) = rows::open(&path, columns) else { continue };
                for row in rows.take(ROWS) {
                    let Ok(row) = row else { break };
                    let _ = (row.text("text"), row.texts("text"), row.index("id"), row.place());
                }
            }
        });
    }
);
