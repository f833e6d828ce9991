//! One error shape for the whole tool: what went wrong, where, and what to do; its kind decides the exit
//! code.

use std::fmt;

/// The kind of a failure. Each kind has an exit code of its own, listed in the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything that no other kind covers: a defect of `tyr` itself.
    Internal,
    /// Wrong command line (clap uses the same code).
    Usage,
    /// The experiment file: syntax, unknown key, value out of range, rules between keys.
    Spec,
    /// A checkpoint: missing, truncated, wrong shape or dtype, unsupported architecture.
    Checkpoint,
    /// A corpus, a tokenizer or a task file.
    Data,
    /// The search space: a sparsity that cannot be reached, or no legal flip.
    Search,
    /// Reading or writing files: permission, disk full.
    Disk,
    /// A hub, an endpoint or a service.
    Network,
    /// A numeric failure: NaN, a factorisation that no damping saves.
    Numeric,
    /// Some trials of a run failed; the others are there.
    Partial,
    /// Another process holds the run.
    Busy,
    /// Stopped by the user after the current unit of work.
    Interrupted,
}

impl Kind {
    /// The process exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Internal => 1,
            Kind::Usage => 2,
            Kind::Spec => 3,
            Kind::Checkpoint => 4,
            Kind::Data => 5,
            Kind::Search => 6,
            Kind::Disk => 7,
            Kind::Network => 8,
            Kind::Numeric => 9,
            Kind::Partial => 10,
            Kind::Busy => 11,
            Kind::Interrupted => 130,
        }
    }
}

/// An error that names its subject, its place and a way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    /// What went wrong, in one sentence without a full stop.
    pub what: String,
    /// Where: a path, a tensor, a key.
    pub place: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The result type of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `what` describes what went wrong.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), place: None, hint: None }
    }

    /// Adds the place; an inner place stays, the outer one is put before it.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.place = Some(match self.place {
            Some(inner) => format!("{place}: {inner}"),
            None => place.to_string(),
        });
        self
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if let Some(place) = &self.place {
            write!(f, "\n  at: {place}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// A tensor operation failed: shapes are checked before, so this is a defect or a device that ran out of
/// memory.
impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        Error::new(Kind::Internal, format!("tensor operation failed: {}", without_backtrace(&e)))
    }
}

/// What a tensor operation says, without the backtrace that it has where `RUST_BACKTRACE` is set.
pub fn without_backtrace(e: &candle_core::Error) -> String {
    use candle_core::Error::{Context, WithBacktrace, WithPath};
    match e {
        WithBacktrace { inner, .. } => without_backtrace(inner),
        WithPath { inner, path } => format!("{}: {}", path.display(), without_backtrace(inner)),
        Context { inner, context } => format!("{context}: {}", without_backtrace(inner)),
        other => other.to_string(),
    }
}

/// Turns foreign errors into ours.
pub trait ResultExt<T> {
    /// Wraps the error with a kind and a sentence: "`what`: `error`".
    fn or_error(self, kind: Kind, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> ResultExt<T> for std::result::Result<T, E> {
    fn or_error(self, kind: Kind, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::new(kind, format!("{what}: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_nest_from_outer_to_inner() {
        let e = Error::new(Kind::Checkpoint, "shape differs")
            .at("model.norm.weight")
            .at("model.safetensors")
            .hint("copy it again");
        assert_eq!(
            e.to_string(),
            "shape differs\n  at: model.safetensors: model.norm.weight\n  hint: copy it again"
        );
    }

    #[test]
    fn a_tensor_operation_tells_no_backtrace() {
        let backtrace = Box::new(std::backtrace::Backtrace::force_capture());
        let inner = Box::new(candle_core::Error::Msg("no such tensor".into()));
        let e = candle_core::Error::WithBacktrace { inner, backtrace }.with_path("a.gguf").context("reading");
        assert!(e.to_string().lines().count() > 2);
        assert_eq!(without_backtrace(&e), "reading: a.gguf: no such tensor");
        assert_eq!(Error::from(e).what, "tensor operation failed: reading: a.gguf: no such tensor");
    }

    #[test]
    fn exit_codes_are_distinct() {
        use Kind::*;
        let kinds = [
            Internal,
            Usage,
            Spec,
            Checkpoint,
            Data,
            Search,
            Disk,
            Network,
            Numeric,
            Partial,
            Busy,
            Interrupted,
        ];
        let codes: std::collections::BTreeSet<u8> = kinds.iter().map(|k| k.exit_code()).collect();
        assert_eq!(codes.len(), kinds.len());
        assert!(!codes.contains(&0));
    }
}
