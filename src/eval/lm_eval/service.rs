//! The adapter service as a child process on loopback: started from the files that the program carries, ended
//! with all its children.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::base::{Error, Kind, Result, ResultExt, files};

/// The service's files.
const FILES: [(&str, &str); 2] = [
    ("service.py", include_str!("../../../scripts/lm_eval_service/service.py")),
    ("worker.py", include_str!("../../../scripts/lm_eval_service/worker.py")),
];

/// Time for the service to begin, which a busy machine or a cold disk makes long, and to end when asked.
const START: Duration = Duration::from_secs(120);
const END: Duration = Duration::from_secs(8);

/// Lines of its complaints that are shown.
const LINES: usize = 5;

/// A running service. It ends, with every process it started, when this value is dropped.
pub struct Service {
    child: Child,
    folder: PathBuf,
    url: String,
    token: String,
}

impl Service {
    /// Starts the service with a Python interpreter that has the harness.
    ///
    /// # Errors
    /// No such interpreter, or a service that does not begin.
    pub fn start(python: &str) -> Result<Self> {
        let token = secret()?;
        let folder =
            std::env::temp_dir().join(format!("tyr-lm-eval-{}-{}", std::process::id(), &secret()?[..8]));
        files::create_dir(&folder)?;
        FILES.iter().try_for_each(|(name, text)| files::write(&folder.join(name), text.as_bytes()))?;
        let child = match spawn(python, &folder, &token) {
            Ok(child) => child,
            Err(e) => {
                let _ = std::fs::remove_dir_all(&folder); // only frees space
                return Err(e);
            }
        };
        let mut service = Self { child, folder, url: String::new(), token };
        service.url = service.announced()?;
        Ok(service)
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The bearer token that it wants.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Process id, which is also its process group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails if its process has ended.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                Err(self.complaint(&format!("the lm-eval service ended by itself ({status})")))
            }
            Err(e) => Err(Error::new(
                Kind::Internal,
                format!("the lm-eval service's process cannot be inspected: {e}"),
            )),
        }
    }

    /// The address that it writes on its first line.
    fn announced(&mut self) -> Result<String> {
        let stdout = self
            .child
            .stdout
            .take()
            .ok_or_else(|| Error::new(Kind::Internal, "the service has no standard output"))?;
        let (line, read) = mpsc::channel();
        std::thread::spawn(move || line.send(first_line(stdout)));
        let line = read.recv_timeout(START).unwrap_or_default();
        let announced: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        let url = announced.as_ref().and_then(|s| s["url"].as_str()).map(String::from);
        url.ok_or_else(|| self.complaint("the lm-eval service did not begin"))
    }

    fn complaint(&self, what: &str) -> Error {
        let text = std::fs::read_to_string(self.folder.join("stderr.txt")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
        Error::new(Kind::Network, what)
            .at(last)
            .hint("`pip install \"lm_eval[api]==0.4.13\"` for evaluate.lm_eval.python")
    }

    /// Sends a signal to the service and all it started.
    fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill(2) takes any numbers; the group is that of a child which has not been waited for, so
        // the id is not reused.
        unsafe { libc::kill(-(self.child.id() as libc::pid_t), signal) };
    }

    fn ends_within(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(libc::SIGTERM);
            if !self.ends_within(END) {
                self.signal(libc::SIGKILL);
                let _ = self.child.wait();
            }
        }
        let _ = std::fs::remove_dir_all(&self.folder); // only frees space
    }
}

/// Version of the harness that a Python interpreter has.
///
/// # Errors
/// No such interpreter, or one without the harness.
pub fn installed(python: &str) -> Result<String> {
    let asked = ["-c", "import importlib.metadata as m; print(m.version(\"lm_eval\"))"];
    let output = Command::new(python).args(asked).stdin(Stdio::null()).output();
    let output = output.map_err(|e| not_started(python, &e))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_string();
    if output.status.success() && !version.is_empty() {
        return Ok(version);
    }
    Err(Error::new(Kind::Network, format!("`{python}` has no lm_eval")).hint(PYTHON))
}

/// What to do without an interpreter that has the harness.
const PYTHON: &str = "evaluate.lm_eval.python names a Python interpreter that has lm_eval[api]==0.4.13";

fn not_started(python: &str, e: &std::io::Error) -> Error {
    Error::new(Kind::Network, format!("the lm-eval service cannot be started with `{python}`: {e}"))
        .hint(PYTHON)
}

fn first_line(stdout: ChildStdout) -> String {
    let mut line = String::new();
    let read = BufReader::new(stdout).take(4096).read_line(&mut line);
    read.map_or_else(|_| String::new(), |_| line)
}

fn spawn(python: &str, folder: &Path, token: &str) -> Result<Child> {
    let stderr = std::fs::File::create(folder.join("stderr.txt"))
        .or_error(Kind::Disk, "cannot write the service's log")?;
    let mut command = Command::new(python);
    command
        .arg(folder.join("service.py"))
        .arg("--while-stdin")
        .env("TYR_LM_EVAL_TOKEN", token)
        .current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).process_group(0);
    command.spawn().map_err(|e| not_started(python, &e))
}

/// A secret that other users of the machine cannot guess: 32 hexadecimal digits.
pub fn secret() -> Result<String> {
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    read.or_error(Kind::Internal, "the system gives no random bytes")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
