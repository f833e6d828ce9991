//! Models by their name on the hub: the real client against a local server that speaks its protocol.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use assert_cmd::Command;
use tyr::model::pico::Pico;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

type Files = Arc<BTreeMap<String, Vec<u8>>>;

/// Serves files as `/{owner}/{name}/resolve/{revision}/{file}` with the headers that the client reads;
/// answers from a thread per connection.
fn serve(files: Files) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let files = files.clone();
            std::thread::spawn(move || while answer(&stream, &files).is_some() {});
        }
    });
    address
}

fn answer(stream: &TcpStream, files: &Files) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
    let range =
        headers.iter().find_map(|h| h.to_lowercase().strip_prefix("range: bytes=").map(str::to_string));
    let path = request.split(' ').nth(1)?.to_string();
    let mut out = stream;
    let Some(body) = path.strip_prefix("/tiny/llama/resolve/main/").and_then(|name| files.get(name)) else {
        return out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok();
    };
    let (start, end) = match range.as_deref().and_then(|r| r.split_once('-')) {
        Some((a, b)) => (a.parse().ok()?, b.parse::<usize>().map_or(body.len(), |b| (b + 1).min(body.len()))),
        None => (0, body.len()),
    };
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    let head = format!(
        "HTTP/1.1 {status}\r\nx-repo-commit: {COMMIT}\r\netag: \"{}\"\r\nContent-Range: bytes {start}-{}/{}\r\nContent-Length: {}\r\n\r\n",
        blake3::hash(body).to_hex(),
        end.max(1) - 1,
        body.len(),
        end - start
    );
    out.write_all(head.as_bytes())
        .and_then(|()| if request.starts_with("HEAD") { Ok(()) } else { out.write_all(&body[start..end]) })
        .ok()
}

fn model_files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    Pico { vocabulary: 68, ..Pico::default() }.write(folder, 4).unwrap();
    let names = ["config.json", "tokenizer.json", "model.safetensors"];
    names.iter().map(|n| (n.to_string(), std::fs::read(folder.join(n)).unwrap())).collect()
}

fn eval(home: &Path, endpoint: &str, model: &str) -> assert_cmd::assert::Assert {
    let arguments =
        ["eval", model, "--perplexity", "quickstart", "--sequence-length", "32", "--tokens", "256"];
    Command::cargo_bin("tyr")
        .unwrap()
        .env("HF_HOME", home)
        .env("HF_ENDPOINT", endpoint)
        .args(arguments)
        .assert()
}

#[test]
fn a_model_is_fetched_once_and_then_read_from_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = serve(Arc::new(model_files(&dir.path().join("model"))));
    let first = eval(&dir.path().join("home"), &endpoint, "hf:tiny/llama").success();
    // Nothing answers at this address any more, and nothing needs to.
    let second = eval(&dir.path().join("home"), "http://127.0.0.1:9", "hf:tiny/llama").success();
    assert_eq!(first.get_output().stdout, second.get_output().stdout);
}

#[test]
fn a_sharded_model_is_fetched_with_every_shard() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = model_files(&dir.path().join("model"));
    let weights = files.remove("model.safetensors").unwrap();
    files.insert("model-00001-of-00001.safetensors".into(), weights);
    files.insert(
        "model.safetensors.index.json".into(),
        br#"{"weight_map":{"model.norm.weight":"model-00001-of-00001.safetensors"}}"#.to_vec(),
    );
    let endpoint = serve(Arc::new(files));
    eval(&dir.path().join("home"), &endpoint, "hf:tiny/llama").success();
}

#[test]
fn a_model_that_is_not_there_and_a_hub_that_does_not_answer_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = serve(Arc::new(BTreeMap::new()));
    for (endpoint, words) in
        [(endpoint.as_str(), "check the name"), ("http://127.0.0.1:9", "check the network")]
    {
        let failed = eval(&dir.path().join("home"), endpoint, "hf:tiny/llama").failure();
        let printed = String::from_utf8_lossy(&failed.get_output().stderr).into_owned();
        assert_eq!(failed.get_output().status.code(), Some(8), "{printed}");
        assert!(printed.contains(words) && printed.contains("hf:tiny/llama"), "{printed}");
    }
}

#[test]
fn small_files_come_along_and_that_there_are_none_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = model_files(&dir.path().join("model"));
    files.insert("generation_config.json".into(), br#"{"eos_token_id": [1, 2]}"#.to_vec());
    files.insert("chat_template.jinja".into(), b"{{ messages }}".to_vec());
    let endpoint = serve(Arc::new(files));
    let home = dir.path().join("home");
    let notes = |endpoint: &str| {
        let done = eval(&home, endpoint, "hf:tiny/llama").success();
        String::from_utf8_lossy(&done.get_output().stderr).into_owned()
    };
    notes(&endpoint);
    let repository = home.join("hub/models--tiny--llama");
    let there = |name: &str| repository.join("snapshots").join(COMMIT).join(name).exists();
    assert!(there("generation_config.json") && there("chat_template.jinja"));
    let absent = repository.join(".no_exist").join(COMMIT);
    assert!(absent.join("tokenizer_config.json").exists() && !absent.join("generation_config.json").exists());
    // Nothing answers any more.
    let offline = notes("http://127.0.0.1:9");
    assert!(!offline.contains("the hub was not reached"), "{offline}");
    std::fs::remove_dir_all(&absent).unwrap();
    let offline = notes("http://127.0.0.1:9");
    assert!(
        offline.contains("lacks tokenizer_config.json") && offline.contains("the hub was not reached"),
        "{offline}"
    );
}

#[test]
fn a_whole_model_in_a_cache_that_cannot_be_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = serve(Arc::new(model_files(&dir.path().join("model"))));
    let home = dir.path().join("home");
    let first = eval(&home, &endpoint, "hf:tiny/llama").success();
    let absent = home.join("hub/models--tiny--llama/.no_exist");
    std::fs::remove_dir_all(&absent).unwrap();
    // No folder can be made where a file is.
    std::fs::write(&absent, "").unwrap();
    let second = eval(&home, &endpoint, "hf:tiny/llama").success();
    assert_eq!(first.get_output().stdout, second.get_output().stdout);
    let printed = String::from_utf8_lossy(&second.get_output().stderr).into_owned();
    assert!(printed.contains("or the cache cannot be written"), "{printed}");
    assert!(absent.is_file());
}

#[test]
fn a_hub_that_is_not_reached_is_asked_for_one_small_file_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let endpoint = serve(Arc::new(model_files(&dir.path().join("model"))));
    eval(&home, &endpoint, "hf:tiny/llama").success();
    std::fs::remove_dir_all(home.join("hub/models--tiny--llama/.no_exist")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let names = asked.clone();
    // Every connection ends without an answer.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let line = BufReader::new(stream).lines().next().and_then(Result::ok).unwrap_or_default();
            names.lock().unwrap().insert(line.split(' ').nth(1).unwrap_or_default().into());
        }
    });
    eval(&home, &endpoint, "hf:tiny/llama").success();
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
}

#[test]
fn a_name_with_the_digits_of_a_status_is_not_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let failed = eval(&dir.path().join("home"), "http://127.0.0.1:9", "hf:tiny/llama-404-401").failure();
    let printed = String::from_utf8_lossy(&failed.get_output().stderr).into_owned();
    assert!(printed.contains("check the network"), "{printed}");
}
