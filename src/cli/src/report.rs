//! `surprisal report` and `surprisal compare`: what was estimated, shown again and side by side.

use std::path::{Path, PathBuf};

use surprisal_estimator::{Comparison, Report, Unit};

use crate::error::Error;
use crate::estimate::write;

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

#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// Two to six reports' folders, or their report.json; NAME=FOLDER gives one a name of its own
    #[arg(required = true, num_args = 2..)]
    reports: Vec<String>,
    /// Folder for compare.html, the charts (SVG) and the numbers (CSV)
    #[arg(long, default_value = "surprisal-compare")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum UnitChoice {
    Nats,
    Bits,
}

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
    let own = if args.report.is_dir() { Some(args.report.as_path()) } else { args.report.parent() };
    write(&report, args.out.as_deref().or(own).unwrap_or(Path::new(".")))?;
    print!("{}", report.table());
    Ok(())
}

pub(crate) fn compare(args: &CompareArgs) -> Result<(), Error> {
    let named = |text: &String| {
        let (name, path) = text.split_once('=').map_or((None, text.as_str()), |(name, path)| (Some(name), path));
        let report = Report::read(Path::new(path))?;
        Ok::<_, Error>((name.unwrap_or(path).trim_end_matches('/').to_owned(), report))
    };
    let reports = args.reports.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    let comparison = Comparison::new(reports)?;
    comparison.write(&args.out)?;
    eprintln!("wrote {}", args.out.join("compare.html").display());
    print!("{}", comparison.table());
    Ok(())
}
