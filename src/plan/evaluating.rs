//! What compaction costs.

use crate::base::Work;
use crate::model::Config;

const SINGLE: f64 = 4.0;

/// Writing a smaller model of `stored` bytes a number.
pub fn compaction(config: &Config, dense: &Config, stored: f64) -> Work {
    let small = config.parameters().total() as f64;
    let all = dense.parameters().total() as f64;
    Work {
        weights: 2.0 * all + 3.0 * small,
        written: small * stored,
        read: 2.0 * small * stored,
        ..Work::default()
    }
}

/// Memory of writing a smaller model: the largest matrix, whole, cut and in the storage dtype.
pub fn compaction_memory(dense: &Config, stored: f64) -> f64 {
    let d = dense.hidden as f64;
    let m = dense.neurons as f64;
    let largest = (dense.vocabulary as f64 * d).max(m * d);
    largest * (2.0 * SINGLE + stored)
}
