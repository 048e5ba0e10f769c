//! Sets the version that `surprisal --version` prints: the package version, the git commit (`unknown` outside a
//! checkout), and the enabled features.

use std::path::Path;
use std::process::Command;

/// The features in Cargo.toml.
const FEATURES: [&str; 4] = ["arrow", "cuda", "mistralrs", "otlp"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Every commit and every checkout appends a line to this log.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo:rerun-if-changed={log}");
    }
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let set = |name: &&str| std::env::var_os(format!("CARGO_FEATURE_{}", name.to_uppercase())).is_some();
    let features: Vec<&str> = FEATURES.into_iter().filter(set).collect();
    let features = if features.is_empty() { "none".to_owned() } else { features.join(" ") };
    println!("cargo:rustc-env=SURPRISAL_VERSION={version} (commit {commit}, features: {features})");
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
