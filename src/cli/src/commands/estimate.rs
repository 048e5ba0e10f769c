//! `surprisal estimate`: runs an experiment from a file, or one on given texts, with a running server's model.

use std::path::{Path, PathBuf};

use surprisal_estimator::{Experiment, ShardIndex, execute, execute_shard};

use super::experiment_flags::ExperimentFlags;
use crate::error::Error;
use crate::output::{print, print_result, print_status, write_report};
use crate::progress::tokens::TokenBar;
use crate::runtime::block_on;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One experiment file (.toml); or files with texts (.txt, .md, .jsonl, .ndjson, .json, .csv, .tsv, .parquet, also
    /// as .gz or .zst), or folders of these
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    flags: ExperimentFlags,
    /// Print the plan and its cost, and exit without sending requests
    #[arg(long)]
    explain: bool,
    /// Folder for the report (HTML, JSON, charts as SVG and PDF, and tables as CSV)
    #[arg(long, default_value = "surprisal-report")]
    out: PathBuf,
    /// Folder for the model's saved answers, from which an interrupted run resumes [default: same as --out]
    #[arg(long, value_name = "FOLDER")]
    answers: Option<PathBuf>,
    /// Shard to run, such as 2/8; saves the answers for `surprisal merge`, and writes no report
    #[arg(long, value_parser = parse_shard, value_name = "I/N")]
    shard: Option<ShardIndex>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Plans the experiment. Then prints the plan, runs one shard, or runs the whole experiment and writes the report.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let experiment = read_experiment(args)?;
    // Fails before any request, and before printing a plan that cannot run.
    experiment.check()?;
    let plan = experiment.expected_plan()?;
    args.files.iter().try_for_each(|path| check_not_empty(path))?;
    if args.explain {
        return print(format_args!("{plan}\n"));
    }
    let answers = args.answers.as_ref().unwrap_or(&args.out);
    let mut bar = TokenBar::new("scoring");
    if let Some(shard) = args.shard {
        let progress = |progress| bar.update(progress);
        let folder = block_on(async { Ok(execute_shard(&experiment, answers, shard, progress).await?) })?;
        drop(bar);
        print_status(format_args!("saved the answers in {}", folder.display()));
        return Ok(());
    }
    let report = block_on(async { Ok(execute(&experiment, Some(answers), |progress| bar.update(progress)).await?) })?;
    drop(bar);
    // The results are printed even if they cannot be written.
    let written = write_report(&report, &args.out);
    print_result(&report, report.table(), args.json)?;
    written.map_err(|error| match experiment.model {
        Some(_) => Error::ReportUnwritten { error: Box::new(error), answers: answers.clone() },
        None => error,
    })
}

/// Rejects an empty file and a path that does not exist.
fn check_not_empty(path: &Path) -> Result<(), Error> {
    let failed = |source| surprisal_estimator::Error::File { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_file() && metadata.len() == 0 {
        return Err(failed(std::io::Error::other("the file is empty; pass a file with text")).into());
    }
    Ok(())
}

/// Parses a shard, such as `2/8`.
fn parse_shard(text: &str) -> Result<ShardIndex, String> {
    let malformed = || format!("expected a shard and the number of shards, such as 2/8, got {text}");
    let (number, of) = text.split_once('/').ok_or_else(malformed)?;
    let [number, of] = [number, of].map(|count| count.parse().map_err(|_| malformed()));
    ShardIndex::new(number?, of?).map_err(|error| error.to_string())
}

/// Reads the experiment file, or builds an experiment from the texts and flags.
fn read_experiment(args: &Args) -> Result<Experiment, Error> {
    let is_experiment = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "toml");
    match &args.files[..] {
        [file] if is_experiment(file) && args.flags == ExperimentFlags::default() => Ok(Experiment::read(file)?),
        files if files.iter().any(is_experiment) => Err(Error::Usage(
            "an experiment file cannot be combined with other files or experiment flags; edit the experiment file \
             instead"
                .to_owned(),
        )),
        files => Ok(args.flags.experiment(files)),
    }
}
