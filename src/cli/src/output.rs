//! Output of results, to stdout and to folders.

use std::fmt::Display;
use std::path::Path;

use serde::Serialize;
use surprisal_estimator::Report;

use crate::error::Error;

/// Prints a result to stdout as JSON or as text.
pub(crate) fn print_result(result: &impl Serialize, text: impl Display, as_json: bool) -> Result<(), Error> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(result)?);
    } else {
        print!("{text}");
    }
    Ok(())
}

/// Creates a folder and its parents, if they do not exist.
pub(crate) fn create_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Writes report.html, report.json, charts as SVG, and tables as CSV into a folder.
pub(crate) fn write_report(report: &Report, out: &Path) -> Result<(), Error> {
    report.write_all(out)?;
    eprintln!("wrote {}", out.join("report.html").display());
    Ok(())
}
