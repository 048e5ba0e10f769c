//! The subcommands. Each has a file with its flags and a function that runs it.
//!
//! Start with [`Cli`] and its [`run`](Cli::run). `experiment_flags.rs` has the flags that describe an experiment on
//! texts.

mod bench;
mod compare;
mod completions;
mod demo;
mod doctor;
mod estimate;
mod experiment_flags;
mod man;
mod merge;
mod report;
mod score;
mod serve;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::Error;
use crate::progress::LOG_FILTER;
use crate::settings::warn_of_unknown_variables;

/// Serve log-probabilities of Llama-class models, and estimate mutual information from them.
#[derive(Debug, Parser)]
#[command(version, long_version = env!("SURPRISAL_VERSION"), arg_required_else_help = true, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a model's log-probabilities over HTTP
    Serve(serve::Args),
    /// Print the log-probability of each token of a text, as scored by a running server
    Score(score::Args),
    /// Estimate how the mutual information between the two parts of a text grows with the text's length
    Estimate(estimate::Args),
    /// Merge the saved answers of an experiment's shards
    Merge(merge::Args),
    /// Rewrite a report with another unit or title
    Report(report::Args),
    /// Compare the reports of several models
    Compare(compare::Args),
    /// Serve the built-in oracle, estimate its mutual information, and compare the estimates with the exact values
    Demo(demo::Args),
    /// Load-test one server, or compare two
    Bench(bench::Args),
    /// Describe this machine, and plan hardware for a model
    Doctor(doctor::Args),
    /// Print shell completions
    Completions(completions::Args),
    /// Print the manual page, or write one page per command
    Man(man::Args),
}

impl Cli {
    /// Returns the command's default log filter.
    pub(crate) fn log_filter(&self) -> &'static str {
        match self.command {
            Command::Serve(_) => "info",
            // The command sends a single request, and prints the error at the end if it fails.
            Command::Score(_) => "error",
            _ => LOG_FILTER,
        }
    }

    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Serve(args) => {
                warn_of_unknown_variables(&Self::command());
                serve::run(&args)
            }
            Command::Score(args) => score::run(&args),
            Command::Estimate(args) => estimate::run(&args),
            Command::Merge(args) => merge::run(&args),
            Command::Report(args) => report::run(&args),
            Command::Compare(args) => compare::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Bench(args) => bench::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Completions(args) => completions::run(&args, Self::command()),
            Command::Man(args) => man::run(&args, Self::command()),
        }
    }
}
