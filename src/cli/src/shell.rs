//! What a shell and `man` want to know about the command: completions and manual pages, made of its own definition.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;

use crate::error::Error;

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell; its manual says where the output goes, as in `surprisal completions fish > ~/.config/fish/completions/surprisal.fish`
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Write a page a command into this folder, instead of the main page to the screen
    #[arg(long)]
    out: Option<PathBuf>,
}

pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "surprisal", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

pub(crate) fn man(args: &ManArgs, command: Command) -> Result<(), Error> {
    match &args.out {
        Some(out) => {
            std::fs::create_dir_all(out)?;
            clap_mangen::generate_to(command, out)?;
        }
        None => clap_mangen::Man::new(command).render(&mut std::io::stdout())?,
    }
    Ok(())
}
