//! Output of results, to stdout and to folders, and of status messages, to stderr.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use surprisal_estimator::Report;

use crate::error::Error;

/// Prints a result to stdout as JSON or as text.
pub(crate) fn print_result(result: &impl Serialize, text: impl Display, as_json: bool) -> Result<(), Error> {
    if as_json { print_json(result) } else { print(text) }
}

/// Prints a result to stdout as JSON.
pub(crate) fn print_json(result: &impl Serialize) -> Result<(), Error> {
    print(format_args!("{}\n", serde_json::to_string_pretty(result)?))
}

/// Prints a text to stdout. Fails if it cannot be written, for example to a full disk.
pub(crate) fn print(text: impl Display) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Error::Stdout)
}

/// Prints a line to stderr. The command goes on if nobody can read it, for example because the disk is full.
pub(crate) fn print_status(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Creates a folder and its parents, if they do not exist.
pub(crate) fn create_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Writes report.html, report.json, charts as SVG and PDF, and tables as CSV into a folder.
pub(crate) fn write_report(report: &Report, out: &Path) -> Result<(), Error> {
    report.write_all(out)?;
    print_status(format_args!("wrote {}", out.join("report.html").display()));
    Ok(())
}
