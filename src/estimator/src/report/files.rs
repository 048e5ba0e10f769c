//! Reading and writing reports: HTML, JSON, SVG, PDF and CSV files, each written atomically.

use std::path::Path;

use crate::error::Error;
use crate::estimate::DocumentTerms;
use crate::files::{remove_abandoned, write_atomically};
use crate::report::chart_points::pictures;
use crate::report::{Report, documents_csv};

impl Report {
    /// Writes the page from [`html`](Self::html) to `path` atomically: a reader sees either the old file or the
    /// complete new one.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn write_html(&self, path: &Path) -> Result<(), Error> {
        write_atomically(path, self.html().as_bytes())
    }

    /// Reads a report from a JSON file or, if `path` is a folder, from its report.json. Reads the terms of the documents
    /// from documents.csv in the same folder, if it exists.
    ///
    /// # Errors
    /// [`Error::File`] if a file cannot be read, is not a report, or if documents.csv belongs to another report.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let path = if path.is_dir() { path.join("report.json") } else { path.to_owned() };
        let mut report = Self::read_json(&path)?;
        report.terms = read_terms(&path.with_file_name(documents_csv::NAME), &report)?;
        Ok(report)
    }

    fn read_json(path: &Path) -> Result<Self, Error> {
        let parse = |json: Vec<u8>| {
            serde_json::from_slice(&json).map_err(|error| {
                let reason = format!("not a report from `surprisal estimate`: {error}");
                std::io::Error::new(std::io::ErrorKind::InvalidData, reason)
            })
        };
        std::fs::read(path).and_then(parse).map_err(|source| Error::File { path: path.to_owned(), source })
    }

    /// Writes the report as JSON to `path` atomically.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<(), Error> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| Error::File { path: path.to_owned(), source: error.into() })?;
        write_atomically(path, json.as_bytes())
    }

    /// Writes each chart as an SVG and a PDF file and each table as a CSV file to a folder. Each file is written
    /// atomically.
    ///
    /// # Errors
    /// [`Error::File`] if a file cannot be written.
    pub fn write_files(&self, folder: &Path) -> Result<(), Error> {
        for (name, bytes) in self.charts_and_tables() {
            write_atomically(&folder.join(name), &bytes)?;
        }
        Ok(())
    }

    /// Creates a folder, and writes report.html, report.json and the files of [`write_files`](Self::write_files) into
    /// it. Each file is written atomically, and a failure does not keep the others from being written. Removes
    /// temporary files that killed runs left there.
    ///
    /// # Errors
    /// [`Error::Unwritten`] with the names of all files that could not be written; [`Error::File`] if the folder cannot
    /// be created.
    pub fn write_all(&self, folder: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
        let json = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::File { path: folder.join("report.json"), source: error.into() })?;
        let mut files = vec![("report.html".to_owned(), self.html().into_bytes()), ("report.json".to_owned(), json)];
        files.extend(self.charts_and_tables());
        remove_abandoned(folder, |name| files.iter().any(|(ours, _)| ours == name));
        if self.terms.is_none() {
            // The terms of an earlier report in this folder would contradict this one.
            remove_if_exists(&folder.join(documents_csv::NAME))?;
        }
        let (mut failed, mut first) = (Vec::new(), None);
        for (name, bytes) in files {
            if let Err(error) = write_atomically(&folder.join(&name), &bytes) {
                failed.push(name);
                first.get_or_insert(error);
            }
        }
        match first {
            Some(first) => Err(Error::Unwritten { folder: folder.to_owned(), files: failed, first: Box::new(first) }),
            None => Ok(()),
        }
    }

    /// Returns the name and the contents of each chart and each table.
    fn charts_and_tables(&self) -> Vec<(String, Vec<u8>)> {
        let tables = self.tables().into_iter().map(|(name, text)| (name, text.into_bytes()));
        pictures(self.charts()).into_iter().chain(tables).collect()
    }
}

fn remove_if_exists(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Reads the terms of a report's documents; `None` if the file does not exist.
fn read_terms(path: &Path, report: &Report) -> Result<Option<DocumentTerms>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let csv = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(failed)?,
    };
    let terms = DocumentTerms::parse(&csv).and_then(|terms| terms.check(report).map(|()| terms));
    terms.map(Some).map_err(|reason| {
        let advice = "run the estimate again, which sends no query, or remove the file";
        failed(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{reason}; {advice}")))
    })
}
