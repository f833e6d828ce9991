//! Tests of the texts and the tasks.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// How the training text begins.
const FIRST_LINE: &str = "On a small evening Gaiga Tundson played to the chapel.";

const SPLITS: [Split; 4] = [Split::Train, Split::Calibration, Split::Search, Split::Evaluation];

#[test]
fn the_same_split_gives_the_same_text() {
    for split in SPLITS {
        assert_eq!(text(split, 20_000), text(split, 20_000));
    }
}

#[test]
fn the_text_of_a_split_never_changes() {
    let first = documents(Split::Train).next().unwrap_or_default();
    assert_eq!(first.lines().next(), Some(FIRST_LINE), "the built-in model was trained on another text");
}

#[test]
fn more_bytes_continue_the_text() {
    let short = text(Split::Search, 3_000);
    let long = text(Split::Search, 30_000);
    assert!(short.len() >= 3_000 && long.len() >= 30_000);
    assert!(long.starts_with(&short));
    assert_eq!(text(Split::Search, 0), "");
}

#[test]
fn the_text_is_the_documents_with_blank_lines_between() {
    let text = text(Split::Calibration, 5_000);
    let written: Vec<&str> = text.split_terminator("\n\n").collect();
    let made: Vec<String> = documents(Split::Calibration).take(written.len()).collect();
    assert_eq!(written, made);
}

#[test]
fn documents_have_a_readable_length() {
    let lengths: Vec<usize> = documents(Split::Train).take(2_000).map(|text| text.len()).collect();
    assert!(lengths.iter().all(|length| (400..=1_000).contains(length)));
    let mean = lengths.iter().sum::<usize>() / lengths.len();
    assert!((450..=800).contains(&mean), "mean length {mean}");
}

#[test]
fn no_document_is_in_two_splits() {
    let mut seen = BTreeSet::new();
    for split in SPLITS {
        for document in documents(split).take(1_500) {
            assert!(seen.insert(document), "a document came twice");
        }
    }
}

#[test]
fn casts_share_no_full_name() {
    let casts = [Cast::Train, Cast::Calibration, Cast::Search, Cast::Evaluation, Cast::Tasks];
    let mut owner = BTreeMap::new();
    for (index, cast) in casts.into_iter().enumerate() {
        let mut dice = Dice::new(900 + index as u64);
        for _ in 0..1_000 {
            for person in scene::Scene::new(&mut dice, cast).people {
                assert_eq!(*owner.entry(person.full).or_insert(index), index);
            }
        }
    }
}

#[test]
fn no_context_is_in_the_training_text() {
    let train = text(Split::Train, 2_000_000);
    for task in TASKS {
        for sample in samples(task.name, 40).unwrap_or_default() {
            assert!(!train.contains(&sample.context), "{}", sample.context);
        }
    }
}

#[test]
fn a_thousand_kilobytes_have_thousands_of_words() {
    let text = text(Split::Train, 1_000_000);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()) {
        *counts.entry(word).or_default() += 1;
    }
    assert!(counts.len() > 2_000, "{} words", counts.len());
    let rare = counts.values().filter(|&&count| count < 20).count();
    assert!(rare * 3 > counts.len(), "the tail is short: {rare} of {}", counts.len());
}

#[test]
fn every_task_has_samples_with_distinct_choices_and_one_gold() {
    for task in TASKS {
        let drawn = samples(task.name, 300).unwrap_or_default();
        assert_eq!(drawn.len(), 300);
        for sample in drawn {
            let distinct: BTreeSet<&String> = sample.choices.iter().collect();
            assert_eq!(distinct.len(), task.choices, "{}: {sample:?}", task.name);
            assert!(sample.gold < task.choices);
            assert!(!sample.context.ends_with(' ') && !sample.context.contains("  "), "{sample:?}");
        }
    }
}

#[test]
fn gold_positions_are_balanced() {
    for task in TASKS {
        let mut counts = vec![0usize; task.choices];
        for sample in samples(task.name, 1_200).unwrap_or_default() {
            counts[sample.gold] += 1;
        }
        let fair = 1_200 / task.choices;
        assert!(counts.iter().all(|&count| count.abs_diff(fair) < fair / 4), "{}: {counts:?}", task.name);
    }
}

#[test]
fn more_samples_continue_the_samples() {
    let few = samples("passage", 5);
    let many = samples("passage", 50);
    assert_eq!(few.as_deref(), many.as_deref().map(|many| &many[..5]));
    assert_eq!(samples("passage", 0), Some(Vec::new()));
}

#[test]
fn samples_of_a_task_are_different() {
    for task in TASKS {
        let drawn = samples(task.name, 500).unwrap_or_default();
        let contexts: BTreeSet<&String> = drawn.iter().map(|sample| &sample.context).collect();
        assert_eq!(contexts.len(), drawn.len(), "{}", task.name);
    }
}

#[test]
fn an_unknown_task_has_no_samples() {
    assert_eq!(samples("nonsense", 3), None);
    assert_eq!(samples("", 3), None);
}

#[test]
fn the_tasks_are_the_puzzles_in_order() {
    assert_eq!(TASKS.len(), Kind::ALL.len());
}

#[test]
fn a_passage_says_the_right_answer_and_not_the_others() {
    for sample in samples("passage", 300).unwrap_or_default() {
        let (passage, question) = sample.context.split_once("\nQuestion: ").unwrap_or_default();
        let name = question.rsplit("\nAnswer:").next().unwrap_or_default();
        let told = passage.rsplit("On ").next().unwrap_or_default();
        let said = |choice: &str| " .,".chars().any(|end| told.contains(&format!("{name} {choice}{end}")));
        let stated: Vec<usize> = (0..4).filter(|&i| said(&sample.choices[i])).collect();
        assert_eq!(stated, [sample.gold], "{sample:?}");
    }
}

#[test]
fn yes_means_that_there_are_as_many_as_needed() {
    for sample in samples("yesno", 300).unwrap_or_default() {
        let passage = sample.context.split("\nQuestion: ").next().unwrap_or_default();
        let mut said = passage.rsplit(' ').filter_map(number);
        let have = said.next();
        let need = said.next();
        assert!(have.is_some() && need.is_some() && have != need);
        assert_eq!(sample.choices[sample.gold] == "yes", have > need, "{sample:?}");
    }
}

#[test]
fn the_count_is_right() {
    for sample in samples("counting", 300).unwrap_or_default() {
        let gold = sample.choices[sample.gold].split(' ').next().and_then(number);
        assert!(gold.is_some());
        assert_eq!(gold, counted(&sample.context), "{sample:?}");
    }
}

fn number(word: &str) -> Option<usize> {
    words::NUMBERS.iter().position(|&number| number == word.trim_end_matches('.'))
}

/// Does the sum of the last two sentences.
fn counted(context: &str) -> Option<usize> {
    let sentences: Vec<&str> = context.split(". ").collect();
    let [.., told, changed, _] = sentences.as_slice() else {
        return None;
    };
    let before = told.split(' ').rev().find_map(number)?;
    let step = changed.split(' ').rev().find_map(number)?;
    if changed.contains("took away") { before.checked_sub(step) } else { Some(before + step) }
}

#[test]
fn the_pronoun_fits_only_the_one_who_is_meant() {
    let world = world::world();
    for sample in samples("reference", 300).unwrap_or_default() {
        let she = sample.context.rsplit(". ").next().is_some_and(|last| last.starts_with("She "));
        let fits = |name: &String| world.women.contains(name) == she;
        let fitting: Vec<usize> = (0..2).filter(|&i| fits(&sample.choices[i])).collect();
        assert_eq!(fitting, [sample.gold], "{sample:?}");
    }
}

#[test]
fn facts_are_true_of_the_world() {
    for sample in samples("facts", 300).unwrap_or_default() {
        let claim = sample.context.rsplit(". ").next().unwrap_or_default();
        let place = world::world().places.iter().find(|place| claim.contains(&place.name));
        let right = &sample.choices[sample.gold];
        let known = place.map(|place| [place.roofs, place.goods, place.emblem, place.region]);
        assert!(known.is_some_and(|known| known.contains(&right.as_str())), "{sample:?}");
    }
}

#[test]
fn a_number_of_nothing_is_nought() {
    let mut dice = Dice::new(7);
    assert_eq!((dice.below(0), dice.below(1), dice.distinct(3, 0).len()), (0, 0, 0));
    assert_eq!(dice.distinct(5, 2).len(), 2);
}

#[test]
fn word_forms_follow_the_rules() {
    use words::{article, capital, with_ed, with_ing, with_s};
    assert_eq!(
        ["knife", "brush", "berry", "key", "lamp"].map(with_s),
        ["knives", "brushes", "berries", "keys", "lamps"]
    );
    assert_eq!(["carry", "move", "wait", "play"].map(with_ed), ["carried", "moved", "waited", "played"]);
    assert_eq!(["move", "wait"].map(with_ing), ["moving", "waiting"]);
    assert_eq!(["urn", "lamp", "old"].map(article), ["an", "a", "an"]);
    assert_eq!((capital(""), capital("urn")), (String::new(), "Urn".to_string()));
}
