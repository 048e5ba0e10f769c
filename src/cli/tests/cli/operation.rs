//! `surprisal serve` as an operator runs it: signals, limits on files, and warnings.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{metric, surprisal};

/// A server, its log so far, and the addresses of its listeners. Killed when dropped.
struct Operated {
    child: Child,
    log: Arc<Mutex<String>>,
    address: String,
    admin_address: Option<String>,
}

impl Operated {
    /// Starts a server on the oracle, in a shell that runs `limits` first.
    fn start(cache: &Path, limits: &str, args: &[&str]) -> Self {
        let program = surprisal(cache).get_program().to_owned();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limits} exec \"$0\" serve --port 0 \"$@\"")]).arg(program).args(args);
        command.env("XDG_CACHE_HOME", cache).env_remove("SURPRISAL_LOG").stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut reader = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 0 {
                lines.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let mut operated = Self { child, log, address: String::new(), admin_address: None };
        operated.until_logged("\nserving ");
        let log = operated.log.lock().unwrap().clone();
        let address = |start: &str| {
            let line = log.lines().find(|line| line.starts_with(start))?;
            let url = line.split_whitespace().find(|word| word.starts_with("http"))?;
            Some(url.split_once("://").unwrap().1.trim_end_matches(',').to_owned())
        };
        operated.address = address("serving").unwrap();
        operated.admin_address = address("health and metrics on");
        operated
    }

    /// Waits until the log contains this text.
    fn until_logged(&self, text: &str) {
        for _ in 0..4000 {
            if self.log.lock().unwrap().contains(text) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("no {text:?} in {}", self.log.lock().unwrap());
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Returns the status of a scoring request with this key.
    fn status(&self, key: &str) -> u16 {
        let body = r#"{"queries": [{"context": "baba+", "target": "baba+"}]}"#;
        let head = format!("authorization: Bearer {key}\r\ncontent-type: application/json\r\n");
        exchange(&self.address, &format!("POST /logprobs HTTP/1.1\r\n{head}content-length: {}", body.len()), body)
    }
}

impl Drop for Operated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a request. Returns the response's status.
fn exchange(address: &str, head: &str, body: &str) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "{head}\r\nhost: a\r\nconnection: close\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("no response: {answer:?}")).parse().unwrap()
}

#[test]
fn sighup_reloads_keys_and_keeps_the_old_ones_if_the_file_is_invalid() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "old\n").unwrap();
    let server = Operated::start(dir.path(), "", &["--api-key-file", keys.to_str().unwrap()]);
    assert_eq!((server.status("old"), server.status("new")), (200, 401));

    std::fs::write(&keys, "\u{feff}new\r\n").unwrap();
    server.signal("HUP");
    server.until_logged("API keys and certificate reloaded");
    assert_eq!((server.status("old"), server.status("new")), (401, 200));

    std::fs::write(&keys, "newer\n\0\n").unwrap();
    server.signal("HUP");
    server.until_logged("reload failed; the old API keys and certificate stay in use");
    server.until_logged("keys: line 2 has whitespace or a control character");
    assert_eq!((server.status("newer"), server.status("new")), (401, 200));
    std::fs::remove_file(&keys).unwrap();
    server.signal("HUP");
    server.until_logged("keys: No such file or directory");
    assert_eq!((server.status("newer"), server.status("new")), (401, 200));
}

#[test]
fn sighup_does_not_end_a_server_without_keys() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Operated::start(dir.path(), "", &[]);
    server.signal("HUP");
    server.until_logged("reloaded");
    assert_eq!(server.status("any"), 200);
    server.signal("TERM");
    assert!(server.child.wait().unwrap().success());
}

/// With 64 descriptors, 54 silent sockets use up neither the port for health checks nor the one for requests.
#[cfg(target_os = "linux")]
#[test]
fn silent_sockets_do_not_use_up_the_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let server = Operated::start(dir.path(), "ulimit -n 64;", &["--admin-port", "0"]);
    server.until_logged("max_connections exceeds the open-file limit");
    let _silent: Vec<TcpStream> = (0..54).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    let admin = server.admin_address.clone().unwrap();
    let _silent_too: Vec<TcpStream> = (0..54).map(|_| TcpStream::connect(&admin).unwrap()).collect();
    for path in ["/health", "/ready", "/ping", "/metrics"] {
        assert_eq!(exchange(&admin, &format!("GET {path} HTTP/1.1"), ""), 200, "{path}");
    }
    assert_eq!(exchange(&server.address, "GET /health HTTP/1.1", ""), 200);
    assert_eq!(server.status("any"), 200);
    server.until_logged("connection limit reached");
    assert!(!server.log.lock().unwrap().contains("accepting a connection failed"));
}

#[test]
fn sigterm_ends_within_the_drain() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("surprisal.toml");
    std::fs::write(&file, "[server]\ndrain_seconds = 1\n").unwrap();
    let mut server = Operated::start(dir.path(), "", &["--config", file.to_str().unwrap(), "--admin-port", "0"]);
    let mut half_sent = TcpStream::connect(&server.address).unwrap();
    let head = "POST /logprobs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    half_sent.write_all(head.as_bytes()).unwrap();
    let mut probing = TcpStream::connect(server.admin_address.as_ref().unwrap()).unwrap();
    probing.write_all(b"GET /hea").unwrap();
    while metric(&format!("http://{}", server.address), "surprisal_admitted_requests") != 1.0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    server.signal("TERM");
    server.until_logged("requests still in flight; dropping them");
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn a_server_that_is_open_to_others_warns() {
    let dir = tempfile::tempdir().unwrap();
    let warning = "listening beyond this machine without API keys";
    let server = Operated::start(dir.path(), "", &["--host", "0.0.0.0"]);
    server.until_logged(warning);
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "key\n").unwrap();
    for args in [["--host", "127.0.0.1"], ["--api-key-file", keys.to_str().unwrap()]] {
        let server = Operated::start(dir.path(), "", &args);
        assert!(!server.log.lock().unwrap().contains(warning), "{args:?}");
    }
}
