//! The subcommands, one file each: its flags, and the function that runs it.
//!
//! Start with [`Cli`] and its [`run`](Cli::run). `experiment_flags.rs` has the flags of an experiment on text files.

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

/// Log-probabilities from Llama-class models, and mutual information from them.
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
    /// Ask a running server how probable a text is
    Score(score::Args),
    /// Estimate how the mutual information between halves of a text grows with its length
    Estimate(estimate::Args),
    /// Put the answers of an experiment's shards together
    Merge(merge::Args),
    /// Write a report again from its JSON, in another unit or under another title
    Report(report::Args),
    /// Put several models' reports side by side
    Compare(compare::Args),
    /// Serve the built-in oracle, measure its mutual information, and show it beside the truth
    Demo(demo::Args),
    /// Put a load on a server, or on two in turns, and measure what it takes
    Bench(bench::Args),
    /// Say what this machine has, and what a model would need
    Doctor(doctor::Args),
    /// Print what a shell needs to complete this command
    Completions(completions::Args),
    /// Print the manual, or write a page a command
    Man(man::Args),
}

impl Cli {
    /// Returns the log lines that the command shows by default, as a filter.
    pub(crate) fn log_filter(&self) -> &'static str {
        match self.command {
            Command::Serve(_) => "info",
            // A single request: its failure is printed at the end.
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
