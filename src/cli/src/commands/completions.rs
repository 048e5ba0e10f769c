//! `surprisal completions`: shell completions, generated from the definition of the command line.

use clap::Command;
use clap_complete::Shell;

use crate::error::Error;
use crate::output::print;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shell to print completions for, as in `surprisal completions fish > ~/.config/fish/completions/surprisal.fish`
    shell: Shell,
}

/// Prints the completions.
pub(crate) fn run(args: &Args, mut command: Command) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "surprisal", &mut script);
    print(String::from_utf8_lossy(&script))
}
