//! One process at a time in a run's folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::base::files::io_error;
use crate::base::{Error, Kind, Result};

/// The file with the holder's id.
const ID: &str = "lock";

/// How often a lock that is taken is tried again: a process that only checks whether it is taken holds it for
/// a moment.
const TRIES: usize = 5;
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Held while a process runs; the system releases it when the process ends, however it ends.
///
/// What is locked is the run's folder itself, which stays while the run does: were it only the file with the
/// holder's id, a second process could begin where somebody has removed that. File systems of a network may lock
/// no folders, so the file is locked too.
pub struct Lock {
    _folder: Option<File>,
    _file: File,
}

/// Who has a run's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    None,
    /// The process with this id; empty in the moment before it has written its id.
    Process(String),
}

impl Lock {
    /// Takes the lock of a run.
    ///
    /// # Errors
    /// [`Kind::Busy`] with the holder's process id when another process runs it.
    pub fn take(folder: &Path) -> Result<Self> {
        let opened = File::open(folder).map_err(|e| io_error(folder, "open", &e))?;
        let opened = match patiently(&opened) {
            Ok(()) => Some(opened),
            Err(TryLockError::WouldBlock) => return Err(busy(folder)),
            Err(TryLockError::Error(_)) => None,
        };
        let path = folder.join(ID);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(|e| io_error(&path, "open", &e))?;
        match patiently(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy(folder)),
            Err(TryLockError::Error(e)) => return Err(io_error(&path, "lock", &e)),
        }
        let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        written.map_err(|e| io_error(&path, "write", &e))?;
        Ok(Self { _folder: opened, _file: file })
    }
}

fn patiently(file: &File) -> Result<(), TryLockError> {
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
    file.try_lock()
}

/// Who runs the experiment in a folder, without taking its place.
///
/// # Errors
/// The lock is there but cannot be inspected.
pub fn holder(folder: &Path) -> Result<Holder> {
    for path in [folder.to_path_buf(), folder.join(ID)].into_iter().filter(|path| path.exists()) {
        let opened = File::open(&path).map_err(|e| io_error(&path, "open", &e))?;
        match opened.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Holder::Process(written_id(folder))),
            Err(TryLockError::Error(_)) if path == folder => {}
            Err(TryLockError::Error(e)) => return Err(io_error(&path, "look at", &e)),
        }
    }
    Ok(Holder::None)
}

/// The id that the holder wrote; empty where none can be read.
fn written_id(folder: &Path) -> String {
    std::fs::read_to_string(folder.join(ID)).unwrap_or_default()
}

fn busy(folder: &Path) -> Error {
    let holder = written_id(folder);
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

    #[test]
    fn a_lock_outlives_the_file_that_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join(ID)).unwrap();
        assert_eq!(Lock::take(dir.path()).err().unwrap().kind, Kind::Busy);
        assert_eq!(holder(dir.path()).unwrap(), Holder::Process(String::new()));
        drop(first);
        assert_eq!(holder(dir.path()).unwrap(), Holder::None);
        assert!(Lock::take(dir.path()).is_ok());
    }

    #[test]
    fn who_holds_a_lock_can_be_seen_without_taking_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()).unwrap(), Holder::None);
        assert!(!dir.path().join("lock").exists());
        let held = Lock::take(dir.path()).unwrap();
        assert_eq!(holder(dir.path()).unwrap(), Holder::Process(std::process::id().to_string()));
        drop(held);
        assert_eq!(holder(dir.path()).unwrap(), Holder::None);
        assert!(Lock::take(dir.path()).is_ok());
    }
}
