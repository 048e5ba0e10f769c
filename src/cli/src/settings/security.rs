//! Reads the API keys and the certificate that the settings name.

use std::ffi::OsString;
use std::path::Path;

use surprisal_server::{ApiKeys, Tls};

use super::Settings;
use crate::error::Error;

impl Settings {
    /// Reads the API keys from the key file and the environment variable.
    ///
    /// If either is given, it must have at least one key, so that a mistake cannot leave the server open.
    pub(crate) fn api_keys(&self, variable: Option<OsString>) -> Result<ApiKeys, Error> {
        let mut keys = String::new();
        if let Some(path) = &self.api_key_file {
            keys.push_str(&read_key_file(path)?);
        }
        if let Some(value) = variable {
            keys.push('\n');
            keys.push_str(&check_key_variable(value)?);
        }
        Ok(ApiKeys::parse(&keys))
    }

    /// Reads the certificate and its private key; returns `None` if they are not set.
    pub(crate) fn tls(&self) -> Result<Option<Tls>, Error> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificates), Some(key)) => Ok(Some(Tls::from_pem_files(certificates, key)?)),
            _ => Ok(None),
        }
    }
}

/// Reads a file of API keys, and rejects one without keys.
fn read_key_file(path: &Path) -> Result<String, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::config(path, error))?;
    check_lines(&text).map_err(|reason| Error::config(path, reason))?;
    if ApiKeys::parse(&text).is_empty() {
        return Err(Error::config(path, "the file has no API key; write one per line, or omit api_key_file"));
    }
    Ok(text)
}

/// Rejects a value of `SURPRISAL_API_KEYS` without keys.
fn check_key_variable(value: OsString) -> Result<String, Error> {
    let text = value.into_string().unwrap_or_default();
    check_lines(&text).map_err(|reason| Error::Usage(format!("SURPRISAL_API_KEYS: {reason}")))?;
    if ApiKeys::parse(&text).is_empty() {
        return Err(Error::Usage(
            "SURPRISAL_API_KEYS has no API key, or is not UTF-8; set one key per line, or unset the variable"
                .to_owned(),
        ));
    }
    Ok(text)
}

/// Rejects lines with something other than a permission after the key, such as a comment, or with a control character.
/// The reason does not reveal the key.
fn check_lines(lines: &str) -> Result<(), String> {
    match ApiKeys::invalid_line(lines) {
        Some(line) => Err(format!(
            "line {line} has whitespace or a control character in its API key; remove it, and put comments on lines \
             that begin with #. Only min_priority=NUMBER may follow a key"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_file_and_environment_and_an_empty_source_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let settings = Settings { api_key_file: Some(path.clone()), ..Settings::default() };
        assert!(settings.api_keys(None).is_err());
        std::fs::write(&path, "# none yet\n").unwrap();
        assert!(settings.api_keys(None).unwrap_err().to_string().contains("no API key"));
        std::fs::write(&path, "one").unwrap();
        assert_eq!(settings.api_keys(Some("two\nthree".into())).unwrap().len(), 3);
        assert!(settings.api_keys(Some(" ".into())).is_err());
        let error = settings.api_keys(Some("two\nthree four".into())).unwrap_err().to_string();
        assert!(error.starts_with("SURPRISAL_API_KEYS: line 2 has whitespace") && !error.contains("four"), "{error}");
        std::fs::write(&path, "one min_priority=-5\n").unwrap();
        assert_eq!(settings.api_keys(None).unwrap().len(), 1);
        std::fs::write(&path, "# people\none\nsk-abc  # alice\n").unwrap();
        let error = settings.api_keys(None).unwrap_err().to_string();
        assert!(error.contains("keys: line 3 has whitespace") && !error.contains("sk-abc"), "{error}");
        assert!(Settings::default().api_keys(None).unwrap().is_empty());
    }

    #[test]
    fn files_of_other_systems_are_read_and_nul_is_rejected_by_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let settings = Settings { api_key_file: Some(path.clone()), ..Settings::default() };
        std::fs::write(&path, "\u{feff}# people\r\none\r\n\r\n\u{feff}two\r\n").unwrap();
        assert_eq!(settings.api_keys(None).unwrap().len(), 2);
        std::fs::write(&path, "one\n\0\n").unwrap();
        let error = settings.api_keys(None).unwrap_err().to_string();
        assert!(error.contains("keys: line 2 has whitespace or a control character"), "{error}");
        std::fs::write(&path, "\u{feff}\r\n").unwrap();
        assert!(settings.api_keys(None).unwrap_err().to_string().contains("no API key"));
    }
}
