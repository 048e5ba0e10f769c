//! The sums behind the estimates as data: one entry per document and point.

use crate::estimate::correction::Correction;
use crate::estimate::series::Series;
use crate::estimate::terms::{Terms, differences, sum};
use crate::plan::{Plan, WindowSize};

/// The sums of log-probabilities of every document at every point, in nats. Estimates are means over documents of
/// their differences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DocumentTerms {
    /// The index of each document's text. Pieces of one text share it.
    pub texts: Vec<usize>,
    /// The terms at each point, in the order of the estimates.
    pub points: Vec<PointTerms>,
    /// The surprisal of each document's window; empty in files of earlier versions.
    pub windows: Vec<DocumentWindow>,
}

/// The surprisal of a document's window, and the size of its text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DocumentWindow {
    /// `-ln q` of the whole window, in nats.
    pub surprisal: f64,
    /// `-ln q` of the last octave, the positions after half of the window, in nats.
    pub tail_surprisal: f64,
    /// The bytes and characters of both; `None` if the tokenizer does not state the ranges of tokens.
    pub size: Option<WindowSize>,
}

/// The terms at one point, in nats, with one entry per document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PointTerms {
    /// The ratio `L/ℓ`.
    pub ratio: usize,
    /// The length `L`: tokens in `x` and `y` together.
    pub length: usize,
    /// The split `ℓ`: tokens in `x`.
    pub split: usize,
    /// `ln q(y_i | x_i)`.
    pub conditional: Vec<f64>,
    /// `ln q(y_i)`.
    pub marginal: Vec<f64>,
    /// `mean_j ln q(y_i | x_j)`, over the contexts `x_j` from other documents.
    pub crossed: Vec<f64>,
    /// The conditional term minus the marginal term with the n-gram correction; `None` without a correction.
    pub corrected: Option<Vec<f64>>,
}

impl DocumentTerms {
    /// Collects the terms at each of the plan's points.
    pub(crate) fn new(plan: &Plan, terms: Vec<Terms>, whole: &[&[f32]], correction: Option<Correction>) -> Self {
        let mut points = Vec::with_capacity(terms.len());
        for (point, terms) in plan.points().iter().zip(terms) {
            let corrected = correction.map(|correction| differences(&terms.conditional, &correction.marginal(&terms)));
            let crossed = terms.crossed_means();
            let Terms { conditional, marginal, .. } = terms;
            let (ratio, length, split) = (point.ratio, point.length(), point.split);
            points.push(PointTerms { ratio, length, split, conditional, marginal, crossed, corrected });
        }
        let window = |(document, answer): (usize, &&[f32])| DocumentWindow {
            surprisal: -sum(answer),
            tail_surprisal: -sum(&answer[WindowSize::tail_start(answer.len())..]),
            size: plan.sizes().map(|sizes| sizes[document]),
        };
        let windows = whole.iter().enumerate().map(window).collect();
        Self { texts: plan.texts().to_vec(), points, windows }
    }

    /// Returns the terms at a point; `None` if there are none.
    pub fn at(&self, ratio: usize, length: usize) -> Option<&PointTerms> {
        self.points.iter().find(|point| (point.ratio, point.length) == (ratio, length))
    }
}

impl PointTerms {
    /// Returns the contribution of each document to an estimate, which is their mean; `None` if the series has none.
    ///
    /// Those of the direct estimates pair both terms by the same `y`, whatever the plan's pairing: the mean does not
    /// depend on the pairing.
    pub fn contributions(&self, series: Series) -> Option<Vec<f64>> {
        match series {
            Series::Direct => Some(differences(&self.conditional, &self.marginal)),
            Series::Corrected => self.corrected.clone(),
            Series::Vclub => Some(differences(&self.conditional, &self.crossed)),
            Series::Averaged | Series::AveragedLimit | Series::InfoNce | Series::Truth | Series::VclubLimit => None,
        }
    }
}
