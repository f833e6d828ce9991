//! config.json: refused, or counted without overflow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tyr::model::Config;
use tyr::model::cost;
use tyr_fuzz::{begin, run};

fuzz_target!(
    init: begin(),
    |text: &str| {
        run(|| {
            if let Ok(config) = Config::parse(text) {
                let parameters = config.parameters();
                assert!(parameters.total() > 0);
                assert!(cost::layer_parameters(&config).is_finite());
                let _ = config.tensors();
            }
        });
    }
);
