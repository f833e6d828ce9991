//! A scene: the people, the place and the favourite words of one document, and the templates
//! that are filled with them.

use super::dice::Dice;
use super::words::{self, article, capital, with_ed, with_ing, with_s};
use super::world::{Place, World, world};
use std::collections::BTreeSet;

/// Who may appear: every full name belongs to exactly one cast, so texts of different casts
/// are different texts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cast {
    Train,
    Calibration,
    Search,
    Evaluation,
    Tasks,
}

const CASTS: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gender {
    Woman,
    Man,
}

/// Someone in a scene.
pub(super) struct Person {
    pub(super) first: &'static str,
    pub(super) full: String,
    pub(super) gender: Gender,
    trade: &'static str,
}

/// The words a document comes back to.
struct Topic {
    things: Vec<&'static str>,
    animals: Vec<&'static str>,
    spots: Vec<&'static str>,
    adjectives: Vec<&'static str>,
    verbs: Vec<&'static str>,
}

/// The state of one document.
pub(super) struct Scene<'d> {
    pub(super) dice: &'d mut Dice,
    pub(super) world: &'static World,
    pub(super) people: Vec<Person>,
    pub(super) place: &'static Place,
    topic: Topic,
    told: BTreeSet<&'static str>,
    day: usize,
}

impl Topic {
    fn draw(dice: &mut Dice, world: &'static World) -> Self {
        let words = &world.words;
        Topic {
            things: favourites(dice, &words.things, 7),
            animals: favourites(dice, &words.animals, 2),
            spots: favourites(dice, &words.spots, 3),
            adjectives: favourites(dice, &words.adjectives, 5),
            verbs: favourites(dice, &words.verbs, 3),
        }
    }
}

/// `n` different words, common ones more often.
fn favourites(dice: &mut Dice, words: &'static [String], n: usize) -> Vec<&'static str> {
    let mut drawn: Vec<&'static str> = Vec::with_capacity(n);
    while drawn.len() < n {
        let word = words[dice.zipf(words.len())].as_str();
        if !drawn.contains(&word) {
            drawn.push(word);
        }
    }
    drawn
}

impl<'d> Scene<'d> {
    /// A scene with three people of `cast`, of whom the first two are a woman and a man.
    pub(super) fn new(dice: &'d mut Dice, cast: Cast) -> Self {
        let world = world();
        let topic = Topic::draw(dice, world);
        let place = &world.places[dice.below(world.places.len())];
        let people = people(dice, world, cast);
        let day = dice.below(7);
        Scene { dice, world, people, place, topic, told: BTreeSet::new(), day }
    }

    /// Fills the slots of a template and begins it with a capital.
    ///
    /// A slot is `{class}`, `{class.form}` or `{a:class}`: `{thing.s}` is a plural, `{a:adj}` an
    /// adjective after "a" or "an", `{A.he}` the pronoun of the first person.
    pub(super) fn say(&mut self, template: &str) -> String {
        let mut said = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            said += before;
            let (slot, next) = after.split_once('}').unwrap_or((after, ""));
            said += &self.slot(slot);
            rest = next;
        }
        capital(&(said + rest))
    }

    /// One of `templates`, filled.
    pub(super) fn say_one(&mut self, templates: &[&str]) -> String {
        let template = self.dice.pick(templates);
        self.say(template)
    }

    fn slot(&mut self, slot: &str) -> String {
        if let Some(class) = slot.strip_prefix("a:") {
            let word = self.slot(class);
            return format!("{} {word}", article(&word));
        }
        let (class, form) = slot.split_once('.').unwrap_or((slot, ""));
        match class {
            "A" => self.person(0, form),
            "B" => self.person(1, form),
            "C" => self.person(2, form),
            "place" => self.place_word(form),
            "mood" => self.fresh("mood", 1)[0].to_string(),
            _ => inflect(self.word(class), form),
        }
    }

    fn person(&self, index: usize, form: &str) -> String {
        let person = &self.people[index];
        let woman = person.gender == Gender::Woman;
        match form {
            "full" => person.full.as_str(),
            "he" if woman => "she",
            "him" | "his" if woman => "her",
            "he" | "him" | "his" => form,
            "trade" => person.trade,
            _ => person.first,
        }
        .to_string()
    }

    fn place_word(&self, form: &str) -> String {
        match form {
            "roofs" => self.place.roofs,
            "goods" => self.place.goods,
            "emblem" => self.place.emblem,
            "region" => self.place.region,
            _ => &self.place.name,
        }
        .to_string()
    }

    /// A word of `class`: a favourite of the document more often than not.
    pub(super) fn word(&mut self, class: &str) -> &'static str {
        let words = &self.world.words;
        let (all, topic) = match class {
            "thing" => (&words.things, self.topic.things.as_slice()),
            "animal" => (&words.animals, self.topic.animals.as_slice()),
            "spot" => (&words.spots, self.topic.spots.as_slice()),
            "adj" => (&words.adjectives, self.topic.adjectives.as_slice()),
            "verb" => (&words.verbs, self.topic.verbs.as_slice()),
            "trade" => (&words.trades, [].as_slice()),
            "mood" => (&words.moods, [].as_slice()),
            "idle" => (&words.idle, [].as_slice()),
            "colour" => (&words.colours, [].as_slice()),
            "number" => return words::NUMBERS[2 + self.dice.zipf(words::NUMBERS.len() - 2)],
            _ => unreachable!("no class of words is called {class}"),
        };
        if !topic.is_empty() && self.dice.chance(60) {
            return self.dice.pick(topic);
        }
        &all[self.dice.zipf(all.len())]
    }

    /// `n` different words of `class`.
    pub(super) fn words(&mut self, class: &str, n: usize) -> Vec<&'static str> {
        let mut drawn: Vec<&'static str> = Vec::with_capacity(n);
        while drawn.len() < n {
            let word = self.word(class);
            if !drawn.contains(&word) {
                drawn.push(word);
            }
        }
        drawn
    }

    /// `n` different words of `class` that were not drawn this way before, so that a question
    /// about them has one answer in the whole document.
    pub(super) fn fresh(&mut self, class: &str, n: usize) -> Vec<&'static str> {
        let mut drawn = Vec::with_capacity(n);
        while drawn.len() < n {
            let word = self.word(class);
            if self.told.insert(word) {
                drawn.push(word);
            }
        }
        drawn
    }

    /// The number of the next day of `week`: no day comes twice in a document.
    pub(super) fn next_day(&mut self, week: usize) -> usize {
        self.day += 1;
        self.day % week
    }
}

fn inflect(word: &str, form: &str) -> String {
    match form {
        "s" => with_s(word),
        "ed" => with_ed(word),
        "ing" => with_ing(word),
        _ => word.to_string(),
    }
}

fn people(dice: &mut Dice, world: &'static World, cast: Cast) -> Vec<Person> {
    let mut genders = [Gender::Woman, Gender::Man];
    dice.shuffle(&mut genders);
    let third = dice.pick(&[&Gender::Woman, &Gender::Man]);
    let mut people: Vec<Person> = Vec::with_capacity(3);
    for gender in [genders[0], genders[1], *third] {
        let mut next = person(dice, world, cast, gender);
        while people.iter().any(|other| other.first == next.first) {
            next = person(dice, world, cast, gender);
        }
        people.push(next);
    }
    people
}

fn person(dice: &mut Dice, world: &'static World, cast: Cast, gender: Gender) -> Person {
    let names = match gender {
        Gender::Woman => &world.women,
        Gender::Man => &world.men,
    };
    let first = dice.zipf(names.len());
    let families = world.families.len() / CASTS;
    let family = dice.below(families) * CASTS + (first + cast as usize) % CASTS;
    Person {
        first: &names[first],
        full: format!("{} {}", names[first], world.families[family]),
        gender,
        trade: &world.words.trades[dice.zipf(world.words.trades.len())],
    }
}
