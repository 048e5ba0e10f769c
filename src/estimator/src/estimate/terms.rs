//! Terms: the sums of log-probabilities that the estimators combine.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::plan::{Plan, PlannedQuery};

/// The sums of log-probabilities at one point, in nats, with one entry per document.
pub(crate) struct Terms {
    /// `ln q(y_i | x_i)`.
    pub(crate) conditional: Vec<f64>,
    /// `ln q(y_i)`.
    pub(crate) marginal: Vec<f64>,
    /// The part of `marginal` from the first n tokens of `y_i`, which the n-gram correction replaces.
    pub(crate) head: Vec<f64>,
    /// The contexts `x_j` from other documents, and `ln q(y_i | x_j)`.
    pub(crate) crossed: Vec<Vec<Crossed>>,
    /// Pairs of unrelated documents that are scored together.
    pub(crate) joint: BTreeMap<[usize; 2], Joint>,
}

/// The log-probabilities of two unrelated documents `a` and `b` together, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Joint {
    /// `ln q(y_a y_b | x_a x_b)`.
    pub(crate) conditional: f64,
    /// `ln q(y_a y_b)`.
    pub(crate) marginal: f64,
}

/// The log-probability of a document's `y` after the `x` of another document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Crossed {
    /// The document that `x` is from.
    pub(crate) x: usize,
    /// `ln q(y | x)`, in nats.
    pub(crate) logprob: f64,
}

impl Terms {
    /// Returns the terms of each of the plan's points without any answer: sums of 0, and no contexts.
    pub(crate) fn empty(plan: &Plan) -> Vec<Self> {
        let zeros = || vec![0.0; plan.documents()];
        let empty = |_| Self {
            conditional: zeros(),
            marginal: zeros(),
            head: zeros(),
            crossed: vec![Vec::with_capacity(plan.design().negatives); plan.documents()],
            joint: BTreeMap::new(),
        };
        plan.points().iter().map(empty).collect()
    }

    /// Returns the contexts of each document from other texts or, if there is only one text, from other documents. All
    /// documents have the same number of contexts: that of the document with the fewest.
    pub(crate) fn unrelated(&self, plan: &Plan) -> Vec<Vec<Crossed>> {
        let mut unrelated: Vec<Vec<Crossed>> = Vec::with_capacity(self.crossed.len());
        for (y, crossed) in self.crossed.iter().enumerate() {
            unrelated.push(crossed.iter().filter(|context| plan.are_unrelated(context.x, y)).copied().collect());
        }
        let fewest = unrelated.iter().map(Vec::len).min().unwrap_or(0);
        unrelated.iter_mut().for_each(|contexts| contexts.truncate(fewest));
        unrelated
    }

    /// Returns `mean_j ln q(y_i | x_j)` of each document `i`.
    pub(crate) fn crossed_means(&self) -> Vec<f64> {
        let mean = |crossed: &Vec<Crossed>| crossed.iter().map(|c| c.logprob).sum::<f64>() / crossed.len() as f64;
        self.crossed.iter().map(mean).collect()
    }
}

/// Returns the differences of corresponding values.
pub(crate) fn differences(left: &[f64], right: &[f64]) -> Vec<f64> {
    left.iter().zip(right).map(|(left, right)| left - right).collect()
}

/// Sums the answers to a plan's queries into the terms of each point. [`Terms::head`] covers `ngram` tokens.
pub(crate) fn collect(plan: &Plan, logprobs: &[Vec<f32>], ngram: usize) -> Result<Vec<Terms>, Error> {
    if logprobs.len() != plan.queries().len() {
        let limit = format!("one for each of the plan's {} queries", plan.queries().len());
        return Err(Error::invalid("number of answers", logprobs.len(), limit));
    }
    let mut terms = Terms::empty(plan);
    for (query, answer) in plan.queries().iter().zip(logprobs) {
        validate(query, answer)?;
        add(&mut terms, plan, query, answer, ngram);
    }
    Ok(terms)
}

/// Adds the answer to a query, which must be valid, to the terms of each point. [`Terms::head`] covers `ngram` tokens.
pub(crate) fn add(terms: &mut [Terms], plan: &Plan, query: &PlannedQuery, answer: &[f32], ngram: usize) {
    for (terms, point) in terms.iter_mut().zip(plan.points()) {
        let length = point.length() - point.split;
        match *query {
            PlannedQuery::Whole { document, .. } => {
                terms.conditional[document] = sum(&answer[point.split..point.length()]);
            }
            PlannedQuery::Marginal { document, split, .. } if split == point.split => {
                terms.marginal[document] = sum(&answer[..length]);
                terms.head[document] = sum(&answer[..ngram]);
            }
            PlannedQuery::Crossed { x, y, split, .. } if split == point.split => {
                terms.crossed[y].push(Crossed { x, logprob: sum(&answer[..length]) });
            }
            PlannedQuery::Joint { documents, split, end } if (split, end) == (point.split, point.length()) => {
                terms.joint.entry(documents).or_default().conditional = sum(answer);
            }
            PlannedQuery::JointMarginal { documents, split, end } if (split, end) == (point.split, point.length()) => {
                terms.joint.entry(documents).or_default().marginal = sum(answer);
            }
            PlannedQuery::Marginal { .. }
            | PlannedQuery::Crossed { .. }
            | PlannedQuery::Joint { .. }
            | PlannedQuery::JointMarginal { .. } => {}
        }
    }
}

/// Checks that an answer has one finite log-probability for each target token of its query.
pub(crate) fn validate(query: &PlannedQuery, answer: &[f32]) -> Result<(), Error> {
    let expected = query.target_length();
    if answer.len() != expected {
        let limit = format!("{expected} for {query}");
        return Err(Error::invalid("number of log-probabilities", answer.len(), limit));
    }
    match answer.iter().position(|logprob| !logprob.is_finite()) {
        None => Ok(()),
        Some(position) => Err(Error::NotFinite { query: query.to_string(), position, value: answer[position] }),
    }
}

/// Sums f32 values in f64, in order.
pub(crate) fn sum(logprobs: &[f32]) -> f64 {
    logprobs.iter().map(|&logprob| f64::from(logprob)).sum()
}
