//! The real task files, where the machine has them.

use crate::base::testing::shared;
use crate::eval::Catalogue;
use crate::eval::document::{Context, Document};
use crate::eval::tasks::Form;

fn documents(name: &str) -> Option<Vec<Document>> {
    let root = shared("data/tasks")?;
    let selection = Catalogue::builtin().select(&[name.to_string()]).unwrap();
    let read = |form: &Form| match form {
        Form::Choice { source, .. } => source.documents(Some(&root), usize::MAX).unwrap(),
        Form::Pages => panic!("no page task is among the real files"),
    };
    Some(selection.tasks.iter().flat_map(|task| read(&task.form)).collect())
}

#[test]
fn every_row_becomes_a_document() {
    let sizes = [
        ("arc_easy", 2376),
        ("arc_challenge", 1172),
        ("boolq", 3270),
        ("openbookqa", 500),
        ("winogrande", 1267),
        ("mmlu", 14042),
    ];
    for (name, size) in sizes {
        let Some(documents) = documents(name) else { return };
        assert_eq!(documents.len(), size, "{name}");
        assert!(documents.iter().all(|d| d.gold < d.choices.len()), "{name}");
    }
}

#[test]
fn contexts_have_the_shape_of_their_task() {
    let Some(arc) = documents("arc_challenge") else { return };
    let shared = |d: &Document| matches!(&d.context, Context::Shared(c) if c.starts_with("Question: ") && c.ends_with("\nAnswer:"));
    assert!(arc.iter().all(shared));
    assert!(arc.iter().all(|d| (3..=5).contains(&d.choices.len())));
    let winogrande = documents("winogrande").unwrap();
    let own = |d: &Document| matches!(&d.context, Context::PerChoice(c) if c.len() == 2 && c[0] != c[1] && d.choices[0] == d.choices[1]);
    assert!(winogrande.iter().all(own));
}
