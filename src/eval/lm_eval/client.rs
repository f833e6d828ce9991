//! The client of the adapter service: timeouts, retries of what may be sent twice, and errors that name the
//! side at fault.

use std::time::{Duration, Instant};

use reqwest::blocking::{Client as Http, RequestBuilder, Response};
use serde::de::DeserializeOwned;

use super::wire::{Health, Job, Refusal, ResultBody, SampleLine, Status, Submitted};
use super::{API, HARNESS};
use crate::base::{Error, Kind, Result, ResultExt, Watch};

/// How long the client waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For one answer.
    pub timeout: Duration,
    /// Attempts of one request.
    pub attempts: u32,
    /// Before the second attempt; each further wait is twice as long.
    pub backoff: Duration,
    /// Between looks at a job; grows to five times this.
    pub poll: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            attempts: 4,
            backoff: Duration::from_millis(500),
            poll: Duration::from_secs(1),
        }
    }
}

/// A client of one service.
#[derive(Debug)]
pub struct Client {
    http: Http,
    url: String,
    token: Option<String>,
    patience: Patience,
}

/// Why an attempt gave no answer.
enum Miss {
    /// Another attempt may help.
    Again(Error),
    /// None will.
    Final(Error),
}

impl Client {
    /// For the service at `url` (`http://HOST:PORT`).
    ///
    /// # Errors
    /// An address that is not plain http.
    pub fn new(url: &str, token: Option<String>, patience: Patience) -> Result<Self> {
        if !url.starts_with("http://") {
            return Err(Error::new(
                Kind::Spec,
                format!("the lm-eval service's address `{url}` is not http://"),
            )
            .hint("the service runs on this machine or behind a tunnel: http://127.0.0.1:PORT"));
        }
        // No proxy: the service is local, and what it receives must stay local.
        let http = Http::builder()
            .timeout(patience.timeout)
            .connect_timeout(Duration::from_secs(5))
            .no_proxy()
            .build();
        let http = http.or_error(Kind::Internal, "cannot make an HTTP client")?;
        Ok(Self { http, url: url.trim_end_matches('/').into(), token, patience })
    }

    /// How long it waits.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Versions of the service, which must speak this wire.
    pub fn health(&self) -> Result<Health> {
        let answer: serde_json::Value = self.get("/v1/health")?;
        let api = answer["api"].as_u64();
        if api != Some(API) {
            let spoken = api.map_or("no version".into(), |api| format!("version {api}"));
            return Err(Error::new(
                Kind::Network,
                format!("the lm-eval service speaks {spoken} of the wire, this is version {API}"),
            )
            .at(self.url.as_str())
            .hint("start the service that belongs to this version: scripts/lm_eval_service"));
        }
        let text = |e| {
            Error::new(Kind::Network, format!("the lm-eval service names no harness: {e}"))
                .hint(format!("install lm_eval[api]=={HARNESS}"))
        };
        serde_json::from_value(answer).map_err(text)
    }

    /// Hands a job in and gives its id. Sent again after a failure, it is the same job, by its key.
    pub fn submit(&self, job: &Job) -> Result<String> {
        self.retry(|| self.json::<Submitted>(self.http.post(self.at("/v1/jobs")).json(job))).map(|s| s.job_id)
    }

    /// Where a job stands.
    pub fn status(&self, id: &str) -> Result<Status> {
        self.get(&format!("/v1/jobs/{id}"))
    }

    /// What a job that succeeded has found.
    pub fn result(&self, id: &str) -> Result<ResultBody> {
        self.get(&format!("/v1/jobs/{id}/result"))
    }

    /// The records of a task's documents.
    pub fn samples(&self, id: &str, task: &str) -> Result<Vec<SampleLine>> {
        let url = self.at(&format!("/v1/jobs/{id}/samples/{task}"));
        let text = self.retry(|| self.send(self.http.get(&url))?.text().map_err(|e| self.broken(&e)))?;
        let line = |line| {
            serde_json::from_str(line)
                .or_error(Kind::Network, "the lm-eval service sent a sample that cannot be read")
        };
        text.lines().map(line).collect()
    }

    /// Ends a job; one that has ended is left as it is.
    pub fn cancel(&self, id: &str) -> Result<()> {
        self.send(self.http.delete(self.at(&format!("/v1/jobs/{id}")))).map(drop).map_err(Miss::error)
    }

    /// Waits, heeding the user.
    pub fn pause(&self, time: Duration, watch: &dyn Watch) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            watch.checkpoint()?;
            std::thread::sleep(Duration::from_millis(50).min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.retry(|| self.json(self.http.get(self.at(path))))
    }

    fn retry<T>(&self, attempt: impl Fn() -> Result<T, Miss>) -> Result<T> {
        let mut pause = self.patience.backoff;
        for _ in 1..self.patience.attempts {
            match attempt() {
                Err(Miss::Again(_)) => std::thread::sleep(pause),
                other => return other.map_err(Miss::error),
            }
            pause *= 2;
        }
        attempt().map_err(Miss::error)
    }

    fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Miss> {
        let text = self.send(request)?.text().map_err(|e| self.broken(&e))?;
        serde_json::from_str(&text)
            .map_err(|e| Miss::Final(self.strange(&format!("an answer that cannot be read ({e})"))))
    }

    fn send(&self, request: RequestBuilder) -> Result<Response, Miss> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().map_err(|e| self.broken(&e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refused(response))
    }

    fn refused(&self, response: Response) -> Miss {
        let status = response.status();
        match response.text().ok().and_then(|text| serde_json::from_str::<Refusal>(&text).ok()) {
            Some(refusal) => Miss::Final(refusal.error.into_error().at(self.url.as_str())),
            None if status.is_server_error() => Miss::Again(self.strange(&format!("status {status}"))),
            None => Miss::Final(self.strange(&format!("status {status}"))),
        }
    }

    fn strange(&self, what: &str) -> Error {
        Error::new(Kind::Network, format!("the lm-eval service gave {what}"))
            .at(self.url.as_str())
            .hint("is this the address of scripts/lm_eval_service, of this version?")
    }

    fn broken(&self, e: &reqwest::Error) -> Miss {
        let what = match e {
            _ if e.is_connect() => "cannot be reached".to_string(),
            _ if e.is_timeout() => format!("gave no answer within {} s", self.patience.timeout.as_secs_f64()),
            _ => format!("broke the connection ({e})"),
        };
        Miss::Again(
            Error::new(Kind::Network, format!("the lm-eval service {what}")).at(self.url.as_str()).hint(
                "start it (scripts/lm_eval_service), or leave evaluate.lm_eval.url out and tyr starts one",
            ),
        )
    }
}

impl Miss {
    fn error(self) -> Error {
        match self {
            Miss::Again(error) | Miss::Final(error) => error,
        }
    }
}
