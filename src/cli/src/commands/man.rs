//! `surprisal man`: manual pages, made from the command's own definition.

use std::path::PathBuf;

use clap::Command;

use crate::error::Error;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write a page a command into this folder, instead of the main page to the screen
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Prints the manual, or writes a page for each command.
pub(crate) fn run(args: &Args, command: Command) -> Result<(), Error> {
    match &args.out {
        Some(out) => {
            std::fs::create_dir_all(out)?;
            clap_mangen::generate_to(command, out)?;
        }
        None => clap_mangen::Man::new(command).render(&mut std::io::stdout())?,
    }
    Ok(())
}
