//! Running an experiment: send every query of the plan to a source, then estimate.
//!
//! Start with [`run`]; `execute` runs a whole experiment file, from its corpus to its report.

mod execute;

use std::ops::Range;

use futures_util::{StreamExt, stream};

use crate::error::Error;
use crate::estimate::{Correction, Estimates};
use crate::plan::{Plan, ShardIndex, Step};
use crate::source::{LogprobSource, ScoreQuery, group};
use crate::store::Answers;

/// Tokens given to a source in one call, unless one query or family has more.
const BATCH_TOKENS: usize = 8 * 1024;

/// A family of no more tokens than this goes in one call: what continues a document is then asked after the document itself.
const FAMILY_TOKENS: usize = 32 * 1024;

/// How far an experiment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Queries answered.
    pub queries: u64,
    /// Queries in the plan.
    pub total_queries: u64,
    /// Tokens in the answered queries, contexts and BOS included.
    pub tokens: u64,
    /// Tokens in all queries.
    pub total_tokens: u64,
}

/// Asks `source` every query of `plan` about `documents` (one window of token ids each, without BOS) and estimates.
///
/// `progress` is called once before the first answer and after every batch of answers.
///
/// # Errors
/// Documents or a model that do not fit the plan; whatever the source fails with; and what [`Estimates::new`] refuses.
pub async fn run<T: Clone + Send + Sync, S: LogprobSource<T>>(
    source: &S,
    documents: &[Vec<T>],
    plan: &Plan,
    correction: Option<Correction>,
    progress: impl FnMut(Progress) + Send,
) -> Result<Estimates, Error> {
    let logprobs = score(source, documents, plan, Keep::NONE, progress).await?;
    Estimates::new(plan, &logprobs, correction)
}

/// As [`run`], with every answer kept in `answers`, and those asked for that it has not: the same bits, however often the process dies.
///
/// # Errors
/// As [`run`], and [`Error::File`] for what cannot be read or written.
pub async fn run_kept<T: Clone + Send + Sync, S: LogprobSource<T>>(
    source: &S,
    documents: &[Vec<T>],
    plan: &Plan,
    correction: Option<Correction>,
    answers: &Answers,
    progress: impl FnMut(Progress) + Send,
) -> Result<Estimates, Error> {
    let logprobs = score(source, documents, plan, Keep { answers: Some(answers), part: None }, progress).await?;
    Estimates::new(plan, &logprobs, correction)
}

/// Asks for one part of a plan's answers and keeps them in `answers`, for [`merge`](crate::store::merge) to put together with the others.
///
/// # Errors
/// As [`run_kept`], but for what estimates refuse.
pub async fn answer<T: Clone + Send + Sync, S: LogprobSource<T>>(
    source: &S,
    documents: &[Vec<T>],
    plan: &Plan,
    part: ShardIndex,
    answers: &Answers,
    progress: impl FnMut(Progress) + Send,
) -> Result<(), Error> {
    let keep = Keep { answers: Some(answers), part: Some(part) };
    score(source, documents, plan, keep, progress).await.map(drop)
}

/// What becomes of answers, and of which.
#[derive(Clone, Copy)]
struct Keep<'a> {
    answers: Option<&'a Answers>,
    /// None: all.
    part: Option<ShardIndex>,
}

impl Keep<'_> {
    const NONE: Self = Self { answers: None, part: None };
}

/// The answers to all steps of the plan, or of a part of it, in its order.
async fn score<T: Clone + Send + Sync, S: LogprobSource<T>>(
    source: &S,
    documents: &[Vec<T>],
    plan: &Plan,
    Keep { answers: kept, part }: Keep<'_>,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<Vec<Vec<f32>>, Error> {
    check(source, documents, plan)?;
    let mut logprobs = match kept {
        Some(kept) => kept.read(plan.steps())?,
        None => vec![None; plan.steps().len()],
    };
    let mut ranges = batches(plan.steps());
    if let Some(part) = part {
        ranges = ranges[part.range(ranges.len())].to_vec();
    }
    let own = || ranges.first().map_or(0, |range| range.start)..ranges.last().map_or(0, |range| range.end);
    let steps = &plan.steps()[own()];
    let total_tokens = steps.iter().map(|step| step.sequence_length() as u64).sum();
    let mut done = Progress { total_queries: steps.len() as u64, total_tokens, ..Progress::default() };
    for (step, _) in steps.iter().zip(&logprobs[own()]).filter(|(_, answer)| answer.is_some()) {
        done.queries += 1;
        done.tokens += step.sequence_length() as u64;
    }
    ranges.retain(|range| logprobs[range.clone()].iter().any(Option::is_none));
    // A range is asked whole: only a program that cuts ranges otherwise leaves part of one.
    ranges.iter().for_each(|range| logprobs[range.clone()].fill(None));
    progress(done);
    let ask = async |steps: Range<usize>| {
        let queries: Vec<_> = plan.steps()[steps.clone()].iter().map(|step| step.query(documents)).collect();
        let tokens: usize = queries.iter().map(ScoreQuery::sequence_length).sum();
        let answers = source.logprobs(queries).await?;
        Ok::<_, Error>((steps, tokens, answers))
    };
    let mut batches = stream::iter(ranges).map(ask).buffer_unordered(source.concurrency());
    while let Some(batch) = batches.next().await {
        let (steps, tokens, mut answers) = batch?;
        if let Some(kept) = kept {
            answers = kept.keep(plan.steps(), steps.clone(), answers)?;
        }
        done.queries += steps.len() as u64;
        done.tokens += tokens as u64;
        for (place, answer) in logprobs[steps].iter_mut().zip(answers) {
            *place = Some(answer);
        }
        progress(done);
    }
    Ok(logprobs.into_iter().flatten().collect())
}

/// What goes into one call: families (a document and what continues it), of which only a large one is cut.
fn batches(steps: &[Step]) -> Vec<Range<usize>> {
    let tokens = |steps: &[Step]| steps.iter().map(Step::sequence_length).sum::<usize>();
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let (mut start, mut open) = (0, None);
    for family in steps.chunk_by(|_, next| !matches!(next, Step::Whole { .. })) {
        let (end, length) = (start + family.len(), tokens(family));
        match ranges.last_mut() {
            Some(range) if open.is_some_and(|open| open + length <= BATCH_TOKENS) => {
                range.end = end;
                open = open.map(|open| open + length);
            }
            _ if length <= FAMILY_TOKENS => {
                ranges.push(start..end);
                open = Some(length);
            }
            _ => {
                let parts = group(family.iter().map(Step::sequence_length), family.len(), BATCH_TOKENS);
                ranges.extend(parts.into_iter().map(|part| start + part.start..start + part.end));
                open = None;
            }
        }
        start = end;
    }
    ranges
}

fn check<T, S: LogprobSource<T>>(source: &S, documents: &[Vec<T>], plan: &Plan) -> Result<(), Error> {
    if documents.len() != plan.documents() {
        let limit = format!("{}, as in the plan", plan.documents());
        return Err(Error::invalid("number of documents", documents.len(), limit));
    }
    let wrong = |(_, tokens): &(usize, &Vec<T>)| tokens.len() != plan.window();
    if let Some((document, tokens)) = documents.iter().enumerate().find(wrong) {
        return Err(Error::DocumentLength { document, length: tokens.len(), window: plan.window() });
    }
    let (needed, model) = (plan.window() + 1, source.model());
    if needed > model.max_length {
        return Err(Error::TooLong { needed, model: model.name.clone(), limit: model.max_length });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Design, Plan};

    #[test]
    fn batches_hold_all_steps_in_order_and_cut_large_families_alone() {
        let of = |splits: &[usize], negatives| {
            let plan = Plan::of(40, Design { splits: splits.to_vec(), negatives, ..Design::default() }).unwrap();
            let ranges = batches(plan.steps());
            assert_eq!(
                ranges.iter().cloned().flatten().collect::<Vec<_>>(),
                (0..plan.steps().len()).collect::<Vec<_>>()
            );
            let tokens =
                |range: &Range<usize>| plan.steps()[range.clone()].iter().map(Step::sequence_length).sum::<usize>();
            let first = |range: &Range<usize>| matches!(plan.steps()[range.start], Step::Whole { .. });
            (ranges.len(), ranges.iter().map(tokens).max().unwrap(), ranges.iter().all(first))
        };
        // Many small families in a batch, one large one, or parts of one that is larger still.
        assert_eq!(of(&[2, 4], 1), (1, 40 * (9 + 5 + 9 + 3 + 5), true));
        assert_eq!(of(&[512], 1), (14, 3 * (1025 + 1025 + 513), true));
        assert_eq!(of(&[2048, 4096], 1), (40, 8193 + 4097 + 8193 + 2049 + 4097, true));
        let (batches, longest, whole) = of(&[2048, 4096], 3);
        assert!(batches > 80 && longest <= 8193 && !whole);
    }
}
