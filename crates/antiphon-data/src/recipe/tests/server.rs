//! A web server on the loopback that answers as it is told, once for each request.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What to do with a request.
pub(super) enum Answer {
    /// These bytes, as they are, and then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, and then nothing for a long time.
    Stall(Vec<u8>),
    /// This content under `ETag: "v1"`, or the part of it that is asked for; of a whole answer only the first bytes
    /// arrive before the connection breaks.
    Ranges { content: Vec<u8>, breaks_after: usize },
}

impl Answer {
    /// An answer of one line, without content.
    pub(super) fn status(line: &str) -> Self {
        Self::Raw(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into())
    }

    /// Content, of which `length` is said to be the length.
    pub(super) fn claiming(length: usize, content: &[u8]) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        Self::Raw([head.as_bytes(), content].concat())
    }

    pub(super) fn content(content: &[u8]) -> Self {
        Self::claiming(content.len(), content)
    }

    pub(super) fn redirect(to: &str) -> Self {
        Self::status(&format!("302 Found\r\nLocation: {to}"))
    }
}

/// The server. Each connection is one request.
pub(super) struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers requests in this order, and every further one with 404.
    pub(super) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&requests);
        let mut answers: Vec<Answer> = answers.into_iter().collect();
        answers.reverse();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(request) = read_head(&stream) else { continue };
                seen.lock().expect("the list").push(request.clone());
                let answer = answers.pop().unwrap_or_else(|| Answer::status("404 Not Found"));
                // Apart, so that a stalled answer does not hold up the next.
                std::thread::spawn(move || send(stream, &request, answer));
            }
        });
        Self { address, requests }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// What was asked for, by the lines of each request that start with one of `names`, in lower case.
    pub(super) fn asked(&self, names: &[&str]) -> Vec<Vec<String>> {
        let requests = self.requests.lock().expect("the list");
        let wanted = |line: &&str| names.iter().any(|name| line.to_lowercase().starts_with(name));
        requests.iter().map(|r| r.lines().filter(wanted).map(str::to_lowercase).collect()).collect()
    }
}

fn read_head(stream: &TcpStream) -> Option<String> {
    let mut head = String::new();
    let mut reader = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

fn send(mut stream: TcpStream, request: &str, answer: Answer) {
    // The client may have left: that is its right.
    match answer {
        Answer::Raw(bytes) => {
            let _ = stream.write_all(&bytes);
        }
        Answer::Stall(bytes) => {
            let _ = stream.write_all(&bytes);
            std::thread::sleep(Duration::from_secs(5));
        }
        Answer::Ranges { content, breaks_after } => {
            let from = request.lines().find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("range: bytes=")
                    .map(|r| r.trim_end_matches('-').parse::<usize>().unwrap())
            });
            let head = match from {
                Some(from) => format!(
                    "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: {}",
                    content.len() - 1,
                    content.len(),
                    content.len() - from
                ),
                None => format!("200 OK\r\nContent-Length: {}", content.len()),
            };
            let _ = write!(stream, "HTTP/1.1 {head}\r\nETag: \"v1\"\r\nConnection: close\r\n\r\n");
            let body = from.map_or(&content[..breaks_after.min(content.len())], |from| &content[from..]);
            let _ = stream.write_all(body);
        }
    }
}
