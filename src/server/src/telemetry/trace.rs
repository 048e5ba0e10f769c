//! W3C trace context: the trace that a request belongs to, and the server's span in it.
//!
//! A request that names a trace in `traceparent` (<https://www.w3.org/TR/trace-context/>) continues it; any other
//! request begins a new one. The response's `traceparent` names the server's own span.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The name of the trace context header.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The server's span in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace_id: u128,
    pub(crate) span_id: u64,
    /// Span of the caller; `None` if the trace begins here.
    pub(crate) parent_id: Option<u64>,
    flags: u8,
}

/// The flag of a sampled trace.
const SAMPLED: u8 = 1;

impl TraceContext {
    /// Returns the server's span for a request with these headers. A trace that begins here is sampled if `record` is
    /// `true`; a trace that the caller began is sampled if the caller's flags request it.
    pub(crate) fn from_headers(headers: &HeaderMap, record: bool) -> Self {
        let caller = headers.get(TRACEPARENT).and_then(|value| Self::parse(value.to_str().ok()?));
        let new_trace = || u128::from(random()) << 64 | u128::from(random());
        Self {
            trace_id: caller.map_or_else(new_trace, |caller| caller.trace_id),
            span_id: random(),
            parent_id: caller.map(|caller| caller.span_id),
            flags: caller.map_or(u8::from(record) * SAMPLED, |caller| caller.flags),
        }
    }

    #[cfg(feature = "otlp")]
    pub(crate) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Parses `version-trace-span-flags` in lower-case hexadecimal. Ignores fields that later versions append.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut part = |length: usize| {
            let part = parts.next()?;
            let valid = part.len() == length && part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
            valid.then_some(part)
        };
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let more = parts.next().is_some();
        let parsed = Self {
            trace_id: u128::from_str_radix(trace, 16).ok()?,
            span_id: u64::from_str_radix(span, 16).ok()?,
            parent_id: None,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        let known = version != "ff" && !(version == "00" && more);
        (known && parsed.trace_id != 0 && parsed.span_id != 0).then_some(parsed)
    }

    /// Returns the value of the response's header.
    pub(crate) fn header_value(self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.to_string()).ok()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// Returns a random number other than zero.
fn random() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_trace_continues_and_an_invalid_one_does_not() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = TraceContext::parse(text).unwrap();
        assert_eq!(parsed.to_string(), text);
        assert_eq!(TraceContext::parse(&text.replacen("00", "01", 1)).unwrap(), parsed);
        assert!(TraceContext::parse(&format!("01{}-later", &text[2..])).is_some());
        for broken in [
            "",
            "00",
            &text[..54],
            &format!("{text}-more"),
            &text.replace('a', "A"),
            &text.replacen("00", "ff", 1),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(TraceContext::parse(broken), None, "{broken}");
        }
        let headers = HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_static(text))]);
        let (one, other) = (TraceContext::from_headers(&headers, true), TraceContext::from_headers(&headers, true));
        assert_eq!((one.trace_id, one.flags, other.trace_id), (parsed.trace_id, 1, parsed.trace_id));
        assert!(one.span_id != parsed.span_id && one.span_id != other.span_id);
        let new = || TraceContext::from_headers(&HeaderMap::new(), false).trace_id;
        assert_ne!(new(), new());
    }
}
