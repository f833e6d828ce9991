//! Progress of long steps on stderr: a bar with an ETA on a terminal, plain lines every few seconds
//! elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::interrupt;
use super::number::duration;
use crate::base::{Watch, stderr};

/// Time between plain lines.
const EVERY: Duration = Duration::from_secs(5);

/// Shows one long step at a time; asks for a stop when the user pressed Ctrl-C.
pub struct Bars {
    shown: Mutex<Shown>,
}

enum Shown {
    Bar(ProgressBar),
    Lines(Lines),
}

impl Bars {
    /// A bar when stderr is a terminal, else plain lines.
    pub fn new() -> Self {
        if std::io::stderr().is_terminal() {
            return Self { shown: Mutex::new(Shown::Bar(ProgressBar::hidden())) };
        }
        Self::lines(Box::new(std::io::stderr()), EVERY)
    }

    /// Plain lines to `out`, one step's at least `every` apart.
    pub fn lines(out: Box<dyn Write + Send>, every: Duration) -> Self {
        Self { shown: Mutex::new(Shown::Lines(Lines { out, every, step: None })) }
    }

    fn with(&self, act: impl FnOnce(&mut Shown)) {
        // What is shown stays usable when a thread died while showing it.
        act(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch for Bars {
    fn begin(&self, what: &str, units: u64) {
        self.with(|shown| match shown {
            Shown::Bar(bar) => *bar = new_bar(bar, what, units),
            Shown::Lines(lines) => lines.begin(what, units),
        });
    }

    fn advance(&self, units: u64) {
        self.with(|shown| match shown {
            Shown::Bar(bar) => bar.inc(units),
            Shown::Lines(lines) => lines.advance(units),
        });
    }

    fn end(&self) {
        self.with(|shown| match shown {
            Shown::Bar(bar) => finish(bar),
            Shown::Lines(lines) => lines.end(),
        });
    }

    fn note(&self, message: &str) {
        self.with(|shown| match shown {
            Shown::Bar(bar) => bar.suspend(|| stderr::print(&format!("note: {message}\n"))),
            Shown::Lines(lines) => lines.print(&format!("note: {message}")),
        });
    }

    fn stopped(&self) -> bool {
        interrupt::stopped()
    }
}

fn new_bar(old: &ProgressBar, what: &str, units: u64) -> ProgressBar {
    old.finish_and_clear();
    let bar = ProgressBar::new(units);
    let template = match units {
        0 => "{msg:36!} {pos} so far {elapsed}",
        _ => "{msg:36!} {bar:24} {percent:>3}% {pos}/{len} {elapsed} ETA {eta}",
    };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what.to_string());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// Replaces the bar with one line that reports the time.
fn finish(bar: &ProgressBar) {
    let line = format!("{}: done in {}", bar.message(), duration(bar.elapsed().as_secs_f64()));
    bar.finish_and_clear();
    stderr::print(&format!("{line}\n"));
}

/// Plain lines, for logs and pipes.
struct Lines {
    out: Box<dyn Write + Send>,
    every: Duration,
    step: Option<Step>,
}

struct Step {
    what: String,
    units: u64,
    done: u64,
    started: Instant,
    printed: Instant,
}

impl Lines {
    fn begin(&mut self, what: &str, units: u64) {
        let now = Instant::now();
        self.step = Some(Step { what: what.into(), units, done: 0, started: now, printed: now });
        self.print(&if units == 0 {
            format!("{what}: started")
        } else {
            format!("{what}: started, {units} to do")
        });
    }

    fn advance(&mut self, units: u64) {
        let Some(step) = &mut self.step else { return };
        step.done += units;
        if step.printed.elapsed() >= self.every {
            step.printed = Instant::now();
            let line = step.line();
            self.print(&line);
        }
    }

    fn end(&mut self) {
        if let Some(step) = self.step.take() {
            self.print(&format!("{}: done in {}", step.what, duration(step.started.elapsed().as_secs_f64())));
        }
    }

    fn print(&mut self, line: &str) {
        // Progress that nobody can read is no reason to stop working.
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}

impl Step {
    fn line(&self) -> String {
        let Self { what, units, done, .. } = self;
        if *units == 0 {
            return format!("{what}: {done} so far");
        }
        let percent = (*done as f64 / *units as f64 * 100.0).min(100.0);
        match remaining(self.started.elapsed().as_secs_f64(), *done, *units) {
            Some(seconds) => format!("{what}: {percent:.0}% ({done}/{units}), {} left", duration(seconds)),
            None => format!("{what}: {percent:.0}% ({done}/{units})"),
        }
    }
}

/// Seconds left if the rest goes as fast as what is done.
fn remaining(elapsed: f64, done: u64, units: u64) -> Option<f64> {
    (done > 0).then(|| elapsed / done as f64 * units.saturating_sub(done) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Buffer {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(String::from).collect()
        }
    }

    #[test]
    fn plain_lines_say_how_far_a_step_is() {
        let buffer = Buffer::default();
        let bars = Bars::lines(Box::new(buffer.clone()), Duration::ZERO);
        bars.begin("supernet", 4);
        bars.advance(1);
        bars.note("damping raised");
        bars.advance(3);
        bars.end();
        let expected = [
            "supernet: started, 4 to do",
            "supernet: 25% (1/4), 0 s left",
            "note: damping raised",
            "supernet: 100% (4/4), 0 s left",
            "supernet: done in 0 s",
        ];
        assert_eq!(buffer.lines(), expected);
    }

    #[test]
    fn lines_keep_their_distance() {
        let buffer = Buffer::default();
        let bars = Bars::lines(Box::new(buffer.clone()), Duration::from_secs(3600));
        bars.begin("search", 1000);
        (0..1000).for_each(|_| bars.advance(1));
        assert_eq!(buffer.lines().len(), 1);
    }

    #[test]
    fn progress_without_a_step_is_harmless_and_without_a_known_end_counts() {
        let buffer = Buffer::default();
        let bars = Bars::lines(Box::new(buffer.clone()), Duration::ZERO);
        bars.advance(1);
        bars.end();
        bars.begin("harness", 0);
        bars.advance(0);
        bars.advance(2);
        assert_eq!(buffer.lines(), ["harness: started", "harness: 0 so far", "harness: 2 so far"]);
    }

    #[test]
    fn the_rest_is_estimated_from_what_is_done() {
        assert_eq!(remaining(10.0, 1, 5), Some(40.0));
        assert_eq!(remaining(10.0, 0, 5), None);
        assert_eq!(remaining(10.0, 7, 5), Some(0.0));
    }
}
