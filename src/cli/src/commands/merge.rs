//! `surprisal merge`: puts the answers of an experiment's shards into one folder.

use std::path::PathBuf;

use indicatif::HumanCount;

use crate::error::Error;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folders that `surprisal estimate --shard` was given as --out
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// Folder for all answers: `surprisal estimate` on the same experiment with this as its --out asks for nothing more
    #[arg(long)]
    out: PathBuf,
}

/// Merges the folders.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let merged = surprisal_estimator::merge(&args.folders, &args.out)?;
    println!("{} steps, all answered, in {}", HumanCount(merged.answered as u64), merged.folder.display());
    Ok(())
}
