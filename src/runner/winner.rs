//! Putting a trial's last model and its distribution where users look for them, beside the spec that they are
//! of.

use std::path::Path;

use super::store::Entry;
use crate::base::{Result, files};
use crate::model::provenance::CARD;
use crate::space::SparsityDistribution;
use crate::trial::FOUND;

/// The spec of a trial, every key written.
pub(crate) const RESOLVED: &str = "resolved.toml";

/// The folder of the last model.
pub(crate) const MODEL: &str = "model";

/// The folder of the last model's other forms, a folder each.
pub const EXPORTS: &str = "exports";

/// Writes the spec of a trial that begins into its folder. What was found under another spec goes from there: it
/// stays in the store.
pub(crate) fn begin(home: &Path, resolved: &str) -> Result<()> {
    let path = home.join(RESOLVED);
    if !std::fs::read_to_string(&path).is_ok_and(|before| before == resolved) {
        for folder in [MODEL, EXPORTS].map(|name| home.join(name)).iter().filter(|folder| folder.is_dir()) {
            files::remove_folder(folder)?;
        }
        let distribution = home.join(FOUND);
        if distribution.exists() {
            let removed = std::fs::remove_file(&distribution);
            removed.map_err(|e| files::io_error(&distribution, "remove", &e))?;
        }
    }
    files::write(&path, resolved.as_bytes())
}

/// Keeps the distribution of a trial's last model.
pub(crate) fn keep(home: &Path, distribution: &SparsityDistribution) -> Result<()> {
    files::write_json(&home.join(FOUND), distribution)
}

/// Makes a folder of some files of a stored result and a card, and of nothing else. The card is no part of the
/// stored result: it has the scores, which are measured on that.
pub(crate) fn publish(folder: &Path, entry: &Entry, names: &[String], card: &str) -> Result<()> {
    if let Some(parent) = folder.parent() {
        files::create_dir(parent)?;
    }
    files::publish_folder(folder, |staged| {
        names.iter().try_for_each(|name| link(&entry.folder.join(name), &staged.join(name)))?;
        files::write(&staged.join(CARD), card.as_bytes())
    })
}

/// The same file under another name: linked where the file system can, else copied.
fn link(from: &Path, to: &Path) -> Result<()> {
    let linked = std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(drop));
    linked.map_err(|e| files::io_error(to, "place", &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::meter::Cost;
    use crate::runner::store::Store;
    use crate::trial::Key;

    #[test]
    fn the_folder_of_the_last_model_holds_what_its_result_lists_and_a_card_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(&dir.path().join("store"));
        let home = dir.path().join("trials/main");
        files::create_dir(&home).unwrap();
        let distribution = SparsityDistribution { removed: vec![1, 2] };
        let kept = |of: &str, names: &[&str]| {
            let key = Key::example(of);
            let entry = store.entry(&key).unwrap();
            names.iter().for_each(|name| files::write(&entry.folder.join(name), of.as_bytes()).unwrap());
            // What a killed process left is no part of the result.
            std::fs::write(entry.folder.join("model.safetensors.7.partial"), "half").unwrap();
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            entry.finish(&key, &names, Cost { seconds: 1.0, peak_bytes: None }).unwrap();
            publish(&home.join(MODEL), &entry, &names, of).unwrap();
            keep(&home, &distribution).unwrap();
            let mut there: Vec<_> = std::fs::read_dir(home.join("model"))
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            there.sort();
            there
        };
        assert_eq!(
            kept("a", &["config.json", "chat_template.jinja"]),
            ["README.md", "chat_template.jinja", "config.json"]
        );
        assert_eq!(kept("b", &["config.json"]), ["README.md", "config.json"]);
        assert_eq!(std::fs::read_to_string(home.join("model/README.md")).unwrap(), "b");
        assert_eq!(std::fs::read_to_string(home.join("model/config.json")).unwrap(), "b");
        assert_eq!(files::read_json::<SparsityDistribution>(&home.join(FOUND)).unwrap(), distribution);
    }
}
