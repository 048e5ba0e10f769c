//! Runs: sending every query of a plan to a source, then computing the estimates.
//!
//! Start with [`run`]. `batches` divides the plan's queries into calls, and `tracker` has the
//! estimates during the run; [`execute`] runs a whole experiment, from its
//! corpus to its report.

mod batches;
mod execute;
mod tracker;

pub use execute::{execute, execute_shard};
pub use tracker::Progress;

use std::ops::Range;

use futures_util::{StreamExt, stream};

use crate::error::Error;
use crate::estimate::{Correction, Estimates};
use crate::plan::{Plan, ShardIndex};
use crate::run::batches::batches;
use crate::run::tracker::Tracker;
use crate::source::{LogprobSource, ScoreQuery};
use crate::store::AnswerStore;

/// Scores every query of `plan` with `source`, and returns the estimates. Each document is one window of symbols
/// (usually token ids), without BOS.
///
/// `progress` is called once before the first answer and after every batch of answers. The last call has the same
/// estimates as the result.
///
/// # Errors
/// [`Error::Invalid`], [`Error::DocumentLength`] or [`Error::TooLong`] if the documents or the model do not fit the
/// plan; the errors of the source and of [`Estimates::new`].
pub async fn run<T: Clone + Send + Sync, S: LogprobSource<T>>(
    source: &S,
    documents: &[Vec<T>],
    plan: &Plan,
    correction: Option<Correction>,
    progress: impl FnMut(Progress) + Send,
) -> Result<Estimates, Error> {
    let logprobs = score(source, documents, plan, Scope { correction, ..Scope::default() }, progress).await?;
    Estimates::new(plan, &logprobs, correction)
}

/// Runs a plan like [`run`], but saves every answer in `store` and scores only queries without a saved answer. A run
/// that was interrupted and restarted gives bit-identical estimates.
///
/// # Errors
/// The errors of [`run`]; [`Error::File`] if saved answers cannot be read or written.
pub async fn run_resumable<T: Clone + Send + Sync, S: LogprobSource<T>>(
    source: &S,
    documents: &[Vec<T>],
    plan: &Plan,
    correction: Option<Correction>,
    store: &AnswerStore,
    progress: impl FnMut(Progress) + Send,
) -> Result<Estimates, Error> {
    let scope = Scope { store: Some(store), shard: None, correction };
    let logprobs = score(source, documents, plan, scope, progress).await?;
    Estimates::new(plan, &logprobs, correction)
}

/// Scores one shard of a plan and saves its answers, so that [`merge`](crate::store::merge) can combine them with those
/// of other shards.
///
/// # Errors
/// The errors of [`run_resumable`], except those of [`Estimates::new`].
pub async fn run_shard<T: Clone + Send + Sync, S: LogprobSource<T>>(
    source: &S,
    documents: &[Vec<T>],
    plan: &Plan,
    shard: ShardIndex,
    store: &AnswerStore,
    progress: impl FnMut(Progress) + Send,
) -> Result<(), Error> {
    let scope = Scope { store: Some(store), shard: Some(shard), correction: None };
    score(source, documents, plan, scope, progress).await.map(drop)
}

/// The queries of a plan to score, the store for their answers, and the correction of the estimates during the run.
#[derive(Clone, Copy, Default)]
struct Scope<'a> {
    /// The store; `None` to save no answers.
    store: Option<&'a AnswerStore>,
    /// The shard to score; `None` for all queries.
    shard: Option<ShardIndex>,
    correction: Option<Correction>,
}

impl Scope<'_> {
    /// Returns the batches in scope, as ranges of the plan's queries.
    fn batches(self, plan: &Plan) -> Vec<Range<usize>> {
        let all = batches(plan.queries());
        match self.shard {
            Some(shard) => all[shard.range(all.len())].to_vec(),
            None => all,
        }
    }
}

/// Scores the queries in scope that have no saved answer, and returns all answers in the plan's order.
async fn score<T: Clone + Send + Sync, S: LogprobSource<T>>(
    source: &S,
    documents: &[Vec<T>],
    plan: &Plan,
    scope: Scope<'_>,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<Vec<Vec<f32>>, Error> {
    check(source, documents, plan)?;
    let mut logprobs = match scope.store {
        Some(store) => store.load(plan.queries())?,
        None => vec![None; plan.queries().len()],
    };
    let mut batches = scope.batches(plan);
    let all = batches.clone();
    batches.retain(|batch| logprobs[batch.clone()].iter().any(Option::is_none));
    // Batches are scored as a whole, so drop the answers of incomplete batches. Such answers come from a version that
    // divided the queries differently.
    for batch in &batches {
        logprobs[batch.clone()].fill(None);
    }
    if let Some(store) = scope.store {
        match batches.is_empty() {
            true => store.ignore_obstacle(),
            false => store.check_writable()?,
        }
    }
    let mut tracker = Tracker::new(plan, scope.correction, &logprobs, &all);
    progress(tracker.progress());
    let request = async |batch: Range<usize>| {
        let queries: Vec<_> = plan.queries()[batch.clone()].iter().map(|query| query.score_query(documents)).collect();
        let tokens: usize = queries.iter().map(ScoreQuery::sequence_length).sum();
        let answers = source.logprobs(queries).await?;
        Ok::<_, Error>((batch, tokens, answers))
    };
    let mut responses = stream::iter(batches).map(request).buffer_unordered(source.concurrency());
    while let Some(response) = responses.next().await {
        let (batch, tokens, mut answers) = response?;
        if let Some(store) = scope.store {
            answers = store.save(plan.queries(), batch.clone(), answers)?;
        }
        tracker.add(batch.clone(), tokens, &answers);
        for (slot, answer) in logprobs[batch].iter_mut().zip(answers) {
            *slot = Some(answer);
        }
        progress(tracker.progress());
    }
    Ok(logprobs.into_iter().flatten().collect())
}

/// Checks that the documents and the model fit the plan.
fn check<T, S: LogprobSource<T>>(source: &S, documents: &[Vec<T>], plan: &Plan) -> Result<(), Error> {
    if documents.len() != plan.documents() {
        let limit = format!("{}, as in the plan", plan.documents());
        return Err(Error::invalid("number of documents", documents.len(), limit));
    }
    let wrong = |(_, tokens): &(usize, &Vec<T>)| tokens.len() != plan.window();
    if let Some((document, tokens)) = documents.iter().enumerate().find(wrong) {
        return Err(Error::DocumentLength { document, length: tokens.len(), window: plan.window() });
    }
    let (needed, model) = (plan.longest_sequence(), source.model());
    if needed > model.max_length {
        return Err(Error::TooLong { needed, model: model.name.clone(), limit: model.max_length });
    }
    Ok(())
}
