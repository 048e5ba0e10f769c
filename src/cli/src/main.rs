//! The `surprisal` command: serves a model, scores texts, estimates mutual information, and load-tests servers.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 for success, 1 for failure, 2 for wrong usage.
//!
//! Start with `commands/`, which has one file per subcommand. `serve` and `demo` share `settings/` and `model/`.

// Printing panics if it fails; `output` returns an error instead.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod allocator;
mod arguments;
mod commands;
mod error;
mod listener;
mod log;
mod model;
mod output;
mod progress;
mod runtime;
mod security;
mod settings;
mod signals;

use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use commands::Cli;
use error::Error;

fn main() -> ExitCode {
    allocator::configure();
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output closed the pipe.
        Err(Error::Stdout(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            output::print_status(format_args!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Starts the log and runs the command. The log's last lines are written before an error is printed.
fn run(cli: Cli) -> Result<(), Error> {
    let filter = EnvFilter::try_from_env("SURPRISAL_LOG").unwrap_or_else(|_| EnvFilter::new(cli.log_filter()));
    let colors = std::io::stderr().is_terminal();
    let (writer, _guard) = log::start()?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colors).init();
    cli.run()
}
