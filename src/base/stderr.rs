//! Printing to stderr. `eprint!` ends the program where stderr is full or gone; what nobody can read is no
//! reason to stop working.

use std::io::Write;

/// Writes `text` to stderr as it stands; a failure is ignored.
pub fn print(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
