//! API keys: who may ask for work. Only hashes are kept, and compared in constant time.

use std::fmt;

use axum::http::{HeaderMap, header};

use crate::problem::{self, Failure};

/// The hashes of the keys that are accepted; with none, everybody is let in.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<blake3::Hash>);

impl ApiKeys {
    /// One key a line, as in a file or an environment variable; blank lines and those that begin with `#` are skipped.
    ///
    /// ```
    /// use surprisal_server::ApiKeys;
    ///
    /// assert_eq!(ApiKeys::parse("# alice\nkey-1\n\nkey-2").len(), 2);
    /// ```
    pub fn parse(lines: &str) -> Self {
        Self(numbered(lines).map(|(_, key)| blake3::hash(key.as_bytes())).collect())
    }

    /// The number of the first line whose key has whitespace within, such as one that a comment follows: no client sends such a
    /// key.
    ///
    /// ```
    /// use surprisal_server::ApiKeys;
    ///
    /// assert_eq!(ApiKeys::wrong_line("key-1\n\nkey-2  # bob"), Some(3));
    /// ```
    pub fn wrong_line(lines: &str) -> Option<usize> {
        numbered(lines).find(|(_, key)| key.contains(char::is_whitespace)).map(|(number, _)| number)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets in whoever sends `Authorization: Bearer KEY` with one of the keys; returns which, if there are any.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Option<&blake3::Hash>, Failure> {
        if self.is_empty() {
            return Ok(None);
        }
        let given = headers.get(header::AUTHORIZATION).map(axum::http::HeaderValue::as_bytes).unwrap_or_default();
        let key = match given.split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
            _ => return Err(problem::unauthorized("the header Authorization: Bearer KEY is missing")),
        };
        let hash = blake3::hash(key);
        // Equality of hashes takes the same time whatever they are, and every one is compared.
        let known = self.0.iter().fold(None, |known, key| if *key == hash { Some(key) } else { known });
        if known.is_some() { Ok(known) } else { Err(problem::unauthorized("the key is not one of this server's")) }
    }
}

/// The lines that have a key, by their numbers from 1.
fn numbered(lines: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(lines.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Hashes are of no use to a reader, and of some to a thief.
impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}
