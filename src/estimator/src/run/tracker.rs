//! The progress of a run, with its estimates so far.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::estimate::{Correction, EstimatesSoFar, RunningEstimates};
use crate::plan::Plan;
use crate::unit::Unit;

/// Minimum time between two computations of the estimates.
const INTERVAL: Duration = Duration::from_secs(2);

/// Minimum time between two computations, as a multiple of the time that one takes.
const MIN_IDLE_RATIO: u32 = 20;

/// The progress of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Queries answered so far.
    pub queries: u64,
    /// Queries in the plan.
    pub total_queries: u64,
    /// Tokens in the answered queries, including contexts and BOS.
    pub tokens: u64,
    /// Tokens in all queries.
    pub total_tokens: u64,
    /// The estimates so far, computed every few seconds and at the end of the run; `None` before there are any.
    pub estimates: Option<Arc<EstimatesSoFar>>,
}

impl Progress {
    /// Converts the estimates to a unit.
    pub(crate) fn in_unit(self, unit: Unit) -> Self {
        let estimates = self.estimates.map(|estimates| match estimates.unit == unit {
            true => estimates,
            false => Arc::new(estimates.in_unit(unit)),
        });
        Self { estimates, ..self }
    }
}

/// The answers so far, and when to compute the next estimates.
pub(crate) struct Tracker<'a> {
    plan: &'a Plan,
    progress: Progress,
    running: RunningEstimates<'a>,
    due: Instant,
}

impl<'a> Tracker<'a> {
    /// Starts with the answers that are saved. `batches` are those that the run scores, and those that are answered.
    pub(crate) fn new(
        plan: &'a Plan,
        correction: Option<Correction>,
        logprobs: &[Option<Vec<f32>>],
        batches: &[Range<usize>],
    ) -> Self {
        let queries = plan.queries();
        let mut scored: Vec<bool> = logprobs.iter().map(Option::is_some).collect();
        let mut progress = Progress::default();
        for index in batches.iter().cloned().flatten() {
            let tokens = queries[index].sequence_length() as u64;
            progress.total_queries += 1;
            progress.total_tokens += tokens;
            if logprobs[index].is_some() {
                progress.queries += 1;
                progress.tokens += tokens;
            }
            scored[index] = true;
        }
        let indices = scored.iter().enumerate().filter_map(|(index, &is_scored)| is_scored.then_some(index));
        let running = RunningEstimates::new(plan, correction, indices);
        let mut tracker = Self { plan, progress, running, due: Instant::now() };
        for (query, answer) in queries.iter().zip(logprobs) {
            answer.iter().for_each(|answer| tracker.running.add(query, answer));
        }
        tracker.estimate();
        tracker
    }

    /// Returns the progress.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Adds the answers to a batch, which have this number of tokens.
    pub(crate) fn add(&mut self, batch: Range<usize>, tokens: usize, answers: &[Vec<f32>]) {
        self.progress.queries += batch.len() as u64;
        self.progress.tokens += tokens as u64;
        for (query, answer) in self.plan.queries()[batch].iter().zip(answers) {
            self.running.add(query, answer);
        }
        if self.progress.queries >= self.progress.total_queries || Instant::now() >= self.due {
            self.estimate();
        }
    }

    fn estimate(&mut self) {
        let start = Instant::now();
        self.progress.estimates = self.running.estimates().map(Arc::new);
        let end = Instant::now();
        self.due = end + INTERVAL.max((end - start) * MIN_IDLE_RATIO);
    }
}
