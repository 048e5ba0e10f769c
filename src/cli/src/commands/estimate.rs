//! `surprisal estimate`: runs an experiment file, or an experiment on text files under a running server's model.

use std::path::{Path, PathBuf};

use surprisal_estimator::{Experiment, ShardIndex, execute, execute_shard};

use super::experiment_flags::ExperimentFlags;
use crate::error::Error;
use crate::output::{print_result, write_report};
use crate::progress::tokens::TokenBar;
use crate::runtime::block_on;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One experiment file (.toml), or text files (UTF-8)
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    flags: ExperimentFlags,
    /// Print what would be asked and what that saves, and stop
    #[arg(long)]
    explain: bool,
    /// Folder for the report (HTML, JSON, and each chart as SVG and CSV), and for the model's answers as they come: started again,
    /// it goes on where it was
    #[arg(long, default_value = "surprisal-report")]
    out: PathBuf,
    /// Ask for one of several equal parts, such as 2/8, and keep its answers for `surprisal merge`; no report is written
    #[arg(long, value_parser = parse_shard, value_name = "I/N")]
    shard: Option<ShardIndex>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Plans the experiment, then explains it, answers one shard of it, or runs it and writes its report.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let experiment = read_experiment(args)?;
    // Before any request, and before a plan is shown that cannot be carried out.
    experiment.check()?;
    let plan = experiment.plan(experiment.documents()?)?;
    args.files.iter().try_for_each(|path| check_not_empty(path))?;
    if args.explain {
        println!("{plan}");
        return Ok(());
    }
    let mut bar = TokenBar::new("scoring");
    if let Some(shard) = args.shard {
        let progress = |progress| bar.update(progress);
        let folder = block_on(async { Ok(execute_shard(&experiment, &args.out, shard, progress).await?) })?;
        drop(bar);
        eprintln!("answers are in {}", folder.display());
        return Ok(());
    }
    let report = block_on(async { Ok(execute(&experiment, Some(&args.out), |progress| bar.update(progress)).await?) })?;
    drop(bar);
    write_report(&report, &args.out)?;
    print_result(&report, report.table(), args.json)
}

/// Rejects a path that does not exist, and an empty file.
fn check_not_empty(path: &Path) -> Result<(), Error> {
    let failed = |source| surprisal_estimator::Error::File { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_file() && metadata.len() == 0 {
        return Err(failed(std::io::Error::other("the file is empty")).into());
    }
    Ok(())
}

/// Parses a shard, such as `2/8`.
fn parse_shard(text: &str) -> Result<ShardIndex, String> {
    let malformed = || format!("{text} is not the number of a part and how many there are, such as 2/8");
    let (number, of) = text.split_once('/').ok_or_else(malformed)?;
    let [number, of] = [number, of].map(|count| count.parse().map_err(|_| malformed()));
    ShardIndex::new(number?, of?).map_err(|error| error.to_string())
}

/// Reads the experiment file, or makes an experiment of the text files and flags.
fn read_experiment(args: &Args) -> Result<Experiment, Error> {
    let is_experiment = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "toml");
    match &args.files[..] {
        [file] if is_experiment(file) && args.flags == ExperimentFlags::default() => Ok(Experiment::read(file)?),
        files if files.iter().any(is_experiment) => Err(Error::Usage(
            "an experiment file stands alone: what it measures is in it, not in flags or other files".to_owned(),
        )),
        files => Ok(args.flags.experiment(files)),
    }
}
