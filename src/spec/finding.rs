//! What is wrong or doubtful in an experiment, where it was written, and how it is shown.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::path::PathBuf;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents,
    SourceSpan, SpanContents,
};

use super::key::{KeyPath, Step};
use super::node::{At, Layer, Origin};

/// Whether the experiment can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but probably not as meant.
    Warning,
}

/// Where a value was written. Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provenance {
    /// No layer sets it but the embedded defaults.
    Defaults,
    /// The experiment file or a script that it names.
    File {
        /// The file.
        path: PathBuf,
        /// Its line.
        line: usize,
        /// Its column.
        column: usize,
        /// The profile, where the value is in a `[profile.NAME]` table.
        profile: Option<String>,
    },
    /// The command line's `--profile`.
    Profile {
        /// The profile.
        name: String,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// An argument `--set`.
    Set {
        /// What follows the flag.
        argument: String,
    },
}

/// One error or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Error or warning.
    pub severity: Severity,
    /// The key's path; empty for the file as a whole.
    pub key: KeyPath,
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Where it is written; `None` where no layer writes it.
    pub at: Option<At>,
}

impl Finding {
    /// An error without a place yet.
    pub fn error(key: KeyPath, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, key, message: message.into(), hint: None, at: None }
    }

    /// A warning without a place yet.
    pub fn warning(key: KeyPath, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(key, message) }
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the place.
    pub fn at(mut self, at: At) -> Self {
        self.at = Some(at);
        self
    }

    /// The layer and the place that the value comes from.
    pub fn provenance(&self) -> Provenance {
        self.at.as_ref().map_or(Provenance::Defaults, |at| at.provenance(self.profile()))
    }

    /// The profile whose table holds the key, for findings of the file as it is written.
    fn profile(&self) -> Option<String> {
        match self.key.steps() {
            [Step::Key(first), Step::Key(name), ..] if first == "profile" => Some(name.clone()),
            _ => None,
        }
    }
}

impl At {
    /// Line and column of the start, from 1.
    pub fn line_column(&self) -> (usize, usize) {
        let before = &self.origin.text[..self.start()];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    fn provenance(&self, profile: Option<String>) -> Provenance {
        let (line, column) = self.line_column();
        let Origin { layer, name, text, .. } = &*self.origin;
        let profile = profile.or_else(|| self.origin.profile.clone());
        match layer {
            Layer::Defaults => Provenance::Defaults,
            Layer::File | Layer::Script => Provenance::File { path: name.into(), line, column, profile },
            Layer::Profile => Provenance::Profile { name: text.trim_start_matches("--profile ").to_owned() },
            Layer::Environment => Provenance::Environment { variable: name.clone() },
            Layer::Set => Provenance::Set { argument: text.trim_start_matches("--set ").to_owned() },
        }
    }
}

/// How findings are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For files, pipes and messages of errors.
    Plain,
    /// For a terminal.
    Colour,
}

/// Findings of a severity that are shown, the first ones; the count tells of all.
const SHOWN: usize = 100;
/// Characters of a message, a hint or a key that are shown.
const LONGEST_TEXT: usize = 2_000;
/// Characters of a line that are shown on each side of the place.
const AROUND: usize = 100;

/// Findings as a text: a count, then the first ones with their source lines, errors first.
pub fn render(findings: &[Finding], name: &str, style: Style) -> String {
    let mut out = format!("{} in {name}\n", count(findings));
    for severity in [Severity::Error, Severity::Warning] {
        let ours: Vec<&Finding> = findings.iter().filter(|f| f.severity == severity).collect();
        let (shown, rest) = ours.split_at(ours.len().min(SHOWN));
        for finding in shown {
            out.push('\n');
            out.push_str(&render_one(finding, style));
        }
        if !rest.is_empty() {
            let word = if severity == Severity::Error { "error" } else { "warning" };
            let _ = write!(out, "\n  … and {} more {word}s\n", rest.len());
        }
    }
    out
}

/// "1 error"; "3 warnings"
fn words(n: usize, severity: Severity) -> String {
    let word = if severity == Severity::Error { "error" } else { "warning" };
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// A text that is shown: its start, where it is long.
fn short(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// "3 errors, 1 warning"
pub fn count(findings: &[Finding]) -> String {
    let of = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let (error, warning) = (Severity::Error, Severity::Warning);
    match (of(error), of(warning)) {
        (errors, 0) => words(errors, error),
        (0, warnings) => words(warnings, warning),
        (errors, warnings) => format!("{}, {}", words(errors, error), words(warnings, warning)),
    }
}

fn render_one(finding: &Finding, style: Style) -> String {
    let theme = match style {
        Style::Plain => GraphicalTheme::unicode_nocolor(),
        Style::Colour => GraphicalTheme::unicode(),
    };
    let handler =
        GraphicalReportHandler::new_themed(theme).with_links(false).with_width(110).with_context_lines(0);
    let mut text = String::new();
    if handler
        .render_report(&mut text, &Shown { finding, line: finding.at.as_ref().map(SourceLine) })
        .is_err()
        || text.is_empty()
    {
        // A handler that fails must not hide the message.
        let _ = writeln!(text, "{}", finding.message);
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A finding as miette wants it.
#[derive(Debug)]
struct Shown<'a> {
    finding: &'a Finding,
    line: Option<SourceLine<'a>>,
}

/// The line of a place, all of the text that is shown; of a long line, the part around the place.
#[derive(Debug)]
struct SourceLine<'a>(&'a At);

impl miette::SourceCode for SourceLine<'_> {
    fn read_span<'b>(
        &'b self,
        _: &SourceSpan,
        _: usize,
        _: usize,
    ) -> Result<Box<dyn SpanContents<'b> + 'b>, MietteError> {
        let shown = self.0.shown();
        let line = self.0.origin.text[shown.clone()].trim_end_matches('\r');
        let (number, column) = self.0.line_column();
        let span = SourceSpan::from(shown.start..shown.start + line.len());
        let name = self.0.origin.name.clone();
        Ok(Box::new(MietteSpanContents::new_named(name, line.as_bytes(), span, number - 1, column - 1, 1)))
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short(&self.finding.message))
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn code<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        // With a place, the key is the place's label.
        let key = self.finding.key.to_string();
        let key = short(&key).into_owned();
        (!key.is_empty() && self.line.is_none()).then(|| Box::new(key) as Box<dyn fmt::Display>)
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.finding.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.finding.hint.as_ref().map(|hint| Box::new(short(hint)) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.line.as_ref().map(|line| line as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.finding.at.as_ref()?.first_line();
        let key = short(&self.finding.key.to_string()).into_owned();
        let label = LabeledSpan::new_primary_with_span((!key.is_empty()).then_some(key), span);
        Some(Box::new(std::iter::once(label)))
    }
}

impl At {
    /// The first byte, inside the text and at the start of a character.
    fn start(&self) -> usize {
        self.origin.text.floor_char_boundary(self.span.start)
    }

    /// The part of the place's line that is shown.
    fn shown(&self) -> std::ops::Range<usize> {
        let text = &self.origin.text;
        let start = self.start();
        let first = text[..start].rfind('\n').map_or(0, |i| i + 1);
        let last = text[start..].find('\n').map_or(text.len(), |i| start + i);
        let before = text[first..start].char_indices().rev().nth(AROUND - 1);
        let after = text[start..last].char_indices().nth(AROUND);
        before.map_or(first, |(i, _)| first + i)..after.map_or(last, |(i, _)| start + i)
    }

    /// The part of the span on its first line: a long table is pointed at by its start.
    fn first_line(&self) -> std::ops::Range<usize> {
        let start = self.start();
        let line = self.shown().end;
        match self.span.end.clamp(start, line) {
            // Nothing is drawn behind the last character: point at it instead.
            end if end == start && end == line => self.before(start)..end,
            end => start..end,
        }
    }

    /// The start of the character before, on the same line.
    fn before(&self, start: usize) -> usize {
        let last = self.origin.text[..start].chars().next_back().filter(|c| *c != '\n');
        start - last.map_or(0, char::len_utf8)
    }
}
