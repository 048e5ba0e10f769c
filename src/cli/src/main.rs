//! The `surprisal` command: serve a model, ask it, estimate mutual information from it, or see it all in a demo.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage.
//!
//! Start with `commands/`, which has a file for each subcommand. `settings/` and `model/` are what `serve` and `demo` share.

mod arguments;
mod commands;
mod error;
mod listener;
mod model;
mod output;
mod progress;
mod runtime;
mod settings;
mod signals;

use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use commands::Cli;
use error::Error;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("SURPRISAL_LOG").unwrap_or_else(|_| EnvFilter::new(cli.log_filter()));
    let colours = std::io::stderr().is_terminal();
    // A thread of its own writes the log, so that a slow reader of it delays no request. The guard flushes it at the end.
    let (log, _guard) = tracing_appender::non_blocking(std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(log).with_ansi(colours).init();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output closed the pipe.
        Err(Error::Io(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
