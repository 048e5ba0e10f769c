//! Settings in a TOML file.

use std::path::Path;

use super::Settings;
use crate::error::Error;

impl Settings {
    /// Reads settings from a TOML file.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::config(path, error))?;
        toml::from_str(&text).map_err(|error| Error::config(path, error))
    }

    /// Returns these settings as TOML, which [`read`](Self::read) accepts.
    pub(crate) fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(self).map_err(|error| Error::Usage(format!("the settings cannot be written as TOML: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_loads() {
        let files = std::fs::read_dir("../../configs").unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = files.filter(|path| path.is_file()).collect();
        assert!(!files.is_empty());
        for file in files {
            Settings::read(&file).unwrap().check().unwrap();
        }
    }

    #[test]
    fn the_book_documents_every_setting() {
        let all = Settings {
            admin_port: Some(9000),
            isq: Some("q8_0".to_owned()),
            cache_mib: Some(1),
            max_length: Some(1),
            api_key_file: Some("keys".into()),
            tls_cert: Some("cert.pem".into()),
            tls_key: Some("key.pem".into()),
            ..Settings::default()
        };
        let table: toml::Table = all.to_toml().unwrap().parse().unwrap();
        let server = table["server"].as_table().unwrap().keys().map(|name| format!("server.{name}"));
        let names = table.keys().filter(|name| *name != "server").cloned().chain(server);
        let read = |page: &str| std::fs::read_to_string(format!("../../docs/src/{page}.md")).unwrap();
        let book = ["operations", "limits"].map(read).concat();
        for name in names.map(|name| format!("`{name}`")) {
            assert!(book.lines().any(|line| line.starts_with('|') && line.contains(&name)), "{name}");
        }
    }

    #[test]
    fn settings_round_trip_through_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("written.toml");
        let settings =
            Settings { port: 7, api_key_file: Some("keys".into()), max_length: Some(9), ..Settings::default() };
        std::fs::write(&path, settings.to_toml().unwrap()).unwrap();
        assert_eq!(Settings::read(&path).unwrap(), settings);
    }

    #[test]
    fn unknown_settings_and_missing_files_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad.toml");
        std::fs::write(&path, "modle = \"oracle\"").unwrap();
        assert!(Settings::read(&path).unwrap_err().to_string().contains("modle"));
        assert!(Settings::read(&dir.path().join("none.toml")).is_err());
    }
}
