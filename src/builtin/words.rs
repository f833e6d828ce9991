//! The vocabulary: word lists written by hand, and words made of syllables.

use super::dice::Dice;
use std::collections::BTreeSet;

/// Things that can be carried, shown, lost and counted.
pub(super) const THINGS: &str = "lamp basket rope bell spoon lantern hammer book coat blanket \
 kettle bucket ladder drum flute candle mirror hat ring key bowl jar knife cup pot saddle comb \
 ribbon shovel bottle stone feather scarf cushion needle plate map letter coin whistle broom \
 cart wheel barrel sack crate tray jug pillow button shell chain nail hook anchor paddle \
 boot glove belt cloak shawl apron pin brush pencil ruler kite puppet doll whip horn harp \
 fiddle pipe trumpet gong vase urn pan ladle sieve mortar tile brick plank pole peg clock \
 compass tent banner flag rug curtain stool bench chair table cradle chest lock hinge gate";
/// Animals.
pub(super) const ANIMALS: &str = "dog cat horse cow goat hen duck pig bear owl crow heron \
 badger otter hare mole lizard beetle spider snail frog toad swan rook falcon donkey ram lamb \
 pony squirrel hedgehog turtle eel trout pike moth bee ant raven dove stork robin sparrow";
/// Where a thing can be put or looked for.
pub(super) const SPOTS: &str = "barn cellar kitchen attic garden stable workshop chapel tower \
 mill bakery tavern market harbour forest meadow orchard bridge well library school forge \
 courtyard hall shed boathouse granary dairy brewery cottage field quarry pier inn square";
/// Trades.
pub(super) const TRADES: &str = "baker miller smith tailor weaver potter carpenter farmer \
 shepherd sailor teacher painter cook hunter fisher gardener singer dancer healer mason cooper \
 tanner barber brewer clerk doctor groom guard judge merchant nurse pedlar piper printer \
 rider roofer scholar thatcher tinker trader carter dyer glazier saddler";
/// Plain adjectives; none begins with a vowel sound that a rule of `article` would miss.
pub(super) const ADJECTIVES: &str = "old small red heavy bright green little grey wooden round \
 broken clean blue dark soft black narrow warm yellow quiet white empty cold tall thin wide \
 sharp brown silver golden dusty smooth rough strange long short deep crooked gentle proud \
 pale sturdy faded painted polished rusty hollow simple fine plain shiny cracked light \
 careful clever merry patient stubborn hungry lonely cheerful sleepy brave shy honest kind";
/// Feelings, for sentences about people.
pub(super) const MOODS: &str = "tired happy hungry angry cold glad sad proud ill lonely \
 worried thirsty sleepy late afraid pleased ready curious bored ashamed";
/// Regular verbs with an object.
pub(super) const VERBS: &str = "carry clean mend paint move watch follow lift wash open close \
 count polish borrow want need like love praise collect repair touch visit measure sort \
 cover push pull guard admire examine gather turn fill empty use call notice remember \
 describe prepare order trade deliver";
/// Regular verbs without an object.
pub(super) const IDLE_VERBS: &str = "walk wait work rest talk laugh play listen look dance \
 march arrive travel linger wander whistle tremble shout smile return hurry murmur";
/// Colours.
pub(super) const COLOURS: &str = "red blue green yellow white black brown grey purple orange";
/// Numbers from nought, as words.
pub(super) const NUMBERS: [&str; 13] =
    ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];

const ONSETS: [&str; 30] = [
    "b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "br", "dr", "fl", "gr", "kr",
    "pl", "sk", "sl", "st", "tr", "th", "sh", "gl", "qu", "j",
];
const VOWELS: [&str; 9] = ["a", "e", "i", "o", "u", "ai", "ea", "oo", "ou"];
const CODAS: [&str; 14] = ["b", "d", "g", "k", "l", "m", "n", "p", "r", "t", "nd", "lm", "rk", "mb"];

/// Made words with one of these in them are not used: they would distract a reader.
const UNLOVELY: [&str; 16] = [
    "poo", "tit", "nig", "fag", "shi", "slu", "tur", "wog", "pis", "fu", "kik", "pea", "pai", "wan", "bum",
    "poon",
];

/// Splits a hand-written list into its words.
pub(super) fn list(words: &'static str) -> Vec<String> {
    words.split_whitespace().map(str::to_string).collect()
}

/// How made words end: what marks them as noun, verb, name and so on.
pub(super) struct Shape {
    pub(super) least: usize,
    pub(super) most: usize,
    pub(super) endings: &'static [&'static str],
}

/// `n` different made words of one shape; `taken` keeps words of different lists apart.
pub(super) fn invent(dice: &mut Dice, n: usize, shape: &Shape, taken: &mut BTreeSet<String>) -> Vec<String> {
    let mut words = Vec::with_capacity(n);
    while words.len() < n {
        let word = one(dice, shape);
        let lovely = !UNLOVELY.iter().any(|part| word.contains(part));
        if lovely && taken.insert(word.clone()) {
            words.push(word);
        }
    }
    words
}

fn one(dice: &mut Dice, shape: &Shape) -> String {
    let syllables = shape.least + dice.below(shape.most - shape.least + 1);
    let mut word = String::new();
    for i in 0..syllables {
        word += dice.pick(&ONSETS);
        word += dice.pick(&VOWELS);
        if i + 1 == syllables {
            word += dice.pick(&CODAS);
        }
    }
    word + dice.pick(shape.endings)
}

/// A word with its first letter in upper case.
pub(super) fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn vowel_first(word: &str) -> bool {
    word.starts_with(['a', 'e', 'i', 'o', 'u']) && !word.starts_with("us")
}

/// "a" or "an", as `word` asks.
pub(super) fn article(word: &str) -> &'static str {
    if vowel_first(word) { "an" } else { "a" }
}

/// The plural of a noun, or the third person of a verb: both add the same ending.
pub(super) fn with_s(word: &str) -> String {
    if ["s", "sh", "ch", "x"].iter().any(|end| word.ends_with(end)) {
        return format!("{word}es");
    }
    match consonant_y(word) {
        Some(stem) => format!("{stem}ies"),
        None if word.ends_with("fe") => format!("{}ves", &word[..word.len() - 2]),
        None => format!("{word}s"),
    }
}

/// The past of a regular verb.
pub(super) fn with_ed(word: &str) -> String {
    match consonant_y(word) {
        Some(stem) => format!("{stem}ied"),
        None if word.ends_with('e') => format!("{word}d"),
        None => format!("{word}ed"),
    }
}

/// The present participle of a regular verb.
pub(super) fn with_ing(word: &str) -> String {
    format!("{}ing", word.strip_suffix('e').unwrap_or(word))
}

/// The word without its final "y" when a consonant comes before it.
fn consonant_y(word: &str) -> Option<&str> {
    let stem = word.strip_suffix('y')?;
    (!stem.ends_with(['a', 'e', 'i', 'o', 'u'])).then_some(stem)
}
