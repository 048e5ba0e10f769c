//! Extrapolation of the surprisal to infinitely long context, by several laws.

use serde::{Deserialize, Serialize};

use crate::estimate::bootstrap::{Bootstrap, CONFIDENCE_LEVEL};
use crate::estimate::clusters::Clusters;
use crate::estimate::entropy_rate::columns::{Columns, Range, Total};
use crate::estimate::entropy_rate::units::{TextUnit, UnitRates, tail_size};
use crate::estimate::entropy_rate::{EntropyRate, OMITTED_POSITIONS};
use crate::estimate::scatter::{Sampling, Scatter};
use crate::fit::{FitTest, RateFitter, RateLaw, RateSolution};
use crate::plan::Plan;
use crate::value::Estimate;

/// The minimum number of ranges: laws have three parameters, and a test needs two more.
pub(crate) const MIN_RANGES: usize = 5;

/// The number of clusters for each half octave from which half octaves are fitted.
const FINE_CLUSTERS: usize = 10;

/// The minimum number of first positions that each fit omits.
const FIT_OMISSIONS: [usize; 2] = [OMITTED_POSITIONS, 2 * OMITTED_POSITIONS];

/// The laws fitted to the surprisal from one position on: to the means over `ranges` octaves or half octaves of
/// positions, which end at the end of the window. Information is in nats, or in the report's unit after conversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateFits {
    /// The first position, from 1.
    pub first: usize,
    /// The number of ranges of positions whose means are fitted.
    pub ranges: usize,
    /// The observations behind the covariance of these means.
    pub sampling: Sampling,
    /// `ν`: the degrees of freedom of the covariance.
    pub freedom: usize,
    /// The fits, in the order of [`RateLaw::ALL`]; at most one for each law, without those that cannot be fitted.
    pub laws: Vec<RateFit>,
}

impl RateFits {
    /// Returns the fit of a law; `None` if there is none.
    pub fn get(&self, law: RateLaw) -> Option<&RateFit> {
        self.laws.iter().find(|fit| fit.law == law)
    }

    /// Returns the fit with the smallest AICc; `None` if there are no fits.
    pub fn best(&self) -> Option<&RateFit> {
        self.laws.iter().min_by(|a, b| a.aicc.total_cmp(&b.aicc))
    }
}

/// A law fitted to surprisal by position by generalized least squares.
///
/// Rates, amplitudes, `below_tail` and `excess` are in nats, or in the report's unit after conversion.
///
/// Errors are those of the jackknife over texts, and intervals those of the BCa bootstrap over texts. Each resample has
/// its own fit and its own covariance. The scatter within texts is always that of the full sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateFit {
    /// The law.
    pub law: RateLaw,
    /// The entropy rate `h`. Rates per character and per byte are those per token, divided by the size of a token in the
    /// last octave.
    pub rate: UnitRates,
    /// The amplitude `A`, per token; `None` for a constant. That of a stretched exponential has no unit, and is not
    /// converted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amplitude: Option<f64>,
    /// The Hilberg exponent `β`; `None` for a constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponent: Option<Estimate>,
    /// The mean surprisal of the last octave minus the rate, per token: the distance of the extrapolation.
    pub below_tail: Estimate,
    /// The excess entropy of a whole window of `N` tokens, `E(N) = H(N) - N h`: the sum of `h(n) - h` over its
    /// positions, including those that the fit omits.
    pub excess: Estimate,
    /// `T²`, the minimum of the fit ([`LawFit`](crate::LawFit)).
    pub chi2: f64,
    /// The number of means minus the number of parameters.
    pub dof: usize,
    /// The p-value of the test.
    pub p: f64,
    /// The corrected Akaike information criterion.
    pub aicc: f64,
    /// `true` if the rate or the amplitude is 0, or if the exponent is at a bound of its search.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_at_bound: bool,
}

impl RateFit {
    /// Returns the law's value at the position `n`, which counts from 1: the surprisal of the token there, in the unit
    /// of the rate.
    pub fn at(&self, n: f64) -> f64 {
        let exponent = self.exponent.map_or(0.0, |exponent| exponent.value);
        self.law.at(self.rate.token.value, self.amplitude.unwrap_or(0.0), exponent, n)
    }

    /// Returns the estimates that are information.
    pub(crate) fn information(&mut self) -> impl Iterator<Item = &mut Estimate> {
        self.rate.all().chain([&mut self.below_tail, &mut self.excess])
    }
}

/// Fits all laws to the means over ranges of positions: without the first [`OMITTED_POSITIONS`], and without twice as
/// many, which shows whether the choice matters.
pub(crate) fn fit_rates(columns: &Columns, rows: &[Vec<f64>], clusters: &Clusters, plan: &Plan) -> Vec<RateFits> {
    let cluster_rows = clusters.mean_rows(rows);
    let mut all = Vec::new();
    for omitted in FIT_OMISSIONS {
        let Some(sample) = Sample::new(columns, omitted, rows, &cluster_rows, clusters) else { continue };
        let bootstrap = Bootstrap::of_clusters(&sample.rows, clusters, plan);
        let laws: Vec<RateFit> = RateLaw::ALL.into_iter().filter_map(|law| sample.fit(law, &bootstrap)).collect();
        if !laws.is_empty() {
            let (first, ranges) = (sample.ranges[0].first, sample.ranges.len());
            let (sampling, freedom) = (sample.sampling, sample.scatter.freedom);
            all.push(RateFits { first, ranges, sampling, freedom, laws });
        }
    }
    all
}

/// Chooses the ranges: half octaves if there are many clusters or if there are few octaves, otherwise octaves.
///
/// Laws are smooth, so finer ranges help little, but a covariance of more means needs more clusters.
fn choose_ranges(columns: &Columns, omitted: usize, clusters: usize) -> Vec<Range> {
    let [halves, octaves] = [1, 2].map(|halves| columns.ranges(halves, omitted));
    let are_many = clusters > FINE_CLUSTERS * halves.len();
    if are_many || octaves.len() < MIN_RANGES { halves } else { octaves }
}

impl EntropyRate {
    /// Returns the number of half octaves after the omitted positions. A fit needs [`MIN_RANGES`].
    pub(crate) fn half_octaves(&self) -> usize {
        Columns::new(self.window).ranges(1, OMITTED_POSITIONS).len()
    }

    /// Returns the degrees of freedom that a fit needs at least, with this number of clusters; `None` if there are too
    /// few ranges.
    pub(crate) fn needed_freedom(&self, clusters: usize) -> Option<usize> {
        let columns = Columns::new(self.window);
        let ranges = FIT_OMISSIONS.map(|omitted| choose_ranges(&columns, omitted, clusters).len());
        ranges.into_iter().filter(|&ranges| ranges >= MIN_RANGES).map(Scatter::needed_freedom).min()
    }
}

/// The means that laws are fitted to, and the rows that are resampled for them.
struct Sample<'a> {
    columns: &'a Columns,
    ranges: Vec<Range>,
    sampling: Sampling,
    scatter: Scatter,
    /// One row per cluster: its sums, followed by the products of its deviations from the means.
    rows: Vec<Vec<f64>>,
}

impl<'a> Sample<'a> {
    /// Computes the means. `None` if there are too few ranges, or if no covariance has enough degrees of freedom.
    fn new(
        columns: &'a Columns,
        omitted: usize,
        rows: &[Vec<f64>],
        cluster_rows: &[Vec<f64>],
        clusters: &Clusters,
    ) -> Option<Self> {
        let ranges = choose_ranges(columns, omitted, clusters.count());
        if ranges.len() < MIN_RANGES {
            return None;
        }
        let means = |rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
            rows.iter().map(|row| ranges.iter().map(|range| range.mean(row)).collect()).collect()
        };
        let (sampling, scatter) = Scatter::choose(&means(rows), &means(cluster_rows), clusters)?;
        let mut rows = cluster_rows.to_vec();
        for (row, means) in rows.iter_mut().zip(means(cluster_rows)) {
            let deviations: Vec<f64> = means.iter().zip(&scatter.means).map(|(value, mean)| value - mean).collect();
            for (index, deviation) in deviations.iter().enumerate() {
                row.extend(deviations[..=index].iter().map(|other| deviation * other));
            }
        }
        Some(Self { columns, ranges, sampling, scatter, rows })
    }

    /// Returns the means of a resample, and their covariance: over clusters, that of the resample; within clusters, that
    /// of the full sample.
    fn resample(&self, row: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
        let means: Vec<f64> = self.ranges.iter().map(|range| range.mean(row)).collect();
        if self.sampling == Sampling::Within {
            return (means, self.scatter.covariance.clone());
        }
        let shifts: Vec<f64> = means.iter().zip(&self.scatter.means).map(|(mean, full)| mean - full).collect();
        let mut products = row[self.columns.width()..].iter();
        let mut covariance = vec![vec![0.0; means.len()]; means.len()];
        for i in 0..means.len() {
            for j in 0..=i {
                let product = products.next().copied().unwrap_or_default() - shifts[i] * shifts[j];
                let product = product / (self.rows.len() as f64 - 1.0);
                (covariance[i][j], covariance[j][i]) = (product, product);
            }
        }
        (means, covariance)
    }

    /// Fits one law; `None` if it cannot be fitted.
    fn fit(&self, law: RateLaw, bootstrap: &Bootstrap<'_>) -> Option<RateFit> {
        let places: Vec<(usize, usize)> = self.ranges.iter().map(|range| (range.first, range.last)).collect();
        let fitter = RateFitter::new(law, &places);
        let Scatter { means, covariance, freedom } = &self.scatter;
        let (solution, FitTest { dof, p, aicc }) = fitter.fit(means, covariance, *freedom)?;
        let refitted = |row: &[f64]| {
            let (means, covariance) = self.resample(row);
            Some(self.statistics(&fitter.fit_resample(&means, &covariance)?, row))
        };
        let estimates = bootstrap.estimates(CONFIDENCE_LEVEL, refitted)?;
        let [token, character, byte, exponent, below_tail, excess] = estimates[..] else { return None };
        let present = |estimate: Estimate| estimate.value.is_finite().then_some(estimate);
        let has_decay = law != RateLaw::Constant;
        Some(RateFit {
            law,
            rate: UnitRates { token, character: present(character), byte: present(byte) },
            amplitude: has_decay.then_some(solution.amplitude),
            exponent: has_decay.then_some(exponent),
            below_tail,
            excess,
            chi2: solution.chi2,
            dof,
            p,
            aicc,
            is_at_bound: solution.is_at_bound,
        })
    }

    /// Returns the quantities that follow from a fit and the sums of its sample.
    fn statistics(&self, &RateSolution { rate, exponent, .. }: &RateSolution, row: &[f64]) -> Vec<f64> {
        let columns = self.columns;
        let (window, tail) = (columns.window as f64, columns.tail() as f64);
        let below_tail = row[columns.total(Total::Tail)] / tail - rate;
        let excess = row[columns.total(Total::Whole)] - window * rate;
        let [character, byte] = TextUnit::ALL.map(|unit| rate * tail / row[columns.total(tail_size(unit))]);
        vec![rate, character, byte, exponent, below_tail, excess]
    }
}
