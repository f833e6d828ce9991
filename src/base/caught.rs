//! Calls into libraries that may panic on damaged input: the panic becomes an error, and nothing of it is
//! printed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::{Error, Kind, Result};

thread_local! {
    /// Whether this thread is inside [`caught`], where a panic is no defect of the program.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

/// What `call` returns; a panic in it becomes an error of `kind`: "`what`: the panic's message". What `call`
/// changes must not be used after a panic.
///
/// # Errors
/// Those of `call`, and a panic in it.
pub fn caught<T>(kind: Kind, what: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    HOOK.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            if !INSIDE.get() {
                previous(info);
            }
        }));
    });
    let outer = INSIDE.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(outer);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::new(kind, format!("{what}: {}", text.unwrap_or("the reader gave up"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_what_is_returned_passes() {
        let refused = |call: fn() -> Result<u8>| caught(Kind::Data, "cannot be read", call);
        assert_eq!(refused(|| Ok(3)), Ok(3));
        assert_eq!(refused(|| Err(Error::new(Kind::Disk, "full"))).unwrap_err().kind, Kind::Disk);
        let panicked = refused(|| panic!("row {}", 7)).unwrap_err();
        assert_eq!((panicked.kind, panicked.what.as_str()), (Kind::Data, "cannot be read: row 7"));
        assert_eq!(refused(|| panic!("all")).unwrap_err().what, "cannot be read: all");
        assert!(!INSIDE.get(), "later panics are printed");
    }
}
