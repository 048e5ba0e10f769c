//! A server that computes nothing: it responds with a fixed log-probability as fast as one thread per connection can.
//! Tests of this server show the maximum load that `surprisal bench` can generate (`results/2026-11-24-load.md`).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

const MODELS: &str = r#"{"data": [{"id": "stub", "vocab_size": 32000, "max_model_len": 2}]}"#;
const LOGPROBS: &str = r#"{"model": "stub", "fingerprint": "stub", "results": [{"sum": -1, "tokens": 1, "cached_tokens": 0,
"logprobs": [-1]}], "usage": {"computed_tokens": 2, "cached_tokens": 0, "scored_tokens": 1}}"#;

fn main() -> ExitCode {
    let port = std::env::args().nth(1).and_then(|port| port.parse::<u16>().ok());
    let Some(port) = port else {
        eprintln!("usage: stub_server PORT");
        return ExitCode::from(2);
    };
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(listener) => {
            for stream in listener.incoming().flatten() {
                // The thread ends when its client disconnects.
                std::thread::spawn(move || answer(stream));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: cannot listen on port {port}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Responds to the requests of a connection until the client closes it.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let known = [("/v1/models", MODELS), ("/logprobs", LOGPROBS)];
        let found = known.into_iter().find(|(path, _)| line.split(' ').nth(1) == Some(*path));
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        let (status, text) = found.map_or(("404 Not Found", ""), |(_, text)| ("200 OK", text));
        let reply = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        stream.write_all(reply.as_bytes())?;
    }
}
