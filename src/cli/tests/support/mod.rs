//! Helpers that run the binary as a user does.

#![allow(dead_code, reason = "each test uses only some of the helpers")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

pub(crate) fn surprisal(cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_surprisal"));
    command.env("XDG_CACHE_HOME", cache).env_remove("SURPRISAL_LOG");
    command
}

pub(crate) fn run(cache: &Path, args: &[&str]) -> Output {
    surprisal(cache).args(args).output().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns the value of a server's metric without labels.
pub(crate) fn metric(url: &str, name: &str) -> f64 {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap().parse().unwrap()
}

/// A `surprisal serve` process on a free port, killed when dropped.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) url: String,
}

impl Serving {
    pub(crate) fn start(cache: &Path) -> Self {
        Self::with(cache, &[])
    }

    pub(crate) fn with(cache: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = surprisal(cache);
        command.args(["serve", "--port", "0"]).envs(environment.iter().copied());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let line = lines.find(|line| line.starts_with("serving")).unwrap();
        let url = line.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
        let url = format!("http://{}", url.trim_end_matches(','));
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
