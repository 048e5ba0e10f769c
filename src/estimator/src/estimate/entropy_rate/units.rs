//! Rates per token, per character and per byte.

use serde::{Deserialize, Serialize};

use crate::estimate::bootstrap::{Bootstrap, CONFIDENCE_LEVEL};
use crate::estimate::clusters::Clusters;
use crate::estimate::entropy_rate::columns::{Columns, Total};
use crate::value::Estimate;

/// A unit of text other than a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextUnit {
    /// A Unicode character.
    Character,
    /// A byte of UTF-8.
    Byte,
}

impl TextUnit {
    /// All units.
    pub const ALL: [TextUnit; 2] = [TextUnit::Character, TextUnit::Byte];

    /// Returns the name: `character` or `byte`.
    pub fn name(self) -> &'static str {
        match self {
            TextUnit::Character => "character",
            TextUnit::Byte => "byte",
        }
    }
}

/// A rate of surprisal per token, per character and per byte, each in nats, or in the report's unit after conversion.
/// Rates per character and per byte are comparable between tokenizers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitRates {
    /// The rate per token.
    pub token: Estimate,
    /// The rate per character; `None` if the ranges of the tokens are unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub character: Option<Estimate>,
    /// The rate per byte; `None` if the ranges of the tokens are unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte: Option<Estimate>,
}

impl UnitRates {
    /// Returns the rate per unit of text; `None` if the ranges of the tokens are unknown.
    pub fn get(&self, unit: TextUnit) -> Option<Estimate> {
        match unit {
            TextUnit::Character => self.character,
            TextUnit::Byte => self.byte,
        }
    }

    /// Returns all rates.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut Estimate> {
        std::iter::once(&mut self.token).chain(&mut self.character).chain(&mut self.byte)
    }
}

/// The data for rates in several units.
pub(crate) struct Units<'a> {
    columns: &'a Columns,
    rows: &'a [Vec<f64>],
    clusters: &'a Clusters,
    has_sizes: bool,
}

impl<'a> Units<'a> {
    pub(crate) fn new(columns: &'a Columns, rows: &'a [Vec<f64>], clusters: &'a Clusters, has_sizes: bool) -> Self {
        // A text without a size has no rate per size.
        let sizes = [Total::WholeBytes, Total::WholeCharacters, Total::TailBytes, Total::TailCharacters];
        let is_positive = |total: Total| rows.iter().map(|row| row[columns.total(total)]).sum::<f64>() > 0.0;
        let has_sizes = has_sizes && sizes.into_iter().all(is_positive);
        Self { columns, rows, clusters, has_sizes }
    }

    /// Returns the mean surprisal over the whole window.
    pub(crate) fn whole(&self, bootstrap: &Bootstrap<'_>) -> UnitRates {
        self.rates(Total::Whole, [Total::WholeCharacters, Total::WholeBytes], self.columns.window, bootstrap)
    }

    /// Returns the mean surprisal over the tail.
    pub(crate) fn tail(&self, bootstrap: &Bootstrap<'_>) -> UnitRates {
        self.rates(Total::Tail, [Total::TailCharacters, Total::TailBytes], self.columns.tail(), bootstrap)
    }

    /// Returns the size of a token of the tail; `None` if the sizes are unknown.
    pub(crate) fn tokens(&self, unit: TextUnit, bootstrap: &Bootstrap<'_>) -> Option<Estimate> {
        self.has_sizes.then(|| self.mean(tail_size(unit), self.columns.tail(), bootstrap))
    }

    fn rates(&self, surprisal: Total, [characters, bytes]: [Total; 2], tokens: usize, by: &Bootstrap<'_>) -> UnitRates {
        let ratio = |size| self.has_sizes.then(|| self.ratio(surprisal, size, by));
        UnitRates { token: self.mean(surprisal, tokens, by), character: ratio(characters), byte: ratio(bytes) }
    }

    /// Returns the mean of a total per position.
    fn mean(&self, total: Total, positions: usize, bootstrap: &Bootstrap<'_>) -> Estimate {
        let (column, count) = (self.columns.total(total), positions as f64);
        let values: Vec<f64> = self.rows.iter().map(|row| row[column] / count).collect();
        let interval = bootstrap.interval(CONFIDENCE_LEVEL, |means| Some(means[column] / count));
        Estimate { interval, ..self.clusters.estimate(&values) }
    }

    fn ratio(&self, surprisal: Total, size: Total, bootstrap: &Bootstrap<'_>) -> Estimate {
        let [above, below] = [surprisal, size].map(|total| self.columns.total(total));
        let column = |index: usize| self.rows.iter().map(|row| row[index]).collect::<Vec<f64>>();
        let estimate = Estimate::of(&ratio_values(self.clusters, &column(above), &column(below)));
        Estimate {
            interval: bootstrap.interval(CONFIDENCE_LEVEL, |means| Some(means[above] / means[below])),
            ..estimate
        }
    }
}

/// Returns the total that counts the text of the tail.
pub(crate) fn tail_size(unit: TextUnit) -> Total {
    match unit {
        TextUnit::Character => Total::TailCharacters,
        TextUnit::Byte => Total::TailBytes,
    }
}

/// Returns one value per cluster, whose mean is the ratio `R = Σ s / Σ c` of sums over documents, and whose standard
/// error is the cluster-robust one of `R` by linearization: `R` plus the cluster's mean of `(s - R c)/c̄`, where `c̄` is
/// the mean of `c` (Cochran, *Sampling Techniques*, 1977, section 6.3). This is the error of the coefficient in a
/// regression of `s` on `c` with weights `1/c`.
pub(crate) fn ratio_values(clusters: &Clusters, above: &[f64], below: &[f64]) -> Vec<f64> {
    let total: f64 = below.iter().sum();
    let ratio = above.iter().sum::<f64>() / total;
    let mean = total / below.len() as f64;
    let linear: Vec<f64> = above.iter().zip(below).map(|(s, c)| ratio + (s - ratio * c) / mean).collect();
    clusters.means(&linear)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From statsmodels: `WLS(s, c, weights=1/c).fit(cov_type="cluster", cov_kwds={"groups": texts})`.
    #[test]
    fn the_error_of_a_ratio_is_cluster_robust() {
        let (above, below) = ([10.0, 14.0, 9.0, 21.0, 17.0, 12.0], [4.0, 5.0, 4.0, 7.0, 7.0, 4.0]);
        for (texts, error) in
            [([0, 0, 1, 1, 2, 2], 0.028_326_030_361_740_293), ([0, 1, 2, 3, 4, 5], 0.130_318_186_925_729_63)]
        {
            let found = Estimate::of(&ratio_values(&Clusters::of_texts(texts), &above, &below));
            assert!((found.value - 83.0 / 31.0).abs() < 1e-12, "{found:?}");
            assert!((found.error - error).abs() < 1e-12, "{found:?}");
        }
    }

    /// If every document has the same ratio, the ratio has no error, however much the sizes differ.
    #[test]
    fn equal_ratios_have_no_error() {
        let below = [4.0, 5.0, 40.0, 7.0];
        let found = Estimate::of(&ratio_values(&Clusters::of_texts(0..4), &below.map(|size| 2.5 * size), &below));
        assert!((found.value - 2.5).abs() < 1e-12 && found.error < 1e-12, "{found:?}");
    }
}
