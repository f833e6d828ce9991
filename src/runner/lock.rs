//! One process at a time in a run's folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;

use crate::base::files::io_error;
use crate::base::{Error, Kind, Result};

/// Held while a process runs; the system lets go of it when the process dies, however it dies.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a run.
    ///
    /// # Errors
    /// [`Kind::Busy`] with the holder's process id when another process runs it.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join("lock");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(|e| io_error(&path, "open", &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy(folder, &path)),
            Err(TryLockError::Error(e)) => return Err(io_error(&path, "lock", &e)),
        }
        let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        written.map_err(|e| io_error(&path, "write", &e))?;
        Ok(Self { _file: file })
    }
}

fn busy(folder: &Path, lock: &Path) -> Error {
    let holder = std::fs::read_to_string(lock).unwrap_or_default();
    let who = if holder.is_empty() { "another process".to_string() } else { format!("process {holder}") };
    Error::new(Kind::Busy, format!("{who} runs this experiment"))
        .at(folder.display())
        .hint("wait for it or stop it; or give the experiment another name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_with_the_first_ones_pid() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let refused = Lock::take(dir.path()).err().unwrap();
        assert_eq!(refused.kind, Kind::Busy);
        assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        assert!(Lock::take(dir.path()).is_ok());
    }
}
