//! Files and folders that appear whole: written beside, synced, then renamed. A reader sees the old one, the
//! new one or none.

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
        std::io::ErrorKind::QuotaExceeded => {
            error.hint("free some of your quota and run the same command again: finished work is kept")
        }
        std::io::ErrorKind::FileTooLarge => error.hint(
            "files may not grow that large here: raise the limit (ulimit -f) or take another file system, and \
             run the same command again: finished work is kept",
        ),
        std::io::ErrorKind::PermissionDenied => {
            error.hint("check the owner and the permissions of the folder")
        }
        _ => error,
    }
}

/// Creates a folder and its parents, whose names outlive a power cut.
pub fn create_dir(path: &Path) -> Result<()> {
    let is_new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let new: Vec<&Path> = path.ancestors().take_while(is_new).collect();
    let made = fs::create_dir_all(path).and_then(|()| new.iter().try_for_each(|folder| sync_parent(folder)));
    made.map_err(|e| io_error(path, "create the folder", &e))
}

/// Writes a file whole: `fill` writes into a temporary file in the same folder, which is synced and renamed;
/// then the folder is synced, so that the name outlives a power cut.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    let temporary = temporary_name(path);
    let placed = || fs::rename(&temporary, path).and_then(|()| sync_parent(path));
    let written = write_synced(&temporary, fill).and_then(|()| placed());
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

/// Makes the names in the folder of `path` last.
pub fn sync_parent(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_folder(parent)
}

/// Makes the names in a folder last. A file system that cannot sync folders keeps them as it does.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(e) if [Some(libc::EINVAL), Some(libc::ENOTSUP)].contains(&e.raw_os_error()) => Ok(()),
        synced => synced,
    }
}

/// Makes a folder appear whole, in the place of the one that is there: `fill` writes files into a temporary
/// folder beside it, which is synced and takes the name. What an earlier process left half-made is removed.
///
/// # Errors
/// Those of `fill`, and a folder that cannot be written; the old one is left as it was.
pub fn publish_folder(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    remove_abandoned(folder);
    let staged = temporary_name(folder);
    create_dir(&staged)?;
    let published = fill(&staged).and_then(|()| {
        let placed = sync_files(&staged).and_then(|()| take_place(&staged, folder));
        placed.and_then(|()| sync_parent(folder)).map_err(|e| io_error(folder, "write", &e))
    });
    // The old folder, or what could not be finished, has a name that nothing reads; removing it only frees
    // space.
    let _ = fs::remove_dir_all(&staged);
    published
}

/// Removes a folder, which is gone at once: a reader sees all of it or nothing.
pub fn remove_folder(folder: &Path) -> Result<()> {
    remove_abandoned(folder);
    let aside = temporary_name(folder);
    let moved = fs::rename(folder, &aside).and_then(|()| sync_parent(folder));
    moved.map_err(|e| io_error(folder, "remove", &e))?;
    fs::remove_dir_all(&aside).map_err(|e| io_error(&aside, "remove", &e))
}

/// Removes what killed processes left of a folder, as far as possible: it only takes space.
fn remove_abandoned(folder: &Path) {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_left = |entry: &fs::DirEntry| {
        let entry = entry.file_name().to_string_lossy().into_owned();
        entry.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(PARTIAL))
    };
    let entries = folder.parent().and_then(|parent| fs::read_dir(parent).ok());
    for entry in entries.into_iter().flatten().flatten().filter(is_left) {
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// Makes the files of a folder and their names last.
fn sync_files(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync_folder(folder)
}

/// Gives a folder the name of another one, which gets the first one's name if it is there: in one step where
/// the file system can.
fn take_place(new: &Path, old: &Path) -> std::io::Result<()> {
    match fs::rename(new, old) {
        Err(e) if [Some(libc::ENOTEMPTY), Some(libc::EEXIST)].contains(&e.raw_os_error()) => {}
        renamed => return renamed,
    }
    match exchange(new, old) {
        Err(e)
            if [Some(libc::EINVAL), Some(libc::ENOSYS), Some(libc::ENOTSUP)].contains(&e.raw_os_error()) => {}
        exchanged => return exchanged,
    }
    take_place_in_steps(new, old, |from, to| fs::rename(from, to))
}

/// The same where names cannot be exchanged. The old folder is put back when the new one cannot take its name.
fn take_place_in_steps(
    new: &Path,
    old: &Path,
    rename: impl Fn(&Path, &Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let aside = temporary_name(new);
    rename(old, &aside)?;
    if let Err(e) = rename(new, old) {
        let lost = |back| {
            let what =
                format!("{e}; the one before lies in {} and cannot be put back: {back}", aside.display());
            std::io::Error::new(e.kind(), what)
        };
        return rename(&aside, old).map_err(lost).and(Err(e));
    }
    // The new one is in its place: what cannot be moved away only takes space until the next time.
    let _ = rename(&aside, new);
    Ok(())
}

/// Exchanges two names.
#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let name = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes());
    let a = name(a)?;
    let b = name(b)?;
    let here = libc::AT_FDCWD;
    // SAFETY: both are strings that end in NUL and live until the call returns.
    match unsafe { libc::renameat2(here, a.as_ptr(), here, b.as_ptr(), libc::RENAME_EXCHANGE) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::from_raw_os_error(libc::ENOSYS))
}

/// What the names of unfinished files and folders end with.
const PARTIAL: &str = ".partial";

/// `path` with a suffix that only this process uses.
fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}{PARTIAL}", std::process::id()));
    path.with_file_name(name)
}

/// Whether a file or folder is what an unfinished write left.
pub fn is_partial(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(PARTIAL))
}

/// Makes a folder where files are to be written later, and tries whether they can be: one comes and goes again.
///
/// # Errors
/// Something else has its name, or it cannot be made or written.
pub fn ready_folder(path: &Path) -> Result<()> {
    if path.exists() && !path.is_dir() {
        return Err(Error::new(
            Kind::Disk,
            "this is a file, and files are to be written into it as a folder",
        )
        .at(path.display())
        .hint("name a folder, which is made if it is not there"));
    }
    create_dir(path)?;
    let tried = temporary_name(&path.join("tried"));
    let written = fs::write(&tried, "tried").and_then(|()| fs::remove_file(&tried));
    written.map_err(|e| io_error(path, "write into the folder", &e))
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
    regular(path)?;
    fs::read_to_string(path).map_err(|e| io_error(path, "read", &e))
}

/// Refuses pipes and devices: they may never end, and are gone when they are read a second time.
///
/// # Errors
/// The file is one.
pub fn regular(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() && !found.is_dir() => {
            Err(Error::new(Kind::Disk, "a pipe or a device, not a file")
                .at(path.display())
                .hint("write it to a file first"))
        }
        _ => Ok(()),
    }
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
    fn a_folder_is_tried_without_a_trace_and_what_cannot_be_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("new/deep");
        ready_folder(&new).unwrap();
        ready_folder(&new).unwrap();
        assert!(new.is_dir() && names(&new).is_empty());
        let file = dir.path().join("file");
        write(&file, b"kept").unwrap();
        for (path, words) in
            [(file.clone(), "this is a file"), (file.join("below"), "cannot create the folder")]
        {
            let e = ready_folder(&path).unwrap_err();
            assert!(e.kind == Kind::Disk && e.to_string().contains(words), "{e}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"kept");
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_published_folder_has_the_new_files_alone_and_a_failed_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("model");
        let with = |name: &str| publish_folder(&folder, |staged| write(&staged.join(name), b"x"));
        with("a").unwrap();
        assert_eq!(names(&folder), ["a"]);
        create_dir(&dir.path().join("model.1.partial")).unwrap();
        with("b").unwrap();
        assert_eq!((names(&folder), names(dir.path())), (vec!["b".to_string()], vec!["model".to_string()]));
        let failed = publish_folder(&folder, |staged| {
            write(&staged.join("c"), b"x")?;
            Err(Error::new(Kind::Disk, "no more"))
        });
        assert_eq!(failed.unwrap_err().what, "no more");
        assert_eq!((names(&folder), names(dir.path())), (vec!["b".to_string()], vec!["model".to_string()]));
    }

    #[test]
    fn a_folder_that_cannot_take_the_place_of_another_leaves_it_there() {
        let dir = tempfile::tempdir().unwrap();
        let [new, old] = ["new", "old"].map(|name| dir.path().join(name));
        for folder in [&new, &old] {
            create_dir(folder).unwrap();
            write(&folder.join(folder.file_name().unwrap()), b"x").unwrap();
        }
        let failing = |number: usize| {
            let calls = std::cell::Cell::new(0);
            let rename = |from: &Path, to: &Path| {
                calls.set(calls.get() + 1);
                if calls.get() == number {
                    return Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
                }
                fs::rename(from, to)
            };
            take_place_in_steps(&new, &old, rename)
        };
        for number in [1, 2] {
            let kind = failing(number).unwrap_err().kind();
            assert_eq!(kind, std::io::ErrorKind::PermissionDenied);
            assert_eq!((names(&old), names(dir.path()).len()), (vec!["old".to_string()], 2), "{number}");
        }
        failing(0).unwrap();
        assert_eq!((names(&old), names(&new)), (vec!["new".to_string()], vec!["old".to_string()]));
        // One that cannot be moved away does not undo what is done.
        failing(3).unwrap();
        assert_eq!(names(&old), ["old"]);
    }

    #[test]
    fn a_removed_folder_is_gone_with_what_was_left_of_it_before() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("model");
        publish_folder(&folder, |staged| write(&staged.join("a"), b"x")).unwrap();
        create_dir(&dir.path().join("model.1.partial")).unwrap();
        remove_folder(&folder).unwrap();
        assert_eq!(names(dir.path()), Vec::<String>::new());
        assert_eq!(remove_folder(&folder).unwrap_err().kind, Kind::Disk);
    }

    #[test]
    fn limits_and_quotas_say_what_to_do() {
        let hint = |number| {
            let error = std::io::Error::from_raw_os_error(number);
            io_error(Path::new("x"), "write", &error).hint.unwrap()
        };
        assert!(hint(libc::EFBIG).contains("ulimit -f") && hint(libc::EDQUOT).contains("quota"));
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
