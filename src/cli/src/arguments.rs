//! Parsers for command-line arguments other than plain numbers and text.

/// Parses a server's address.
pub(crate) fn parse_server(text: &str) -> Result<String, String> {
    let has_scheme = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    if has_scheme { Ok(text.to_owned()) } else { Err("must begin with http:// or https://".to_owned()) }
}

/// Parses a time in seconds, from 0 to a million.
pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=1e6).contains(seconds));
    seconds.ok_or_else(|| "must be a number of seconds from 0 to 1000000".to_owned())
}
