//! A man in the middle: forwards to the completions server and changes what it answers, as a server with a
//! defect would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::blocking::Client;
use serde_json::Value;

/// What is done to the arrays `token_logprobs` and `top_logprobs` of every choice.
pub type Defect = fn(&mut Vec<Value>);

/// A running proxy; it ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    pub fn before(server: SocketAddr, defect: Defect) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let seen = ended.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().take_while(|_| !seen.load(Ordering::Relaxed)).flatten() {
                std::thread::spawn(move || forward(&stream, server, defect));
            }
        });
        Self { address, ended }
    }

    pub fn completions_url(&self) -> String {
        format!("http://{}/v1/completions", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address); // wakes the listener
    }
}

/// One request and its answer; a client that leaves is no matter.
fn forward(stream: &TcpStream, server: SocketAddr, defect: Defect) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
        if line.trim().is_empty() {
            break;
        }
        lines.push(line);
    }
    let header = |name: &str| {
        lines.iter().find_map(|l| {
            l.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
        })
    };
    let mut body = vec![0; header("content-length").map_or(0, |n| n.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    let mut first = lines[0].split(' ');
    let method = first.next()?.parse().unwrap();
    let path = first.next()?;
    let mut request = Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .request(method, format!("http://{server}{path}"))
        .body(body);
    for name in ["authorization", "content-type"] {
        request = header(name).into_iter().fold(request, |r, value| r.header(name, value));
    }
    let answer = request.send().ok()?;
    let status = answer.status().as_u16();
    let text = changed(&answer.text().ok()?, defect);
    let head = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        text.len()
    );
    (&mut &*stream).write_all(format!("{head}{text}").as_bytes()).ok()
}

fn changed(text: &str, defect: Defect) -> String {
    let mut value: Value = serde_json::from_str(text).unwrap();
    for choice in value["choices"].as_array_mut().into_iter().flatten() {
        for name in ["token_logprobs", "top_logprobs"] {
            choice["logprobs"][name].as_array_mut().into_iter().for_each(defect);
        }
    }
    value.to_string()
}
