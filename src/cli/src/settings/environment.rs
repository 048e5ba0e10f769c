//! A check of the environment: variables that look like settings, but that nothing reads.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

/// The variables that are read beside those of flags.
const VARIABLES_WITHOUT_FLAG: [&str; 2] = ["SURPRISAL_API_KEYS", "SURPRISAL_LOG"];

/// Warns of environment variables that begin with `SURPRISAL_` and that no command reads.
pub(crate) fn warn_of_unknown_variables(command: &clap::Command) {
    let unknown = unknown_variables(command, std::env::vars_os().map(|(name, _)| name));
    if !unknown.is_empty() {
        tracing::warn!(
            "nothing reads {}: `surprisal serve --help` names the variables there are; other settings are the file's alone",
            unknown.join(", ")
        );
    }
}

/// Returns the names that begin with `SURPRISAL_` and that no command reads, sorted.
fn unknown_variables(command: &clap::Command, names: impl Iterator<Item = OsString>) -> Vec<String> {
    let flags = command.get_subcommands().flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_env);
    let known: HashSet<&OsStr> = flags.chain(VARIABLES_WITHOUT_FLAG.map(OsStr::new)).collect();
    let unknown = names.filter(|name| !known.contains(name.as_os_str())).filter_map(|name| name.into_string().ok());
    let mut unknown: Vec<String> = unknown.filter(|name| name.starts_with("SURPRISAL_")).collect();
    unknown.sort_unstable();
    unknown
}
