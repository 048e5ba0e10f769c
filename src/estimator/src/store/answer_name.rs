//! The names of answer files.

use std::fmt;
use std::ops::Range;

/// The part after the last dot of a name.
pub(crate) const EXTENSION: &str = "parquet";

/// The name of an answer file: `000000012-000000034-0123456789abcdef.parquet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AnswerName {
    /// The indices in the plan of the queries that the file answers.
    pub(crate) range: Range<usize>,
    /// The checksum of the file's bytes.
    pub(crate) checksum: String,
}

impl AnswerName {
    /// Parses a name; `None` if it is not that of an answer file.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.split('-');
        let (start, end, checksum) = (parts.next()?, parts.next()?, parts.next()?);
        let is_checksum = checksum.len() == 16 && checksum.bytes().all(|byte| byte.is_ascii_hexdigit());
        let name = Self { range: start.parse().ok()?..end.parse().ok()?, checksum: checksum.to_owned() };
        (is_checksum && parts.next().is_none()).then_some(name)
    }
}

impl fmt::Display for AnswerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:09}-{:09}-{}.{EXTENSION}", self.range.start, self.range.end, self.checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_as_written() {
        let name = AnswerName { range: 12..1_234_567_890, checksum: "0123456789abcdef".to_owned() };
        assert_eq!(name.to_string(), "000000012-1234567890-0123456789abcdef.parquet");
        assert_eq!(AnswerName::parse(&name.to_string()), Some(name));
        for other in [
            "manifest.json",
            "a.parquet",
            "1-2.parquet",
            "1-2-0123456789abcdef",
            "1-2-0123456789abcdef.parquet.5f.tmp",
            "1-2-3-0123456789abcdef.parquet",
            "1-2-0123456789abcdeg.parquet",
            "-1-2-0123456789abcdef.parquet",
        ] {
            assert_eq!(AnswerName::parse(other), None, "{other}");
        }
    }
}
