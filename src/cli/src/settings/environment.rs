//! A check of the environment for unknown `SURPRISAL_` variables.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

/// The known variables that belong to no flag.
const VARIABLES_WITHOUT_FLAG: [&str; 2] = ["SURPRISAL_API_KEYS", "SURPRISAL_LOG"];

/// Warns about environment variables that begin with `SURPRISAL_` but that no command reads.
pub(crate) fn warn_of_unknown_variables(command: &clap::Command) {
    let unknown = unknown_variables(command, std::env::vars_os().map(|(name, _)| name));
    if !unknown.is_empty() {
        tracing::warn!(
            variables = unknown.join(", "),
            "ignoring unknown environment variables; see `surprisal serve --help`, and the configuration file for \
             settings without a flag"
        );
    }
}

/// Returns the names that begin with `SURPRISAL_` but that no command reads, sorted.
fn unknown_variables(command: &clap::Command, names: impl Iterator<Item = OsString>) -> Vec<String> {
    let flags = command.get_subcommands().flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_env);
    let known: HashSet<&OsStr> = flags.chain(VARIABLES_WITHOUT_FLAG.map(OsStr::new)).collect();
    let unknown = names.filter(|name| !known.contains(name.as_os_str())).filter_map(|name| name.into_string().ok());
    let mut unknown: Vec<String> = unknown.filter(|name| name.starts_with("SURPRISAL_")).collect();
    unknown.sort_unstable();
    unknown
}
