//! How long steps tell what they are doing, without knowing who listens: a bar, a log or nobody.

use super::{Error, Kind, Result};

/// Listens to one long step at a time.
pub trait Watch: Sync {
    /// A step of `units` units of work begins; of 0, one whose end nobody knows.
    fn begin(&self, what: &str, units: u64);
    /// So many more units are done.
    fn advance(&self, units: u64);
    /// The step is over.
    fn end(&self);
    /// Something the user should know: a warning that is no failure.
    fn note(&self, message: &str);
    /// Whether the user asked to stop.
    fn stopped(&self) -> bool;

    /// Returns an error of kind [`Kind::Interrupted`] when the user asked to stop: call it between units of
    /// work.
    fn checkpoint(&self) -> Result<()> {
        if self.stopped() {
            return Err(Error::new(Kind::Interrupted, "stopped as asked")
                .hint("run the same command again to go on from here"));
        }
        Ok(())
    }
}

/// Nobody listens.
pub struct Silent;

impl Watch for Silent {
    fn begin(&self, _what: &str, _units: u64) {}
    fn advance(&self, _units: u64) {}
    fn end(&self) {}
    fn note(&self, _message: &str) {}
    fn stopped(&self) -> bool {
        false
    }
}
