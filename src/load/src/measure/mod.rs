//! Measurements: sending a load to a server and recording the answers.
//!
//! Start reading at [`measure`]. `run` holds the state that all clients share, `clients` has the loops that send
//! requests, `send` sends one request, and `recorder` records the results.

mod clients;
mod options;
mod recorder;
mod run;
mod send;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::client::{Connection, Counters, Target};
use crate::error::Error;
use crate::load::Load;
use crate::outcome::{Outcome, Repeats};
use crate::workload::{STREAM_LENGTH, Workload};
pub use options::Options;
pub use run::Progress;
use run::Run;
use send::send_alone;

/// Interval between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Sends `load` to `target` and returns the outcome. Calls `progress` a few times per second.
///
/// Sends one request on its own first, and fails if the server does not answer it correctly.
///
/// # Errors
/// [`Error::Invalid`] for options out of bounds; other errors if the first request or a repeated request is not
/// answered correctly.
pub async fn measure(
    target: &Target,
    workload: &Workload,
    load: Load,
    options: &Options,
    progress: &(dyn Fn(&Progress) + Sync),
) -> Result<Outcome, Error> {
    load.check()?;
    workload.check(target.vocabulary, target.max_length)?;
    options.check()?;
    probe(target, workload, options).await?;
    // Without a warm-up, a later scrape could already count the first requests of the measurement.
    let early = match options.warm_up.is_zero() {
        true => Counters::scrape(&mut target.connect(options.timeout)).await,
        false => None,
    };
    let run = Arc::new(Run::new(target.clone(), workload.clone(), options.clone()));
    let mut clients = clients::spawn(&run, load);
    let late = watch(&run, &mut clients, progress).await;
    let before = early.or(late);
    let mut connection = target.connect(options.timeout);
    let after = Counters::scrape(&mut connection).await;
    let measured = match options.requests {
        Some(_) => run.recorder().last_answer,
        None => options.duration,
    };
    let mut outcome = run.recorder().outcome(load, measured);
    outcome.counters = after.zip(before).map(|(after, before)| after.since(&before));
    let samples = run.recorder().take_samples();
    if !samples.is_empty() {
        outcome.repeats = Some(repeat(&run, &mut connection, samples).await?);
    }
    Ok(outcome)
}

/// Sends the last request of the stream, which no measurement reaches, to check that the server answers correctly.
async fn probe(target: &Target, workload: &Workload, options: &Options) -> Result<(), Error> {
    let last_of_stream = (options.stream + 1) * STREAM_LENGTH - 1;
    let request = workload.request(options.seed, last_of_stream, target.vocabulary);
    send_alone(target, &mut target.connect(options.timeout), &request).await.map(drop)
}

/// Repeats the requests whose answers were sampled, one at a time, and compares the new answers with the samples.
async fn repeat(run: &Run, connection: &mut Connection, samples: BTreeMap<u64, Vec<f64>>) -> Result<Repeats, Error> {
    let mut repeats = Repeats::default();
    for (index, before) in samples {
        let request = run.request(index);
        let again = send_alone(&run.target, connection, &request).await?.logprobs.unwrap_or_default();
        let differences = before.iter().zip(&again).map(|(a, b)| (a - b).abs());
        let same = before.len() == again.len() && before.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits());
        repeats.asked += 1;
        repeats.same += u64::from(same);
        repeats.largest_difference = differences.fold(repeats.largest_difference, f64::max);
    }
    Ok(repeats)
}

/// Reports progress until every client is done. Returns the server's counters at the end of the warm-up.
async fn watch(run: &Run, clients: &mut JoinSet<()>, progress: &(dyn Fn(&Progress) + Sync)) -> Option<Counters> {
    let mut connection = run.target.connect(run.options.timeout);
    let scrape = async {
        tokio::time::sleep_until(run.warm_up_end.into()).await;
        Counters::scrape(&mut connection).await
    };
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    let work = async {
        loop {
            tokio::select! {
                done = clients.join_next() => if done.is_none() { return },
                _ = ticks.tick() => progress(&run.progress()),
            }
        }
    };
    let (before, ()) = tokio::join!(scrape, work);
    before
}
