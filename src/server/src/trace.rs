//! W3C trace context: which trace a request belongs to, and its place there.
//!
//! A request that names a trace in `traceparent` (<https://www.w3.org/TR/trace-context/>) keeps it; any other begins one. The
//! answer's `traceparent` names the server's own span.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The header's name.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A span of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    /// The caller's span.
    pub(crate) parent: Option<u64>,
    flags: u8,
}

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

impl Trace {
    /// The server's span of a request with these headers. A trace that begins here is recorded if spans are; one that began
    /// elsewhere is if its caller says so.
    pub(crate) fn begin(headers: &HeaderMap, record: bool) -> Self {
        let given = headers.get(TRACEPARENT).and_then(|value| Self::parse(value.to_str().ok()?));
        let trace = given.map_or_else(|| u128::from(random()) << 64 | u128::from(random()), |given| given.trace);
        Self {
            trace,
            span: random(),
            parent: given.map(|given| given.span),
            flags: given.map_or(u8::from(record) * SAMPLED, |given| given.flags),
        }
    }

    #[cfg(feature = "otlp")]
    pub(crate) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// `version-trace-span-flags` in lower-case hexadecimal. What later versions append is passed over.
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
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            parent: None,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        let known = version != "ff" && !(version == "00" && more);
        (known && parsed.trace != 0 && parsed.span != 0).then_some(parsed)
    }

    /// The value of the answer's header.
    pub(crate) fn header(self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.to_string()).ok()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// Not zero, and different each time.
fn random() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_kept_and_a_broken_one_is_not() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = Trace::parse(text).unwrap();
        assert_eq!(parsed.to_string(), text);
        assert_eq!(Trace::parse(&text.replacen("00", "01", 1)).unwrap(), parsed);
        assert!(Trace::parse(&format!("01{}-later", &text[2..])).is_some());
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
            assert_eq!(Trace::parse(broken), None, "{broken}");
        }
        let headers = HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_static(text))]);
        let (one, other) = (Trace::begin(&headers, true), Trace::begin(&headers, true));
        assert_eq!((one.trace, one.flags, other.trace), (parsed.trace, 1, parsed.trace));
        assert!(one.span != parsed.span && one.span != other.span);
        assert_ne!(Trace::begin(&HeaderMap::new(), false).trace, Trace::begin(&HeaderMap::new(), false).trace);
    }
}
