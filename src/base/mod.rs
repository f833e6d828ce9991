//! The foundation of all other modules: errors with exit codes, estimates with their standard errors, named
//! random streams, files that appear whole, and process meters.

pub mod caught;
pub mod error;
pub mod estimate;
pub mod files;
pub mod hash;
pub mod memory;
pub mod meter;
mod names;
pub mod once;
pub mod rng;
pub mod stderr;
#[cfg(test)]
pub mod testing;
pub mod watch;
pub mod work;

pub use caught::caught;
pub use error::{Error, Kind, Result, ResultExt, without_backtrace};
pub use estimate::Estimate;
pub use names::last_part;
pub use once::get_or_try_init;
pub use watch::{Silent, Watch};
pub use work::Work;
