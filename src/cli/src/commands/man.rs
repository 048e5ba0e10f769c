//! `surprisal man`: manual pages, generated from the definition of the command line.

use std::path::PathBuf;

use clap::Command;

use crate::error::Error;
use crate::output::{create_folder, print};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder for one page per command [default: print the main page only]
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Prints the main page, or writes one page per command.
pub(crate) fn run(args: &Args, command: Command) -> Result<(), Error> {
    match &args.out {
        Some(out) => {
            create_folder(out)?;
            clap_mangen::generate_to(command, out).map_err(|source| Error::File { path: out.clone(), source })
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            print(String::from_utf8_lossy(&page))
        }
    }
}
