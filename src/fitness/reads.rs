//! Which metrics a script reads, found in its tokens before it runs, so that only these are measured.
//!
//! `m.name`, `m["name"]`, and literal indices behind them are taken by name. Whatever passes `m` on as a
//! whole (an index that is not a literal, an argument, another variable) counts as reading everything: the
//! guess may be too wide, never too narrow.

use std::collections::BTreeSet;

use rhai::{Position, Token};

use super::metric::Metric;

/// Elements of an indexed metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<T> {
    /// Every element.
    All,
    /// These, each written out.
    Named(BTreeSet<T>),
}

impl<T: Ord> Part<T> {
    /// Whether an element is read.
    pub fn has(&self, element: &T) -> bool {
        match self {
            Part::All => true,
            Part::Named(some) => some.contains(element),
        }
    }

    fn add(&mut self, element: Option<T>) {
        match (&mut *self, element) {
            (Part::Named(some), Some(element)) => drop(some.insert(element)),
            (_, None) => *self = Part::All,
            (Part::All, _) => {}
        }
    }
}

/// What a script reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads {
    /// The metrics.
    pub metrics: BTreeSet<Metric>,
    /// Corpora of `perplexity`.
    pub corpora: Part<String>,
    /// Indices of `distance` as written: negative ones count from the end.
    pub layers: Part<i64>,
}

/// A token as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    Name(String),
    Text(String),
    Integer(i64),
    Minus,
    Dot,
    Open,
    Close,
    Paren,
    Function,
    Other,
}

impl From<&Token> for Word {
    fn from(token: &Token) -> Self {
        match token {
            Token::Identifier(name) => Word::Name(name.to_string()),
            Token::StringConstant(text) => Word::Text(text.to_string()),
            Token::IntegerConstant(n) => Word::Integer(*n),
            Token::UnaryMinus | Token::Minus => Word::Minus,
            Token::Period | Token::Elvis => Word::Dot,
            Token::LeftBracket => Word::Open,
            Token::RightBracket => Word::Close,
            Token::LeftParen | Token::Unit => Word::Paren,
            Token::Fn => Word::Function,
            _ => Word::Other,
        }
    }
}

/// A metric that does not exist, and where it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unknown {
    pub name: String,
    pub at: Position,
}

/// Where `fn fitness` stands.
pub(super) fn declaration(words: &[(Word, Position)]) -> Option<usize> {
    words.windows(2).position(|w| w[0].0 == Word::Function && w[1].0 == Word::Name("fitness".into()))
}

/// What is read through the parameter `m` of `fn fitness(m)`.
pub(super) fn reads(words: &[(Word, Position)], parameter: &str) -> Result<Reads, Unknown> {
    let empty = Reads {
        metrics: BTreeSet::new(),
        corpora: Part::Named(BTreeSet::new()),
        layers: Part::Named(BTreeSet::new()),
    };
    let mut scan = Scan { words, parameter, declared: declaration(words).map(|i| i + 3), reads: empty };
    (0..words.len()).try_for_each(|i| scan.word(i))?;
    Ok(scan.reads)
}

struct Scan<'a> {
    words: &'a [(Word, Position)],
    parameter: &'a str,
    declared: Option<usize>,
    reads: Reads,
}

impl Scan<'_> {
    fn at(&self, i: usize) -> &Word {
        self.words.get(i).map_or(&Word::Other, |w| &w.0)
    }

    fn before(&self, i: usize, back: usize) -> &Word {
        i.checked_sub(back).map_or(&Word::Other, |i| self.at(i))
    }

    fn word(&mut self, i: usize) -> Result<(), Unknown> {
        match self.at(i).clone() {
            Word::Name(name) if *self.before(i, 1) == Word::Dot => self.property(&name, i),
            Word::Name(name) if name == self.parameter && self.declared != Some(i) => self.itself(i),
            _ => Ok(()),
        }
    }

    /// `.name`, of anything.
    fn property(&mut self, name: &str, i: usize) -> Result<(), Unknown> {
        let of_parameter = matches!(self.before(i, 2), Word::Name(n) if n == self.parameter)
            && *self.before(i, 3) != Word::Dot;
        let call = *self.at(i + 1) == Word::Paren;
        match Metric::from_name(name) {
            _ if call && of_parameter => self.everything(), // `m` becomes the function's `this`
            _ if call => {}
            Some(metric) => self.read(metric, i + 1),
            None if of_parameter => return Err(Unknown { name: name.into(), at: self.words[i].1 }),
            None => {}
        }
        Ok(())
    }

    /// The parameter: followed by a name or a literal, it is read in part; otherwise it goes elsewhere.
    fn itself(&mut self, i: usize) -> Result<(), Unknown> {
        match (self.at(i + 1), self.at(i + 2), self.at(i + 3)) {
            (Word::Dot, ..) => {}
            (Word::Open, Word::Text(name), Word::Close) => match Metric::from_name(name) {
                Some(metric) => self.read(metric, i + 4),
                None => return Err(Unknown { name: name.clone(), at: self.words[i + 2].1 }),
            },
            _ => self.everything(),
        }
        Ok(())
    }

    /// A metric whose index, if it has one, begins at word `i`.
    fn read(&mut self, metric: Metric, i: usize) {
        self.reads.metrics.insert(metric);
        let index = (self.at(i), self.at(i + 1), self.at(i + 2), self.at(i + 3));
        match metric {
            Metric::Perplexity => self.reads.corpora.add(match index {
                (Word::Open, Word::Text(name), Word::Close, _) => Some(name.clone()),
                _ => None,
            }),
            Metric::Distance => self.reads.layers.add(match index {
                (Word::Open, Word::Integer(l), Word::Close, _) => Some(*l),
                (Word::Open, Word::Minus, Word::Integer(l), Word::Close) => Some(-l),
                _ => None,
            }),
            _ => {}
        }
    }

    fn everything(&mut self) {
        self.reads = Reads { metrics: Metric::all().collect(), corpora: Part::All, layers: Part::All };
    }
}
