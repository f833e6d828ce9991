//! Files that appear whole: written beside, synced, then renamed. A reader sees the old file, the new one or
//! none.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Error, Kind, Result, ResultExt};

/// Turns an I/O error into ours, naming the path; a full disk is reported as such.
pub fn io_error(path: &Path, doing: &str, e: &std::io::Error) -> Error {
    let error = Error::new(Kind::Disk, format!("cannot {doing}: {e}")).at(path.display());
    match e.kind() {
        std::io::ErrorKind::StorageFull => {
            error.hint("free some space and run the same command again: finished work is kept")
        }
        std::io::ErrorKind::PermissionDenied => {
            error.hint("check the owner and the permissions of the folder")
        }
        _ => error,
    }
}

/// Creates a folder and its parents.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| io_error(path, "create the folder", &e))
}

/// Writes a file whole: `fill` writes into a temporary file in the same folder, which is synced and renamed.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    let temporary = temporary_name(path);
    let written = write_synced(&temporary, fill).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The partial file has a name that nothing reads; removing it only frees space.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|e| io_error(path, "write", &e))
}

fn write_synced(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    fill(&mut out)?;
    out.into_inner().map_err(|e| e.into_error())?.sync_all()
}

/// `path` with a suffix that only this process uses.
fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

/// Writes bytes whole.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |out| out.write_all(bytes))
}

/// Writes a value as indented JSON, whole, with a final newline.
pub fn write_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).or_error(Kind::Internal, "cannot write as JSON")?;
    text.push('\n');
    write(path, text.as_bytes())
}

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| io_error(path, "read", &e))
}

/// Reads a JSON file into a value.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&read_text(path)?)
        .map_err(|e| Error::new(Kind::Disk, format!("not the JSON expected here: {e}")).at(path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_partial_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_json(&path, &1).unwrap();
        let failed = write_with(&path, |out| {
            out.write_all(b"half")?;
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        });
        assert_eq!(failed.unwrap_err().kind, Kind::Disk);
        assert_eq!(read_json::<i32>(&path).unwrap(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn reading_a_missing_or_wrong_file_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.json");
        assert!(read_json::<i32>(&path).unwrap_err().to_string().contains("none.json"));
        write(&path, b"{").unwrap();
        assert!(read_json::<i32>(&path).unwrap_err().to_string().contains("none.json"));
    }
}
