//! Models from the hub, through hf-hub: its cache, its token, its environment variables (`HF_HOME`,
//! `HF_ENDPOINT`, `HF_TOKEN`).

use std::path::PathBuf;

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::checkpoint::{INDEX, SINGLE, shard_names};
use crate::base::{Error, Kind, Result, files};

/// Fetches `OWNER/NAME[@REVISION]` (what is not in the cache yet) and gives the folder of that revision.
pub fn fetch(name: &str) -> Result<PathBuf> {
    let builder = ApiBuilder::from_env().with_progress(false).with_retries(3);
    let api = builder.build().map_err(|e| failed(name, "the hub client", &e))?;
    let (model, revision) = name.split_once('@').unwrap_or((name, "main"));
    let repo = Repo::with_revision(model.to_string(), RepoType::Model, revision.to_string());
    let in_one_file = Cache::from_env().repo(repo.clone()).get(SINGLE).is_some();
    fetch_files(&api.repo(repo), name, in_one_file)
}

/// The folder in the hub's cache that holds the configuration of `OWNER/NAME[@REVISION]`; nothing is fetched.
pub fn cached(name: &str) -> Option<PathBuf> {
    let (model, revision) = name.split_once('@').unwrap_or((name, "main"));
    let repo = Repo::with_revision(model.to_string(), RepoType::Model, revision.to_string());
    Cache::from_env().repo(repo).get("config.json")?.parent().map(PathBuf::from)
}

/// Fetches what is missing; a model known to be in one file needs no look for an index.
fn fetch_files(repo: &ApiRepo, name: &str, in_one_file: bool) -> Result<PathBuf> {
    let get = |file: &str| repo.get(file).map_err(|e| failed(name, file, &e));
    let config = get("config.json")?;
    get("tokenizer.json")?;
    if in_one_file {
        return Ok(config.parent().unwrap_or(&config).to_path_buf());
    }
    match repo.get(INDEX) {
        Ok(index) => {
            shard_names(&files::read_text(&index)?)?.iter().try_for_each(|shard| get(shard).map(drop))?
        }
        // A model in one file has no index: the hub says 404 for it, and only then is the single file the
        // answer.
        Err(e) if is_missing(&e) => drop(get(SINGLE)?),
        Err(e) => return Err(failed(name, INDEX, &e)),
    }
    Ok(config.parent().unwrap_or(&config).to_path_buf())
}

fn is_missing(e: &ApiError) -> bool {
    e.to_string().contains("404")
}

fn failed(name: &str, file: &str, e: &ApiError) -> Error {
    let hint = match e {
        _ if is_missing(e) => "check the name and the revision; for a gated model set HF_TOKEN",
        _ if e.to_string().contains("401") || e.to_string().contains("403") => {
            "the model is private or gated: accept its licence on the hub and set HF_TOKEN"
        }
        _ => "check the network, or download the model elsewhere and name its folder in model.source",
    };
    Error::new(Kind::Network, format!("cannot fetch {file} from the hub: {e}"))
        .at(format!("hf:{name}"))
        .hint(hint)
}
