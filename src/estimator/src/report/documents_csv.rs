//! documents.csv: the sums behind a report's estimates, one row per document and point.
//!
//! Each row also has the surprisal of the document's window, which is the same in all rows of a document. Files of
//! earlier versions do not have these columns.

use std::fmt::Write as _;

use crate::estimate::{DocumentTerms, DocumentWindow, PointTerms, Series};
use crate::plan::WindowSize;
use crate::report::Report;

/// The name of the file in a report's folder.
pub(crate) const NAME: &str = "documents.csv";

/// The columns. The values are sums of ln q, and differences of them, in nats, whatever the unit of the report.
const HEADER: &str = "document,text,ratio,length,split,conditional,marginal,crossed,direct,corrected,vclub";

/// The further columns: the surprisal of the whole window and of its last octave, and the sizes of their texts.
const WINDOW_HEADER: &str = "surprisal,tail_surprisal,bytes,characters,tail_bytes,tail_characters";

/// The largest difference between a mean of contributions and the report's estimate, relative to 1 or the estimate.
/// Both are sums in f64.
const TOLERANCE: f64 = 1e-6;

impl DocumentTerms {
    /// Returns the CSV file.
    pub(crate) fn csv(&self) -> String {
        let mut csv =
            if self.windows.is_empty() { format!("{HEADER}\n") } else { format!("{HEADER},{WINDOW_HEADER}\n") };
        for point in &self.points {
            let PointTerms { ratio, length, split, conditional, marginal, crossed, corrected } = point;
            for (document, text) in self.texts.iter().enumerate() {
                let (conditional, marginal, crossed) = (conditional[document], marginal[document], crossed[document]);
                let corrected = corrected.as_ref().map_or(String::new(), |values| values[document].to_string());
                let (direct, vclub) = (conditional - marginal, conditional - crossed);
                let window = self.windows.get(document).map_or(String::new(), window_cells);
                // Writing to a String cannot fail.
                let _ = writeln!(
                    csv,
                    "{document},{text},{ratio},{length},{split},{conditional},{marginal},{crossed},{direct},\
                     {corrected},{vclub}{window}"
                );
            }
        }
        csv
    }

    /// Reads the file that [`csv`](Self::csv) returned.
    ///
    /// # Errors
    /// A description of the first malformed line.
    pub(crate) fn parse(csv: &str) -> Result<Self, String> {
        let mut lines = csv.lines().enumerate();
        let rest = lines.next().and_then(|(_, header)| header.strip_prefix(HEADER));
        let has_windows = match rest.map(|rest| rest.strip_prefix(',').unwrap_or(rest)) {
            Some("") => false,
            Some(WINDOW_HEADER) => true,
            _ => return Err(format!("line 1: expected the columns {HEADER}, alone or with {WINDOW_HEADER}")),
        };
        let mut terms = Self::default();
        for (index, line) in lines {
            let row = Row::parse(line).filter(|row| row.window.is_some() == has_windows);
            let row = row.ok_or_else(|| format!("line {}: not a row of the columns in line 1", index + 1))?;
            terms.add(&row).ok_or_else(|| format!("line {}: the rows are not in order", index + 1))?;
        }
        let complete = |point: &PointTerms| {
            let corrected = point.corrected.as_ref().map_or(terms.texts.len(), Vec::len);
            [point.conditional.len(), corrected] == [terms.texts.len(); 2]
        };
        match terms.points.iter().all(complete) {
            true => Ok(terms),
            false => Err("not all points have the same documents".to_owned()),
        }
    }

    /// Adds a row. Returns `None` if it does not continue the rows before it.
    fn add(&mut self, row: &Row) -> Option<()> {
        let [document, text, ratio, length, split] = row.place;
        if document == 0 {
            let empty = row.corrected.map(|_| Vec::new());
            self.points.push(PointTerms { ratio, length, split, corrected: empty, ..PointTerms::default() });
        }
        if self.points.len() == 1 {
            self.texts.push(text);
            self.windows.extend(row.window);
        }
        let point = self.points.last_mut()?;
        let is_next =
            [point.ratio, point.length, point.split, point.conditional.len()] == [ratio, length, split, document];
        let is_same = self.texts.get(document) == Some(&text)
            && (row.window.is_none() || self.windows.get(document) == row.window.as_ref());
        if !is_next || !is_same {
            return None;
        }
        let [conditional, marginal, crossed] = row.terms;
        point.conditional.push(conditional);
        point.marginal.push(marginal);
        point.crossed.push(crossed);
        match (&mut point.corrected, row.corrected) {
            (Some(values), Some(corrected)) => values.push(corrected),
            (None, None) => {}
            _ => return None,
        }
        Some(())
    }

    /// Checks that the means of the contributions are the estimates of a report.
    ///
    /// # Errors
    /// A description of the first mismatch.
    pub(crate) fn check(&self, report: &Report) -> Result<(), String> {
        if self.texts.len() != report.documents {
            return Err(format!("it has {} documents, but report.json has {}", self.texts.len(), report.documents));
        }
        for row in &report.rows {
            let (ratio, length) = (row.estimates.ratio, row.estimates.length);
            for series in Series::MEANS {
                let Some(estimate) = row.get(series) else { continue };
                let found = self.at(ratio, length).and_then(|point| point.contributions(series));
                let mean = found.map(|values| values.iter().sum::<f64>() / values.len() as f64 / report.unit.nats());
                if mean.is_none_or(|mean| (mean - estimate.value).abs() > TOLERANCE * estimate.value.abs().max(1.0)) {
                    let (name, expected) = (series.name(), estimate.value);
                    let mean = mean.map_or("missing".to_owned(), |mean| mean.to_string());
                    return Err(format!(
                        "the mean of {name} at L/ℓ = {ratio} and L = {length} is {mean}, but report.json has {expected}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The values of a row that are read back.
struct Row {
    /// Document, text, ratio, length and split.
    place: [usize; 5],
    /// Conditional, marginal and crossed term.
    terms: [f64; 3],
    corrected: Option<f64>,
    /// `None` in files of earlier versions.
    window: Option<DocumentWindow>,
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.split(',').collect();
        let [document, text, ratio, length, split, conditional, marginal, crossed, _, corrected, _, ref window @ ..] =
            cells[..]
        else {
            return None;
        };
        let mut place = [0; 5];
        for (number, cell) in place.iter_mut().zip([document, text, ratio, length, split]) {
            *number = cell.parse().ok()?;
        }
        let mut terms = [0.0; 3];
        for (term, cell) in terms.iter_mut().zip([conditional, marginal, crossed]) {
            *term = cell.parse().ok()?;
        }
        let corrected = if corrected.is_empty() { None } else { Some(corrected.parse().ok()?) };
        let window = if window.is_empty() { None } else { Some(parse_window(window)?) };
        Some(Self { place, terms, corrected, window })
    }
}

/// Returns the cells of a window, each after a comma. Unknown sizes are empty.
fn window_cells(window: &DocumentWindow) -> String {
    let sizes = match window.size {
        Some(WindowSize { bytes, characters, tail_bytes, tail_characters }) => {
            format!("{bytes},{characters},{tail_bytes},{tail_characters}")
        }
        None => ",,,".to_owned(),
    };
    format!(",{},{},{sizes}", window.surprisal, window.tail_surprisal)
}

fn parse_window(cells: &[&str]) -> Option<DocumentWindow> {
    let [surprisal, tail_surprisal, sizes @ ..] = cells else { return None };
    let size = match sizes {
        ["", "", "", ""] => None,
        &[bytes, characters, tail_bytes, tail_characters] => Some(WindowSize {
            bytes: bytes.parse().ok()?,
            characters: characters.parse().ok()?,
            tail_bytes: tail_bytes.parse().ok()?,
            tail_characters: tail_characters.parse().ok()?,
        }),
        _ => return None,
    };
    Some(DocumentWindow { surprisal: surprisal.parse().ok()?, tail_surprisal: tail_surprisal.parse().ok()?, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(corrected: bool) -> DocumentTerms {
        let point = |length: usize| PointTerms {
            ratio: 2,
            length,
            split: length / 2,
            conditional: vec![-1.0 / 3.0, -1e300, -(length as f64)],
            marginal: vec![-5.5, -7e-310, -0.1],
            crossed: vec![-2.0, -3.0, f64::MIN],
            corrected: corrected.then(|| vec![0.1, 0.2, 1.0 / 7.0]),
        };
        let size = |bytes| WindowSize { bytes, characters: bytes - 1, tail_bytes: bytes / 2, tail_characters: 3 };
        let window = |surprisal: f64, size| DocumentWindow { surprisal, tail_surprisal: surprisal / 3.0, size };
        DocumentTerms {
            texts: vec![0, 0, 1],
            points: vec![point(4), point(8)],
            windows: vec![window(0.1, Some(size(40))), window(1e300, None), window(1.0 / 7.0, Some(size(50)))],
        }
    }

    #[test]
    fn terms_are_read_back_bit_for_bit() {
        for terms in [terms(true), terms(false)] {
            assert_eq!(DocumentTerms::parse(&terms.csv()), Ok(terms));
        }
    }

    #[test]
    fn files_of_earlier_versions_have_no_windows() {
        let old = DocumentTerms { windows: Vec::new(), ..terms(true) };
        assert!(old.csv().starts_with(&format!("{HEADER}\n")));
        assert_eq!(DocumentTerms::parse(&old.csv()), Ok(old));
    }

    #[test]
    fn damaged_files_are_rejected() {
        let csv = terms(true).csv();
        let lines: Vec<&str> = csv.lines().collect();
        let join = |lines: &[&str]| lines.join("\n");
        for (damaged, expected) in [
            (String::new(), "line 1: expected the columns document"),
            (join(&lines[1..]), "line 1: expected the columns"),
            (csv.replace("-5.5", "x"), "line 2: not a row"),
            (join(&[&lines[..2], &lines[3..]].concat()), "line 3: the rows are not in order"),
            (csv.replace("2,1,2,8", "2,0,2,8"), "line 7: the rows are not in order"),
            (csv.replace("40,39,20,3", "40,39,20"), "line 2: not a row"),
            (csv.replacen("40,39,20,3", "41,39,20,3", 1), "line 5: the rows are not in order"),
            (join(&lines[..6]), "not all points have the same documents"),
        ] {
            let error = DocumentTerms::parse(&damaged).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
