//! Surprisal per byte and per character of several reports, which is comparable between tokenizers, and its differences.

use serde::Serialize;

use crate::estimate::{Clusters, DocumentWindow, TextUnit, UnitRates, ratio_values};
use crate::plan::WindowSize;
use crate::report::Report;
use crate::report::alignment::Alignment;
use crate::report::differences::paired_terms;
use crate::unit::Unit;
use crate::value::Estimate;

/// The positions of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowPart {
    /// The last octave: the positions after half of the window.
    Tail,
    /// All positions.
    Whole,
}

impl WindowPart {
    pub(crate) const ALL: [WindowPart; 2] = [WindowPart::Tail, WindowPart::Whole];

    pub(crate) fn name(self) -> &'static str {
        match self {
            WindowPart::Tail => "last octave",
            WindowPart::Whole => "whole window",
        }
    }

    /// Returns the surprisal of a document's part in nats, and its size.
    fn of(self, window: &DocumentWindow, unit: TextUnit) -> Option<[f64; 2]> {
        let WindowSize { bytes, characters, tail_bytes, tail_characters } = window.size?;
        let (surprisal, size) = match (self, unit) {
            (WindowPart::Tail, TextUnit::Byte) => (window.tail_surprisal, tail_bytes),
            (WindowPart::Tail, TextUnit::Character) => (window.tail_surprisal, tail_characters),
            (WindowPart::Whole, TextUnit::Byte) => (window.surprisal, bytes),
            (WindowPart::Whole, TextUnit::Character) => (window.surprisal, characters),
        };
        Some([surprisal, size as f64])
    }

    fn rates(self, report: &Report) -> Option<&UnitRates> {
        let rate = report.entropy_rate.as_ref()?;
        Some(match self {
            WindowPart::Tail => &rate.tail,
            WindowPart::Whole => &rate.whole,
        })
    }
}

/// A difference between the surprisal of two reports per character or per byte, in bits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SurprisalDifference {
    /// The unit of text.
    pub per: TextUnit,
    /// The positions.
    pub part: WindowPart,
    /// The other report's surprisal minus the first's. If it is paired by text, it has an interval. Otherwise, the error
    /// treats the reports as independent.
    pub estimate: Estimate,
}

/// Returns the surprisal of a report's windows per unit of text, in bits; `None` if the report has none.
pub(crate) fn bits(report: &Report, part: WindowPart, per: TextUnit) -> Option<Estimate> {
    let mut estimate = part.rates(report)?.get(per)?;
    estimate.scale(report.unit.nats() / Unit::Bits.nats());
    Some(estimate)
}

/// Returns the mean size of a report's windows in bytes; `None` if it is unknown.
pub(crate) fn window_bytes(report: &Report) -> Option<f64> {
    let windows = &report.terms.as_ref()?.windows;
    let bytes = windows.iter().map(|window| Some(window.size?.bytes as f64)).collect::<Option<Vec<_>>>()?;
    (!bytes.is_empty()).then(|| bytes.iter().sum::<f64>() / bytes.len() as f64)
}

/// Returns the differences between two reports on the same texts, paired by text if possible; none if the texts differ.
pub(crate) fn surprisal_differences(first: &Report, other: &Report) -> Vec<SurprisalDifference> {
    let alignment = Alignment::of(first, other);
    if matches!(alignment, Alignment::OtherTexts | Alignment::Unknown) {
        return Vec::new();
    }
    let is_paired = match alignment {
        Alignment::SameDocuments => paired_terms(first, other).is_ok(),
        _ => has_same_windowed_texts(first, other),
    };
    let mut found = Vec::new();
    for part in WindowPart::ALL {
        for per in TextUnit::ALL {
            let (Some(a), Some(b)) = (bits(first, part, per), bits(other, part, per)) else { continue };
            let paired = if is_paired { paired(first, other, part, per) } else { None };
            let estimate = paired.unwrap_or_else(|| Estimate::new(b.value - a.value, a.error.hypot(b.error)));
            found.push(SurprisalDifference { per, part, estimate });
        }
    }
    found
}

/// Returns `true` if windows come from all texts of both reports, and there are several, so that the texts are the same
/// in the same order. If a report omits texts that are too short, the other may omit others.
fn has_same_windowed_texts(first: &Report, other: &Report) -> bool {
    let texts = |report: &Report| {
        let has_all = report.corpus.is_some_and(|corpus| corpus.left_out == 0);
        report.texts.filter(|&texts| has_all && texts > 1)
    };
    texts(first).is_some() && texts(first) == texts(other)
}

/// Returns the difference of two ratios with the error of its value per text, `R + Σ (s - R c)/c̄` of each ratio, and its
/// interval by Student's t distribution; `None` if a report has no surprisal of its windows, or if the numbers of
/// clusters differ.
fn paired(first: &Report, other: &Report, part: WindowPart, per: TextUnit) -> Option<Estimate> {
    let values = |report: &Report| {
        let terms = report.terms.as_ref()?;
        let pairs = terms.windows.iter().map(|window| part.of(window, per)).collect::<Option<Vec<_>>>()?;
        let [above, below] = [0, 1].map(|index| pairs.iter().map(|pair| pair[index]).collect::<Vec<f64>>());
        let clusters = Clusters::of_texts(terms.texts.iter().copied());
        (!pairs.is_empty()).then(|| (ratio_values(&clusters, &above, &below), clusters.freedom()))
    };
    let ((a, freedom), (b, other_freedom)) = (values(first)?, values(other)?);
    if a.len() != b.len() {
        return None;
    }
    let differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| b - a).collect();
    let mut estimate = Estimate::of(&differences).with_t_interval(freedom.min(other_freedom));
    estimate.scale(1.0 / Unit::Bits.nats());
    Some(estimate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(surprisal: f64, bytes: usize) -> DocumentWindow {
        let size = WindowSize { bytes, characters: bytes, tail_bytes: bytes / 2, tail_characters: bytes / 2 };
        DocumentWindow { surprisal, tail_surprisal: 0.4 * surprisal, size: Some(size) }
    }

    #[test]
    fn parts_select_their_surprisal_and_their_text() {
        let window = window(10.0, 8);
        assert_eq!(WindowPart::Tail.of(&window, TextUnit::Byte), Some([4.0, 4.0]));
        assert_eq!(WindowPart::Whole.of(&window, TextUnit::Character), Some([10.0, 8.0]));
        assert_eq!(WindowPart::Whole.of(&DocumentWindow { size: None, ..window }, TextUnit::Byte), None);
    }
}
