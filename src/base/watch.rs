//! How long steps report their progress, without knowing who listens: a bar, a log or nobody.

use super::{Error, Kind, Result};

/// Listens to one long step at a time. Those who work call `watch.step(…)`, which pairs
/// the beginning with the end; `begin` and `end` are for those who listen.
pub trait Watch: Sync {
    /// A step of `units` units of work begins; 0 units: its length is not known.
    fn begin(&self, what: &str, units: u64);
    /// Further units are done.
    fn advance(&self, units: u64);
    /// The step is over.
    fn end(&self);
    /// Something the user should know: a warning that is not a failure.
    fn note(&self, message: &str);
    /// Whether the user asked to stop.
    fn stopped(&self) -> bool;

    /// Returns an error of kind [`Kind::Interrupted`] when the user asked to stop: call it between units of
    /// work.
    fn checkpoint(&self) -> Result<()> {
        if self.stopped() {
            return Err(Error::new(Kind::Interrupted, "stopped as asked")
                .hint("run the same command again to resume from here"));
        }
        Ok(())
    }
}

impl dyn Watch + '_ {
    /// Does one long step of `units` units of work; of 0, one whose end nobody knows. The step is over when
    /// `work` returns, whether it succeeded or not.
    pub fn step<T>(&self, what: &str, units: u64, work: impl FnOnce() -> T) -> T {
        self.begin(what, units);
        let _over = Over(self);
        work()
    }
}

/// Ends a step when it is dropped.
struct Over<'a>(&'a dyn Watch);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// No listener.
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Recorded(Mutex<Vec<String>>);

    impl Recorded {
        fn add(&self, text: String) {
            self.0.lock().unwrap().push(text);
        }
    }

    impl Watch for Recorded {
        fn begin(&self, what: &str, units: u64) {
            self.add(format!("begin {what} {units}"));
        }
        fn advance(&self, units: u64) {
            self.add(format!("advance {units}"));
        }
        fn end(&self) {
            self.add("end".into());
        }
        fn note(&self, _message: &str) {}
        fn stopped(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_step_that_fails_is_over_too() {
        let recorded = Recorded::default();
        let watch: &dyn Watch = &recorded;
        let failed = watch.step("search 1", 3, || {
            watch.advance(2);
            watch.checkpoint()
        });
        assert_eq!(failed.unwrap_err().kind, Kind::Interrupted);
        assert_eq!(*recorded.0.lock().unwrap(), ["begin search 1 3", "advance 2", "end"]);
    }
}
