//! Content hashes (BLAKE3) of values and files: the addresses of everything that is stored.

use std::path::Path;

use serde::Serialize;

use super::{Error, Kind, Result, ResultExt};

/// Hex digits kept of a hash that names a file or a step.
pub const SHORT: usize = 16;

/// Hash of a value's canonical JSON (struct order, ordered maps), full length hex.
pub fn of_json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    let bytes =
        serde_json::to_vec(value).or_error(Kind::Internal, "a cache key cannot be written as JSON")?;
    Ok(of_bytes(&bytes))
}

/// Hash of bytes, full length hex.
pub fn of_bytes(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Hash of a file's contents, full length hex; the file is mapped, not read into memory.
pub fn of_file(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_mmap(path)
        .map_err(|e| Error::new(Kind::Disk, format!("cannot read: {e}")).at(path.display()))?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_its_bytes_have_the_same_hash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(of_file(&path).unwrap(), of_bytes(b"abc"));
        assert_ne!(of_json(&[1, 2]).unwrap(), of_json(&[2, 1]).unwrap());
        assert_eq!(of_file(&dir.path().join("none")).unwrap_err().kind, Kind::Disk);
    }
}
