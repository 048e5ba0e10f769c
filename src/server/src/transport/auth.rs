//! API keys: which clients may send work. The server keeps only hashes and compares them in constant time.

use std::fmt;

use axum::http::{HeaderMap, header};

use crate::problem::{self, Failure};

/// The hashes of the accepted keys; without any, every client is accepted.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<blake3::Hash>);

impl ApiKeys {
    /// Parses one key a line, as in a file or an environment variable; blank lines and those that begin with `#` are skipped.
    ///
    /// ```
    /// use surprisal_server::ApiKeys;
    ///
    /// assert_eq!(ApiKeys::parse("# alice\nkey-1\n\nkey-2").len(), 2);
    /// ```
    pub fn parse(lines: &str) -> Self {
        Self(numbered_keys(lines).map(|(_, key)| blake3::hash(key.as_bytes())).collect())
    }

    /// Returns the number of the first line whose key contains whitespace, such as a key followed by a comment: no client sends
    /// such a key.
    ///
    /// ```
    /// use surprisal_server::ApiKeys;
    ///
    /// assert_eq!(ApiKeys::invalid_line("key-1\n\nkey-2  # bob"), Some(3));
    /// ```
    pub fn invalid_line(lines: &str) -> Option<usize> {
        numbered_keys(lines).find(|(_, key)| key.contains(char::is_whitespace)).map(|(number, _)| number)
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Accepts a request with `Authorization: Bearer KEY` and one of the keys. Returns the key's hash; `None` where no key is
    /// needed.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<Option<&blake3::Hash>, Failure> {
        if self.is_empty() {
            return Ok(None);
        }
        let given = headers.get(header::AUTHORIZATION).map(axum::http::HeaderValue::as_bytes).unwrap_or_default();
        let key = match given.split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
            _ => return Err(problem::unauthorized("the header Authorization: Bearer KEY is missing")),
        };
        let hash = blake3::hash(key);
        // Comparing two hashes takes constant time, and the key is compared with every one.
        let known = self.0.iter().fold(None, |known, key| if *key == hash { Some(key) } else { known });
        if known.is_some() { Ok(known) } else { Err(problem::unauthorized("the key is not one of this server's")) }
    }
}

/// Returns the lines that contain a key, with their numbers from 1.
fn numbered_keys(lines: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(lines.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Prints the number of keys only: hashes would help nobody but an attacker.
impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}
