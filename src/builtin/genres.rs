//! Kinds of document, and how puzzles are told in them or asked.

use super::dice::Dice;
use super::phrases::{
    EVENTS, FACTS, HABITS, LETTER_ENDS, LETTER_HEADS, OPENINGS, STOCK, STOCK_HEADS, TALK, VERSES,
};
use super::puzzles::{Kind, Puzzle};
use super::scene::{Cast, Scene};

/// A document is finished with the first paragraph that makes it this long, in bytes.
const ENOUGH: usize = 450;

#[derive(Clone, Copy)]
enum Genre {
    Story,
    Inventory,
    Letter,
    Dialogue,
    Description,
    Quiz,
    Gazette,
    Song,
}

/// Quizzes come more often: they teach what questions look like.
const GENRES: [Genre; 11] = [
    Genre::Story,
    Genre::Story,
    Genre::Inventory,
    Genre::Letter,
    Genre::Dialogue,
    Genre::Description,
    Genre::Quiz,
    Genre::Quiz,
    Genre::Quiz,
    Genre::Gazette,
    Genre::Song,
];

/// One whole document of `cast`, without blank lines.
pub(super) fn document(dice: &mut Dice, cast: Cast) -> String {
    let genre = *dice.pick(&GENRES.each_ref());
    let mut scene = Scene::new(dice, cast);
    let mut text = genre.head(&mut scene);
    while text.len() < ENOUGH {
        text += "\n";
        text += &genre.paragraph(&mut scene);
    }
    text + genre.end(&mut scene).as_str()
}

impl Genre {
    fn head(self, scene: &mut Scene) -> String {
        match self {
            Genre::Letter => scene.say_one(LETTER_HEADS),
            Genre::Inventory => scene.say_one(STOCK_HEADS),
            _ => scene.say_one(OPENINGS),
        }
    }

    fn paragraph(self, scene: &mut Scene) -> String {
        match self {
            Genre::Story => mix(scene, EVENTS, &[Kind::Completion, Kind::Reference, Kind::Counting]),
            Genre::Letter => mix(scene, EVENTS, &[Kind::Completion, Kind::Facts, Kind::Counting]),
            Genre::Inventory => inventory(scene),
            Genre::Dialogue => mix(scene, TALK, &[Kind::Completion, Kind::YesNo, Kind::Passage]),
            Genre::Description => mix(scene, HABITS, &[Kind::Agreement, Kind::Facts]),
            Genre::Quiz => quiz(scene),
            Genre::Gazette => gazette(scene),
            Genre::Song => song(scene),
        }
    }

    fn end(self, scene: &mut Scene) -> String {
        match self {
            Genre::Letter => "\n".to_string() + scene.say_one(LETTER_ENDS).as_str(),
            _ => String::new(),
        }
    }
}

/// A sentence now and then, and a puzzle of one of `kinds`.
fn mix(scene: &mut Scene, sentences: &[&str], kinds: &[Kind]) -> String {
    let puzzle = one_of(scene, kinds);
    if scene.dice.chance(25) {
        return puzzle;
    }
    scene.say_one(sentences) + "\n" + puzzle.as_str()
}

/// A puzzle of one of `kinds`, told.
fn one_of(scene: &mut Scene, kinds: &[Kind]) -> String {
    let kind = kinds[scene.dice.below(kinds.len())];
    told(&kind.puzzle(scene))
}

fn inventory(scene: &mut Scene) -> String {
    let lines = 1 + scene.dice.below(3);
    let stock: Vec<String> = (0..lines).map(|_| scene.say_one(STOCK)).collect();
    let puzzle = one_of(scene, &[Kind::Counting, Kind::YesNo, Kind::Agreement]);
    format!("- {}\n{puzzle}", stock.join("\n- "))
}

/// A verse whose lines come twice, the second time in another order.
fn song(scene: &mut Scene) -> String {
    let mut lines: Vec<String> = (0..3).map(|_| scene.say_one(VERSES)).collect();
    let first = lines.join("\n");
    scene.dice.shuffle(&mut lines);
    first + "\n" + lines.join("\n").as_str()
}

fn quiz(scene: &mut Scene) -> String {
    let kinds = [
        Kind::Passage,
        Kind::Passage,
        Kind::YesNo,
        Kind::YesNo,
        Kind::Reference,
        Kind::Reference,
        Kind::Counting,
        Kind::Completion,
    ];
    one_of(scene, &kinds)
}

/// What is true of a place, and of another one in the next paragraph.
fn gazette(scene: &mut Scene) -> String {
    let puzzle = Kind::Facts.puzzle(scene);
    let text = told(&puzzle) + " " + scene.say_one(FACTS).as_str();
    scene.place = &scene.world.places[scene.dice.below(scene.world.places.len())];
    text
}

/// A puzzle with its right answers, as a text tells it.
fn told(puzzle: &Puzzle) -> String {
    let mut text = puzzle.passage.clone();
    for question in &puzzle.questions {
        text = join(text, &question.prompt);
        text += " ";
        text += &question.choices[question.gold];
        text += question.tail;
    }
    text
}

/// Sentences follow on the line, questions begin a new one.
fn join(text: String, next: &str) -> String {
    let between = match (text.is_empty(), next.starts_with("Question")) {
        (true, _) => "",
        (false, true) => "\n",
        (false, false) => " ",
    };
    text + between + next
}

/// One question of `kind` after an opening: the context, and the question itself.
pub(super) fn asked(dice: &mut Dice, kind: Kind) -> (String, super::puzzles::Question) {
    let mut scene = Scene::new(dice, Cast::Tasks);
    let opening = scene.say_one(OPENINGS) + " " + scene.say_one(EVENTS).as_str();
    let mut puzzle = kind.puzzle(&mut scene);
    let question = puzzle.questions.swap_remove(0);
    let passage = match puzzle.passage.is_empty() {
        true => opening,
        false => join(opening, &puzzle.passage),
    };
    let context = join(passage, &question.prompt);
    (context, question)
}
