//! A server's address and dialect.

use std::fmt;
use std::str::FromStr;

use surprisal_dialect::Dialect;

use crate::error::Error;

/// A server's address and dialect: `[API+]http://HOST[:PORT][/BASE]`.
///
/// ```
/// use surprisal_load::{Dialect, Endpoint};
///
/// let peer: Endpoint = "vllm+http://10.0.0.7:8000".parse()?;
/// assert_eq!(peer.dialect(), Dialect::Vllm);
/// assert_eq!(peer.to_string(), "vllm+http://10.0.0.7:8000");
/// assert_eq!("http://localhost".parse::<Endpoint>()?.dialect(), Dialect::Surprisal);
/// assert!("https://localhost".parse::<Endpoint>().is_err());
/// # Ok::<(), surprisal_load::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    dialect: Dialect,
    host: String,
    /// Prefix of every path.
    base: String,
}

impl Endpoint {
    /// Returns the server's dialect.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Returns the host, with the port if one was given.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Returns a path prefixed with the endpoint's base.
    pub(super) fn full_path(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Returns the URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{}{path}", self.host, self.base)
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let expected = || {
            let names = Dialect::ALL.map(Dialect::name).join(", ");
            Error::invalid("url", text, format!("[API+]http://HOST[:PORT][/BASE] (no TLS); API is one of {names}"))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(expected)?;
        let (name, scheme) = scheme.split_once('+').unwrap_or((Dialect::Surprisal.name(), scheme));
        let dialect = Dialect::ALL.into_iter().find(|dialect| dialect.name() == name).ok_or_else(expected)?;
        let (authority, base) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if scheme != "http" || authority.parse::<hyper::http::uri::Authority>().is_err() || authority.contains('@') {
            return Err(expected());
        }
        Ok(Self { dialect, host: authority.to_owned(), base: base.trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dialect != Dialect::Surprisal {
            write!(f, "{}+", self.dialect.name())?;
        }
        f.write_str(&self.url(""))
    }
}
