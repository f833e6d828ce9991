//! model.safetensors beside a good config.json: refused, or every tensor can be read.
#![no_main]

use std::sync::Once;

use candle_core::Device;
use libfuzzer_sys::fuzz_target;
use tyr::model::{Checkpoint, Model, Source};
use tyr_fuzz::{begin, folder, model, run, write};

static MODEL: Once = Once::new();

fuzz_target!(
    init: begin(),
    |bytes: &[u8]| {
        MODEL.call_once(|| drop(model(&folder())));
        run(|| {
            write("model.safetensors", bytes);
            let source = Source::Folder(folder());
            if let Ok(checkpoint) = Checkpoint::open(&source) {
                assert!(checkpoint.names().all(|name| checkpoint.dtype(name).is_ok()));
            }
            if let Ok(model) = Model::open(&source, &Device::Cpu) {
                for layer in 0..model.config().layers.len() {
                    let _ = model.layer(layer);
                }
            }
        });
    }
);
