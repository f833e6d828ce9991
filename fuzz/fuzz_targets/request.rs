//! HTTP to a running server: an even first byte sends the rest as it is, an odd one as the body of a
//! completion. The server answers in HTTP, never with its own fault, and lives on.
#![no_main]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use candle_core::Device;
use libfuzzer_sys::fuzz_target;
use tyr::model::Model;
use tyr::serve::{Options, Server};
use tyr_fuzz::{begin, folder, found, model, run};

static SERVER: OnceLock<Server> = OnceLock::new();

fn start() -> Server {
    let source = model(&folder());
    let model = Arc::new(found(Model::open(&source, &Device::Cpu)));
    let mut options = Options::loopback("fuzz");
    options.limits.body_time = Duration::from_millis(200);
    options.limits.idle_time = Duration::from_millis(500);
    found(Server::start(&source, model, options))
}

fn request(bytes: &[u8]) -> Vec<u8> {
    let Some((first, rest)) = bytes.split_first() else { return Vec::new() };
    if first % 2 == 0 {
        return rest.to_vec();
    }
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: fuzz\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        rest.len()
    );
    [head.as_bytes(), rest].concat()
}

fn answer(server: &Server, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut connection = TcpStream::connect(server.address())?;
    connection.write_all(request)?;
    connection.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    Ok(answer)
}

fuzz_target!(
    init: begin(),
    |bytes: &[u8]| {
        run(|| {
            let server = SERVER.get_or_init(start);
            if let Ok(answer) = answer(server, &request(bytes)) {
                assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "no HTTP");
                assert!(!answer.starts_with(b"HTTP/1.1 500"), "the server's own fault");
            }
            assert!(!server.ended(), "the server has ended");
        });
    }
);
