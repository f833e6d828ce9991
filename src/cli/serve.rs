//! `tyr serve MODEL`.

use std::net::IpAddr;

use clap::Args;

use crate::base::{Error, Kind, Result, Watch};
use crate::model::Model;
use crate::serve::{self, Limits, Options, secret};
use crate::spec::DeviceChoice;
use crate::tensor::device;

/// Serve a model with an OpenAI-compatible completions API.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Model folder, hf:OWNER/NAME, or builtin:quickstart.
    pub model: String,
    /// Address to listen on; anything but loopback should come with a key.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port; 0 takes a free one and prints it.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Bearer token that requests must carry; TYR_API_KEY sets it too, unseen by other users of the machine.
    #[arg(long)]
    pub api_key: Option<String>,
    /// The model's name in requests and answers; by default the last part of MODEL.
    #[arg(long)]
    pub name: Option<String>,
    /// Device: auto, cpu, cuda or metal.
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    pub device: DeviceChoice,
    /// Largest number of requests that wait or are worked on; further ones are answered with 429.
    #[arg(long, default_value_t = Limits::default().requests)]
    pub queue: usize,
    /// Largest number of open connections; further ones are answered with 503.
    #[arg(long, default_value_t = Limits::default().connections)]
    pub connections: usize,
    /// Largest number of bytes of a request's body.
    #[arg(long, default_value_t = Limits::default().body_bytes)]
    pub max_body: usize,
    /// MiB that the tokens of one request and their log-probabilities may take; more is answered with 400.
    #[arg(long, value_name = "MIB", default_value_t = Limits::default().request_memory >> 20)]
    pub request_memory: usize,
    /// The same of all requests together; more is answered with 429.
    #[arg(long, value_name = "MIB", default_value_t = Limits::default().memory >> 20)]
    pub memory: usize,
}

/// A device by its name in a spec.
pub(crate) fn parse_device(name: &str) -> Result<DeviceChoice, String> {
    serde_json::from_value(name.into()).map_err(|_| format!("`{name}` is none of auto, cpu, cuda, metal"))
}

/// Serves until interrupted; prints the address on standard output.
pub(crate) fn run(args: &ServeArgs, watch: &dyn Watch) -> Result<()> {
    let source = super::model_source(&args.model)?;
    let model = Model::open(&source, &device(args.device)?)?;
    model.tell(watch);
    let options = options(args)?;
    serve::run(&source, model, options, watch, |server| {
        let line = format!("serving {} at http://{}\n", args.model, server.address());
        if let Err(e) = super::show(&line) {
            watch.note(&format!("{e}; {}", line.trim_end())); // the server is as good as ever
        }
    })
}

fn options(args: &ServeArgs) -> Result<Options> {
    if args.queue == 0 || args.connections == 0 || args.request_memory == 0 || args.memory == 0 {
        return Err(Error::new(
            Kind::Usage,
            "--queue, --connections, --request-memory and --memory must be at least 1",
        ));
    }
    let api_key = match &args.api_key {
        Some(key) => Some(key.clone()),
        None => secret("TYR_API_KEY")?,
    };
    let last = args.model.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or(&args.model);
    let name = args.name.clone().unwrap_or_else(|| last.into());
    let limits = Limits {
        requests: args.queue,
        connections: args.connections,
        body_bytes: args.max_body,
        request_memory: args.request_memory.saturating_mul(1 << 20),
        memory: args.memory.saturating_mul(1 << 20),
        ..Limits::default()
    };
    let api_key = api_key.filter(|key| !key.is_empty());
    Ok(Options { host: args.host, port: args.port, api_key, name, limits })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn parse(line: &[&str]) -> Result<ServeArgs, clap::Error> {
        Line::try_parse_from([&["serve"], line].concat()).map(|l| l.args)
    }

    #[test]
    fn the_defaults_are_loopback_and_the_folders_name() {
        let options = options(&parse(&["runs/a/model/"]).unwrap()).unwrap();
        assert!(options.host.is_loopback());
        assert_eq!(
            (options.name.as_str(), options.port, &options.limits),
            ("model", 8000, &Limits::default())
        );
        assert_eq!(super::options(&parse(&["builtin:quickstart"]).unwrap()).unwrap().name, "quickstart");
    }

    #[test]
    fn wrong_arguments_are_usage_errors() {
        for line in
            [&["m", "--device", "tpu"][..], &["m", "--host", "nowhere"], &["m", "--port", "70000"], &[]]
        {
            assert!(parse(line).is_err(), "{line:?}");
        }
        assert_eq!(options(&parse(&["m", "--queue", "0"]).unwrap()).unwrap_err().kind, Kind::Usage);
        assert_eq!(
            run(&parse(&["no/such/folder"]).unwrap(), &crate::base::Silent).unwrap_err().kind,
            Kind::Checkpoint
        );
    }
}
