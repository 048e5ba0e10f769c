//! `surprisal compare`: compares the reports of several models.

use std::path::{Path, PathBuf};

use surprisal_estimator::{Comparison, Report};

use crate::error::Error;
use crate::output::{print, print_status};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Two to six reports, as folders or report.json files; NAME=FOLDER sets the displayed name
    #[arg(required = true, num_args = 2..)]
    reports: Vec<String>,
    /// Accept reports on different texts, and show them side by side without differences
    #[arg(long)]
    any_corpus: bool,
    /// Folder for compare.html, the charts (SVG, PDF) and the numbers (CSV)
    #[arg(long, default_value = "surprisal-compare")]
    out: PathBuf,
}

/// Reads the reports and writes their comparison.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let reports = args.reports.iter().map(|argument| read_report(argument)).collect::<Result<Vec<_>, _>>()?;
    let comparison = if args.any_corpus { Comparison::of_any_corpus(reports)? } else { Comparison::new(reports)? };
    comparison.write(&args.out)?;
    print_status(format_args!("wrote {}", args.out.join("compare.html").display()));
    print(comparison.table())
}

/// Reads the report of an argument, `FOLDER` or `NAME=FOLDER`; returns its name and the report.
fn read_report(argument: &str) -> Result<(String, Report), Error> {
    let (name, path) = match argument.split_once('=') {
        Some((name, path)) => (name, path),
        None => (argument, argument),
    };
    let report = Report::read(Path::new(path))?;
    Ok((name.trim_end_matches('/').to_owned(), report))
}
