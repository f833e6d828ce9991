//! Values that are read once, by the first thread that needs them.

use std::sync::OnceLock;

use super::Result;

/// The slot's value, read now if nobody has read it before. Threads that come at the same time may each read
/// it; all are given the same one.
///
/// # Errors
/// Those of `read`, after which the slot is as empty as before.
pub fn get_or_try_init<T>(slot: &OnceLock<T>, read: impl FnOnce() -> Result<T>) -> Result<&T> {
    match slot.get() {
        Some(value) => Ok(value),
        None => {
            let value = read()?;
            Ok(slot.get_or_init(|| value))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Error, Kind};

    #[test]
    fn a_value_is_read_once_and_failures_are_tried_again() {
        let slot = OnceLock::new();
        assert!(get_or_try_init::<i32>(&slot, || Err(Error::new(Kind::Data, "gone"))).is_err());
        assert_eq!(get_or_try_init(&slot, || Ok(1)).unwrap(), &1);
        assert_eq!(get_or_try_init(&slot, || Ok(2)).unwrap(), &1);
    }
}
