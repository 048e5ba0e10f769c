//! API keys, which determine the clients that may send work. The server keeps only hashes and compares them in constant
//! time.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use axum::http::{HeaderMap, header};

use crate::limits::client::ApiKey;
use crate::problem::{self, Failure};

/// The mark that some editors put at the beginning of a file.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The hashes of the accepted keys. If there are none, every client is accepted.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<ApiKey>);

impl ApiKeys {
    /// Parses one key per line, as in a file or an environment variable. Skips blank lines, lines that begin with `#`,
    /// byte order marks, and [invalid lines](Self::invalid_line). After a key, `min_priority=NUMBER` sets the smallest
    /// priority that its client may send.
    ///
    /// ```
    /// use surprisal_server::ApiKeys;
    ///
    /// assert_eq!(ApiKeys::parse("# alice\nkey-1\n\nkey-2 min_priority=-10").len(), 2);
    /// ```
    pub fn parse(lines: &str) -> Self {
        Self(numbered_keys(lines).filter_map(|(_, line)| parse_key(line)).collect())
    }

    /// Returns the number of the first line with something other than `min_priority=NUMBER` after its key, such as a
    /// comment, or with a control character in its key, such as NUL; `None` if there is no such line. No client could
    /// send such a key.
    ///
    /// ```
    /// use surprisal_server::ApiKeys;
    ///
    /// assert_eq!(ApiKeys::invalid_line("key-1\n\nkey-2  # bob"), Some(3));
    /// ```
    pub fn invalid_line(lines: &str) -> Option<usize> {
        numbered_keys(lines).find(|(_, line)| parse_key(line).is_none()).map(|(number, _)| number)
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns `true` if there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Accepts a request that sends one of the keys in the header `Authorization: Bearer KEY`. Returns the key; `None`
    /// if no key is required.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Option<&ApiKey>, Failure> {
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
        let known = self.0.iter().fold(None, |known, key| if key.hash == hash { Some(key) } else { known });
        if known.is_none() {
            return Err(problem::unauthorized("unknown API key; check the key in the header `Authorization`"));
        }
        Ok(known)
    }
}

/// Parses a line with a key and, optionally, the smallest priority that its client may send.
fn parse_key(line: &str) -> Option<ApiKey> {
    let mut words = line.split_whitespace();
    let key = words.next()?;
    if key.contains(|c: char| c.is_control() || c == BYTE_ORDER_MARK) {
        return None;
    }
    let hash = blake3::hash(key.as_bytes());
    let min_priority = match words.next() {
        Some(word) => Some(word.strip_prefix("min_priority=")?.parse().ok()?),
        None => None,
    };
    words.next().is_none().then_some(ApiKey { hash, min_priority })
}

/// Returns the lines that contain a key, with their numbers from 1.
fn numbered_keys(lines: &str) -> impl Iterator<Item = (usize, &str)> {
    // Editors on Windows put a mark before the first line. Files that were concatenated have it before others too.
    let keys = lines.lines().map(|line| line.trim().trim_start_matches(BYTE_ORDER_MARK).trim_start());
    (1..).zip(keys).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The keys of a server, which may be replaced while it runs. Clones share them.
///
/// ```
/// use surprisal_server::{ApiKeys, KeyRing};
///
/// let keys = KeyRing::from(ApiKeys::parse("key-1"));
/// keys.replace(ApiKeys::parse("key-1\nkey-2"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct KeyRing(Arc<RwLock<ApiKeys>>);

impl KeyRing {
    /// Replaces the keys. Requests that were accepted with a key that is gone still finish.
    pub fn replace(&self, keys: ApiKeys) {
        // A panic while the lock is held leaves the old keys or the new ones.
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Returns `true` if clients need no key.
    pub(crate) fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// Accepts a request that sends one of the keys, as [`ApiKeys::authenticate`] does.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<Option<ApiKey>, Failure> {
        self.read().authenticate(headers).map(Option::<&ApiKey>::copied)
    }

    fn read(&self) -> RwLockReadGuard<'_, ApiKeys> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<ApiKeys> for KeyRing {
    fn from(keys: ApiKeys) -> Self {
        Self(Arc::new(RwLock::new(keys)))
    }
}

/// Prints only the number of keys: the hashes would help only an attacker.
impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}
