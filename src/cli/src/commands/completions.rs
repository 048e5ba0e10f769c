//! `surprisal completions`: a shell's completions, made from the command's own definition.

use std::io::Write as _;

use clap::Command;
use clap_complete::Shell;

use crate::error::Error;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell; its manual says where the output goes, as in `surprisal completions fish > ~/.config/fish/completions/surprisal.fish`
    shell: Shell,
}

/// Prints the completions.
pub(crate) fn run(args: &Args, mut command: Command) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "surprisal", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
