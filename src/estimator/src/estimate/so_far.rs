//! Estimates during a run, from the documents that are scored so far.

use std::collections::BTreeMap;

use crate::estimate::clusters::Clusters;
use crate::estimate::correction::Correction;
use crate::estimate::dyadic::Dyadic;
use crate::estimate::series::Series;
use crate::estimate::terms::{Crossed, Terms, add, differences, validate};
use crate::plan::{Plan, PlannedQuery};
use crate::unit::Unit;
use crate::value::Estimate;

/// The estimates from the documents that a run has scored so far.
///
/// A plan visits the documents in a random order in which the texts take turns, so the scored documents are a random
/// sample. Intervals are 95 % intervals of Student's t distribution over texts (over documents, if all are from one
/// text), which take less time than those of the bootstrap. The last estimates of a run are those of its report.
#[derive(Clone, Debug, PartialEq)]
pub struct EstimatesSoFar {
    /// The unit of all estimates.
    pub unit: Unit,
    /// The number of documents that the run scores. In a shard, those whose whole window and whose `y` without a context
    /// are in the shard, or were scored before.
    pub documents: usize,
    /// The direct estimate, the corrected estimate if there is a correction, and vCLUB. A series is absent until it has
    /// an interval, which takes two texts, or two documents if all are from one text.
    pub series: Vec<SeriesSoFar>,
}

/// The estimates of one series so far.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesSoFar {
    /// The estimator.
    pub series: Series,
    /// The number of documents whose queries for this series are all answered.
    pub documents: usize,
    /// The number of texts that these documents are from.
    pub texts: usize,
    /// The estimates at the plan's points, by ratio, then by increasing length.
    pub points: Vec<PointSoFar>,
}

/// An estimate at one point so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PointSoFar {
    /// The ratio `L/ℓ`.
    pub ratio: usize,
    /// The length `L`: tokens in `x` and `y` together.
    pub length: usize,
    /// The split `ℓ`: tokens in `x`.
    pub split: usize,
    /// The mean, its standard error and its interval. For the direct estimates they are those with the same `y` in both
    /// terms, whatever the plan's pairing.
    pub estimate: Estimate,
}

/// The terms of the documents of a plan, to which answers are added as they arrive.
pub(crate) struct RunningEstimates<'a> {
    plan: &'a Plan,
    correction: Option<Correction>,
    clusters: Clusters,
    terms: Vec<Terms>,
    /// The number of queries that each document still needs: for the direct estimates, and for vCLUB.
    missing: [Vec<usize>; 2],
    /// The number of documents that the run scores.
    documents: usize,
}

/// Indices into [`RunningEstimates::missing`].
const DIRECT: usize = 0;
const VCLUB: usize = 1;

impl<'a> RunningEstimates<'a> {
    /// Creates the terms of a plan without answers. `scored` has the queries that the run scores or that are answered.
    pub(crate) fn new(plan: &'a Plan, correction: Option<Correction>, scored: impl Iterator<Item = usize>) -> Self {
        let mut missing = [vec![0; plan.documents()], vec![0; plan.documents()]];
        let mut of_scored = missing.clone();
        plan.queries().iter().for_each(|query| count(&mut missing, query, |count| *count += 1));
        scored.for_each(|index| count(&mut of_scored, &plan.queries()[index], |count| *count += 1));
        let documents = of_scored[DIRECT].iter().zip(&missing[DIRECT]).filter(|(scored, all)| scored == all).count();
        Self {
            plan,
            // The estimates at the end of the run report a correction that does not fit the plan.
            correction: correction.filter(|correction| correction.check(plan).is_ok()),
            clusters: Clusters::of(plan),
            terms: Terms::empty(plan),
            missing,
            documents,
        }
    }

    /// Adds the answer to a query. Ignores an invalid answer, which is an error at the end of the run.
    pub(crate) fn add(&mut self, query: &PlannedQuery, answer: &[f32]) {
        if validate(query, answer).is_ok() {
            let ngram = self.correction.map_or(0, |correction| correction.entropy.n);
            add(&mut self.terms, self.plan, query, answer, ngram);
            count(&mut self.missing, query, |count| *count = count.saturating_sub(1));
        }
    }

    /// Returns the estimates so far, in nats; `None` if there are none yet.
    pub(crate) fn estimates(&self) -> Option<EstimatesSoFar> {
        let samples = [DIRECT, VCLUB].map(|kind| Sample::new(self, &self.missing[kind]));
        let mut series = Vec::new();
        for name in Series::MEANS {
            let sample = &samples[if name == Series::Vclub { VCLUB } else { DIRECT }];
            // With one of several texts, there is no error over texts.
            if sample.texts < 2 || (name == Series::Corrected && self.correction.is_none()) {
                continue;
            }
            let mut points = Vec::with_capacity(self.terms.len());
            for (point, terms) in self.plan.points().iter().zip(&self.terms) {
                let (ratio, length, split) = (point.ratio, point.length(), point.split);
                points.push(PointSoFar { ratio, length, split, estimate: self.estimate(name, split, terms, sample) });
            }
            series.push(SeriesSoFar {
                series: name,
                documents: sample.documents.len(),
                texts: if self.plan.text_count() > 1 { sample.texts } else { 1 },
                points,
            });
        }
        (!series.is_empty()).then_some(EstimatesSoFar { unit: Unit::Nats, documents: self.documents, series })
    }

    /// Estimates a series at one point.
    fn estimate(&self, series: Series, split: usize, terms: &Terms, sample: &Sample) -> Estimate {
        let over_texts = |marginal: &[f64]| {
            let values = sample.select(&differences(&terms.conditional, marginal));
            sample.clusters.estimate(&values).with_t_interval(sample.clusters.freedom())
        };
        match (series, self.correction) {
            (Series::Vclub, _) => sample.vclub(terms).with_t_interval(sample.clusters.freedom()),
            (Series::Corrected, Some(correction)) => {
                let estimate = over_texts(&correction.marginal(terms));
                let is_first = split == self.plan.splits()[0];
                if is_first { estimate.widened(correction.entropy.error) } else { estimate }
            }
            _ => over_texts(&terms.marginal),
        }
    }
}

/// Changes the counts of the document that a query belongs to: those of the direct estimates, and those of vCLUB.
fn count(counts: &mut [Vec<usize>; 2], query: &PlannedQuery, change: impl Fn(&mut usize)) {
    let [direct, vclub] = counts;
    match *query {
        PlannedQuery::Whole { document, .. } => [direct, vclub].into_iter().for_each(|of| change(&mut of[document])),
        PlannedQuery::Marginal { document, .. } => change(&mut direct[document]),
        PlannedQuery::Crossed { y, .. } => change(&mut vclub[y]),
        PlannedQuery::Joint { .. } | PlannedQuery::JointMarginal { .. } => {}
    }
}

/// The documents that have all answers for a series.
struct Sample {
    /// The documents in increasing order.
    documents: Vec<usize>,
    /// The number of clusters of the whole plan that they are from.
    texts: usize,
    /// Their clusters: texts, or documents if all are from one text.
    clusters: Clusters,
    /// `true` if each context is the negative of one `y` only, and each document is a text.
    is_independent: bool,
    /// The unit over which errors are computed, for each document of the plan.
    units: Vec<usize>,
}

impl Sample {
    fn new(running: &RunningEstimates<'_>, missing: &[usize]) -> Self {
        let documents: Vec<usize> = (0..missing.len()).filter(|&document| missing[document] == 0).collect();
        let unit = |&document: &usize| running.clusters.of_document(document);
        let mut of_documents: Vec<usize> = documents.iter().map(unit).collect();
        let clusters = Clusters::of_texts(of_documents.iter().copied());
        of_documents.dedup();
        let texts = of_documents.len();
        let all = 0..missing.len();
        Self {
            documents,
            texts,
            clusters,
            is_independent: running.clusters.are_documents() && running.plan.design().negatives == 1,
            units: if texts < 2 { all.collect() } else { all.map(|document| unit(&document)).collect() },
        }
    }

    /// Returns the values of the sample's documents.
    fn select(&self, values: &[f64]) -> Vec<f64> {
        self.documents.iter().map(|&document| values[document]).collect()
    }

    /// Estimates vCLUB. Its error is robust to the clusters of both `y` and `x` (Aronow, Samii and Assenova, 2015), as
    /// that of the report; contexts may be from texts outside the sample.
    fn vclub(&self, terms: &Terms) -> Estimate {
        let of_y = self.clusters.means(&self.select(&differences(&terms.conditional, &terms.crossed_means())));
        let over_y = Estimate::of(&of_y);
        if self.is_independent {
            return over_y;
        }
        // The units that the sample's documents are from come first, in the order of the clusters.
        let mut indices: BTreeMap<usize, usize> = BTreeMap::new();
        let mut index_of = |document: usize| {
            let next = indices.len();
            *indices.entry(self.units[document]).or_insert(next)
        };
        self.documents.iter().for_each(|&document| {
            index_of(document);
        });
        let mut queries = Vec::new();
        for &document in &self.documents {
            let (y, own) = (index_of(document), terms.conditional[document]);
            let contexts = terms.crossed[document].iter();
            queries.extend(contexts.map(|&Crossed { x, logprob }| ([y, index_of(x)], own - logprob)));
        }
        let correction = |cluster| if cluster < of_y.len() { self.clusters.correction(cluster) } else { 1.0 };
        let Dyadic { variance, .. } = Dyadic::new(&of_y, queries, correction);
        Estimate::new(over_y.value, variance.max(over_y.error.powi(2)).sqrt())
    }
}

#[cfg(test)]
mod tests;
