//! `surprisal report`: rewrites a report from its JSON, with another unit or title.

use std::path::{Path, PathBuf};

use surprisal_estimator::{Report, Unit};

use crate::error::Error;
use crate::output::{print, write_report};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the report, or its report.json
    report: PathBuf,
    /// New unit of information
    #[arg(long, value_enum)]
    unit: Option<UnitChoice>,
    /// New title
    #[arg(long)]
    title: Option<String>,
    /// Folder to write to [default: the report's folder]
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum UnitChoice {
    Nats,
    Bits,
}

/// Reads, changes and writes the report.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let mut report = Report::read(&args.report)?;
    if let Some(title) = &args.title {
        report.title.clone_from(title);
    }
    report = match args.unit {
        Some(UnitChoice::Nats) => report.in_unit(Unit::Nats),
        Some(UnitChoice::Bits) => report.in_unit(Unit::Bits),
        None => report,
    };
    let folder = if args.report.is_dir() { Some(args.report.as_path()) } else { args.report.parent() };
    write_report(&report, args.out.as_deref().or(folder).unwrap_or(Path::new(".")))?;
    print(report.table())
}
