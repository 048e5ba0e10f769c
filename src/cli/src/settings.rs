//! What `surprisal serve` runs with: a TOML file, overridden by flags.

use std::path::Path;

use serde::Deserialize;
use surprisal_engine::{CpuConfig, SchedulerConfig};
use surprisal_server::ServerConfig;

use crate::error::Error;

/// Everything a server can be told. Each field has a default; a file may set any of them.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// `oracle`, a folder, or an id on the Hugging Face hub.
    pub(crate) model: String,
    pub(crate) host: String,
    /// 0 means any free port.
    pub(crate) port: u16,
    /// Compute threads; 0 means one a core.
    pub(crate) threads: usize,
    /// Memory for the KV cache, in MiB.
    pub(crate) cache_mib: usize,
    /// Cap on the model's own longest sequence, in tokens.
    pub(crate) max_length: Option<usize>,
    /// Tokens a forward pass computes at most.
    pub(crate) token_budget: usize,
    /// Queries computed at a time at most.
    pub(crate) max_running: usize,
    /// Bounds of the HTTP server.
    pub(crate) server: ServerConfig,
}

impl Default for Settings {
    fn default() -> Self {
        let scheduler = SchedulerConfig::default();
        Self {
            model: "oracle".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 8000,
            threads: 0,
            cache_mib: 1024,
            max_length: None,
            token_budget: scheduler.token_budget,
            max_running: scheduler.max_running,
            server: ServerConfig::default(),
        }
    }
}

impl Settings {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let failed = |reason: String| Error::Config { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        toml::from_str(&text).map_err(|error| failed(error.to_string()))
    }

    /// Refuses what would leave the engine without work or memory.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (name, value) in [
            ("cache_mib", self.cache_mib),
            ("token_budget", self.token_budget),
            ("max_running", self.max_running),
            ("max_length", self.max_length.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(Error::Usage(format!("{name} is 0; it must be at least 1")));
            }
        }
        Ok(())
    }

    pub(crate) fn scheduler(&self) -> SchedulerConfig {
        SchedulerConfig { token_budget: self.token_budget, max_running: self.max_running }
    }

    pub(crate) fn cpu(&self) -> CpuConfig {
        let cache_bytes = self.cache_mib.saturating_mul(1 << 20);
        CpuConfig { cache_bytes, threads: self.threads, max_length: self.max_length, ..CpuConfig::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_loads() {
        let files: Vec<_> = std::fs::read_dir("../../configs").unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            Settings::read(&file).unwrap().check().unwrap();
        }
    }

    #[test]
    fn unknown_and_empty_settings_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad.toml");
        std::fs::write(&path, "modle = \"oracle\"").unwrap();
        assert!(Settings::read(&path).unwrap_err().to_string().contains("modle"));
        assert!(Settings::read(&dir.path().join("none.toml")).is_err());
        let error = Settings { cache_mib: 0, ..Settings::default() }.check().unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), ("cache_mib is 0; it must be at least 1", 2));
    }
}
