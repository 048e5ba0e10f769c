//! `surprisal report`: writes a report again from its JSON, in another unit or under another title.

use std::path::{Path, PathBuf};

use surprisal_estimator::{Report, Unit};

use crate::error::Error;
use crate::output::write_report;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A report's folder, or its report.json
    report: PathBuf,
    /// Give information in another unit
    #[arg(long, value_enum)]
    unit: Option<UnitChoice>,
    /// Another heading
    #[arg(long)]
    title: Option<String>,
    /// Folder to write into [default: the report's own]
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum UnitChoice {
    Nats,
    Bits,
}

/// Reads the report, changes it and writes it.
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
    print!("{}", report.table());
    Ok(())
}
