//! How much memory this process may still take before the system has to end it.

use std::path::{Path, PathBuf};

/// Bytes that can be taken: what the kernel gives without swapping, and no more than the limits of the process's
/// control groups leave. `None` where the system does not tell.
pub fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = of_machine(&read("/proc/meminfo")?)?;
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let left =
        folders(&groups, Path::new("/sys/fs/cgroup")).iter().filter_map(|folder| left_in(folder)).min();
    Some(left.map_or(machine, |left| left.min(machine)))
}

/// Of the text of `/proc/meminfo`.
fn of_machine(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Folders of the memory groups that the text of `/proc/self/cgroup` names, and of the groups around them; of
/// versions 1 and 2. A container sees its own group as the outermost one.
fn folders(groups: &str, root: &Path) -> Vec<PathBuf> {
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let top = match controllers {
            "" => root.to_path_buf(),
            some if some.split(',').any(|name| name == "memory") => root.join("memory"),
            _ => return None,
        };
        let own = top.join(path.trim_start_matches('/'));
        let around = own.ancestors().take_while(|folder| folder.starts_with(&top));
        Some(around.map(Path::to_path_buf).collect::<Vec<_>>())
    };
    groups.lines().filter_map(of_line).flatten().collect()
}

/// What a group's limit leaves; pages of files can be given back at any time. `None` without a limit.
fn left_in(folder: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |names: [&str; 2]| names.iter().find_map(|name| read(name)?.trim().parse::<u64>().ok());
    let limit = number(["memory.max", "memory.limit_in_bytes"])?;
    let used = number(["memory.current", "memory.usage_in_bytes"])?;
    let statistics = read("memory.stat").unwrap_or_default();
    let of_files = |name: &str| {
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok();
        statistics.lines().find_map(value)
    };
    // In version 1 the names without `total_` leave out the groups within.
    let files = |name: &str| of_files(&format!("total_{name}")).or_else(|| of_files(name)).unwrap_or(0);
    let files = files("inactive_file") + files("active_file");
    Some(limit.saturating_sub(used.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_has_is_read_in_bytes() {
        let text = "MemTotal:  100 kB\nMemFree:  1 kB\nMemAvailable:      50 kB\n";
        assert_eq!((of_machine(text), of_machine("MemTotal: 100 kB\n")), (Some(51_200), None));
        if Path::new("/proc/meminfo").exists() {
            assert!(available().unwrap() > 0);
        }
    }

    #[test]
    fn groups_of_both_versions_and_those_around_them_are_looked_at() {
        let root = Path::new("/groups");
        let paths = |text: &str| {
            let found = folders(text, root).into_iter();
            found.map(|folder| folder.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(paths("0::/a/b\n"), ["/groups/a/b", "/groups/a", "/groups"]);
        assert_eq!(paths("3:cpu,memory:/a\n2:cpu:/c\n"), ["/groups/memory/a", "/groups/memory"]);
        assert_eq!(paths("0::/\n1:cpuset:/x"), ["/groups/"]);
        assert_eq!(paths("odd\n"), [""; 0]);
    }

    #[test]
    fn a_limit_leaves_what_is_not_used_and_what_files_give_back() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        assert_eq!(left_in(dir.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(left_in(dir.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(left_in(dir.path()), Some(300));
        write("memory.stat", "anon 400\ninactive_file 200\nactive_file 50\ntotal_active_file 60\n");
        assert_eq!(left_in(dir.path()), Some(560));
        write("memory.current", "5000\n");
        assert_eq!(left_in(dir.path()), Some(0));
        let first = tempfile::tempdir().unwrap();
        std::fs::write(first.path().join("memory.limit_in_bytes"), "1000").unwrap();
        std::fs::write(first.path().join("memory.usage_in_bytes"), "400").unwrap();
        assert_eq!(left_in(first.path()), Some(600));
    }
}
