//! Data sets in the layout and with the fields of those on the hub, their text made here.

pub mod chain;
pub mod proxy;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tyr::eval::tasks::mmlu::SUBGROUPS;

/// Test rows of a subject of MMLU; subjects alternate, so that the sizes of a group's members differ.
pub const SUBJECT_ROWS: [usize; 2] = [2, 3];

/// Splits that the harness looks for, whichever it scores.
const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// Documents of each plain task.
const ROWS: usize = 12;

/// Pages of WikiText-2.
const PAGES: usize = 4;

/// Turns every file of JSON lines below a folder into one of parquet.
const TO_PARQUET: &str = "
import pathlib, sys
import pyarrow.json, pyarrow.parquet
root = pathlib.Path(sys.argv[1])
for lines in root.rglob('*.jsonl'):
    pyarrow.parquet.write_table(pyarrow.json.read_json(lines), lines.with_suffix('.parquet'))
    lines.unlink()
for readme in root.rglob('README.md'):
    readme.write_text(readme.read_text().replace('.jsonl', '.parquet'))
";

const WORDS: [&str; 24] = [
    "the",
    "hen",
    "tent",
    "river",
    "Äpfel",
    "naïve",
    "stone",
    "carries",
    "under",
    "twelve",
    "“quoted”",
    "green",
    "slow",
    "answer",
    "it's",
    "never",
    "ten",
    "日本",
    "winter",
    "A",
    "then",
    "moves",
    "on",
    "…",
];

/// What texts are made of.
struct Words {
    list: Vec<String>,
    order: Order,
}

/// How the words of a text follow each other.
enum Order {
    /// In any order.
    Any,
    /// As they stand in the list.
    Kept,
}

impl Words {
    /// Some words, decided by two numbers.
    fn words(&self, a: usize, b: usize, count: usize) -> String {
        let mut state = (a as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ (b as u64 + 7).wrapping_mul(0xD1B5_4A32_D192_ED03);
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        match self.order {
            Order::Any => {
                (0..count).map(|_| self.list[next() % self.list.len()].as_str()).collect::<Vec<_>>().join(" ")
            }
            Order::Kept => {
                let start = next() % (self.list.len() - count);
                self.list[start..start + count].join(" ")
            }
        }
    }

    fn choices(&self, a: usize, b: usize, count: usize) -> Vec<String> {
        (0..count).map(|i| self.words(a * 10 + i, b, 1 + (a + b + i) % 5)).collect()
    }
}

/// A folder of data sets.
pub struct Mirror {
    root: PathBuf,
    words: Words,
}

impl Mirror {
    /// Of words that are hard to tokenise.
    pub fn at(root: &Path) -> Self {
        let words = Words { list: WORDS.map(String::from).to_vec(), order: Order::Any };
        Self { root: root.to_path_buf(), words }
    }

    /// Of sentences that the built-in model knows: of others its scores are large, and f32 rounds large
    /// numbers coarsely.
    pub fn of_the_built_in_world(root: &Path) -> Self {
        let text = tyr::builtin::text(tyr::builtin::Split::Evaluation, 60_000);
        let words = Words { list: text.split_whitespace().map(String::from).collect(), order: Order::Kept };
        Self { root: root.to_path_buf(), words }
    }

    /// The data sets of the tasks without examples.
    pub fn plain(&self) {
        for (config, seed) in [("ARC-Easy", 1), ("ARC-Challenge", 2)] {
            SPLITS.iter().for_each(|split| {
                self.split(
                    "allenai/ai2_arc",
                    Some(config),
                    split,
                    (0..ROWS).map(|i| arc(&self.words, seed, i)).collect(),
                )
            });
        }
        let splits = |config| SPLITS.map(|split| (Some(config), split));
        self.readme("allenai/ai2_arc", &[splits("ARC-Easy"), splits("ARC-Challenge")].concat());
        self.whole("allenai/openbookqa", Some("main"), openbookqa);
        self.whole("aps/super_glue", Some("boolq"), boolq);
        self.whole("nyu-mll/glue", Some("rte"), rte);
        self.whole("baber/piqa", None, piqa);
        self.whole("allenai/winogrande", Some("winogrande_xl"), winogrande);
        self.whole("Rowan/hellaswag", None, hellaswag);
    }

    /// WikiText-2 by pages.
    pub fn wikitext(&self) {
        let dataset = "EleutherAI/wikitext_document_level";
        let config = Some("wikitext-2-raw-v1");
        SPLITS.iter().for_each(|split| {
            self.split(dataset, config, split, (0..PAGES).map(|i| page(&self.words, i)).collect())
        });
        self.readme(dataset, &SPLITS.map(|split| (config, split)));
    }

    /// The same rows as parquet files, written by the harness's own library.
    pub fn to_parquet(&self, python: &str) {
        assert!(Command::new(python).args(["-c", TO_PARQUET]).arg(&self.root).status().unwrap().success());
    }

    /// All subjects of MMLU.
    pub fn mmlu(&self, rows: [usize; 2]) {
        let subjects: Vec<&str> =
            SUBGROUPS.iter().flat_map(|(_, subjects)| subjects.iter().copied()).collect();
        for (s, subject) in subjects.iter().enumerate() {
            self.split(
                "cais/mmlu",
                Some(subject),
                "test",
                (0..rows[s % 2]).map(|i| question(&self.words, s, i)).collect(),
            );
            self.split(
                "cais/mmlu",
                Some(subject),
                "dev",
                (0..6).map(|i| question(&self.words, s, 100 + i)).collect(),
            );
        }
        let splits: Vec<_> = subjects.iter().flat_map(|s| [(Some(*s), "test"), (Some(*s), "dev")]).collect();
        self.readme("cais/mmlu", &splits);
    }

    fn whole(&self, dataset: &str, config: Option<&str>, row: fn(&Words, usize) -> Value) {
        SPLITS.iter().for_each(|split| {
            self.split(dataset, config, split, (0..ROWS).map(|i| row(&self.words, i)).collect())
        });
        self.readme(dataset, &SPLITS.map(|split| (config, split)));
    }

    fn split(&self, dataset: &str, config: Option<&str>, split: &str, rows: Vec<Value>) {
        let folder = self.root.join(dataset).join(config.unwrap_or("data"));
        fs::create_dir_all(&folder).unwrap();
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        fs::write(folder.join(format!("{split}.jsonl")), lines).unwrap();
    }

    /// The hub's front matter, which tells which files a configuration has.
    fn readme(&self, dataset: &str, splits: &[(Option<&str>, &str)]) {
        let mut text = "---\nconfigs:\n".to_string();
        let mut last = None;
        for (config, split) in splits {
            if last != Some(config) {
                text += &format!("- config_name: {}\n  data_files:\n", config.unwrap_or("default"));
            }
            text += &format!("  - split: {split}\n    path: {}/{split}.jsonl\n", config.unwrap_or("data"));
            last = Some(config);
        }
        fs::write(self.root.join(dataset).join("README.md"), format!("{text}---\n")).unwrap();
    }
}

fn arc(w: &Words, seed: usize, i: usize) -> Value {
    let n = 3 + i % 3;
    let labels: Vec<String> =
        (0..n)
            .map(|j| {
                if i.is_multiple_of(4) {
                    format!("{}", j + 1)
                } else {
                    char::from(b'A' + j as u8).to_string()
                }
            })
            .collect();
    let key = labels[(i * 7 + seed) % n].clone();
    json!({"id": format!("{i}"), "question": w.words(seed, i, 9), "choices": {"text": w.choices(seed, i, n), "label": labels}, "answerKey": key})
}

fn openbookqa(w: &Words, i: usize) -> Value {
    let key = ["A", "B", "C", "D"][i % 4];
    let space = if i.is_multiple_of(3) { " " } else { "" };
    json!({"id": format!("{i}"), "question_stem": format!("{}{space}", w.words(3, i, 6)),
           "choices": {"text": w.choices(3, i, 4), "label": ["A", "B", "C", "D"]}, "answerKey": key})
}

fn boolq(w: &Words, i: usize) -> Value {
    json!({"passage": w.words(4, i, 25), "question": w.words(5, i, 5), "idx": i, "label": i % 2})
}

fn rte(w: &Words, i: usize) -> Value {
    json!({"sentence1": w.words(6, i, 12), "sentence2": w.words(7, i, 6), "label": (i / 2) % 2, "idx": i})
}

fn piqa(w: &Words, i: usize) -> Value {
    json!({"goal": w.words(8, i, 5), "sol1": w.words(9, i, 7), "sol2": w.words(10, i, 4 + i % 5), "label": (i / 3) % 2})
}

fn winogrande(w: &Words, i: usize) -> Value {
    json!({"sentence": format!("{} _ {} ", w.words(11, i, 4), w.words(12, i, 5)), "option1": w.words(13, i, 1), "option2": w.words(14, i, 2),
           "answer": format!("{}", 1 + i % 2)})
}

fn hellaswag(w: &Words, i: usize) -> Value {
    let mark = ["", " [title] Next", " [step] two  spaces [substeps]", " IN CAPITALS"][i % 4];
    let endings: Vec<String> = w
        .choices(15, i, 4)
        .iter()
        .enumerate()
        .map(|(j, e)| format!("{}{e}", ["", "[x] ", "  ", ""][(i + j) % 4]))
        .collect();
    json!({"ind": i, "activity_label": w.words(16, i, 2), "ctx_a": format!("{}{mark}", w.words(17, i, 7)), "ctx_b": w.words(18, i, 2),
           "ctx": "", "endings": endings, "source_id": "", "split": "val", "split_type": "indomain", "label": format!("{}", (i * 5) % 4)})
}

/// With the data set's spaces around signs, headings of two levels, and signs that the detokeniser looks for.
fn page(w: &Words, i: usize) -> Value {
    let title = w.words(60, i, 2);
    let a = w.words(61, i, 9);
    let b = w.words(62, i, 12 + 5 * i);
    json!({"page": format!(" = {title} = \n \n {a} , the \" {b} \" of 1 @,@ 2{i}0 @-@ ton ( {a} ) . \n = = {title} = = \n \n {b} 's ; {a} ! \n ")})
}

fn question(w: &Words, subject: usize, i: usize) -> Value {
    json!({"question": format!(" {} ", w.words(20 + subject, i, 6)), "subject": "", "choices": w.choices(20 + subject, i, 4), "answer": (subject + i) % 4})
}
