//! The harness against our own server: both are started on loopback, and nothing is left behind.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Limits, Options, Server, secret};
use crate::base::{Error, Kind, Result, ResultExt, Watch};
use crate::data::{SpecialTokens, Tokenizer};
use crate::eval::lm_eval::wire::{Data, Endpoint, TokenizerChoice};
use crate::eval::lm_eval::{Client, Job, JobMonitor, Outcome, Patience, Service, run, service};
use crate::model::{Model, Source};
use crate::spec::LmEval;

/// How a model is evaluated by the harness, beside what the spec says.
#[derive(Debug, Clone, Copy, Default)]
pub struct HarnessOptions<'a> {
    /// Folder of data sets, laid out as on the hub.
    pub data: Option<&'a Path>,
    /// The largest number of documents of each task; 0 takes all.
    pub limit: usize,
    /// Whether a BOS is put before every text.
    pub bos: bool,
    /// Whether each document's record is wanted.
    pub samples: bool,
}

/// Name of the model on the loopback server.
const NAME: &str = "tyr";

/// Evaluates a model with the harness: serves it on loopback, and has the service at `settings.url`, or one
/// started here, ask.
///
/// # Errors
/// The service cannot be started or reached, or the harness fails.
pub fn evaluate(
    source: &Source,
    model: Arc<Model>,
    settings: &LmEval,
    options: HarnessOptions,
    watch: &dyn Watch,
) -> Result<Outcome> {
    let special = SpecialTokens::of(source, model.config(), &Tokenizer::open(source)?)?;
    let tokenizer = tokenizer(source, special.prefix(), options.bos)?;
    let context_len = model.config().context;
    let key = service::secret()?;
    // The harness asks for what its tasks need, and nobody else has the key.
    let limits = Limits { request_memory: usize::MAX, memory: usize::MAX, ..Limits::default() };
    let loopback = Options { api_key: Some(key.clone()), limits, ..Options::loopback(NAME) };
    let server = Server::start(source, model, loopback)?;
    let service = if settings.url.is_some() { None } else { Some(Service::start(&settings.python)?) };
    let client = client(settings, service.as_ref())?;
    let endpoint = Endpoint {
        name: NAME.into(),
        completions_url: server.completions_url(),
        api_key: Some(key),
        context_len,
    };
    let job = Job {
        num_fewshot: settings.num_fewshot,
        limit: (options.limit > 0).then_some(options.limit),
        samples: options.samples,
        data: Data { root: options.data.map(absolute).transpose()?, include_path: None },
        ..Job::new(service::secret()?, &settings.tasks, endpoint, tokenizer)
    };
    let monitor = ServerMonitor { server: &server, service: RefCell::new(service) };
    let outcome = run(&client, &job, &monitor, watch)?;
    drop(monitor);
    server.stop()?;
    Ok(outcome)
}

/// Over the server's own routes; a BOS needs the harness's own tokenizer, and that a folder.
fn tokenizer(source: &Source, prefix_token_id: Option<u32>, bos: bool) -> Result<TokenizerChoice> {
    match (bos, source) {
        (false, _) => Ok(TokenizerChoice::Remote { prefix_token_id }),
        (true, Source::Folder(path)) => {
            Ok(TokenizerChoice::HuggingFace { path: absolute(path)?, add_bos: true, prefix_token_id })
        }
        (true, Source::Builtin(_)) => {
            Err(Error::new(Kind::Spec, "the harness cannot put a BOS before the built-in model's texts")
                .hint("set evaluate.bos = false, or name a model folder"))
        }
    }
}

fn absolute(path: &Path) -> Result<std::path::PathBuf> {
    std::path::absolute(path).or_error(Kind::Disk, format!("{} has no absolute path", path.display()))
}

/// Version of the harness that would be asked.
///
/// # Errors
/// The service cannot be reached, or the interpreter has no harness.
pub fn version(settings: &LmEval) -> Result<String> {
    match &settings.url {
        Some(url) => {
            let patience = Patience { timeout: Duration::from_secs(10), attempts: 2, ..Patience::default() };
            Ok(running(url, patience)?.health()?.lm_eval)
        }
        None => service::installed(&settings.python),
    }
}

fn client(settings: &LmEval, service: Option<&Service>) -> Result<Client> {
    match (&settings.url, service) {
        (None, Some(service)) => {
            Client::new(service.url(), Some(service.token().into()), Patience::default())
        }
        (url, _) => running(url.as_deref().unwrap_or_default(), Patience::default()),
    }
}

/// A client of the service at an address that the spec gives.
fn running(url: &str, patience: Patience) -> Result<Client> {
    Client::new(url, secret("TYR_LM_EVAL_TOKEN")?, patience)
}

struct ServerMonitor<'a> {
    server: &'a Server,
    service: RefCell<Option<Service>>,
}

impl JobMonitor for ServerMonitor<'_> {
    fn served(&self) -> u64 {
        self.server.served()
    }

    fn alive(&self) -> Result<()> {
        if self.server.ended() {
            return Err(Error::new(Kind::Internal, "the completions server ended by itself"));
        }
        self.service.borrow_mut().as_mut().map_or(Ok(()), Service::alive)
    }
}
