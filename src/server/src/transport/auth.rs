//! API keys, which determine the clients that may send work. The server keeps only hashes and compares them in constant
//! time.

use std::fmt;

use axum::http::{HeaderMap, header};

use crate::problem::{self, Failure};

/// The hashes of the accepted keys. If there are none, every client is accepted.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<blake3::Hash>);

impl ApiKeys {
    /// Parses one key per line, as in a file or an environment variable. Skips blank lines and lines that begin with
    /// `#`.
    ///
    /// ```
    /// use surprisal_server::ApiKeys;
    ///
    /// assert_eq!(ApiKeys::parse("# alice\nkey-1\n\nkey-2").len(), 2);
    /// ```
    pub fn parse(lines: &str) -> Self {
        Self(numbered_keys(lines).map(|(_, key)| blake3::hash(key.as_bytes())).collect())
    }

    /// Returns the number of the first line whose key contains whitespace, such as a key followed by a comment; `None`
    /// if there is no such line. No client could send such a key.
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

    /// Returns `true` if there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Accepts a request that sends one of the keys in the header `Authorization: Bearer KEY`. Returns the key's hash;
    /// `None` if no key is required.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<Option<&blake3::Hash>, Failure> {
        if self.is_empty() {
            return Ok(None);
        }
        let given = headers.get(header::AUTHORIZATION).map(axum::http::HeaderValue::as_bytes).unwrap_or_default();
        let key = match given.split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
            _ => return Err(problem::unauthorized("missing API key; send the header `Authorization: Bearer KEY`")),
        };
        let hash = blake3::hash(key);
        // Comparing two hashes takes constant time, and the received key's hash is compared with all known ones.
        let known = self.0.iter().fold(None, |known, key| if *key == hash { Some(key) } else { known });
        if known.is_none() {
            return Err(problem::unauthorized("unknown API key; check the key in the header `Authorization`"));
        }
        Ok(known)
    }
}

/// Returns the lines that contain a key, with their numbers from 1.
fn numbered_keys(lines: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(lines.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Prints only the number of keys: the hashes would help only an attacker.
impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}
