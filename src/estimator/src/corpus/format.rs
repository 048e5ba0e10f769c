//! The formats of a corpus's files, and the names and first bytes by which files are recognized.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The format of a corpus's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A file that is one text.
    Text,
    /// JSON Lines: an object with a text, or a string, on each line.
    Jsonl,
    /// JSON: an array of objects or strings, or a sequence of them.
    Json,
    /// Comma-separated values with a header (RFC 4180).
    Csv,
    /// Tab-separated values with a header, quoted like CSV.
    Tsv,
    /// Parquet.
    Parquet,
}

/// The file extensions of each format.
const EXTENSIONS: [(&str, Format); 8] = [
    ("txt", Format::Text),
    ("md", Format::Text),
    ("jsonl", Format::Jsonl),
    ("ndjson", Format::Jsonl),
    ("json", Format::Json),
    ("csv", Format::Csv),
    ("tsv", Format::Tsv),
    ("parquet", Format::Parquet),
];

/// The extensions of compressed files that can be read.
const COMPRESSED: [&str; 2] = ["gz", "zst"];

/// The supported extensions, for error messages.
pub(crate) const SUPPORTED: &str =
    ".txt, .md, .jsonl, .ndjson, .json, .csv, .tsv and .parquet, also compressed as .gz or .zst";

/// Extensions of formats that cannot be read as text, and the names of these formats.
const UNSUPPORTED: [(&[&str], &str); 16] = [
    (&["pdf"], "PDF"),
    (&["doc", "docx"], "Word"),
    (&["xls", "xlsx"], "Excel"),
    (&["odt", "ods", "odp"], "OpenDocument"),
    (&["rtf"], "RTF"),
    (&["epub", "mobi", "azw3"], "e-book"),
    (&["arrow", "feather", "ipc"], "Arrow"),
    (&["avro", "orc"], "Avro or ORC"),
    (&["zip", "7z", "rar"], "archive"),
    (&["tar", "tgz", "tbz2", "txz"], "tar archive"),
    (&["bz2", "xz", "lzma", "lz4", "br", "sz", "z"], "compressed (neither .gz nor .zst)"),
    (&["npy", "npz", "pt", "pkl", "pickle", "safetensors", "bin"], "binary"),
    (&["db", "sqlite", "sqlite3", "duckdb"], "database"),
    (&["h5", "hdf5", "tfrecord", "mds"], "binary data set"),
    (&["png", "jpg", "jpeg", "gif", "webp", "svg", "tif", "tiff"], "image"),
    (&["mp3", "wav", "flac", "ogg", "mp4", "mkv", "webm"], "audio or video"),
];

/// The first bytes of files that are not text, and what these files are.
const SIGNATURES: [(&[u8], &str); 10] = [
    (b"PK\x03\x04", "a ZIP archive, or a Word, Excel or e-book file"),
    (b"%PDF-", "a PDF file"),
    (b"{\\rtf", "an RTF file"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x1f\x8b", "compressed with gzip more than once"),
    (b"\xfd7zXZ\0", "compressed with xz"),
    (b"BZh91AY&SY", "compressed with bzip2"),
    (b"\x04\x22\x4d\x18", "compressed with LZ4"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
];

/// The format that a file's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamedFormat {
    Supported(Format),
    /// A format that cannot be read, by name.
    Unsupported(&'static str),
    /// No extension, or one that stands for no known format.
    Unknown,
}

impl NamedFormat {
    /// Returns the format of a path from its extension, ignoring case and the extension of a compressed file.
    pub(crate) fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let plain = COMPRESSED.iter().find_map(|extension| name.strip_suffix(extension)?.strip_suffix('.'));
        let Some((_, extension)) = plain.unwrap_or(&name).rsplit_once('.') else { return Self::Unknown };
        if let Some((_, format)) = EXTENSIONS.iter().find(|(known, _)| *known == extension) {
            return Self::Supported(*format);
        }
        match UNSUPPORTED.iter().find(|(extensions, _)| extensions.contains(&extension)) {
            Some((_, name)) => Self::Unsupported(name),
            None => Self::Unknown,
        }
    }
}

/// Returns a description of a file that begins with `head` and is not text; `None` if it may be text.
pub(crate) fn not_text(head: &[u8]) -> Option<&'static str> {
    SIGNATURES.iter().find(|(signature, _)| head.starts_with(signature)).map(|(_, description)| *description)
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 6] = [Self::Text, Self::Jsonl, Self::Json, Self::Csv, Self::Tsv, Self::Parquet];

    /// Returns the name in an experiment file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Jsonl => "jsonl",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Parquet => "parquet",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let expected = || format!("expected one of {}", Self::ALL.map(Self::name).join(", "));
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_formats() {
        for (name, format) in [
            ("a.txt", NamedFormat::Supported(Format::Text)),
            ("A.TXT.GZ", NamedFormat::Supported(Format::Text)),
            ("a.md", NamedFormat::Supported(Format::Text)),
            ("a.b.ndjson.zst", NamedFormat::Supported(Format::Jsonl)),
            ("a.json.zst", NamedFormat::Supported(Format::Json)),
            ("a.tsv", NamedFormat::Supported(Format::Tsv)),
            ("a.tar.gz", NamedFormat::Unsupported("tar archive")),
            ("a.txt.bz2", NamedFormat::Unsupported("compressed (neither .gz nor .zst)")),
            ("a.docx", NamedFormat::Unsupported("Word")),
            ("a.text", NamedFormat::Unknown),
            ("a", NamedFormat::Unknown),
            ("a.gz", NamedFormat::Unknown),
            ("txt", NamedFormat::Unknown),
            ("mytxt.gz", NamedFormat::Unknown),
        ] {
            assert_eq!(NamedFormat::of(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn names_of_formats_parse() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
            assert_eq!(serde_json::to_value(format).unwrap(), format.name());
        }
        assert_eq!("txt".parse::<Format>().unwrap_err(), "expected one of text, jsonl, json, csv, tsv, parquet");
    }
}
