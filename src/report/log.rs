//! Event logs: versioned events, one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::event::Event;
use crate::base::files::io_error;
use crate::base::{Error, Kind, Result, ResultExt, files};

/// Version of the format that this build writes, and the newest that it reads. Version 1 had no times and no
/// `progress`, version 2 did not say which experiment a run and a trial are of, version 3 not what their files
/// held.
pub const VERSION: u32 = 4;

/// An event and when it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamped {
    /// Milliseconds since 1970, UTC; absent in logs of version 1.
    pub at: Option<u64>,
    /// What happened.
    pub event: Event,
}

/// A line of a log.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<E> {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    event: E,
}

/// What is read of a line before the rest is trusted.
#[derive(Deserialize)]
struct Header {
    version: u32,
}

/// An event log that is open for appending.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log at `path`, creating it when there is none. A last line that a killed writer left
    /// unfinished is cut off; damaged lines are replaced by an event that names them.
    ///
    /// # Errors
    /// The file cannot be opened, cut or rewritten, or it is of a newer version, to which nothing is added.
    pub fn open(path: &Path) -> Result<Self> {
        if path.exists() {
            let (events, damaged) = read_lines(path)?;
            if damaged {
                let lines = events.iter().map(|s| line(&s.event, s.at)).collect::<Result<String>>()?;
                files::write(path, lines.as_bytes())?;
            }
        }
        let open = || {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            file.set_len(complete(&std::fs::read(path)?).len() as u64)?;
            file.seek(SeekFrom::End(0))?;
            files::sync_parent(path)?;
            Ok(file)
        };
        open()
            .map(|file| Self { path: path.to_path_buf(), file })
            .map_err(|e| io_error(path, "open the event log", &e))
    }

    /// Appends one event; it is on the disk when this returns.
    ///
    /// # Errors
    /// The disk is full or cannot be written to.
    pub fn append(&mut self, event: &Event) -> Result<()> {
        let line = line(event, now())?;
        let length = self.file.stream_position().map_err(|e| self.failed(&e))?;
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|e| {
            // Half a line must not stand before the next event. Where cutting fails too, the reader leaves the
            // line out.
            let _ = self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::Start(length)));
            self.failed(&e)
        })
    }

    fn failed(&self, e: &std::io::Error) -> Error {
        io_error(&self.path, "append to the event log", e)
    }
}

/// Milliseconds since 1970; absent where the clock stands before that.
pub fn now() -> Option<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// An event as a line of a log, with its newline.
pub fn line(event: &Event, at: Option<u64>) -> Result<String> {
    let line = Line { version: VERSION, at, event };
    let text = serde_json::to_string(&line).or_error(Kind::Internal, "an event cannot be written as JSON")?;
    Ok(text + "\n")
}

/// All events of a log, as [`read_stamped`] without the times.
///
/// # Errors
/// As [`read_stamped`].
pub fn read(path: &Path) -> Result<Vec<Event>> {
    Ok(read_stamped(path)?.into_iter().map(|stamped| stamped.event).collect())
}

/// All events of a log with their times. A last line without its newline is the trace of a killed writer and
/// left out; an event that names it stands for a damaged line.
///
/// # Errors
/// The file cannot be read, or it is of a newer version.
pub fn read_stamped(path: &Path) -> Result<Vec<Stamped>> {
    Ok(read_lines(path)?.0)
}

/// Whether a log ends with a whole line, as one does unless its writer was killed or its end is lost.
///
/// # Errors
/// The file cannot be read.
pub fn ends_whole(path: &Path) -> Result<bool> {
    let bytes = std::fs::read(path).map_err(|e| io_error(path, "read the event log", &e))?;
    Ok(!bytes.is_empty() && complete(&bytes).len() == bytes.len())
}

/// The same, and whether any line is damaged.
fn read_lines(path: &Path) -> Result<(Vec<Stamped>, bool)> {
    let bytes = std::fs::read(path).map_err(|e| io_error(path, "read the event log", &e))?;
    let lines = complete(&bytes).split(|&b| b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    let mut damaged = false;
    let mut events = Vec::new();
    for (i, line) in lines {
        let place = format!("{}:{}", path.display(), i + 1);
        let event = parse(line).map_err(|e| e.at(&place))?;
        damaged |= event.is_none();
        events.push(event.unwrap_or(Stamped { at: None, event: Event::LineDamaged { place } }));
    }
    Ok((events, damaged))
}

/// The whole lines of a log.
fn complete(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
    &bytes[..end]
}

/// The event of a line; `None` where the line is damaged.
fn parse(line: &[u8]) -> Result<Option<Stamped>> {
    let header = serde_json::from_slice::<Header>(line).ok();
    if let Some(version) = header.map(|header| header.version).filter(|&version| version > VERSION) {
        let what = format!("the event log has version {version}, this build reads up to version {VERSION}");
        return Err(Error::new(Kind::Disk, what).hint("use the newer tyr that wrote it"));
    }
    let line = serde_json::from_slice::<Line<Event>>(line).ok();
    Ok(line.map(|line| Stamped { at: line.at, event: line.event }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::event::GenerationSummary;
    use crate::report::figure::tests::figure;

    fn events() -> Vec<Event> {
        let summary = GenerationSummary {
            generation: 1,
            fitness: Some(0.1),
            parent_fitness: None,
            offspring: 8,
            evaluated: vec![8, 2],
        };
        vec![
            Event::RunStarted { run: "r".into(), trials: vec!["a".into()], origin: None },
            Event::Generation { trial: "a".into(), iteration: 1, summary },
            Event::FigureMeasured { figure: figure("a", "dense", "kl", f64::INFINITY) },
            Event::Warning { trial: None, message: "two\nlines".into() },
        ]
    }

    fn written(events: &[Event]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut log = Log::open(&path).unwrap();
        events.iter().for_each(|e| log.append(e).unwrap());
        (dir, path)
    }

    #[test]
    fn events_come_back_as_they_were_written() {
        let (_dir, path) = written(&events());
        assert_eq!(read(&path).unwrap(), events());
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 4);
    }

    #[test]
    fn the_line_of_an_event_is_stable() {
        let event = Event::FigureMeasured { figure: figure("a", "dense", "parameters", 12.0) };
        let expected = r#"{"version":4,"at":1700000000000,"event":{"kind":"figure_measured","figure":{"trial":"a","model":"dense","metric":"parameters","value":12.0,"stderr":null,"n":null}}}"#;
        assert_eq!(line(&event, Some(1_700_000_000_000)).unwrap().trim_end(), expected);
    }

    #[test]
    fn a_log_of_the_first_version_is_read_without_times() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        std::fs::write(&path, "{\"version\":1,\"event\":{\"kind\":\"trial_finished\",\"trial\":\"a\"}}\n")
            .unwrap();
        assert_eq!(
            read_stamped(&path).unwrap(),
            [Stamped { at: None, event: Event::TrialFinished { trial: "a".into() } }]
        );
    }

    #[test]
    fn events_are_stamped_with_the_time_of_writing() {
        let before = now();
        let (_dir, path) = written(&events());
        let times: Vec<_> = read_stamped(&path).unwrap().into_iter().map(|s| s.at).collect();
        assert!(
            times.is_sorted() && times[0] >= before && times[3] <= now() && before.is_some(),
            "{times:?}"
        );
    }

    #[test]
    fn a_log_cut_anywhere_gives_its_whole_lines_and_can_be_continued() {
        let (_dir, path) = written(&events());
        let bytes = std::fs::read(&path).unwrap();
        for cut in (0..bytes.len()).step_by(11) {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().filter(|&&b| b == b'\n').count();
            assert_eq!(read(&path).unwrap(), events()[..whole]);
            assert_eq!(ends_whole(&path).unwrap(), cut > 0 && bytes[cut - 1] == b'\n');
            let mut log = Log::open(&path).unwrap();
            events()[whole..].iter().for_each(|e| log.append(e).unwrap());
            assert_eq!(read(&path).unwrap(), events());
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name_even_when_its_events_are_unknown() {
        let (_dir, path) = written(&events()[..1]);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"version\":5,\"event\":{\"kind\":\"teleported\"},\"more\":1}\n");
        std::fs::write(&path, text).unwrap();
        let e = read(&path).unwrap_err().to_string();
        assert!(
            e.contains("version 5") && e.contains("up to version 4") && e.contains("events.jsonl:2"),
            "{e}"
        );
        assert!(Log::open(&path).is_err());
    }

    #[test]
    fn a_damaged_line_is_named_and_replaced_when_the_log_is_continued() {
        let (_dir, path) = written(&events());
        for damage in ["{\n", "{\"version\":1,\"event\":{\"kind\":\"teleported\"}}\n", "\u{fffd}\n"] {
            let [first, last] = [0, 1].map(|i| line(&events()[i], None).unwrap());
            std::fs::write(&path, format!("{first}{damage}{last}")).unwrap();
            let damaged = read(&path).unwrap();
            assert_eq!([&damaged[0], &damaged[2]], [&events()[0], &events()[1]]);
            let Event::LineDamaged { place } = &damaged[1] else { panic!("{damaged:?}") };
            assert!(place.ends_with("events.jsonl:2"), "{place}");
            Log::open(&path).unwrap().append(&events()[2]).unwrap();
            assert_eq!(read(&path).unwrap(), [&damaged[..], &events()[2..3]].concat());
            assert!(!read_lines(&path).unwrap().1);
        }
    }

    #[test]
    fn an_empty_log_has_no_events_and_a_missing_one_is_an_error() {
        let (dir, path) = written(&[]);
        assert_eq!(read(&path).unwrap(), []);
        assert_eq!(read(&dir.path().join("none")).unwrap_err().kind, Kind::Disk);
    }
}
