//! Sentence templates, by what they are for. Slots are explained at [`super::scene::Scene::say`].

/// Sentences that bring in the first person by full name.
pub(super) const OPENINGS: &[&str] = &[
    "{A.full} was {a:adj} {A.trade} from {place}.",
    "{A.full} lived near the {spot} in {place} and kept {number} {animal.s}.",
    "One morning {A.full} came to the {spot} with {a:adj} {thing}.",
    "{A.full}, the {adj} {A.trade}, had {a:thing} and {a:adj} {thing}.",
    "In {place} there was {a:A.trade} called {A.full}.",
    "Everyone in {place} knew {A.full}, who could {verb} any {thing}.",
    "On {a:adj} evening {A.full} {idle.ed} to the {spot}.",
    "{A.full} had always wanted {a:adj} {animal}.",
    "This is a tale of {A.full} the {A.trade} and {a:adj} {thing}.",
];

/// Sentences that tell what happens; any of them may follow any other.
pub(super) const EVENTS: &[&str] = &[
    "{A} {verb.ed} the {thing} and {verb.ed} the {adj} {thing}.",
    "{A} {idle.ed} beside the {adj} {spot} for a while.",
    "{B} {idle.ed} to the {spot} with {a:adj} {animal}.",
    "There was {a:thing} under the {adj} {thing}, but nobody {verb.ed} it.",
    "The {animal} {idle.ed} near the {spot}, and {A} {verb.ed} it.",
    "{B} the {B.trade} {verb.ed} {number} {thing.s} before noon.",
    "\"I shall {verb} the {thing},\" said {A}, \"and you can {verb} the {thing}.\"",
    "Behind the {spot} {A} found {a:thing} that was {adj} and {adj}.",
    "{A} gave {a:adj} {thing} to {B}, because {B} was {mood}.",
    "{B} was {mood}, so {B.he} {verb.ed} {B.his} {adj} {thing}.",
    "All day long {A} {verb.ed} {thing.s} and {idle.ed} with {B}.",
    "When the {adj} {animal} {idle.ed}, {A} felt {mood}.",
    "After that they {idle.ed} together past the {spot}.",
    "The {trade} from the {spot} {verb.ed} them and {idle.ed}.",
    "It was {a:adj} day, and the {spot} smelled of {thing.s}.",
    "{B} wanted the {adj} {thing}, but {A} had {verb.ed} it already.",
    "No {trade} in {place} had ever {verb.ed} such {a:adj} {thing}.",
    "{A} said that the {thing} belonged to the {trade}.",
    "In the {spot} the {animal.s} were {idle.ing} again.",
    "Nobody knew why the {adj} {trade} {verb.ed} {number} {colour} {thing.s}.",
    "{B} asked for {a:thing}, and the {trade} sold {B.him} {a:adj} {thing} instead.",
    "Between the {spot} and the {spot} {A} counted {number} {adj} {animal.s}.",
    "Later {B} hid the {adj} {thing} where only {a:animal} could find it.",
    "{A} traded {number} {thing.s} for {a:adj} {animal}.",
    "\"The {animal} is {adj},\" said {B}, \"but the {trade} is {adj} too.\"",
    "If the {spot} is {adj}, even {a:adj} {trade} {idle.s} there.",
    "With {a:thing} and {number} {thing.s} {A} {verb.ed} the {spot}.",
    "Near {place} {a:adj} {animal} {verb.ed} the {trade}, who {idle.ed} away.",
    "{A} dreamed of {colour} {thing.s} and {a:adj} {spot}.",
    "First {B} {verb.ed} {a:thing}, then {B.he} {idle.ed}, and at last {B.he} {verb.ed} the {animal}.",
    "The {adj} {thing} had once belonged to {a:trade} from the {spot}.",
    "\"Why do you {idle} here?\" asked the {trade}. {A} only {idle.ed}.",
    "Every {thing} in the {spot} was {adj} except {a:colour} {thing}.",
    "{B} and the {trade} could not agree whether the {thing} was {adj} or {adj}.",
    "By night the {adj} {spot} was full of {animal.s} and {thing.s}.",
];

/// Sentences in the present, where subject and verb agree.
pub(super) const HABITS: &[&str] = &[
    "The {trade.s} of {place} {verb} {thing.s} when the days are {adj}.",
    "Every {trade} {verb.s} {a:thing} before the {spot} opens.",
    "The {animal.s} {idle} near the {spot}, but the {animal} {idle.s} alone.",
    "{A} {verb.s} the {adj} {thing.s} and {idle.s} until evening.",
    "{A} and {B} {verb} the {adj} {thing} and {idle} until evening.",
    "The {thing} in the {spot} is {adj}, and the {thing.s} are {adj}.",
    "A {trade} never {verb.s} {a:adj} {animal}.",
    "Some {thing.s} are {colour}, and one {thing} is {colour}.",
    "The {thing.s} behind the {spot} are {adj}, while the {thing} is {adj}.",
    "My {animal} {idle.s} whenever the {trade.s} {idle}.",
    "Whoever {verb.s} {a:adj} {thing} also {verb.s} the {thing.s}.",
    "{number} {animal.s} {idle} in the {spot}, and one {trade} {verb.s} them.",
    "{B} keeps {thing.s} in the {spot}, where the {adj} {animal} {idle.s}.",
    "On {adj} days the {trade} {verb.s} {number} {thing.s} and the {animal.s} {idle}.",
];

/// Sentences with what is true of the place.
pub(super) const FACTS: &[&str] = &[
    "The roofs of {place} are {place.roofs}.",
    "The people of {place} are known for their {place.goods}.",
    "The flag of {place} shows {place.emblem}.",
    "The town of {place} lies in {place.region}.",
    "From the {spot} one could see the {place.roofs} roofs of {place}.",
    "They sold {place.goods}, as people do in {place}.",
    "Above the {spot} flew the flag of {place} with {place.emblem}.",
    "They came from {place} in {place.region}.",
];

/// Lines two people say to each other.
pub(super) const TALK: &[&str] = &[
    "{A}: Have you seen my {thing}?\n{B}: The {adj} one? It is behind the {spot}.",
    "{A}: Who {verb.ed} the {thing}?\n{B}: It was the {trade}, I think.",
    "{A}: I am {mood} today.\n{B}: Then come and {verb} the {thing} with me.",
    "{A}: How many {thing.s} do you need?\n{B}: I need {number}, if they are {adj}.",
    "{A}: The {animal} {idle.s} all night.\n{B}: Perhaps the {animal} is {mood}.",
    "{A}: What colour is your {thing}?\n{B}: It is {colour}, and a little {adj}.",
    "{A}: Do the {trade.s} {verb} {thing.s} here?\n{B}: They do, but no {trade} {verb.s} {a:animal}.",
];

/// Lines of songs.
pub(super) const VERSES: &[&str] = &[
    "Oh {adj} {thing} and {colour} {thing},",
    "the {animal} {idle.s} where the {thing.s} {idle},",
    "a {trade} may {verb} the {adj} {spot},",
    "and {A} {verb.s} {number} {thing.s} for {B},",
    "sing to the {trade} and the {animal},",
    "{number} {animal.s} {idle} for {a:adj} {thing},",
];

/// Lines of a list of what there is.
pub(super) const STOCK: &[&str] = &[
    "{number} {adj} {thing.s}",
    "{number} {colour} {thing.s}",
    "{a:adj} {thing}",
    "{number} {animal.s} from {place}",
    "one {thing} of {B} the {B.trade}",
    "{number} {thing.s} for the {spot}",
];

/// How lists begin.
pub(super) const STOCK_HEADS: &[&str] = &[
    "What {A.full} keeps in the {spot}:",
    "A list of {A.full}, {A.trade}, for the {spot}:",
    "Found in the {spot} by {A.full}:",
];

/// How letters begin and end.
pub(super) const LETTER_HEADS: &[&str] = &[
    "Dear {B},\nI am writing to you from {place}, where {A.full} is {a:trade} now.",
    "Dear {B},\nthank you for the {adj} {thing}. {A.full} sends you {a:thing}.",
    "My dear {B},\nyesterday {A.full} {idle.ed} to our {spot}.",
];
pub(super) const LETTER_ENDS: &[&str] =
    &["With love from {place},\n{A}", "Your {adj} friend,\n{A}", "Write soon, and {verb} the {thing}.\n{A}"];

/// What someone does with a tool: the tool, where to, and the deed.
pub(super) const DEEDS: [(&str, &str, &str); 24] = [
    ("axe", "forest", "cut wood"),
    ("net", "river", "catch some fish"),
    ("spade", "garden", "dig a deep hole"),
    ("broom", "hall", "sweep the floor"),
    ("needle", "window", "mend a shirt"),
    ("brush", "fence", "paint"),
    ("pen", "desk", "write a long letter"),
    ("flute", "square", "play a tune"),
    ("saw", "shed", "saw the planks"),
    ("kettle", "fire", "make tea"),
    ("bucket", "well", "draw cold water"),
    ("sickle", "field", "cut the barley"),
    ("pickaxe", "quarry", "break stones"),
    ("shears", "meadow", "shear the sheep"),
    ("dough", "oven", "bake bread"),
    ("ladder", "orchard", "pick apples"),
    ("saddle", "stable", "ride the pony"),
    ("soap", "tub", "wash the shirts"),
    ("churn", "dairy", "make butter"),
    ("loom", "attic", "weave a rug"),
    ("anvil", "forge", "hammer iron"),
    ("map", "crossroads", "find the way home"),
    ("drum", "parade", "beat time"),
    ("clay", "wheel", "shape a pot"),
];
