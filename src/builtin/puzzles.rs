//! The patterns that the tasks ask for: each is a passage and questions with one right answer.
//!
//! The same puzzles are told in the training text, with the right answer, and asked in the tasks.

use super::phrases::DEEDS;
use super::scene::{Gender, Scene};
use super::words::{NUMBERS, article, with_s};
use super::world::{EMBLEMS, GOODS, Place, REGIONS, ROOFS};

/// One question: `prompt` is followed by a space and a choice, and in a text by `tail`.
pub(super) struct Question {
    pub(super) prompt: String,
    pub(super) choices: Vec<String>,
    pub(super) gold: usize,
    pub(super) tail: &'static str,
}

/// A passage (it may be empty) and what is asked about it (at least one question).
pub(super) struct Puzzle {
    pub(super) passage: String,
    pub(super) questions: Vec<Question>,
}

/// What people do with things in a passage.
const GETTING: [&str; 14] = [
    "brought", "carried", "found", "bought", "lost", "sold", "hid", "broke", "mended", "painted", "borrowed",
    "stole", "dropped", "cleaned",
];

/// The days of passages, in order.
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// The kinds of puzzle, one for each task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Agreement,
    Completion,
    Passage,
    YesNo,
    Reference,
    Counting,
    Facts,
}

impl Kind {
    pub(super) const ALL: [Kind; 7] = [
        Kind::Agreement,
        Kind::Completion,
        Kind::Passage,
        Kind::YesNo,
        Kind::Reference,
        Kind::Counting,
        Kind::Facts,
    ];

    /// A new puzzle about the people and words of `scene`.
    pub(super) fn puzzle(self, scene: &mut Scene) -> Puzzle {
        match self {
            Kind::Agreement => agreement(scene),
            Kind::Completion => completion(scene),
            Kind::Passage => passage(scene),
            Kind::YesNo => yes_no(scene),
            Kind::Reference => reference(scene),
            Kind::Counting => counting(scene),
            Kind::Facts => facts(scene),
        }
    }
}

impl Question {
    /// Puts `right` among `wrong` at a random position.
    fn new(scene: &mut Scene, prompt: String, right: String, wrong: Vec<String>) -> Self {
        let gold = scene.dice.below(wrong.len() + 1);
        let mut choices = wrong;
        choices.insert(gold, right);
        Question { prompt, choices, gold, tail: "." }
    }

    /// A question on a line of its own, with the answer's first words given.
    fn asked(scene: &mut Scene, ask: &str, begin: &str, right: String, wrong: Vec<String>) -> Self {
        let prompt = format!("Question: {ask}\nAnswer:{begin}");
        Question { tail: "", ..Question::new(scene, prompt, right, wrong) }
    }
}

fn single(passage: String, question: Question) -> Puzzle {
    Puzzle { passage, questions: vec![question] }
}

/// A subject, something else of the other number, and a verb that has to agree with the subject.
fn agreement(scene: &mut Scene) -> Puzzle {
    let nouns = scene.words("thing", 2);
    let plural = scene.dice.chance(50);
    let other_number = scene.dice.chance(75);
    let subject = counted(nouns[0], plural);
    let other = counted(nouns[1], plural != other_number);
    let link = scene.dice.pick(&["near", "behind", "beside", "under", "with"]);
    let lead = scene.say_one(&["", "Today ", "In {place} ", "At the {spot} ", "{A} sees that "]);
    let adjective = scene.word("adj");
    let opening = format!("{lead}{}he {adjective} {subject}", if lead.is_empty() { "T" } else { "t" });
    let (one, many) = verb_phrases(scene);
    let (right, wrong) = if plural { (many, one) } else { (one, many) };
    let further = match scene.dice.chance(40) {
        true => format!(" and the {}", counted(scene.word("animal"), !plural)),
        false => String::new(),
    };
    let prompt = format!("{opening} {link} the {other}{further}");
    let question = Question::new(scene, prompt, right, vec![wrong]);
    single(String::new(), question)
}

fn counted(noun: &str, plural: bool) -> String {
    if plural { with_s(noun) } else { noun.to_string() }
}

/// The same predicate in the singular and in the plural.
fn verb_phrases(scene: &mut Scene) -> (String, String) {
    let (one, many) = *scene.dice.pick(&[
        &("is", "are"),
        &("was", "were"),
        &("has been", "have been"),
        &("looks", "look"),
        &("seems", "seem"),
    ]);
    let rest = scene.say_one(&["{adj}", "{adj} and {adj}", "{colour}", "very {adj} today"]).to_lowercase();
    (format!("{one} {rest}"), format!("{many} {rest}"))
}

/// Someone takes one tool and leaves another: what is done next?
fn completion(scene: &mut Scene) -> Puzzle {
    let drawn = scene.dice.distinct(4, DEEDS.len());
    let (tool, place, deed) = DEEDS[drawn[0]];
    let left = DEEDS[drawn[1]].0;
    let wrong = drawn[1..].iter().map(|&i| DEEDS[i].2.to_string()).collect();
    let way = scene.dice.pick(&["went out", "went to the PLACE"]).replace("PLACE", place);
    let told = scene.say_one(&[
        "{A} left the LEFT at home, took the TOOL and WAY.",
        "{A} took the TOOL instead of the LEFT and WAY.",
        "{A} had no need of the LEFT, so {A.he} picked up the {adj} TOOL and WAY.",
    ]);
    let told = told.replace("LEFT", left).replace("TOOL", tool).replace("WAY", &way);
    let next = scene.say_one(&[
        "There {A.he} began to",
        "Soon {A.he} started to",
        "The {adj} {A.trade} wanted to",
        "{B} {idle.ed} while {A} went on to",
    ]);
    let question = Question::new(scene, next, deed.to_string(), wrong);
    single(told, question)
}

/// A sentence with many parts, or one with many people: what was said of one of them?
fn passage(scene: &mut Scene) -> Puzzle {
    if scene.dice.chance(25) { deeds(scene) } else { details(scene) }
}

/// Someone saw some animals of some colour somewhere on some day: questions for two of these.
fn details(scene: &mut Scene) -> Puzzle {
    let day = DAYS[scene.next_day(DAYS.len())];
    let animal = with_s(scene.word("animal"));
    let colours = scene.words("colour", 4);
    let spots = scene.words("spot", 4);
    let numbers = scene.dice.distinct(4, 10).into_iter().map(|n| NUMBERS[n + 2]).collect();
    let asks: [(String, Vec<&str>); 3] = [
        (format!("What colour were the {animal} on {day}?"), colours),
        (format!("Where were the {animal} on {day}?"), spots),
        (format!("How many {animal} were there on {day}?"), numbers),
    ];
    let [colour, spot, number] = [0, 1, 2].map(|i| asks[i].1[0]);
    let passage = scene.say_one(&[
        "On DAY, {A} saw NUMBER COLOUR ANIMALS near the SPOT.",
        "On DAY, NUMBER COLOUR ANIMALS {idle.ed} near the SPOT.",
        "On DAY, {B} and {A} {verb.ed} NUMBER COLOUR ANIMALS near the SPOT.",
    ]);
    let passage =
        [("DAY", day), ("NUMBER", number), ("COLOUR", colour), ("ANIMALS", &animal), ("SPOT", spot)]
            .iter()
            .fold(passage, |text, (slot, word)| text.replace(slot, word));
    let order = scene.dice.distinct(2, asks.len());
    let questions = order.iter().map(|&i| detail(scene, &asks[i].0, &asks[i].1)).collect();
    Puzzle { passage, questions }
}

/// A question to which the first of `words` is the answer.
fn detail(scene: &mut Scene, ask: &str, words: &[&str]) -> Question {
    let place = ask.starts_with("Where");
    let answer = |word: &&str| {
        if place { format!("near the {word}") } else { word.to_string() }
    };
    let wrong = words[1..].iter().map(answer).collect();
    Question::asked(scene, ask, "", answer(&words[0]), wrong)
}

/// Three people do three things: who did what?
fn deeds(scene: &mut Scene) -> Puzzle {
    let names: Vec<&str> = scene.people.iter().map(|person| person.first).collect();
    let verbs = scene.dice.distinct(4, GETTING.len());
    let things = scene.words("thing", 4);
    let deeds: Vec<String> =
        (0..4).map(|i| format!("{} {}", GETTING[verbs[i]], described(scene, things[i]))).collect();
    let told: Vec<String> = (0..3).map(|i| format!("{} {}", names[i], deeds[i])).collect();
    let day = DAYS[scene.next_day(DAYS.len())];
    let passage = format!("On {day}, {}.", told.join(scene.dice.pick(&[". ", ", and "])));
    let order = scene.dice.distinct(2, 3);
    let ask = |&i: &usize| {
        let wrong = (0..4).filter(|&j| j != i).map(|j| deeds[j].clone()).collect();
        let ask = format!("What did {} do on {day}?", names[i]);
        let begin = format!(" {}", names[i]);
        Question::asked(scene, &ask, &begin, deeds[i].clone(), wrong)
    };
    Puzzle { questions: order.iter().map(ask).collect(), passage }
}

/// A thing with its article, and now and then an adjective.
fn described(scene: &mut Scene, thing: &str) -> String {
    if scene.dice.chance(60) {
        return format!("{} {thing}", article(thing));
    }
    let adjective = scene.word("adj");
    format!("{} {adjective} {thing}", article(adjective))
}

/// Some things are needed and some are there: are there enough?
fn yes_no(scene: &mut Scene) -> Puzzle {
    let mut numbers = scene.dice.distinct(2, 7);
    let enough = scene.dice.chance(50);
    numbers.sort_unstable();
    let (need, have) = if enough { (numbers[0], numbers[1]) } else { (numbers[1], numbers[0]) };
    let thing = scene.fresh("thing", 1)[0];
    let some = |n: usize| format!("{} {}", NUMBERS[n + 2], with_s(thing));
    let told = scene.say_one(&[
        "{A} needed NEED, and in the {spot} there were HAVE.",
        "{A} the {A.trade} wanted NEED, and {B} had HAVE.",
        "{A} asked for NEED. In the {adj} {spot} {A.he} found HAVE.",
    ]);
    let passage = told.replace("NEED", &some(need)).replace("HAVE", &some(have));
    let (right, wrong) = if enough { ("yes", "no") } else { ("no", "yes") };
    let ask = format!("Were there enough {}?", with_s(thing));
    let question = Question::asked(scene, &ask, "", right.to_string(), vec![wrong.to_string()]);
    single(passage, question)
}

/// Two people meet, and a pronoun says which of them is meant.
fn reference(scene: &mut Scene) -> Puzzle {
    let meant = scene.dice.below(2);
    let pronoun = if scene.people[meant].gender == Gender::Woman { "She" } else { "He" };
    let mood = scene.fresh("mood", 1)[0];
    let meeting = scene.say_one(&[
        "{A} met {B} at the {spot}.",
        "{A} and {B} {idle.ed} near the {adj} {spot}.",
        "{A} showed the {adj} {thing} to {B}.",
        "{A} waited for {B} beside the {spot}.",
    ]);
    let ask = format!("Who was {mood}?");
    let names = [scene.people[0].first, scene.people[1].first].map(str::to_string);
    let wrong = vec![names[1 - meant].clone()];
    let question = Question::asked(scene, &ask, "", names[meant].clone(), wrong);
    single(format!("{meeting} {pronoun} was {mood}."), question)
}

/// Some things, some taken away or added: how many are there now?
fn counting(scene: &mut Scene) -> Puzzle {
    let before = 2 + scene.dice.below(7);
    let step = 1 + scene.dice.below(2.min(before - 1));
    let added = scene.dice.chance(50);
    let now = if added { before + step } else { before - step };
    let thing = scene.word("thing");
    let change = if added { "brought NUMBER more" } else { "took away NUMBER" };
    let told = scene.say_one(&["In the {spot} there were ", "{A} had ", "Under the {thing} lay "]);
    let passage = format!("{told}{} {}. ", NUMBERS[before], with_s(thing));
    let changed = scene.say(&format!("{{B}} {}.", change.replace("NUMBER", NUMBERS[step])));
    let wrong = wrong_numbers(scene, before, now);
    let phrase = |n: usize| format!("{} {}", NUMBERS[n], counted(thing, n != 1));
    let wrong = wrong.into_iter().map(phrase).collect();
    let question = Question::new(scene, "Now the number was".to_string(), phrase(now), wrong);
    single(passage + changed.as_str(), question)
}

/// Three numbers near `now`, the number from before among them.
fn wrong_numbers(scene: &mut Scene, before: usize, now: usize) -> Vec<usize> {
    let near = (1..NUMBERS.len()).filter(|&n| n != now && n != before && n.abs_diff(now) <= 3);
    let mut near: Vec<usize> = near.collect();
    scene.dice.shuffle(&mut near);
    near.truncate(2);
    near.push(before);
    scene.dice.shuffle(&mut near);
    near
}

/// Something that is true of a place in every text.
fn facts(scene: &mut Scene) -> Puzzle {
    let place = scene.place;
    let order = scene.dice.distinct(3, 4);
    let questions = order.iter().map(|&what| fact(scene, place, what)).collect();
    Puzzle { passage: String::new(), questions }
}

fn fact(scene: &mut Scene, place: &Place, what: usize) -> Question {
    let (begin, right, all): (_, &str, &[&str]) = match what {
        0 => ("The roofs of PLACE are", place.roofs, &ROOFS),
        1 => ("The people of PLACE are known for their", place.goods, &GOODS),
        2 => ("The flag of PLACE shows", place.emblem, &EMBLEMS),
        _ => ("The town of PLACE lies in", place.region, &REGIONS),
    };
    let others: Vec<&str> = all.iter().copied().filter(|&other| other != right).collect();
    let drawn = scene.dice.distinct(3, others.len());
    let wrong = drawn.iter().map(|&i| others[i].to_string()).collect();
    Question::new(scene, begin.replace("PLACE", &place.name), right.to_string(), wrong)
}
