//! The `surprisal` command: serve a model, ask it, estimate mutual information from it, or see it all in a demo.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage.

mod bench;
mod demo;
mod device;
mod doctor;
mod error;
mod estimate;
mod experiment;
mod merge;
mod progress;
mod report;
mod score;
mod serve;
mod served;
mod settings;
mod shell;

use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::{CommandFactory, Parser, Subcommand};
use tokio::runtime;
use tracing_subscriber::EnvFilter;

use error::Error;

/// Log-probabilities from Llama-class models, and mutual information from them.
#[derive(Debug, Parser)]
#[command(version, long_version = env!("SURPRISAL_VERSION"), arg_required_else_help = true, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a model's log-probabilities over HTTP
    Serve(serve::Args),
    /// Ask a running server how probable a text is
    Score(score::Args),
    /// Estimate how the mutual information between halves of a text grows with its length
    Estimate(estimate::Args),
    /// Put the answers of an experiment's shards together
    Merge(merge::Args),
    /// Write a report again from its JSON, in another unit or under another title
    Report(report::Args),
    /// Put several models' reports side by side
    Compare(report::CompareArgs),
    /// Serve the built-in oracle, measure its mutual information, and show it beside the truth
    Demo(demo::Args),
    /// Put a load on a server, or on two in turns, and measure what it takes
    Bench(bench::Args),
    /// Say what this machine has, and what a model would need
    Doctor(doctor::Args),
    /// Print what a shell needs to complete this command
    Completions(shell::CompletionsArgs),
    /// Print the manual, or write a page a command
    Man(shell::ManArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.command {
        Command::Serve(_) => "info",
        // One question: what becomes of it is told at the end.
        Command::Score(_) => "error",
        _ => progress::LOG_LEVEL,
    };
    let filter = EnvFilter::try_from_env("SURPRISAL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::stderr().is_terminal();
    // A thread of its own writes, so that whoever does not read the log holds up no request.
    let (log, _written_at_the_end) = tracing_appender::non_blocking(std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(log).with_ansi(colours).init();
    let done = match cli.command {
        Command::Serve(args) => {
            settings::warn_of_unknown_variables(&Cli::command());
            serve::run(&args)
        }
        Command::Score(args) => score::run(&args),
        Command::Estimate(args) => estimate::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Compare(args) => report::compare(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => shell::completions(&args, Cli::command()),
        Command::Man(args) => shell::man(&args, Cli::command()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has had enough of it.
        Err(Error::Io(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs a future on a new tokio runtime, of a thread a core.
fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}

/// As [`block_on`], where an engine computes too: of a thread for two cores. A pass waits for each of its threads, and a thread of
/// HTTP's that wakes up takes a core from one of them; the fewer there are, the more each does once it is awake.
fn block_on_beside_engine<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let threads = available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?.block_on(future)
}
