//! Models from the hub, through hf-hub: its cache, its token, its environment variables (`HF_HOME`,
//! `HF_ENDPOINT`, `HF_TOKEN`).

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::checkpoint::{INDEX, SINGLE, shard_names};
use super::source::Source;
use super::{companions, provenance};
use crate::base::{Error, Kind, Result, files};

/// Fetches `OWNER/NAME[@REVISION]` (what is not in the cache yet) and gives the folder of that revision.
pub fn fetch(name: &str) -> Result<PathBuf> {
    let builder = ApiBuilder::from_env().with_progress(false).with_retries(3);
    let api = builder.build().map_err(|e| failed(name, "the hub client", &e))?;
    let (model, revision) = name.split_once('@').unwrap_or((name, "main"));
    let repo = Repo::with_revision(model.to_string(), RepoType::Model, revision.to_string());
    let is_cached = |file: &str| Cache::from_env().repo(repo.clone()).get(file).is_some();
    let is_whole = is_cached(SINGLE) || is_cached(INDEX);
    let repo = api.repo(repo.clone());
    let folder = fetch_needed(&repo, name, is_cached(INDEX) && !is_cached(SINGLE))?;
    for file in companions::OPTIONAL.into_iter().chain([provenance::CARD]) {
        if !fetch_optional(&repo, name, &folder, file, is_whole)? {
            break;
        }
    }
    Ok(folder)
}

/// The folder in the hub's cache that holds the configuration of `OWNER/NAME[@REVISION]`; nothing is fetched.
pub fn cached(name: &str) -> Option<PathBuf> {
    let (model, revision) = name.split_once('@').unwrap_or((name, "main"));
    let repo = Repo::with_revision(model.to_string(), RepoType::Model, revision.to_string());
    Cache::from_env().repo(repo).get("config.json")?.parent().map(PathBuf::from)
}

/// Fetches what every model has and is missing; a model known to be in shards needs no look for a single
/// file.
fn fetch_needed(repo: &ApiRepo, name: &str, in_shards: bool) -> Result<PathBuf> {
    let get = |file: &str| repo.get(file).map_err(|e| failed(name, file, &e));
    let config = get("config.json")?;
    get(companions::TOKENIZER)?;
    let single = if in_shards { None } else { Some(repo.get(SINGLE)) };
    match single {
        Some(Ok(_)) => {}
        // A model in shards has no single file: the hub says 404 for it, and only then is the index the
        // answer.
        Some(Err(e)) if !is_missing(&e) => return Err(failed(name, SINGLE, &e)),
        Some(Err(_)) | None => {
            let index = get(INDEX)?;
            shard_names(&files::read_text(&index)?)?.iter().try_for_each(|shard| get(shard).map(drop))?;
        }
    }
    Ok(config.parent().unwrap_or(&config).to_path_buf())
}

/// Fetches a file that the model may lack, and says whether further ones are worth asking for. A model that
/// was fetched before is taken as it is ([`unasked`]) where the hub cannot be reached.
fn fetch_optional(repo: &ApiRepo, name: &str, folder: &Path, file: &str, is_whole: bool) -> Result<bool> {
    let absence = absence(folder, file);
    if absence.as_ref().is_some_and(|path| path.exists()) {
        return Ok(true);
    }
    match repo.get(file) {
        Ok(_) => Ok(true),
        Err(e) if is_missing(&e) => match absence.map_or(Ok(()), |path| keep_absence(&path)) {
            // A cache that others share may be read-only; nothing of the model is lost.
            Err(_) if is_whole => Ok(true),
            kept => kept.map(|()| true),
        },
        Err(_) if is_whole => Ok(false),
        Err(e) => Err(failed(name, file, &e)),
    }
}

/// Keeps in the cache that a model lacks a file, as the hub's own client keeps it.
fn keep_absence(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), files::create_dir)?;
    files::write(path, b"")
}

/// The empty file in the hub's cache that says that a revision has no such file:
/// `models--OWNER--NAME/.no_exist/COMMIT/FILE`, for the folder `models--OWNER--NAME/snapshots/COMMIT`.
fn absence(folder: &Path, file: &str) -> Option<PathBuf> {
    let snapshots = folder.parent().filter(|parent| parent.ends_with("snapshots"))?;
    Some(snapshots.parent()?.join(".no_exist").join(folder.file_name()?).join(file))
}

/// Names of small files that a model in the hub's cache lacks without the cache saying that there are none;
/// none for a model elsewhere.
pub(super) fn unasked(source: &Source) -> Option<String> {
    let Source::Folder(folder) = source else { return None };
    let is_unasked =
        |file: &&str| !source.has(file) && absence(folder, file).is_some_and(|path| !path.exists());
    let names: Vec<&str> = companions::OPTIONAL.into_iter().filter(is_unasked).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn is_missing(e: &ApiError) -> bool {
    has_status(e, 404)
}

/// Whether the hub answered with a status; a name or an address may have the same digits.
fn has_status(e: &ApiError, status: u16) -> bool {
    match e {
        ApiError::RequestError(e) => e.to_string() == format!("http status: {status}"),
        ApiError::TooManyRetries(e) => has_status(e, status),
        _ => false,
    }
}

fn failed(name: &str, file: &str, e: &ApiError) -> Error {
    let hint = match e {
        _ if is_missing(e) => "check the name and the revision; for a gated model set HF_TOKEN",
        _ if has_status(e, 401) || has_status(e, 403) => {
            "the model is private or gated: accept its licence on the hub and set HF_TOKEN"
        }
        _ => "check the network, or download the model elsewhere and name its folder in model.source",
    };
    Error::new(Kind::Network, format!("cannot fetch {file} from the hub: {e}"))
        .at(format!("hf:{name}"))
        .hint(hint)
}
