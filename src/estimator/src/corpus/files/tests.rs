//! Tests of listing files: named, in folders, hidden, and behind links.

use super::*;

/// Creates empty files below a folder.
fn folder(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    dir
}

/// Lists a folder: the files to read and their formats, and the omitted files and the reasons.
fn list(dir: &tempfile::TempDir, declared: Option<Format>) -> (Vec<String>, Vec<String>) {
    let CorpusFiles { files, omissions } = CorpusFiles::list(&[dir.path().to_owned()], declared).unwrap();
    let short = |path: &Path| path.strip_prefix(dir.path()).unwrap().display().to_string();
    let files = files.iter().map(|file| format!("{} {}", short(&file.path), file.format)).collect();
    let omissions = omissions.iter().map(|one| format!("{} {}", short(Path::new(&one.path)), one.reason)).collect();
    (files, omissions)
}

#[test]
fn folders_are_walked_in_the_order_of_paths() {
    let dir = folder(&["b.txt", "a.d/z.md", "a.txt", "a/c.jsonl.zst", "a/b/c.ndjson", "c.csv.gz", "d.JSON", "e.tsv"]);
    let (files, omissions) = list(&dir, None);
    assert_eq!(
        files,
        [
            "a/b/c.ndjson jsonl",
            "a/c.jsonl.zst jsonl",
            "a.d/z.md text",
            "a.txt text",
            "b.txt text",
            "c.csv.gz csv",
            "d.JSON json",
            "e.tsv tsv"
        ]
    );
    assert!(omissions.is_empty(), "{omissions:?}");
}

#[test]
fn omitted_files_are_listed() {
    let dir = folder(&[
        "a.txt",
        ".git/b.txt",
        ".hidden.txt",
        "__MACOSX/c.txt",
        "d.txt~",
        "#e.txt#",
        "f.txt.bak",
        "g.pdf",
        "h",
        "i.text",
        "README.md",
        "j.txt.xz",
    ]);
    let (files, omissions) = list(&dir, None);
    assert_eq!(files, ["a.txt text"]);
    assert_eq!(
        omissions,
        [
            "#e.txt# backup or temporary file",
            ".git hidden",
            ".hidden.txt hidden",
            "README.md description of a data set; name the file to read it",
            "__MACOSX hidden",
            "d.txt~ backup or temporary file",
            "f.txt.bak backup or temporary file",
            "g.pdf format not supported: PDF",
            "h unknown format; name the file, or set `format`",
            "i.text unknown format; name the file, or set `format`",
            "j.txt.xz format not supported: compressed (neither .gz nor .zst)",
        ]
    );
}

#[test]
fn a_declared_format_applies_to_unknown_names() {
    let dir = folder(&["a.txt", "b", "c.csv", "d.html", "e.pdf"]);
    let (files, omissions) = list(&dir, Some(Format::Text));
    assert_eq!(files, ["a.txt text", "b text", "d.html text"]);
    assert_eq!(omissions, ["c.csv named csv, but `format` is text", "e.pdf format not supported: PDF"]);
    let named = [dir.path().join("c.csv"), dir.path().join("e.pdf")];
    let found = CorpusFiles::list(&named, Some(Format::Jsonl)).unwrap();
    assert!(found.files.iter().all(|file| file.format == Format::Jsonl) && found.files.len() == 2);
}

#[test]
fn named_files_are_read_or_rejected() {
    let dir = folder(&["README.md", ".hidden", "b.text", "c.pdf"]);
    let list = |name: &str| CorpusFiles::list(&[dir.path().join(name)], None);
    for name in ["README.md", ".hidden", "b.text"] {
        assert_eq!(list(name).unwrap().files[0].format, Format::Text);
    }
    let error = list("c.pdf").unwrap_err().to_string();
    assert!(error.contains("c.pdf: the format of this file, PDF, is not supported"), "{error}");
}

#[test]
fn a_folder_without_files_to_read_is_an_error() {
    let dir = folder(&["g.pdf", "sub/h"]);
    let error = CorpusFiles::list(&[dir.path().to_owned()], None).unwrap_err().to_string();
    assert!(error.starts_with(dir.path().to_str().unwrap()), "{error}");
    assert!(error.contains("expected .txt, .md, .jsonl") && error.contains("g.pdf"), "{error}");
    let error = CorpusFiles::list(&[dir.path().to_owned()], Some(Format::Csv)).unwrap();
    assert_eq!(error.files.len(), 1);
}

#[cfg(unix)]
#[test]
fn links_are_followed_except_in_circles() {
    use std::os::unix::fs::symlink;
    let dir = folder(&["a/b.txt"]);
    let elsewhere = folder(&["c.txt"]);
    symlink(elsewhere.path(), dir.path().join("linked")).unwrap();
    symlink(dir.path(), dir.path().join("a/up")).unwrap();
    symlink(elsewhere.path().join("c.txt"), dir.path().join("d.txt")).unwrap();
    let (files, omissions) = list(&dir, None);
    assert_eq!(files, ["a/b.txt text", "d.txt text", "linked/c.txt text"]);
    assert_eq!(omissions, ["a/up a link to a folder that contains it"]);
    symlink("nowhere", dir.path().join("e.txt")).unwrap();
    let error = CorpusFiles::list(&[dir.path().to_owned()], None).unwrap_err().to_string();
    assert!(error.contains("e.txt: "), "{error}");
}
