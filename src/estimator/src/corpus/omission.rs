//! Files and texts that a corpus omits.

use serde::{Deserialize, Serialize};

/// The number of paths that a summary names.
const NAMED: usize = 8;

/// A file or folder that a corpus omits, or texts of a file that it omits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omission {
    /// The path of the file or folder.
    pub path: String,
    /// The reason.
    pub reason: String,
    /// The number of omitted texts; `None` if the whole file or folder is omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<usize>,
}

impl Omission {
    /// Returns one sentence for each reason, such as `2 files (hidden): a/.b, a/.c`.
    pub(crate) fn summaries(all: &[Self]) -> Vec<String> {
        let mut groups: Vec<(bool, &str, Vec<&Self>)> = Vec::new();
        for one in all {
            let key = (one.texts.is_some(), one.reason.as_str());
            match groups.iter_mut().find(|(texts, reason, _)| (*texts, *reason) == key) {
                Some((.., group)) => group.push(one),
                None => groups.push((key.0, key.1, vec![one])),
            }
        }
        groups.iter().map(|(_, reason, group)| summary(reason, group)).collect()
    }
}

fn summary(reason: &str, group: &[&Omission]) -> String {
    let texts: usize = group.iter().filter_map(|one| one.texts).sum();
    let files = count(group.len(), "file");
    let what = if texts == 0 { files } else { format!("{} in {files}", count(texts, "text")) };
    let paths = group.iter().map(|one| one.path.clone());
    format!("{what} ({reason}): {}", first_names(paths))
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Joins the first eight names, and states the number of further ones.
pub(crate) fn first_names(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let names: Vec<String> = names.take(NAMED).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_group_by_reason() {
        let one = |path: &str, reason: &str, texts| Omission { path: path.into(), reason: reason.into(), texts };
        let all = [one("a", "hidden", None), one("b", "empty", Some(2)), one("c", "hidden", None)];
        assert_eq!(Omission::summaries(&all), ["2 files (hidden): a, c", "2 texts in 1 file (empty): b"]);
        let many: Vec<Omission> = (0..10).map(|i| one(&i.to_string(), "hidden", None)).collect();
        assert_eq!(Omission::summaries(&many), ["10 files (hidden): 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"]);
        assert!(Omission::summaries(&[]).is_empty());
    }
}
