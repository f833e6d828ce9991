//! The lm-evaluation-harness itself, through an adapter service (`scripts/lm_eval_service`): an independent
//! second opinion on the tasks.
//!
//! The service runs the harness against a completions server, which whoever calls this provides. Here are the
//! wire, the client with its retries and timeouts, the service's process, and the results in the shape of
//! native ones.

pub mod client;
mod files;
pub mod service;
pub mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::base::{Error, Estimate, Kind, Result, Watch};

pub use client::{Client, Patience};
pub use files::files_hash;
pub use service::Service;
pub use wire::{Job, SampleLine};

/// Version of the wire.
pub const API: u64 = 1;

/// The harness that native scoring follows.
pub const HARNESS: &str = "0.4.13";

/// Values by the harness's metric name.
pub type Values = BTreeMap<String, Estimate>;

/// What the harness measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Metrics of every task.
    pub tasks: BTreeMap<String, Values>,
    /// Metrics of every group.
    pub groups: BTreeMap<String, Values>,
    /// Versions of the tasks.
    pub versions: BTreeMap<String, String>,
    /// Documents' records of every task, when the job requested them.
    pub samples: BTreeMap<String, Vec<SampleLine>>,
    /// The harness's version.
    pub harness: String,
    /// Prompts that the completions server answered for it.
    pub prompts: u64,
}

/// What is looked at while a job runs.
pub trait JobMonitor {
    /// Prompts that the completions server has answered so far.
    fn served(&self) -> u64;
    /// Fails if the completions server or the service's process has ended.
    fn alive(&self) -> Result<()>;
}

/// Runs a job to its end. On any error, and when the user asks to stop, the job is cancelled.
///
/// # Errors
/// The service cannot be reached, is too old or busy, ends midway, or the harness fails.
pub fn run(client: &Client, job: &Job, monitor: &dyn JobMonitor, watch: &dyn Watch) -> Result<Outcome> {
    let health = client.health()?;
    if health.lm_eval != HARNESS {
        watch.note(&format!(
            "the service has lm_eval {}, native scoring follows {HARNESS}: small differences are possible",
            health.lm_eval
        ));
    }
    let id = client.submit(job)?;
    let first = monitor.served();
    let what = format!("lm-eval: {}", job.tasks.join(", "));
    let ended = watch.step(&what, 0, || wait(client, &id, monitor, watch));
    if ended.is_err() {
        // The first error is what matters; a service that has ended has nothing to cancel.
        let _ = client.cancel(&id);
    }
    ended?;
    Ok(Outcome { prompts: monitor.served() - first, ..outcome(client, &id, job, health.lm_eval)? })
}

fn wait(client: &Client, id: &str, monitor: &dyn JobMonitor, watch: &dyn Watch) -> Result<()> {
    let mut shown = 0;
    let first = monitor.served();
    let mut pause = client.patience().poll;
    loop {
        watch.checkpoint()?;
        monitor.alive()?;
        let status = client.status(id)?;
        let served = monitor.served() - first;
        watch.advance(served - shown);
        shown = served;
        match status.state.as_str() {
            "succeeded" => return Ok(()),
            "queued" | "running" => client.pause(pause, watch)?,
            "failed" => return Err(status.failure()),
            other => return Err(Error::new(Kind::Network, format!("the lm-eval job is {other}, not by us"))),
        }
        pause = (pause * 5 / 4).min(client.patience().poll * 5);
    }
}

fn outcome(client: &Client, id: &str, job: &Job, harness: String) -> Result<Outcome> {
    let result = client.result(id)?;
    let samples = result.results.keys().filter(|_| job.samples);
    let samples = samples.map(|task| Ok((task.clone(), client.samples(id, task)?))).collect::<Result<_>>()?;
    let count = |name: &str| result.documents(name);
    let shaped = |all: &BTreeMap<String, Values>| {
        all.iter().map(|(name, metrics)| (name.clone(), estimates(metrics, count(name)))).collect()
    };
    let versions = result
        .task_versions
        .iter()
        .map(|(task, v)| (task.clone(), v.as_str().map_or_else(|| v.to_string(), String::from)));
    Ok(Outcome {
        tasks: shaped(&result.results),
        groups: shaped(&result.groups),
        versions: versions.collect(),
        samples,
        harness,
        prompts: 0,
    })
}

fn estimates(metrics: &Values, n: usize) -> Values {
    metrics.iter().map(|(metric, v)| (metric.clone(), Estimate::mean(v.value, v.stderr, n))).collect()
}
