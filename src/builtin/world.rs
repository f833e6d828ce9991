//! The little world: its words, its people and its places, the same in every text.

use super::dice::Dice;
use super::words::{self, Shape, capital, invent, list};
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// The stream that makes the world; those from 1 on make texts.
const STREAM: u64 = 0;

/// How many places have facts to be known.
const PLACES: usize = 36;

/// What there is to know about a place.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) roofs: &'static str,
    pub(super) goods: &'static str,
    pub(super) emblem: &'static str,
    pub(super) region: &'static str,
}

/// Colours of the roofs.
pub(super) const ROOFS: [&str; 8] = ["red", "blue", "green", "yellow", "white", "black", "brown", "grey"];
/// What places are known for.
pub(super) const GOODS: [&str; 12] = [
    "bells",
    "fine lamps",
    "honey",
    "goat cheese",
    "warm blankets",
    "rope",
    "painted bowls",
    "dark bread",
    "silver spoons",
    "fiddles",
    "salt fish",
    "apple wine",
];
/// Animals on the flags.
pub(super) const EMBLEMS: [&str; 12] = [
    "a bear",
    "a heron",
    "an otter",
    "a white horse",
    "a falcon",
    "a golden bee",
    "a hare",
    "a black goat",
    "an owl",
    "two swans",
    "a trout",
    "a raven",
];
/// Regions.
pub(super) const REGIONS: [&str; 8] = [
    "the Salt Hills",
    "the North Moor",
    "the Long Valley",
    "the Reed Coast",
    "the High Forest",
    "the Green Marsh",
    "the Stone Plain",
    "the Sunken Isles",
];

/// The words of one class, commonest first.
pub(super) struct Words {
    pub(super) things: Vec<String>,
    pub(super) animals: Vec<String>,
    pub(super) spots: Vec<String>,
    pub(super) trades: Vec<String>,
    pub(super) adjectives: Vec<String>,
    pub(super) moods: Vec<String>,
    pub(super) verbs: Vec<String>,
    pub(super) idle: Vec<String>,
    pub(super) colours: Vec<String>,
}

/// Everything the texts talk about.
pub(super) struct World {
    pub(super) words: Words,
    pub(super) women: Vec<String>,
    pub(super) men: Vec<String>,
    pub(super) families: Vec<String>,
    pub(super) places: Vec<Place>,
}

/// The one world, made on first use.
pub(super) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::make)
}

impl World {
    fn make() -> Self {
        let mut dice = Dice::new(STREAM);
        let mut taken = BTreeSet::new();
        let words = Words::make(&mut dice, &mut taken);
        let mut names = |n, shape: Shape| -> Vec<String> {
            let made = invent(&mut dice, n, &shape, &mut taken);
            made.iter().map(|name| capital(name)).collect()
        };
        let women = names(60, shape(1, 1, &["a", "ia"]));
        let men = names(60, shape(1, 1, &["o", "us"]));
        let families = names(200, shape(1, 1, &["son", "ley", "wick", "ton", "man"]));
        let towns = names(PLACES, shape(1, 1, &["ford", "ham", "mere", "by", "stead"]));
        let places = towns.into_iter().map(|name| Place::make(&mut dice, name));
        World { words, women, men, families, places: places.collect() }
    }
}

impl Place {
    fn make(dice: &mut Dice, name: String) -> Self {
        Place {
            name,
            roofs: dice.pick(&ROOFS),
            goods: dice.pick(&GOODS),
            emblem: dice.pick(&EMBLEMS),
            region: dice.pick(&REGIONS),
        }
    }
}

impl Words {
    fn make(dice: &mut Dice, taken: &mut BTreeSet<String>) -> Self {
        let mut class = |hand: &'static str, n, shape: Shape| -> Vec<String> {
            let mut all = list(hand);
            all.extend(invent(dice, n, &shape, taken));
            all
        };
        Words {
            things: class(words::THINGS, 400, shape(1, 2, &["", "el", "er", "in", "ock"])),
            animals: class(words::ANIMALS, 50, shape(1, 1, &["bird", "fish", "ling", "cat"])),
            spots: class(words::SPOTS, 30, shape(1, 1, &["house", "yard", "gate", "hill"])),
            trades: class(words::TRADES, 40, shape(1, 2, &["maker", "ist", "wright"])),
            adjectives: class(words::ADJECTIVES, 240, shape(1, 2, &["ish", "y", "some", "en"])),
            moods: class(words::MOODS, 24, shape(1, 2, &["ful", "less"])),
            verbs: class(words::VERBS, 150, shape(1, 1, &["le", "er", "ow"])),
            idle: class(words::IDLE_VERBS, 50, shape(1, 1, &["le", "er", "ow"])),
            colours: list(words::COLOURS),
        }
    }
}

fn shape(least: usize, most: usize, endings: &'static [&'static str]) -> Shape {
    Shape { least, most, endings }
}
