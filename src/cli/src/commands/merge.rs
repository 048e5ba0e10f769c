//! `surprisal merge`: merges the answers of an experiment's shards into one folder.

use std::path::PathBuf;

use indicatif::HumanCount;

use crate::error::Error;
use crate::output::print;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders that were passed to `surprisal estimate --shard` as --out or --answers
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// Folder for the merged answers; `surprisal estimate` with the same experiment and --out finds all answers there,
    /// and sends no queries
    #[arg(long)]
    out: PathBuf,
}

/// Merges the folders.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let merged = surprisal_estimator::merge(&args.folders, &args.out)?;
    print(format_args!("merged {} answers into {}\n", HumanCount(merged.answered as u64), merged.folder.display()))
}
