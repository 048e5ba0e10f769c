//! Differences between two reports, paired by document.

use serde::Serialize;

use crate::estimate::{Clusters, DocumentTerms, Series};
use crate::fit::FitMethod;
use crate::report::Report;
use crate::value::Estimate;

/// A difference between the estimates of two reports at one point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The estimator.
    pub series: Series,
    /// The ratio `L/ℓ`.
    pub ratio: usize,
    /// The length `L`.
    pub length: usize,
    /// The other report's estimate minus the first's. If it is paired, it has an interval. Otherwise, the error treats
    /// the reports as independent.
    pub estimate: Estimate,
}

/// A difference between the exponents of two reports' power laws, by least squares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ExponentDifference {
    /// The estimator.
    pub series: Series,
    /// The ratio `L/ℓ`.
    pub ratio: usize,
    /// The other report's exponent minus the first's.
    pub estimate: Estimate,
}

/// Returns the differences at the points that both reports have. They are paired if both have the terms of the same
/// documents.
pub(crate) fn differences(first: &Report, other: &Report, same_documents: bool) -> Vec<Difference> {
    let terms = paired_terms(first, other).ok().filter(|_| same_documents);
    let mut found = Vec::new();
    for series in Series::MEANS {
        for row in &other.rows {
            let (ratio, length) = (row.estimates.ratio, row.estimates.length);
            let in_first = first.rows.iter().find(|r| (r.estimates.ratio, r.estimates.length) == (ratio, length));
            let (Some(a), Some(b)) = (in_first.and_then(|row| row.get(series)), row.get(series)) else { continue };
            let paired = terms.and_then(|[one, two]| {
                let [a, b] = [one, two].map(|terms| terms.at(ratio, length)?.contributions(series));
                let mut difference = paired_difference(&a?, &b?, &Clusters::of_texts(one.texts.iter().copied()));
                difference.scale(1.0 / other.unit.nats());
                Some(difference)
            });
            let independent = || Estimate::new(b.value - a.value, a.error.hypot(b.error));
            found.push(Difference { series, ratio, length, estimate: paired.unwrap_or_else(independent) });
        }
    }
    found
}

/// The reason why differences between two reports of the same documents cannot be paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unpaired {
    /// A report has no terms of its documents.
    NoTerms,
    /// The reports group the documents into different texts.
    OtherTexts,
}

/// Returns the terms of both reports if they have the same texts and documents.
pub(crate) fn paired_terms<'a>(first: &'a Report, other: &'a Report) -> Result<[&'a DocumentTerms; 2], Unpaired> {
    let (Some(one), Some(two)) = (&first.terms, &other.terms) else { return Err(Unpaired::NoTerms) };
    if one.texts == two.texts { Ok([one, two]) } else { Err(Unpaired::OtherTexts) }
}

/// Returns the mean of `b - a`, with its standard error over clusters (Miller, 2411.00640, equation 8) and its 95 %
/// interval by Student's t distribution.
fn paired_difference(a: &[f64], b: &[f64], clusters: &Clusters) -> Estimate {
    clusters.differences(a, b).with_t_interval(clusters.freedom())
}

/// Returns the differences between the exponents of the least-squares fits that both reports have, if the reports are
/// paired, at the lengths that both have. The error is that of the jackknife over texts (Efron and Stein, 1981), or over
/// documents if there is one text: `sqrt((G - 1)/G Σ_g (d_(-g) - mean)²)`, where `d_(-g)` is the difference without text
/// g.
pub(crate) fn exponent_differences(first: &Report, other: &Report) -> Vec<ExponentDifference> {
    let Ok([one, two]) = paired_terms(first, other) else { return Vec::new() };
    let mut found = Vec::new();
    for series in Series::MEANS {
        for ratio in other.ratios() {
            let in_first = first.points(ratio, series);
            let mut lengths = other.points(ratio, series);
            lengths.retain(|(length, _)| in_first.iter().any(|(other, _)| other == length));
            let lengths: Vec<usize> = lengths.iter().map(|(length, _)| *length as usize).collect();
            let columns = |terms: &DocumentTerms| -> Option<Vec<Vec<f64>>> {
                lengths.iter().map(|&length| terms.at(ratio, length)?.contributions(series)).collect()
            };
            let (Some(a), Some(b)) = (columns(one), columns(two)) else { continue };
            let jackknife = exponent_difference(&lengths, &a, &b, &Clusters::of_texts(one.texts.iter().copied()));
            found.extend(jackknife.map(|estimate| ExponentDifference { series, ratio, estimate }));
        }
    }
    found
}

/// Returns the jackknife estimate of the exponents' difference. `a` and `b` have the contributions at each length.
fn exponent_difference(lengths: &[usize], a: &[Vec<f64>], b: &[Vec<f64>], clusters: &Clusters) -> Option<Estimate> {
    let count = clusters.count();
    let exponent = |columns: &[Vec<f64>], left_out: Option<usize>| {
        let mean = |column: &Vec<f64>| {
            let kept =
                column.iter().enumerate().filter(|(document, _)| Some(clusters.of_document(*document)) != left_out);
            let (sum, count) = kept.fold((0.0, 0.0), |(sum, count), (_, value)| (sum + value, count + 1.0));
            Estimate::new(sum / count, 0.0)
        };
        let points: Vec<_> = lengths.iter().map(|&length| length as f64).zip(columns.iter().map(mean)).collect();
        // A point that is positive in one sample only would change the fitted points.
        let is_positive = points.iter().all(|(_, estimate)| estimate.value > 0.0);
        Some(FitMethod::LeastSquares.fit(&points).filter(|_| is_positive)?.exponent)
    };
    let difference = |left_out| Some(exponent(b, left_out)? - exponent(a, left_out)?);
    let values = (0..count).map(|cluster| difference(Some(cluster))).collect::<Option<Vec<f64>>>()?;
    let groups = count as f64;
    let mean = values.iter().sum::<f64>() / groups;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some(
        Estimate::new(difference(None)?, ((groups - 1.0) / groups * squares).sqrt())
            .with_t_interval(clusters.freedom()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: Estimate, value: f64, error: f64, quantile: f64) {
        let [low, high] = found.interval.unwrap();
        for (found, expected) in [
            (found.value, value),
            (found.error, error),
            (low, value - quantile * error),
            (high, value + quantile * error),
        ] {
            assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        }
    }

    #[test]
    fn errors_are_clustered_by_text() {
        let a = [5.0, -3.0, 100.0, 0.5, 7.0, 2.0];
        let shift = [1.0, 3.0, 2.0, 2.0, 6.0, 4.0];
        let b: Vec<f64> = a.iter().zip(shift).map(|(a, shift)| a + shift).collect();
        // The means of the texts are 2, 2 and 5, with a standard deviation of √3; t(2) at 97.5 % is 4.302653.
        close(paired_difference(&a, &b, &Clusters::of_texts([0, 0, 1, 1, 2, 2])), 3.0, 1.0, 4.302_652_73);
        // One text: the standard deviation of the differences is √3.2; t(5) at 97.5 % is 2.570582.
        close(paired_difference(&a, &b, &Clusters::of_texts([0; 6])), 3.0, (3.2_f64 / 6.0).sqrt(), 2.570_581_84);
        close(paired_difference(&a, &b, &Clusters::of_texts(0..6)), 3.0, (3.2_f64 / 6.0).sqrt(), 2.570_581_84);
    }

    /// If one report's contributions are those of the other times a power of L, the exponents differ by that power in
    /// every sample.
    #[test]
    fn the_difference_of_exponents_is_paired() {
        let lengths = [4, 8, 16];
        let clusters = &Clusters::of_texts([0, 0, 1, 1, 2, 2]);
        let noise = [1.0, 1.4, 0.6, 0.9, 1.2, 0.7];
        let columns = |exponent: f64| -> Vec<Vec<f64>> {
            let column = |&length: &usize| noise.iter().map(|noise| noise * (length as f64).powf(exponent)).collect();
            lengths.iter().map(column).collect()
        };
        let found = exponent_difference(&lengths, &columns(0.5), &columns(0.8), clusters).unwrap();
        assert!((found.value - 0.3).abs() < 1e-12 && found.error < 1e-12, "{found:?}");
        let mut other = columns(0.8);
        other[2][0] *= 1.5;
        let found = exponent_difference(&lengths, &columns(0.5), &other, clusters).unwrap();
        assert!(found.value > 0.3 && found.error > 0.01, "{found:?}");
        other[1] = vec![-1.0; 6];
        assert_eq!(exponent_difference(&lengths, &columns(0.5), &other, clusters), None);
    }
}
