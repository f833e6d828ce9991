//! Where data sets lie on disk: folders laid out as on the hub,
//! `<root>/<owner>/<name>/<configuration>/<split>-*.parquet`.

use std::path::{Path, PathBuf};

use crate::base::{Error, Kind, Result};

use crate::data::format::Format;
use crate::data::rows::{self, Row};

/// A split of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// `owner/name` on the hub.
    pub dataset: &'static str,
    /// The configuration's folder; without one, files lie in the data set's folder or in `data` below it.
    pub config: Option<&'static str>,
    /// Name of the split, with which the file names begin.
    pub split: &'static str,
    /// The fields that are read.
    pub columns: &'static [&'static str],
}

/// Formats of data files, the preferred one first.
const FORMATS: [Format; 2] = [Format::Parquet, Format::Lines];

impl Split {
    /// Another split of the same configuration.
    pub fn sibling(self, split: &'static str) -> Self {
        Self { split, ..self }
    }

    /// The first `limit` rows, over all files of the split in the order of their names.
    pub fn rows(&self, root: Option<&Path>, limit: usize) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for file in self.files(root)? {
            rows.extend(rows::read(&file, Some(self.columns), limit - rows.len())?);
        }
        Ok(rows)
    }

    /// The split's files, sorted by name.
    pub fn files(&self, root: Option<&Path>) -> Result<Vec<PathBuf>> {
        let root = root.ok_or_else(|| self.without_root())?;
        let listed: Vec<PathBuf> = self.folders(root).iter().flat_map(|folder| self.listed(folder)).collect();
        let of_format = |format: &Format| {
            let fits = |p: &&PathBuf| Format::of(p).is_ok_and(|own| own == *format);
            listed.iter().filter(fits).cloned().collect::<Vec<_>>()
        };
        FORMATS.iter().map(of_format).find(|files| !files.is_empty()).ok_or_else(|| self.missing(root))
    }

    fn folders(&self, root: &Path) -> Vec<PathBuf> {
        let dataset = root.join(self.dataset);
        match self.config {
            Some(config) => vec![dataset.join(config)],
            None => vec![dataset.join("data"), dataset],
        }
    }

    /// Files of the split in one folder; a folder that is not there has none.
    fn listed(&self, folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| self.names(p)).collect();
        files.sort();
        files
    }

    /// Whether a file name is the split's: `test.jsonl`, `test-00000-of-00001.parquet`.
    fn names(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.strip_prefix(self.split).is_some_and(|rest| rest.starts_with(['-', '.']))
    }

    fn expected(&self, root: &str) -> String {
        let config = self.config.map(|c| format!("/{c}")).unwrap_or_default();
        format!("{root}/{}{config}/{}-*.parquet", self.dataset, self.split)
    }

    fn without_root(&self) -> Error {
        Error::new(
            Kind::Data,
            format!("the data set {} is needed and no folder of data sets is named", self.dataset),
        )
        .hint(format!("set `evaluate.data` to a folder with {}", self.expected("<data>")))
    }

    fn missing(&self, root: &Path) -> Error {
        let looked =
            self.folders(root).iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
        let expected = self.expected(&root.display().to_string());
        let what = format!("the split `{}` of the data set {} is not there", self.split, self.dataset);
        let hint = format!(
            "expected {expected} (or .jsonl): copy the data set from the hub, or point `evaluate.data` \
             elsewhere"
        );
        Error::new(Kind::Data, what).at(looked).hint(hint)
    }
}
