//! MMLU: 57 subjects in four subgroups, each question after the first five of the subject's `dev` split.

use std::path::Path;

use crate::base::{Error, Kind, Result};
use crate::data::rows::Row;
use crate::eval::document::Document;
use crate::eval::hub::Split;
use crate::eval::python;

/// Examples before each question.
const SHOTS: usize = 5;

const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// Subjects by subgroup.
pub const SUBGROUPS: [(&str, &[&str]); 4] = [
    (
        "humanities",
        &[
            "formal_logic",
            "high_school_european_history",
            "high_school_us_history",
            "high_school_world_history",
            "international_law",
            "jurisprudence",
            "logical_fallacies",
            "moral_disputes",
            "moral_scenarios",
            "philosophy",
            "prehistory",
            "professional_law",
            "world_religions",
        ],
    ),
    (
        "other",
        &[
            "business_ethics",
            "clinical_knowledge",
            "college_medicine",
            "global_facts",
            "human_aging",
            "management",
            "marketing",
            "medical_genetics",
            "miscellaneous",
            "nutrition",
            "professional_accounting",
            "professional_medicine",
            "virology",
        ],
    ),
    (
        "social_sciences",
        &[
            "econometrics",
            "high_school_geography",
            "high_school_government_and_politics",
            "high_school_macroeconomics",
            "high_school_microeconomics",
            "high_school_psychology",
            "human_sexuality",
            "professional_psychology",
            "public_relations",
            "security_studies",
            "sociology",
            "us_foreign_policy",
        ],
    ),
    (
        "stem",
        &[
            "abstract_algebra",
            "anatomy",
            "astronomy",
            "college_biology",
            "college_chemistry",
            "college_computer_science",
            "college_mathematics",
            "college_physics",
            "computer_security",
            "conceptual_physics",
            "electrical_engineering",
            "elementary_mathematics",
            "high_school_biology",
            "high_school_chemistry",
            "high_school_computer_science",
            "high_school_mathematics",
            "high_school_physics",
            "high_school_statistics",
            "machine_learning",
        ],
    ),
];

/// The questions of a subject.
pub fn split(subject: &'static str) -> Split {
    let columns = &["question", "choices", "answer"];
    Split { dataset: "cais/mmlu", config: Some(subject), split: "test", columns }
}

/// The split that the examples come from.
pub fn examples(subject: &'static str) -> Split {
    split(subject).sibling("dev")
}

/// The first `limit` documents of a subject.
pub fn documents(subject: &'static str, root: Option<&Path>, limit: usize) -> Result<Vec<Document>> {
    let rows = examples(subject).rows(root, SHOTS)?;
    if rows.len() < SHOTS {
        return Err(Error::new(
            Kind::Data,
            format!("{SHOTS} example rows are needed, the split `dev` of {subject} has {}", rows.len()),
        ));
    }
    let preamble = preamble(subject, &rows)?;
    split(subject).rows(root, limit)?.iter().map(|row| document(&preamble, row)).collect()
}

/// The instruction and the solved examples.
pub fn preamble(subject: &str, examples: &[Row]) -> Result<String> {
    let topic = subject.replace('_', " ");
    let mut text = format!("The following are multiple choice questions (with answers) about {topic}.\n\n");
    for row in examples {
        text += &format!("{} {}\n\n", question(row)?, LETTERS[gold(row)?]);
    }
    Ok(text)
}

/// The document of a row after the preamble.
pub fn document(preamble: &str, row: &Row) -> Result<Document> {
    Ok(Document::new(format!("{preamble}{}", question(row)?), LETTERS.map(String::from).to_vec(), gold(row)?))
}

fn gold(row: &Row) -> Result<usize> {
    Some(row.index("answer")?).filter(|&i| i < LETTERS.len()).ok_or_else(|| row.wrong("answer", "0 to 3"))
}

fn question(row: &Row) -> Result<String> {
    let choices = row.texts("choices")?;
    let [a, b, c, d] = choices.as_slice() else { return Err(row.wrong("choices", "four texts")) };
    Ok(format!("{}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:", python::strip(row.text("question")?)))
}
