//! The sums behind the estimates as data: one entry per document and point.

use crate::estimate::correction::Correction;
use crate::estimate::series::Series;
use crate::estimate::terms::{Terms, differences};
use crate::plan::Plan;

/// The sums of log-probabilities of every document at every point, in nats. Estimates are means over documents of
/// their differences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DocumentTerms {
    /// The index of each document's text. Pieces of one text share it.
    pub texts: Vec<usize>,
    /// The terms at each point, in the order of the estimates.
    pub points: Vec<PointTerms>,
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
    pub(crate) fn new(plan: &Plan, terms: Vec<Terms>, correction: Option<Correction>) -> Self {
        let mut points = Vec::with_capacity(terms.len());
        for (point, terms) in plan.points().iter().zip(terms) {
            let corrected = correction.map(|correction| differences(&terms.conditional, &correction.marginal(&terms)));
            let crossed = terms.crossed_means();
            let Terms { conditional, marginal, .. } = terms;
            let (ratio, length, split) = (point.ratio, point.length(), point.split);
            points.push(PointTerms { ratio, length, split, conditional, marginal, crossed, corrected });
        }
        Self { texts: plan.texts().to_vec(), points }
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
