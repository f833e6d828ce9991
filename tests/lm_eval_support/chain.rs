//! The whole chain from the harness to the model, held open for several jobs, so that one link at a time can
//! be wrong.

use std::path::Path;
use std::sync::Arc;

use tyr::base::{Result, Silent};
use tyr::eval::lm_eval::wire::{Data, Endpoint, TokenizerChoice};
use tyr::eval::lm_eval::{Client, Job, JobMonitor, Outcome, Patience, Service, run, service};
use tyr::model::{Model, Source};
use tyr::serve::{Options, Server};

/// A completions server and an adapter service.
pub struct Harness {
    server: Server,
    service: Service,
    context: usize,
    prefix: Option<u32>,
}

struct Still;

impl JobMonitor for Still {
    fn served(&self) -> u64 {
        0
    }

    fn alive(&self) -> Result<()> {
        Ok(())
    }
}

impl Harness {
    pub fn new(source: &Source, model: &Arc<Model>, python: &str) -> Self {
        let context = model.config().context;
        let prefix = model.config().bos;
        let server = Server::start(source, model.clone(), Options::loopback("tyr")).unwrap();
        Self { server, service: Service::start(python).unwrap(), context, prefix }
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// A job as `tyr` sends it, but for what `change` does to it.
    pub fn run(&self, data: &Path, tasks: &[&str], change: impl FnOnce(&mut Job)) -> Result<Outcome> {
        let model = Endpoint {
            name: "tyr".into(),
            completions_url: self.server.completions_url(),
            api_key: None,
            context_len: self.context,
        };
        let tasks: Vec<String> = tasks.iter().map(|t| t.to_string()).collect();
        let mut job = Job {
            samples: true,
            data: Data { root: Some(data.to_path_buf()), include_path: None },
            ..Job::new(
                service::secret()?,
                &tasks,
                model,
                TokenizerChoice::Remote { prefix_token_id: self.prefix },
            )
        };
        job.run.max_retries = 1;
        change(&mut job);
        let client = Client::new(self.service.url(), Some(self.service.token().into()), Patience::default())?;
        run(&client, &job, &Still, &Silent)
    }
}
